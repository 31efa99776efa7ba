"""A search from prepared patches to a ranking and its report."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from algorithm.errors import InputError
from algorithm.lock import alone_in, remove_leftovers
from trainer.parts import class_weights, first_patches, versions
from trainer.patches import PatchFile
from trainer.search.agenda import Agenda, trial_folder
from trainer.search.local import run_local
from trainer.search.plan import MAY_CHANGE, Plan, start_point
from trainer.search.ranking import Ranked, ranking
from trainer.search.report import write_report
from trainer.search.sampler import TpeSampler
from trainer.search.slot import make_slots, visible_gpus
from trainer.search.space import Parameters
from trainer.search.status import describe, doubts
from trainer.search.store import NOT_BEGUN, Store, Trial
from trainer.train import choose_device, open_patches

log = logging.getLogger(__name__)
FILE = "search.sqlite"
# What a trial that has ended is not needed for any more; metrics, curves and the bundle of its best epoch stay.
SPENT = ("checkpoints", "bundle-last", "tensorboard")
Engine = Literal["local", "ray"]


def search(
    work: Path,
    out: Path,
    plan: Plan,
    *,
    engine: Engine = "local",
    jobs: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    starts: Sequence[Path] = (),
    address: str | None = None,
    retry_failed: bool = False,
) -> list[Ranked]:
    """Do what `plan` asks for, or what is left of it, in `out`; return the configurations, the best first.

    Args:
        work: folder with train.h5 and val.h5.
        out: folder of the search; one that was begun there with the same plan is continued.
        plan: what to search.
        engine: "local" trains here, "ray" on a Ray cluster.
        jobs: trials side by side; None for one a GPU, else one. With Ray: at most so many.
        device: of all trials; None for the first GPU, else the CPU.
        threads: of a trial on the CPU; None for its share of the cores.
        starts: runs whose settings are tried first.
        address: of a Ray cluster; None starts one here.
        retry_failed: trials that failed are trained once more, with their parameters and seeds.

    Raises:
        InputError: the patches do not fit the plan, Ray is asked for and missing, or has an address and is not asked
            for, or `out` holds a search for something else.

    """
    if address is not None and engine != "ray":
        raise InputError(f"--address {address} is that of a Ray cluster; add --engine ray, or leave it out")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray needs Ray, which is not installed; pip install 'decathlon-unet[ray]'")
    train_file, val_file = open_patches(work)
    _check_fit(plan, train_file, val_file)
    points = [_read_start(plan, run) for run in starts]
    if device is not None and engine == "local":
        choose_device(device)
    slots = make_slots(
        jobs, out / "workers", device=device, threads=threads, gpus=visible_gpus(), cores=os.cpu_count() or 1
    )
    with alone_in(out, "decathlon search"), Store(out / FILE, write=True) as store:
        remove_leftovers(out)
        _claim(store, plan, work, train_file, val_file)
        for trial in store.trials():
            _drop_spent(out, trial)
        if retry_failed:
            _retry_failed(out, store)
        sampler = TpeSampler(plan.space, seed=plan.seed, random_first=plan.random_first)
        labels = train_file.meta.labels
        agenda = Agenda(
            store,
            plan,
            sampler,
            labels,
            starts=points,
            side_by_side=len(slots),
            ended=lambda trial: _drop_spent(out, trial),
        )
        if store.trials():
            log.info("continuing: %s", describe(store.trials(), plan, len(slots)))
        try:
            if engine == "ray":
                from trainer.search.ray_engine import run_ray

                run_ray(agenda, work, out, address=address, jobs=jobs, threads=threads, device=device)
            else:
                run_local(agenda, slots, work, out)
        except BaseException:
            with suppress(OSError, InputError):  # what went wrong first is what is to be said
                write_report(out, store)
            raise
        write_report(out, store)
        return ranking(store.trials())


def open_search(folder: Path) -> Store:
    """Return the store of a search, to read.

    Raises:
        InputError: there is none, or it was killed before anything was kept.

    """
    store = Store(folder / FILE)
    if not store.about:
        store.close()
        raise InputError(NOT_BEGUN.format(folder))
    return store


def winner(folder: Path) -> tuple[Plan, Ranked]:
    """Return a search's plan and its best configuration; warn where another one may be better.

    The winner is the confirmed configuration with the best mean over its other seeds, and the one with the best score
    where none is confirmed.

    Raises:
        InputError: there is no search, or none of its trials finished.

    """
    with open_search(folder) as store:
        trials, plan = store.trials(), Plan.from_dict(store.about["plan"])
    ranked = ranking(trials)
    if not ranked:
        raise InputError(f"no trial of the search in {folder} has finished yet; let it go on")
    if why := doubts(trials, plan):
        log.warning("the search in %s %s", folder, why)
    return plan, ranked[0]


def _claim(store: Store, plan: Plan, work: Path, train_file: PatchFile, val_file: PatchFile) -> None:
    """Keep what the search is; refuse one that was begun for something else."""
    about = {
        "plan": plan.as_dict(),
        "labels": list(train_file.meta.labels),
        "patches_digest": train_file.meta.digest,
        "validation_digest": val_file.meta.digest,
    }
    about = json.loads(json.dumps(about))
    there = store.about
    if there:
        found, wanted = _flat(there), _flat(about)
        different = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
        for name in (name for name in different if name not in MAY_CHANGE):
            raise InputError(
                f"{store.path.parent} holds another search ({name} {found.get(name)!r} there, {wanted.get(name)!r} "
                "now); choose another --out or repeat its arguments"
            )
        for name in different:
            log.info("continuing with %s = %s instead of %s", name, wanted.get(name), found.get(name))
    store.describe(about | {"work": str(work.resolve()), "versions": versions()})


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that a search must not, or may, be continued with another value of, by name."""
    plan = about["plan"]
    space = {f"space.{name}": value for name, value in plan["space"].items()}
    rest = {name: about[name] for name in ("labels", "patches_digest", "validation_digest")}
    base = {f"preset's {name}": value for name, value in plan["base"].items()}
    return {**base, **rest, **space, **{k: v for k, v in plan.items() if k not in ("base", "space")}}


