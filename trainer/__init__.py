"""What runs in the lab: data sets, training, search, evaluation and submission."""
