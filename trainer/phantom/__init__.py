"""A synthetic abdominal CT data set in Decathlon layout, with the sizes that real Task07 cases have."""

from trainer.phantom.dataset import Settings, make_dataset

__all__ = ["Settings", "make_dataset"]