def _check_fit(plan: Plan, train_file: PatchFile, val_file: PatchFile) -> None:
    """Refuse what would fail every trial, and say what makes their scores poor."""
    first = {row.name: row.values[0] for row in plan.space.parameters}
    settings = plan.trial_settings(first, 0)
    class_weights(settings, train_file.meta)
    for row in plan.space.parameters:
        for value in row.values if row.name == "class_weights" else ():  # whole lists, each for these labels
            class_weights(plan.trial_settings({**first, row.name: value}, 0), train_file.meta)
    if settings.source == "patches":
        first_patches(train_file, "train_patches", plan.train_patches)
    count = first_patches(val_file, "val_patches", plan.val_patches) or 0
    held = np.zeros(256, dtype=bool)
    for index in range(count):
        held[np.unique(val_file.read([index])[1])] = True
    for value, name in enumerate(val_file.meta.labels):
        if not held[value]:
            log.warning(
                "none of the first %d validation patches holds '%s', whose Dice will be 0", count, name
            )


def _read_start(plan: Plan, run: Path) -> Parameters:
    file = run / "settings.json"
    try:
        table = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        table = None
    if not isinstance(table, dict):
        raise InputError(
            f"--start-from takes a folder that decathlon train made, but {file} is no table of settings; check the path"
        )
    settings = {name: value for name, value in table.items() if not name.endswith("_digest")}
    return start_point(plan, settings, str(file))


def _retry_failed(out: Path, store: Store) -> None:
    """Have failed trials trained anew; their logs stay."""
    for trial in store.trials():
        if trial.state == "failed":
            for path in trial_folder(out, trial).glob("*"):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "log.txt":
                    path.unlink()
    for trial in store.retry():
        log.info("trial %d, which failed (%s), is tried again", trial.number, trial.error)


def _drop_spent(out: Path, trial: Trial) -> None:
    if not trial.is_running:
        for name in SPENT:
            shutil.rmtree(trial_folder(out, trial) / name, ignore_errors=True)
