"""Trials on a Ray cluster: Ray Tune with its HyperOptSearch and ASHA; agenda, store and workers are the same.

The driver alone writes the store. A trial is an actor that holds the same worker process as a slot of one machine, so
that a training that crashes is told from a node that is lost: the first fails, the second is continued on another node
from its checkpoint in SEARCH/trials. WORK and SEARCH are folders that all nodes share.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Before Ray is imported: nothing is reported to its makers, and its logs are not copied into every terminal.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.hyperopt import HyperOptSearch

from algorithm.errors import InputError
from trainer.search import halving
from trainer.search.agenda import Agenda
from trainer.search.objective import objective
from trainer.search.sampler import GAMMA, hyperopt_space, hyperopt_value, plain_value
from trainer.search.slot import ASKED_TO_END, WORKER, Slot
from trainer.search.space import Parameters, Space
from trainer.search.store import Kind, Origin, Trial

METRIC, EPOCH = "objective", "epoch"
MOST_LOST = 3  # times that the nodes of one trial may be lost
KINDS: tuple[Kind, ...] = ("search", "confirmation")


def run_ray(
    agenda: Agenda,
    work: Path,
    search: Path,
    *,
    address: str | None,
    jobs: int | None,
    threads: int | None,
    device: str | None,
) -> None:
    """Train all that the agenda has on the cluster at `address`, or on one that is started here and ends with it.

    Raises:
        InputError: there is no cluster at the address, or a node met what would befall every trial.

    """
    _connect(address)
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        resources = {"cpu": threads or 1, "gpu": 1 if gpus and device in (None, "cuda") else 0}
        request = {
            "work": str(work.resolve()),
            "search": str(search.resolve()),
            "threads": threads or 1,  # what is asked of the cluster, and not all cores of a node
            "device": device,
            "command": WORKER,
            "labels": agenda.labels,
        }
        agenda.sampler = RaySampler(agenda)
        for kind in KINDS:
            _run_kind(agenda, kind, request, resources, jobs)
    finally:
        ray.shutdown()


def _run_kind(
    agenda: Agenda, kind: Kind, request: dict[str, Any], resources: dict[str, int], jobs: int | None
) -> None:
    searcher = FromAgenda(agenda, kind)
    if searcher.is_exhausted():
        return
    early = kind == "search" and agenda.plan.early_stopping
    scheduler = (
        ASHAScheduler(
            time_attr=EPOCH,
            metric=METRIC,
            mode="max",
            max_t=agenda.plan.epochs,
            grace_period=min(halving.FIRST_RUNG, agenda.plan.epochs),
            reduction_factor=halving.REDUCTION,
        )
        if early
        else FIFOScheduler()
    )
    ray_folder = Path(request["search"]) / "ray"
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(RayTrial, request=request), resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=jobs,
            reuse_actors=True,
            trial_dirname_creator=_folder_name,
            trial_name_creator=_folder_name,
            **({} if early else {"metric": METRIC, "mode": "max"}),
        ),
        run_config=tune.RunConfig(
            name=kind,
            storage_path=str(ray_folder),
            failure_config=tune.FailureConfig(max_failures=MOST_LOST),
            verbose=0,
        ),
    )
    ray_folder.mkdir(parents=True, exist_ok=True)
    with (
        (ray_folder / "tune.log").open("a") as file,
        contextlib.redirect_stdout(file),
    ):  # stdout is for results
        tuner.fit()
    if searcher.broken:
        raise InputError(searcher.broken)


class RayTrial(tune.Trainable):  # type: ignore[misc]
    """One trial after the other in an actor; a step is an epoch."""

    def setup(self, config: dict[str, Any], request: dict[str, Any]) -> None:
        """Begin the trial, or continue it from the checkpoint that another node left."""
        self._request = request
        node = ray.get_runtime_context().get_node_id()[:8]
        log_file = Path(request["search"]) / "workers" / f"node-{node}-{os.getpid()}.log"
        self._slot = Slot(
            number=1,
            log=log_file,
            threads=request["threads"],
            device=request["device"],
            gpu=_own_gpu(),
            command=request["command"],
        )
        self._node = ray.util.get_node_ip_address()
        self._waits, self._asked = False, time.monotonic()
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """Return what the worker says after an epoch."""
        if self._waits:
            self._slot.answer(goes_on=True)
        message = self._slot.receive()
        self._waits = "epoch" in message
        curve = message.get("epoch") or message.get("done") or []
        seconds, self._asked = time.monotonic() - self._asked, time.monotonic()
        return {
            "message": json.dumps(message),  # Tune flattens tables
            EPOCH: len(curve),
            METRIC: objective(curve, self._request["labels"]) if curve else 0.0,
            "seconds": seconds,
            "where": f"{self._slot.where} of {self._node}",
            "done": not self._waits,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial with the same worker, after ending the last one if that was given up."""
        if self._waits:
            self._slot.answer(goes_on=False)
            self._slot.receive()
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Leave checkpoints to the training itself."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Likewise: `setup` continues from them."""

    def cleanup(self) -> None:
        """End the worker."""
        self._slot.close()

    def _begin(self, config: dict[str, Any]) -> None:
        folder = Path(self._request["search"]) / "trials" / config["folder"]
        self._slot.begin(Path(self._request["work"]), folder, json.loads(config["settings"]))
        self._waits, self._asked = False, time.monotonic()


