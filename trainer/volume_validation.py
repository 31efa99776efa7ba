"""Validation as at inference: whole volumes by sliding window, scored case by case."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from algorithm.bundle import Description
from algorithm.segmenter import Segmenter
from trainer.metrics import Overlap, confusion_matrix

log = logging.getLogger(__name__)


def normalised(description: Description, image: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return an image (c, z, y, x) that was clipped to the window as the network wants it."""
    mean, std = (
        np.array(values, np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
        for values in (description.mean, description.std)
    )
    return (image - mean) / std


def score_volumes(
    segmenter: Segmenter, volumes: Sequence[tuple[NDArray[np.int16], NDArray[np.uint8]]]
) -> tuple[float, ...]:
    """Return for each label the mean Dice over the cases whose reference holds it, NaN where none does.

    Args:
        segmenter: of the network to be scored.
        volumes: image int16 (c, z, y, x), clipped, and label uint8 (z, y, x), on the network's grid.

    """
    description = segmenter.description
    classes = len(description.labels)
    dice: list[list[float]] = [[] for _ in range(classes)]
    for image, label in volumes:
        predicted = segmenter.network_labels(normalised(description, image))
        confusion = confusion_matrix(label, predicted, classes)
        for value in range(classes):
            overlap = Overlap.of(confusion, (value,))
            if overlap.dice is not None:
                dice[value].append(overlap.dice)
    return tuple(float(np.mean(scores)) if scores else float("nan") for scores in dice)
