"""How many epochs a machine trains in a given time, by the pace of a few batches that are thrown away."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from algorithm.errors import InputError
from trainer.loop import Trainer
from trainer.parts import loader_threads
from trainer.settings import MOST_EPOCHS
from trainer.tally import Tally
from trainer.volume_batches import open_volumes

WARM_UP_BATCHES = 2  # kernels are chosen
TIMED_BATCHES = 30
VALIDATION_BATCHES = 3
ENOUGH_SECONDS = 30.0  # of slow batches fewer are timed


@dataclass(frozen=True)
class Pace:
    """Of a training on one machine.

    Attributes:
        training_s, validation_s: an epoch's patches of either kind.
        volumes_s: all whole validation volumes, 0 where none are segmented.
        volume_epochs: they are after so many epochs and after the last.

    """

    training_s: float
    validation_s: float = 0.0
    volumes_s: float = 0.0
    volume_epochs: int | None = None

    def seconds(self, epochs: int) -> float:
        """Return how long so many epochs take."""
        times = 0 if self.volume_epochs is None else math.ceil(epochs / self.volume_epochs)
        return epochs * (self.training_s + self.validation_s) + times * self.volumes_s

    def epochs_within(self, seconds: float) -> int:
        """Return the most epochs that take no longer; 0 where one does."""
        epochs = int(seconds / (self.training_s + self.validation_s))
        while epochs > 0 and self.seconds(epochs) > seconds:
            epochs -= 1
        return epochs


def measure(trainer: Trainer) -> Pace:
    """Return the pace of a training, of all its processes together.

    What is trained for it is of no further use: the training needs a `Trainer` of its own.
    """
    settings, world = trainer.settings, trainer.world
    batch_s = _seconds_a_batch(trainer)
    volumes_s = 0.0
    if settings.volume_epochs is not None:
        cases = trainer.val_file.meta.validation_cases
        voxels = [label.size for _, label in open_volumes(trainer.train_file.path.parent, cases)]
        began = time.monotonic()
        trainer.validate_volumes(settings.epochs, most=1)
        volumes_s = (time.monotonic() - began) * sum(voxels) / voxels[0]
    trainer.validate(0, most=1)  # kernels are chosen
    began = time.monotonic()
    batches = trainer.validate(0, most=VALIDATION_BATCHES).batches
    validation_s = (time.monotonic() - began) / batches * len(trainer.val_batches)
    # Processes that time themselves differ in the last digits, and all must take as many epochs.
    mine = torch.tensor([batch_s * len(trainer.batches), validation_s, volumes_s], device=trainer.device)
    training_s, validation_s, volumes_s = (world.sum(mine) / world.size).tolist()
    return Pace(training_s, validation_s, volumes_s, settings.volume_epochs)


def epochs_within(minutes: float, trainer: Trainer) -> int:
    """Return how many epochs such a training takes in that time.

    Raises:
        InputError: not one fits.

    """
    pace = measure(trainer)
    epochs = pace.epochs_within(60 * minutes)
    if epochs == 0:
        _, what, remedy = max(
            (pace.training_s, f"{len(trainer.batches)} batches", "lower epoch_patches"),
            (pace.validation_s, f"{len(trainer.val_batches)} batches of validation", "lower val_patches"),
            (pace.volumes_s, "whole validation volumes", "set volume_epochs=null"),
        )
        raise InputError(
            f"--minutes must be at least {math.ceil(10 * pace.seconds(1) / 60) / 10:g} here, which one epoch takes, "
            f"most of it for {what}, got {minutes:g}; {remedy}"
        )
    return min(epochs, MOST_EPOCHS)


def _seconds_a_batch(trainer: Trainer) -> float:
    # Batches that were read ahead while the first ones took long say nothing about the pace of reading.
    ready = WARM_UP_BATCHES + 2 * loader_threads(trainer.world)
    untimed = min(ready, len(trainer.batches) - 1)
    first = began = time.monotonic()
    timed = 0
    for batch, images, target in trainer.on_device(0, 0, Tally(), "the first batches, for the pace"):
        trainer.train_batch(0, batch, images, target)
        now = time.monotonic()
        if batch < untimed and now - first < ENOUGH_SECONDS:
            began = now
        else:
            timed += 1
        enough = timed >= TIMED_BATCHES or now - first > 2 * ENOUGH_SECONDS
        if trainer.world.agree(trainer.device, on=timed > 0 and enough):
            break
    return (time.monotonic() - began) / timed
