from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from algorithm.errors import InputError
from tests.trainer.searching import formula_worker, small_plan
from trainer.search import ray_engine
from trainer.search.agenda import Agenda
from trainer.search.plan import Plan
from trainer.search.sampler import GAMMA, TpeSampler
from trainer.search.store import Store

LABELS = ("background", "pancreas", "cancer")
pytestmark = [
    pytest.mark.timeout(600),
    # Ray's own: threads and sockets that it leaves to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Begin a cluster of two nodes with one core each on this machine."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    nodes.lost = nodes.add_node(**small)
    yield nodes
    nodes.shutdown()


def agenda_of(store: Store, plan: Plan) -> Agenda:
    sampler = TpeSampler(plan.space, seed=0, random_first=plan.random_first)
    return Agenda(store, plan, sampler, LABELS)


def test_a_lost_node_loses_no_trial(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search on two nodes, one of them killed, then the same search for longer: nothing is trained twice."""
    monkeypatch.setattr(ray_engine, "WORKER", formula_worker(0.7, together=2))
    plan = small_plan(tmp_path, evaluations=6, random_first=3, epochs=6, early_stopping=True)
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            time.sleep(0.05)
            with Store(tmp_path / "search.sqlite") as store:
                trials = store.trials()
            at_work = sum(t.is_running and bool(t.curve) for t in trials)
            if at_work >= 2 and any(not t.is_running for t in trials):
                cluster.remove_node(cluster.lost, allow_graceful=False)
                killed.set()

    with Store(tmp_path / "search.sqlite", write=True) as store:
        threading.Thread(target=kill, daemon=True).start()
        run = {"address": cluster.address, "jobs": None, "threads": 1, "device": "cpu"}
        ray_engine.run_ray(agenda_of(store, plan), tmp_path / "work", tmp_path, **run)
        assert killed.is_set()
        trials = store.trials()
        assert [trial.number for trial in trials] == [1, 2, 3, 4, 5, 6]
        assert {trial.state for trial in trials} <= {"finished", "stopped"}
        assert [trial.origin for trial in trials] == ["random"] * 3 + ["tpe"] * 3
        starts = [(tmp_path / "trials" / trial.folder / "starts.txt").read_text().split() for trial in trials]
        assert max(len(pids) for pids in starts) == 2, "the trial of the lost node was continued"
        ended = {trial.number: trial for trial in trials}

        longer = plan.with_changes(evaluations=7, confirm=(1, 1))
        ray_engine.run_ray(agenda_of(store, longer), tmp_path / "work", tmp_path, **run)
        trials = store.trials()
        assert [trial.kind for trial in trials] == ["search"] * 7 + ["confirmation"]
        assert all(trial == ended[trial.number] for trial in trials[:6])
        assert trials[7].state == "finished"


def test_ray_suggests_as_one_machine_does(tmp_path: Path) -> None:
    """With the same share of good trials, and choices that are lists."""
    pytest.importorskip("ray")
    lists: list[object] = [[1, 10, 50], [1, 83, 660]]
    plan = small_plan(tmp_path, {"class_weights": ["choice", *lists], "dropout": ["uniform", 0.1, 0.5]})
    with Store(tmp_path / "search.sqlite", write=True) as store:
        for number, weights in enumerate([*lists, *lists], 1):
            store.add({"class_weights": weights, "dropout": number / 10}, seed=0, origin="random")
            if number < 4:
                store.end(number, "finished", objective=number / 10)
        sampler = ray_engine.RaySampler(agenda_of(store, plan))
        parameters, origin = sampler.suggest(store.trials())
    assert origin == "tpe"
    assert parameters["class_weights"] in lists
    assert sampler._search is not None
    assert sampler._search.algo.keywords["gamma"] == GAMMA
    assert TpeSampler(plan.space, seed=0, random_first=1).gamma == GAMMA


def test_a_cluster_that_is_not_there_is_said() -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="there is no Ray cluster at --address"):
        ray_engine._connect(f"127.0.0.1:{os.getpid() % 1000 + 1024}")
