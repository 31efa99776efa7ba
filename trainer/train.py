"""One training from prepared patch files to a model bundle."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.lock import alone_in, remove_leftovers
from algorithm.network import DEPTH, unmet_by
from algorithm.segmenter import default_device
from trainer.distributed import joined
from trainer.history import Row
from trainer.loop import Trainer
from trainer.pace import epochs_within
from trainer.patches import PatchFile
from trainer.settings import TrainSettings, merged
from trainer.start import Start, read_start

log = logging.getLogger(__name__)
SHARED_FOLDER = "--out must be a folder that all machines share"
# What a training may be continued with another value of: how long it goes on, and what is kept of it.
MAY_CHANGE = ("epochs", "patience", "most_skipped", "checkpoint_minutes", "keep_checkpoints")


def train(
    work: Path,
    run: Path,
    settings: TrainSettings,
    *,
    device: str | None = None,
    threads: int | None = None,
    weights: Path | None = None,
    must_resume: bool = False,
    goes_on: Callable[[Sequence[Row]], bool] | None = None,
    minutes: float | None = None,
) -> list[Row]:
    """Train on WORK/train.h5, validate on WORK/val.h5, write everything to `run`; continue what was begun there.

    A training begins with the weights of the bundle `weights`, or with random ones.
    `goes_on` is given the rows of `History` before every epoch but the first, also that which a killed training is
    continued with; False ends the training. `minutes` puts as many epochs as take that long here, by the pace of the
    first batches, in place of those of `settings`; a training that is continued keeps its own. Returned are the rows of
    all epochs.

    Raises:
        InputError: patch files are missing or foreign, `run` holds a training with other settings or data, the
            device does not exist, `weights` is no bundle of this network, `must_resume` finds nothing to continue, or
            not one epoch takes so few `minutes`.

    """
    if threads is not None:
        torch.set_num_threads(threads)
    train_file, val_file = open_patches(work, settings.depth)
    with joined(device) as world:
        start = None if weights is None else read_start(weights, train_file.meta)
        place = choose_device(device, world.local_rank)
        if minutes is not None:
            epochs = begun_with(run)
            if not world.same(place, epochs or 0):
                raise InputError(f"the processes found different settings in {run}; {SHARED_FOLDER}")
            if epochs is None:
                # A trainer of its own: the weights and the random state that it leaves are not used.
                epochs = epochs_within(
                    minutes, Trainer(settings, train_file, val_file, run, place, world, start)
                )
                gc.collect()  # volumes that it holds on a GPU would be there twice
                log.info("%d epochs take about %g minutes here", epochs, minutes)
            else:
                log.info("the training in %s was begun with %d epochs, and keeps them", run, epochs)
            settings = replace(settings, epochs=epochs)
        claim = _claim(run, settings, train_file, val_file, start)
        trainer = Trainer(settings, train_file, val_file, run, place, world, start, goes_on)
        resumed = trainer.resume()
        if must_resume and not resumed:
            raise InputError(
                f"--resume asks for an earlier training, but {run / 'checkpoints'} holds none; drop --resume to start"
            )
        if not world.same(trainer.device, trainer.first_epoch, trainer.tally.batches):
            raise InputError(
                f"the processes found different checkpoints in {run / 'checkpoints'}; {SHARED_FOLDER}"
            )
        with alone_in(run, "decathlon train") if world.is_first else nullcontext():
            if world.is_first:
                remove_leftovers(run, run / "checkpoints")
                with replacing(run / "settings.json") as temporary:
                    temporary.write_text(claim)
            trainer.fit()
        return trainer.history.rows


def begun_with(run: Path) -> int | None:
    """Return the epochs of the training that was begun in a folder, None where there is none or it does not say."""
    try:
        found = json.loads((run / "settings.json").read_text())["epochs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if type(found) is int and found > 0 else None


def open_patches(work: Path, depth: int = DEPTH) -> tuple[PatchFile, PatchFile]:
    """Return the training and validation patches of a folder, for a network of so many levels.

    Raises:
        InputError: they are missing, were not made together, or have a shape that the network cannot take.

    """
    train_file, val_file = PatchFile(work / "train.h5"), PatchFile(work / "val.h5")
    _refuse_strangers(train_file, val_file)
    shape = train_file.meta.patch_shape_zyx
    if required := unmet_by(shape, depth):
        raise InputError(
            f"{work} has patches of {shape} voxels, but the network needs {required}; prepare others"
        )
    return train_file, val_file


def choose_device(name: str | None, local_rank: int = 0) -> torch.device:
    """Return the named device, or the GPU of this process, the first where it is alone, else the CPU.

    "cuda" without a number is the GPU of this process, too.

    Raises:
        InputError: the device does not exist here.

    """
    try:
        device = default_device() if name is None else torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.empty(1, device=device)  # a PyTorch without CUDA says so here, and nothing sensible below
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL's barrier waits on the current one
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device {name} cannot be used here ({reason}); use cpu, or leave it out"
        ) from None
    return device


def _refuse_strangers(train_file: PatchFile, val_file: PatchFile) -> None:
    """Refuse patch files that one `decathlon prepare` did not make for these two roles."""
    ours, theirs = train_file.meta, val_file.meta
    if ours.role != "training" or theirs.role != "validation":
        raise InputError(
            f"{train_file.path} must hold training and {val_file.path.name} validation patches; prepare them anew"
        )
    shared = (
        "dataset_hash",
        "labels",
        "channels",
        "spacing_zyx_mm",
        "window_hu",
        "normalisation",
        "patch_shape_zyx",
        "mean",
        "std",
    )
    for name in shared:
        if getattr(ours, name) != getattr(theirs, name):
            raise InputError(
                f"{val_file.path} was not made with {train_file.path.name}: {name} differs; prepare them anew"
            )


def _claim(
    run: Path, settings: TrainSettings, train_file: PatchFile, val_file: PatchFile, start: Start | None
) -> str:
    """Return the content of RUN/settings.json; refuse a run that was begun with another one."""
    file = run / "settings.json"
    wanted = {
        "patches_digest": train_file.meta.digest,
        "validation_digest": val_file.meta.digest,
        **({} if start is None else {"initial_weights": start.sha256}),
        **settings.as_dict(),
    }
    claim = json.dumps(wanted, indent=2) + "\n"
    if not file.is_file():
        if any((run / "checkpoints").glob("*.pt")):
            raise InputError(
                f"{run} holds checkpoints, but not the {file.name} that says how they were made; choose another --out"
            )
        return claim
    try:
        found = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{file} is not valid JSON; remove the folder or choose another --out") from None
    wanted = json.loads(claim)
    if isinstance(found, dict):  # a setting that is newer than the run had its default then
        found = merged(json.loads(json.dumps(TrainSettings().as_dict())), found)
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    changed = [name for name in different if name not in MAY_CHANGE]
    if changed:
        name = changed[0]
        raise InputError(
            f"{run} holds a training with other settings ({name} {found.get(name)!r} there, {wanted.get(name)!r} now"
            f"{', and more' if len(changed) > 1 else ''}); choose another --out or repeat its settings"
        )
    for name in different:
        log.info("continuing with %s = %s instead of %s", name, wanted[name], found.get(name))
    if "epochs" in different and settings.schedule != "exponential":
        log.warning("the %s schedule depends on epochs: the learning rate jumps", settings.schedule)
    return claim
