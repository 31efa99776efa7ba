"""Synthetic data sets in Decathlon layout: abdominal CT with the sizes of Task07, brain and hippocampus MR."""

from trainer.phantom.dataset import Settings, make_dataset

__all__ = ["Settings", "make_dataset"]
