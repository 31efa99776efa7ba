"""Search for settings: a space, a durable store of trials, what suggests the next one, and what trains them."""
