"""How many epochs a machine trains in a given time, by the pace of a few batches that are thrown away."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from algorithm.errors import InputError
from trainer.loop import Trainer
from trainer.tally import Tally

WARM_UP_BATCHES = 2  # kernels are chosen, loaders fill their queues
TIMED_BATCHES = 10
ENOUGH_SECONDS = 30.0  # of slow batches fewer are timed


@dataclass(frozen=True)
class Pace:
    """Of a training on one machine.

    Attributes:
        epoch_s: an epoch's training and validation patches.
        volumes_s: all whole validation volumes, 0 where none are segmented.
        volume_epochs: they are after so many epochs and after the last.

    """

    epoch_s: float
    volumes_s: float = 0.0
    volume_epochs: int | None = None

    def seconds(self, epochs: int) -> float:
        """Return how long so many epochs take."""
        times = 0 if self.volume_epochs is None else math.ceil(epochs / self.volume_epochs)
        return epochs * self.epoch_s + times * self.volumes_s

    def epochs_within(self, seconds: float) -> int:
        """Return the most epochs that take no longer; 0 where one does."""
        epochs = int(seconds / self.epoch_s)
        while epochs > 0 and self.seconds(epochs) > seconds:
            epochs -= 1
        return epochs


def measure(trainer: Trainer) -> Pace:
    """Return the pace of a training, of all its processes together.

    What is trained for it is of no further use: the training needs a `Trainer` of its own.
    """
    settings, world = trainer.settings, trainer.world
    batch_s = _seconds_a_batch(trainer)
    trainer.network.eval()
    volumes_s = 0.0
    if settings.volume_epochs is not None:
        began = time.monotonic()
        trainer.validate_volumes(settings.epochs, most=1)
        volumes_s = (time.monotonic() - began) * len(trainer.val_file.meta.validation_cases)
    began = time.monotonic()
    batches = trainer.validate(0, most=WARM_UP_BATCHES).batches
    val_batch_s = (time.monotonic() - began) / batches
    epoch_s = batch_s * len(trainer.batches) + val_batch_s * len(trainer.val_batches)
    # Processes that time themselves differ in the last digits, and all must take as many epochs.
    mine = torch.tensor([epoch_s, volumes_s], device=trainer.device)
    epoch_s, volumes_s = (world.sum(mine) / world.size).tolist()
    return Pace(epoch_s, volumes_s, settings.volume_epochs)


def epochs_within(minutes: float, trainer: Trainer) -> int:
    """Return how many epochs such a training takes in that time.

    Raises:
        InputError: not one fits.

    """
    pace = measure(trainer)
    epochs = pace.epochs_within(60 * minutes)
    if epochs == 0:
        raise InputError(
            f"--minutes must be at least {math.ceil(10 * pace.seconds(1) / 60) / 10:g} here, for one epoch of "
            f"{len(trainer.batches)} batches, got {minutes:g}; for a shorter epoch lower epoch_patches"
        )
    return epochs


def _seconds_a_batch(trainer: Trainer) -> float:
    tally, timed = Tally(), 0
    began = time.monotonic()
    for batch, images, target in trainer.on_device(0, 0, tally, "a few batches, for the pace"):
        trainer.train_batch(0, batch, images, target)
        spent = time.monotonic() - began
        if batch < min(WARM_UP_BATCHES, len(trainer.batches) - 1):
            began = time.monotonic()
            continue
        timed += 1
        enough = timed == TIMED_BATCHES or spent > ENOUGH_SECONDS
        if trainer.world.agree(trainer.device, on=enough):
            break
    return (time.monotonic() - began) / timed