class FromAgenda(Searcher):  # type: ignore[misc]
    """Tune's view of the agenda: it asks here for trials, and tells here what comes of them."""

    def __init__(self, agenda: Agenda, kind: Kind) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.agenda, self.kind = agenda, kind
        self.broken: str | None = None
        self._trials: dict[str, Trial] = {}
        self._first = agenda.trainable(kind)

    def is_exhausted(self) -> bool:
        """Whether there is nothing to train at all."""
        return self._first is None

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's folder and settings, or that there is none."""
        found, self._first = self._first, None
        if found is None:
            with self._ends_by_sentence():
                found = None if self.broken else self.agenda.trainable(self.kind)
        if found is None:
            return Searcher.FINISHED
        trial, settings = found
        self._trials[trial_id] = trial
        return {"folder": trial.folder, "settings": json.dumps(settings.as_dict())}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an epoch; whether the trial goes on is Tune's scheduler's to say."""
        trial, message = self._trials.get(trial_id), json.loads(result["message"])
        if trial is not None and "epoch" in message:
            with self._ends_by_sentence():
                self.agenda.store.place(trial.number, result["where"])
                self.agenda.record(trial, message["epoch"], result["seconds"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep how a trial ended: well, given up by the scheduler, failed, or lost with its nodes."""
        trial = self._trials.pop(trial_id, None)
        if trial is not None:
            with self._ends_by_sentence():
                self._complete(trial, result, error=error)

    @contextlib.contextmanager
    def _ends_by_sentence(self) -> Iterator[None]:
        """Keep for the search's end what Tune would wrap: a store that cannot be written, trials that all fail."""
        try:
            yield
        except InputError as error:
            self.broken = str(error)

    def _complete(self, trial: Trial, result: dict[str, Any] | None, *, error: bool) -> None:
        message = json.loads((result or {}).get("message", "{}"))
        if error or result is None:
            self.agenda.fail(
                trial, f"its node was lost {MOST_LOST} times, or Ray could not begin it", seconds=0.0
            )
        elif "broken" in message:
            self.broken = f"{message['broken']}; mend it, and the same command continues"
        elif message.get("signal") in ASKED_TO_END:
            self.broken = f"trial {trial.number}: {message['died']}; the same command continues"
        elif "epoch" in message or "done" in message:
            curve = message.get("done") or message["epoch"]
            given_up = "epoch" in message and len(curve) < self.agenda.plan.epochs
            seconds = 0.0 if "epoch" in message else result["seconds"]  # an epoch's were kept with it
            self.agenda.store.place(trial.number, result["where"])
            self.agenda.finish(trial, curve, seconds=seconds, stopped=given_up)
        else:
            self.agenda.fail(trial, message.get("failed") or message["died"], seconds=result["seconds"])

    # Tune keeps copies to restore a search from. The store is what this one is restored from, and is not to be copied.
    def save(self, checkpoint_path: str) -> None:
        """Write an empty file where Tune wants its copy."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Leave everything as the store has it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, _: object) -> FromAgenda:
        return self


class RaySampler:
    """Ray's HyperOptSearch as the sampler of an agenda: it is told of all trials before it is asked.

    Args:
        agenda: whose plan and store it serves.

    """

    def __init__(self, agenda: Agenda) -> None:
        plan = agenda.plan
        self.space, self.random_first = plan.space, plan.random_first
        self._seed = plan.seed
        self._search: HyperOptSearch | None = None
        self._known: list[int] = []
        self._told: set[int] = set()

    def suggest(self, trials: Sequence[Trial]) -> tuple[Parameters, Origin]:
        """See `trainer.search.sampler.Sampler`."""
        if self._search is None:
            self._search = self._begin(trials)
        for trial in trials:
            if not trial.is_running and trial.number not in self._told:
                self._told.add(trial.number)
                result = None if trial.objective is None else {METRIC: trial.objective}
                failed = trial.state == "failed" or result is None
                self._search.on_trial_complete(str(trial.number), result=result, error=failed)
        number = max((trial.number for trial in trials), default=0) + 1
        found = self._search.suggest(str(number))
        drawn = len(trials) - sum(trial.origin == "start" for trial in trials)
        origin: Origin = "random" if drawn < self.random_first else "tpe"
        return {row.name: plain_value(row, found[row.name]) for row in self.space.parameters}, origin

    def _begin(self, trials: Sequence[Trial]) -> HyperOptSearch:
        """Return a search that has lived through `trials`, as Tune's own interface lets it: by their points."""
        search = HyperOptSearch(
            hyperopt_space(self.space),
            metric=METRIC,
            mode="max",
            points_to_evaluate=[_point(self.space, trial.parameters) for trial in trials] or None,
            gamma=GAMMA,
            n_initial_points=self.random_first + sum(trial.origin == "start" for trial in trials),
            # Another one after every restart, or the random configurations would come again.
            random_state_seed=int(np.random.SeedSequence((self._seed, len(trials))).generate_state(1)[0]),
        )
        for trial in trials:
            search.suggest(str(trial.number))
        return search


def _point(space: Space, parameters: Parameters) -> dict[str, float | int]:
    return {row.name: hyperopt_value(row, parameters[row.name]) for row in space.parameters}


def _folder_name(trial: Any) -> str:
    return f"{trial.config['folder']}-{trial.trial_id}"


def _own_gpu() -> str | None:
    """Return the GPUs that Ray gave the actor, as the worker's environment is to name them."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") or None if ray.get_gpu_ids() else None


def _connect(address: str | None) -> None:
    host, separator, port = (address or "").rpartition(":")
    try:
        if separator and port.isdecimal() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself tries for minutes
        ray.init(
            address=address,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (OSError, ValueError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"there is no Ray cluster at --address {address} ({said}); begin one with ray start --head, or leave it out"
        ) from None
