"""Trials on one machine, several side by side."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence
from pathlib import Path

from algorithm.errors import InputError
from trainer.search.agenda import Agenda, trial_folder
from trainer.search.slot import ASKED_TO_END, Slot
from trainer.search.store import Trial
from trainer.settings import TrainSettings

BEFORE_BLAME_S = 2.0  # what kills a worker may be killing the search too, and then the trial has not failed


def run_local(agenda: Agenda, slots: Sequence[Slot], work: Path, search: Path) -> None:
    """Train all that the agenda has, and return when nothing is left.

    Raises:
        InputError: a worker was asked to end, or met what would befall every trial, such as a full disk. Its trial
            stays as it is, and the same search continues it.

    """
    busy: dict[Slot, tuple[Trial, float]] = {}
    try:
        with selectors.DefaultSelector() as selector:
            while True:
                for slot in slots:
                    if slot not in busy and (found := _next(agenda, slot)):
                        trial, settings = found
                        slot.begin(work, trial_folder(search, trial), settings.as_dict())
                        busy[slot] = (trial, time.monotonic())
                        selector.register(slot.fileno(), selectors.EVENT_READ, slot)
                if not busy:
                    return
                for key, _ in selector.select():
                    selector.unregister(key.fd)
                    slot = key.data
                    trial, since = busy[slot]
                    now = time.monotonic()
                    if _hear(agenda, slot, trial, now - since):
                        busy[slot] = (trial, now)
                        selector.register(slot.fileno(), selectors.EVENT_READ, slot)
                    else:
                        del busy[slot]
    finally:
        for slot in slots:
            slot.close()


def _next(agenda: Agenda, slot: Slot) -> tuple[Trial, TrainSettings] | None:
    return agenda.trainable("search", slot.where) or agenda.trainable("confirmation", slot.where)


def _hear(agenda: Agenda, slot: Slot, trial: Trial, seconds: float) -> bool:
    """Take in what a worker says; return whether its trial goes on."""
    message = slot.receive()
    if "epoch" in message:
        slot.answer(goes_on=agenda.record(trial, message["epoch"], seconds))
        return True
    if "done" in message:
        agenda.finish(trial, message["done"], seconds=seconds, stopped=message["stopped"])
        return False
    if "broken" in message:
        raise InputError(
            f"{message['broken']}; mend it, and the same command continues with trial {trial.number}"
        )
    if message.get("signal") in ASKED_TO_END:
        raise InputError(f"trial {trial.number}: {message['died']}; the same command continues")
    if "died" in message:
        time.sleep(BEFORE_BLAME_S)
    agenda.fail(trial, message.get("failed") or message["died"], seconds=seconds)
    return False
