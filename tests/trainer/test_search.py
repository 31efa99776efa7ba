from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import math
import queue
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithm.errors import InputError
from tests.trainer.runs import weights
from tests.trainer.searching import BOWL, a_trial, formula_worker, score_after, small_plan, write_space
from trainer.cli import main
from trainer.presets import FOLDER
from trainer.search import figures, local, worker
from trainer.search.agenda import Agenda
from trainer.search.halving import goes_on, rungs
from trainer.search.importance import importances
from trainer.search.local import run_local
from trainer.search.objective import objective
from trainer.search.plan import Plan, read_plan, space_names, start_point
from trainer.search.ranking import Ranked, best_trials, ranking, seed_deviation
from trainer.search.sampler import TpeSampler
from trainer.search.search import open_search, search, winner
from trainer.search.slot import Slot, make_slots
from trainer.search.space import Parameters, Space
from trainer.search.status import doubts
from trainer.search.store import Store, Trial
from trainer.settings import TrainSettings
from trainer.train import train

LABELS = ("background", "pancreas", "cancer")
CURVE = [{"epoch": 1.0, "val_pooled_pancreas": 0.5, "val_pooled_cancer": 0.25}]


# What is searched


def test_the_papers_first_search() -> None:
    plan = read_plan("paper-wce")
    assert plan.space.as_table() == {
        "dropout": ["choice", 0.2, 0.4, 0.6],
        "activation": ["choice", "relu", "leaky_relu"],
        "class_weights.1": ["uniform", 50.0, 250.0],
        "class_weights.2": ["uniform", 250.0, 1000.0],
    }
    assert (plan.evaluations, plan.random_first, plan.epochs) == (95, 15, 5)
    assert (plan.train_patches, plan.val_patches, plan.early_stopping) == (100, 30, False)
    best = {"dropout": 0.6, "activation": "leaky_relu", "class_weights.1": 83.0, "class_weights.2": 660.0}
    settings = plan.trial_settings(best, 3)
    assert settings.class_weights == (1.0, 83.0, 660.0)
    assert (settings.loss, settings.epochs, settings.epoch_patches, settings.val_patches) == (
        "weighted_ce",
        5,
        100,
        30,
    )
    assert settings.seed == 3
    assert plan.full_settings(best)["epochs"] == 22
    assert plan.full_settings(best)["epoch_patches"] is None


def test_the_papers_second_search() -> None:
    plan = read_plan("paper-topk")
    assert plan.space.as_table() == {
        "class_weights.1": ["uniform", 2.0, 25.0],
        "class_weights.2": ["uniform", 5.0, 50.0],
        "top_k_share": ["choice", 0.05, 0.1],
    }
    assert (plan.evaluations, plan.random_first, plan.epochs) == (200, 15, 5)
    settings = plan.trial_settings({"class_weights.1": 13.0, "class_weights.2": 43.0, "top_k_share": 0.05}, 0)
    assert (settings.loss, settings.class_weights, settings.top_k_share) == (
        "topk_ce",
        (1.0, 13.0, 43.0),
        0.05,
    )


def test_anything_in_a_preset_can_be_searched(tmp_path: Path) -> None:
    space: dict[str, list[object]] = {
        "augment.noise_share": ["uniform", 0, 0.5],
        "learning_rate": ["loguniform", 1e-4, 1e-2],
        "base_filters": ["integer", 2, 8],
        "deep_supervision": ["choice", True, False],
    }
    plan = small_plan(tmp_path, space)
    sampler = TpeSampler(plan.space, seed=0, random_first=30)
    for count in range(30):
        trials = [a_trial(number + 1, {}, 0.0) for number in range(count)]
        parameters, origin = sampler.suggest(trials)
        assert origin == "random"
        assert [type(value) for value in parameters.values()] == [float, float, int, bool]
        settings = plan.trial_settings(parameters, 0)
        assert settings.augment.noise_share == parameters["augment.noise_share"]
        assert 1e-4 <= settings.learning_rate <= 1e-2
        assert 2 <= settings.base_filters <= 8


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"dropot": ["uniform", 0, 0.5]}, "no setting dropot in the space space.toml: did you mean dropout?"),
        ({"augment.noise_shar": ["uniform", 0, 1]}, "did you mean augment.noise_share?"),
        ({"dropout": ["unifrom", 0, 0.5]}, "no setting unifrom in .*: did you mean uniform?"),
        ({"dropout": ["uniform", 0.5, 0.2]}, "dropout must have a lower bound below its upper one"),
        ({"dropout": ["uniform", 0.5, 2]}, "'dropout' must be in \\[0, 1\\), got 2.0"),
        ({"learning_rate": ["loguniform", 0, 1]}, "bounds above 0 for loguniform"),
        ({"base_filters": ["uniform", 2, 8]}, "'base_filters' must be a whole number, got 2.0"),
        ({"base_filters": ["integer", 2.5, 8]}, "base_filters must have two whole numbers as bounds"),
        (
            {"activation": ["choice", "relu", "gelu"]},
            '\'activation\' must be "leaky_relu" or "relu", got "gelu"',
        ),
        ({"activation": ["choice", "relu"]}, "two or more words, numbers or lists of them to choose from"),
        ({"activation": ["choice", "relu", [["relu"]]]}, "two or more words, numbers or lists of them"),
        ({"dropout": ["choice", 0.1, [0.1, 0.2]]}, r"'dropout' must be a number, got \[0.1, 0.2\]"),
        ({"class_weights": ["choice", "equal", ["a"]]}, "'class_weights' must be a list of numbers or"),
        ({"class_weights": ["choice", [1, 2], [1.0, 2.0]]}, "class_weights must have different choices"),
        (
            {"class_weights": ["choice", "equal", "inverse"], '"class_weights.1"': ["uniform", 1, 2]},
            r"\[space\] has class_weights and class_weights.1, a part of it; search one of them",
        ),
        (
            {'"class_weights.1"': ["uniform", 1, 3], "class_weights.1": ["uniform", 1, 2]},
            r"\[space\] has class_weights.1 twice; search one of them",
        ),
        ({"dropout": 0.5}, "dropout must be a distribution and its values"),
        (
            {"class_weights.3": ["uniform", 1, 2]},
            "class_weights.3 must be a number of class_weights, which has 0 to 2",
        ),
        (
            {'"class_weights.01"': ["uniform", 1, 2], "class_weights.1": ["uniform", 1, 3]},
            "class_weights.01 must be a number of class_weights, which has 0 to 2",
        ),
        ({"loss.1": ["uniform", 1, 2]}, "loss.1 is searched, but loss is 'weighted_ce', not a list"),
        ({"epochs": ["integer", 1, 2]}, "epochs is the same for all trials of a search"),
        ({}, "must name at least one setting to search"),
    ],
)
def test_what_cannot_be_searched_is_said(tmp_path: Path, row: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_plan(str(write_space(tmp_path, row)))


def test_whole_lists_can_be_chosen_from(tmp_path: Path) -> None:
    lists: list[object] = [[1, 10, 50], [1, 83, 660], "equal"]
    plan = small_plan(tmp_path, {"class_weights": ["choice", *lists], "dropout": ["uniform", 0.1, 0.5]})
    assert Plan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
    sampler = TpeSampler(plan.space, seed=0, random_first=8)
    done: list[Trial] = []
    for number in range(1, 13):
        parameters, _ = sampler.suggest(done)
        parameters = json.loads(json.dumps(parameters))  # as the store keeps it
        assert parameters["class_weights"] in lists
        done.append(a_trial(number, parameters, 1.0 - float(parameters["dropout"])))
    chosen = [trial.parameters["class_weights"] for trial in done]
    assert all(value in chosen for value in lists)
    settings = plan.trial_settings({"class_weights": [1, 83, 660], "dropout": 0.2}, 0)
    assert settings.class_weights == (1.0, 83.0, 660.0)
    known = {**settings.as_dict(), "class_weights": [1.0, 83.0, 660.0]}
    assert start_point(plan, known, "a run") == {"class_weights": [1.0, 83.0, 660.0], "dropout": 0.2}
    assert "[1, 83, 660]" in figures.parallel(plan.space, done).axes[0].texts[1].get_text()
    assert {one.name for one in importances(plan.space, done)} == {"class_weights", "dropout"}


@pytest.mark.parametrize("content", ["[]", "null", "{", None])
def test_a_start_that_is_no_training_is_refused(work: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(
        InputError, match=r"--start-from takes a folder that .*settings.json is no table of settings"
    ):
        search(work, tmp_path / "out", small_plan(tmp_path), starts=[tmp_path])


def test_lists_for_other_labels_are_refused_before_anything_is_trained(work: Path, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, {"class_weights": ["choice", [1, 10, 50], [1, 10]]})
    with pytest.raises(InputError, match="class_weights must have a number for each of the 3 labels"):
        search(work, tmp_path / "out", plan)
    assert not (tmp_path / "out").exists()


def test_an_address_needs_ray(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--address auto is that of a Ray cluster; add --engine ray"):
        search(tmp_path, tmp_path / "out", small_plan(tmp_path), address="auto")
    assert not (tmp_path / "out").exists()


def test_a_space_file_that_is_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean paper-wce\?"):
        read_plan("paper-wec")
    with pytest.raises(InputError, match=r"there is no space file .*absent.toml; check the path"):
        read_plan(str(tmp_path / "absent.toml"))
    with pytest.raises(
        InputError, match=r"no setting evaluation in the space space.toml: did you mean evaluations\?"
    ):
        read_plan(str(write_space(tmp_path, evaluation=3)))
    with pytest.raises(InputError, match="evaluations must be a whole number from 1 on, got 0"):
        read_plan(str(write_space(tmp_path, evaluations=0)))
    assert space_names() == ["paper-topk", "paper-wce"]


def test_a_preset_file_is_found_beside_the_space(tmp_path: Path) -> None:
    preset = (FOLDER / "paper.toml").read_text()
    (tmp_path / "mine.toml").write_text(preset.replace("[train]", "[train]\nema = 0.5"))
    path = write_space(tmp_path)
    path.write_text(f'preset = "mine.toml"\n{path.read_text()}')
    assert read_plan(str(path)).base["ema"] == 0.5
    assert read_plan(str(path), preset="paper").base["ema"] != 0.5


def test_ray_is_asked_for_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        InputError, match=r"--engine ray needs Ray, which is not installed; pip install .*\[ray\]"
    ):
        search(tmp_path, tmp_path / "out", small_plan(tmp_path), engine="ray")
    assert not (tmp_path / "out").exists()


# What is suggested


def test_tpe_beats_random_search_on_a_known_function() -> None:
    """Seeds 0 to 79 and other functions: benchmarks/suggestions.py."""
    won = sum(
        score_after(60, BOWL, seed=seed, random_first=15) > score_after(60, BOWL, seed=seed, random_first=60)
        for seed in range(20)
    )
    assert won >= 18


def test_a_suggestion_depends_on_seed_and_earlier_trials_alone() -> None:
    done: list[Trial] = []
    sampler = TpeSampler(BOWL.space, seed=5, random_first=4)
    for number in range(1, 9):
        parameters, origin = sampler.suggest(done)
        assert TpeSampler(BOWL.space, seed=5, random_first=4).suggest(done) == (parameters, origin)
        assert TpeSampler(BOWL.space, seed=6, random_first=4).suggest(done)[0] != parameters
        changes: dict[str, Any] = {"origin": origin}
        if number == 3:
            changes |= {"state": "failed", "error": "it diverged"}
        done.append(a_trial(number, parameters, None if number == 3 else BOWL(parameters), **changes))


def test_tpe_keeps_away_from_what_failed() -> None:
    space = Space.read({"dropout": ["uniform", 0, 0.9]}, "a test")
    sampler = TpeSampler(space, seed=0, random_first=0)
    done = [
        a_trial(n, {"dropout": n / 50}, None if n > 20 else 0.5, state="failed" if n > 20 else "finished")
        for n in range(1, 41)
    ]
    drawn = np.array(
        [TpeSampler(space, seed=seed, random_first=0).suggest(done)[0]["dropout"] for seed in range(20)],
        float,
    )
    assert np.mean((drawn > 0.41) & (drawn < 0.81)) <= 0.1  # 0.44 at random; what nobody tried may be tried
    assert sampler.suggest(done)[1] == "tpe"


# What is kept


def test_the_store_keeps_every_trial(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with Store(path, write=True) as store:
        store.describe({"plan": {"a": 1}})
        trial = store.add({"dropout": 0.2}, seed=7, origin="random")
        store.start(trial.number, "cpu")
        row = {"epoch": 1, "val_pooled_cancer": 0.25, "val_loss": float("nan")}
        for _ in range(2):
            store.record(trial.number, [row], objective=0.25, seconds=2.0)
        store.end(trial.number, "finished", seconds=1.0, curve=[row, {**row, "epoch": 2}], objective=0.5)
        store.end(trial.number, "failed", error="too late")
        with pytest.raises(sqlite3.IntegrityError):
            store.end(store.add({}, seed=0, origin="tpe").number, "lost")  # type: ignore[arg-type]
    with Store(path) as store:
        kept, running = store.trials()
        assert store.about == {"plan": {"a": 1}}
    assert (kept.number, kept.parameters, kept.seed, kept.origin) == (1, {"dropout": 0.2}, 7, "random")
    assert (kept.state, kept.objective, kept.seconds, kept.starts, kept.device) == (
        "finished",
        0.5,
        5.0,
        1,
        "cpu",
    )
    assert [row["epoch"] for row in kept.curve] == [1, 2]
    assert kept.curve[0]["val_loss"] is None
    assert kept.ended is not None
    assert running.is_running


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no search in .*: search.sqlite is missing"):
        Store(tmp_path / "search.sqlite")
    (tmp_path / "search.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 9)
    with pytest.raises(InputError, match="is not a readable store of a search"):
        Store(tmp_path / "search.sqlite")


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE about",
        "DROP TABLE curve",
        "ALTER TABLE trials DROP COLUMN starts",
        "UPDATE trials SET parameters = '{'",
        "UPDATE about SET value = '{'",
    ],
)
@pytest.mark.parametrize("verb", [["search", "WORK", "--report"], ["train", "WORK", "--from-search"]])
def test_a_damaged_store_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str, verb: list[str]
) -> None:
    with Store(tmp_path / "search.sqlite", write=True) as store:
        store.describe({"plan": small_plan(tmp_path).as_dict(), "labels": LABELS, "work": "WORK"})
        store.add({}, seed=0, origin="random")
        store._connection.execute("PRAGMA foreign_keys = OFF")
        store._connection.execute(damage)
    out = ["--out"] if verb[0] == "search" else []
    more = [] if verb[0] == "search" else ["--out", str(tmp_path / "run")]
    assert main([*verb, *out, str(tmp_path), *more]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "search.sqlite is not a readable store of a search: " in said[0]
    assert said[0].endswith("; put a copy back in its place, or begin anew with another --out")


def test_a_store_with_broken_pages_is_neither_read_nor_continued(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with Store(path, write=True) as store:
        for seed in range(100):
            store.add({"dropout": 0.1}, seed=seed, origin="random")
        (size,) = store._connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[-2 * size :] = b"U" * (2 * size)
    path.write_bytes(content)
    for write in (False, True):
        with pytest.raises(InputError, match=r"is not a readable store of a search: .*; put a copy back"):
            Store(path, write=write)
    assert path.read_bytes() == content


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with Store(path, write=True) as store:
        trial = store.add({}, seed=0, origin="random")
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        row = {f"val_pooled_{number}": 0.5 for number in range(2000)}
        with pytest.raises(
            InputError,
            match=r"search.sqlite cannot be written: database or disk is full; free some space, and",
        ):
            store.record(trial.number, [{"epoch": 1, **row}], objective=0.5, seconds=1.0)
        store._connection.execute("PRAGMA max_page_count = 1000000")
        assert store.trial(1) == trial
        store.record(trial.number, [{"epoch": 1, **row}], objective=0.5, seconds=1.0)
        assert store.trial(1).objective == 0.5


@pytest.mark.parametrize("whole", [True, False])
def test_a_search_that_was_killed_before_it_began_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: bool
) -> None:
    if whole:
        Store(tmp_path / "search.sqlite", write=True).close()
    else:
        (tmp_path / "search.sqlite").touch()
    assert main(["search", "WORK", "--out", str(tmp_path), "--report"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "was ended before it began, and nothing is stored yet; run it again" in said[0]
    assert not (tmp_path / "report.html").exists()


# What is given up, and what is best


def rows(*scores: float) -> tuple[dict[str, float | None], ...]:
    return tuple(
        {"epoch": n, "val_pooled_pancreas": score, "val_pooled_cancer": score}
        for n, score in enumerate(scores, 1)
    )


def test_the_objective_is_the_best_epochs_mean_foreground_dice() -> None:
    curve = [
        {"val_pooled_background": 0.99, "val_pooled_pancreas": 0.5, "val_pooled_cancer": 0.1},
        {"val_pooled_background": 0.99, "val_pooled_pancreas": 0.6, "val_pooled_cancer": 0.4},
        {"val_pooled_background": 0.99, "val_pooled_pancreas": 0.7, "val_pooled_cancer": 0.2},
    ]
    assert objective(curve, LABELS) == pytest.approx(0.5)
    assert objective(curve, ("background", "pancreas")) == pytest.approx(0.7)


def test_halving_gives_up_what_is_below_the_median_at_a_rung() -> None:
    assert [rungs(epochs) for epochs in (1, 2, 5, 9)] == [[], [1], [1, 2, 4], [1, 2, 4, 8]]
    others = [a_trial(n, {}, None, curve=rows(0.1 * n, 0.1 * n, 0.1 * n)) for n in (1, 2, 3)]
    for score, expected in ((0.19, False), (0.2, True), (0.5, True)):
        assert goes_on(a_trial(9, {}, None, curve=rows(score)), others, LABELS, 5) is expected
    assert goes_on(a_trial(9, {}, None, curve=rows(0, 0, 0)), others, LABELS, 5)
    assert goes_on(a_trial(9, {}, None, curve=rows(0)), [], LABELS, 5)


def test_confirmed_configurations_are_ranked_by_their_other_seeds() -> None:
    trials = [
        a_trial(1, {"dropout": 0.1}, 0.9),
        a_trial(2, {"dropout": 0.2}, 0.8),
        a_trial(3, {"dropout": 0.3}, 0.7),
        a_trial(4, {"dropout": 0.4}, 1.0, state="stopped"),
        a_trial(5, {"dropout": 0.1}, 0.9),
    ]
    assert [trial.number for trial in best_trials(trials)] == [1, 2, 3]
    confirmations = [
        a_trial(6, {}, 0.2, kind="confirmation", repeats=1, seed=1),
        a_trial(7, {}, 0.4, kind="confirmation", repeats=1, seed=2),
        a_trial(8, {}, 0.6, kind="confirmation", repeats=2, seed=1),
        a_trial(9, {}, 0.6, kind="confirmation", repeats=2, seed=2),
        a_trial(10, {}, None, kind="confirmation", repeats=2, seed=3, state="failed"),
    ]
    ranked = ranking([*trials, *confirmations])
    assert [one.trial.number for one in ranked] == [2, 1, 3]
    assert ranked[1].mean == pytest.approx(0.3)
    assert ranked[0].low == ranked[0].high == pytest.approx(0.6)
    assert all(math.isnan(value) for value in (ranked[2].mean, ranked[2].low, ranked[2].high))
    assert seed_deviation(ranked) == pytest.approx(math.sqrt((0.02 + 0.0) / 2))


def confirmations(of: int, *scores: float | None) -> list[Trial]:
    return [
        a_trial(10 * of + seed, {}, score, kind="confirmation", repeats=of, seed=seed, state=state)
        for seed, score in enumerate(scores, 1)
        for state in ("failed" if score is None else "finished",)
    ]


def test_one_other_seed_confirms_nothing_where_others_have_more() -> None:
    trials = [a_trial(n, {"dropout": n / 10}, score) for n, score in ((1, 0.9), (2, 0.8), (3, 0.7))]
    lucky = [*trials, *confirmations(1, 0.9, None, None), *confirmations(2, 0.5, 0.6)]
    assert [one.trial.number for one in ranking(lucky)] == [2, 1, 3]
    every_one = [*trials, *confirmations(1, 0.9), *confirmations(2, 0.5)]
    assert [one.trial.number for one in ranking(every_one)] == [1, 2, 3]


def test_what_makes_a_winner_doubtful_is_said(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, evaluations=3).with_changes(confirm=(2, 2))
    trials = [a_trial(n, {"dropout": n / 10}, score) for n, score in ((1, 0.9), (2, 0.8), (3, 0.7))]
    unfinished = doubts(trials[:2], plan) or ""
    assert "is unfinished (2 of 3 trials and 0 of 4 confirmations are done" in unfinished
    assert "has not confirmed its best, trial 1, with other seeds" in unfinished
    some = doubts([*trials, *confirmations(2, 0.5, 0.5), *confirmations(1, 0.9)], plan) or ""
    assert "is unfinished (3 of 3 trials and 3 of 4 confirmations are done" in some
    assert "has a trial 1 that scored higher (0.900) and is not confirmed" in some
    whole = [*trials, *confirmations(2, 0.5, 0.5), *confirmations(1, 0.9, 0.4)]
    assert doubts(whole, plan) is None
    later = [*whole, a_trial(30, {"dropout": 0.4}, 0.95)]
    asked = plan.with_changes(evaluations=4)
    assert ranking(later)[0].trial.number == 1
    assert "4 of 4 trials and 4 of 6 confirmations are done" in (doubts(later, asked) or "")
    assert "a trial 30 that scored higher (0.950)" in (doubts(later, asked) or "")
    never = doubts(trials, plan.with_changes(confirm=(0, 0))) or ""
    assert never.startswith("has not confirmed its best, trial 1, with other seeds, and one seed lies")


def test_the_winner_of_an_unfinished_search_comes_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = small_plan(tmp_path, evaluations=2)
    with Store(tmp_path / "search.sqlite", write=True) as store:
        store.describe({"plan": plan.as_dict()})
        trial = store.add({"dropout": 0.5}, seed=0, origin="random")
        store.end(trial.number, "finished", curve=CURVE, objective=0.375)
    assert winner(tmp_path)[1].trial.number == 1
    assert "is unfinished (1 of 2 trials are done; the same command continues it)" in caplog.text


def test_the_interval_is_students() -> None:
    # t(0.975, 3) = 3.18245: 0.5 ± 3.18245 * 0.1 / 2, from a printed table
    scores = 0.5 + np.array([-1.0, -1.0, 1.0, 1.0]) * 0.1 * math.sqrt(3 / 4)
    one = Ranked.of(a_trial(1, {}, 0.5), scores.tolist())
    assert (one.low, one.high) == pytest.approx((0.5 - 0.15912, 0.5 + 0.15912), abs=1e-5)


def test_importance_tells_what_matters_from_what_does_not() -> None:
    sampler = TpeSampler(BOWL.space, seed=0, random_first=60)
    done: list[Trial] = []
    for number in range(1, 61):
        parameters, _ = sampler.suggest(done)
        score = 1 - abs(float(parameters["class_weights.1"]) - 83) / 200
        done.append(a_trial(number, parameters, score))
    first, *others = importances(BOWL.space, done)
    assert first.name == "class_weights.1"
    assert first.share > 2 * first.chance
    assert all(one.share < first.share / 3 for one in others)
    assert importances(BOWL.space, done[:5]) == []


# Who trains


@pytest.fixture
def formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "BEFORE_BLAME_S", 0.0)


def run_formula(folder: Path, plan: Plan, *, jobs: int = 1, starts: Sequence[Parameters] = ()) -> list[Trial]:
    """Run a search whose trials are a formula; return what its store holds."""
    slots = make_slots(jobs, folder / "workers", device="cpu", threads=1, gpus=(), cores=2)
    for one in slots:
        one.command = formula_worker()
    with Store(folder / "search.sqlite", write=True) as store:
        sampler = TpeSampler(plan.space, seed=plan.seed, random_first=plan.random_first)
        agenda = Agenda(store, plan, sampler, LABELS, starts=starts)
        run_local(agenda, slots, folder / "work", folder)
        return store.trials()


@pytest.mark.usefixtures("formula")
def test_failures_are_kept_and_the_search_goes_on(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, {"dropout": ["choice", 0.05, 0.5, 0.95]}, evaluations=12, random_first=12)
    trials = run_formula(tmp_path, plan)
    assert [trial.number for trial in trials] == list(range(1, 13))
    reasons = {
        0.05: "the process was ended by SIGSEGV",
        0.95: "the loss was not finite in 11 batches",
        0.5: None,
    }
    assert {float(trial.parameters["dropout"]) for trial in trials} == set(reasons)
    for trial in trials:
        assert trial.error == reasons[float(trial.parameters["dropout"])]
        assert trial.state == ("finished" if trial.error is None else "failed")
        assert len(trial.curve) == (2 if trial.error is None else 0)


@pytest.mark.usefixtures("formula")
def test_a_search_whose_trials_all_fail_ends(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, {"dropout": ["choice", 0.91, 0.95]}, evaluations=30)
    with pytest.raises(
        InputError,
        match=r"all of the first 10 trials failed, the last one since the loss was not .* --retry-failed",
    ):
        run_formula(tmp_path, plan)


def test_a_search_ends_when_trials_fail_one_after_the_other_after_others_did_well(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, evaluations=30)
    with Store(tmp_path / "search.sqlite", write=True) as store:
        agenda = Agenda(store, plan, TpeSampler(plan.space, seed=0, random_first=30), LABELS)
        for number in range(12):
            trial = agenda.next("search")
            assert trial is not None
            if number < 2:
                agenda.finish(trial, CURVE, seconds=1.0, stopped=False)
            else:
                agenda.fail(trial, "the GPU fell off the bus", seconds=1.0)
        with pytest.raises(
            InputError, match="the last 10 trials failed, the last one since the GPU fell off"
        ):
            agenda.next("search")


def test_parameters_that_do_not_go_together_are_a_failed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan(tmp_path, {"dropout": ["choice", 0.1, 0.2, 0.3]}, evaluations=12, random_first=12)
    honest = Plan.trial_settings

    def refuse(self: Plan, parameters: dict[str, Any], seed: int) -> TrainSettings:
        if parameters["dropout"] == 0.2:
            raise InputError("dropout = 0.2 does not go with the rest")
        return honest(self, parameters, seed)

    monkeypatch.setattr(Plan, "trial_settings", refuse)
    with Store(tmp_path / "search.sqlite", write=True) as store:
        agenda = Agenda(store, plan, TpeSampler(plan.space, seed=0, random_first=12), LABELS)
        trained = 0
        while found := agenda.trainable("search"):
            agenda.finish(found[0], CURVE, seconds=1.0, stopped=False)
            trained += 1
        failed = [trial for trial in store.trials() if trial.state == "failed"]
    assert len(failed) + trained == 12
    assert {trial.parameters["dropout"] for trial in failed} == {0.2}
    assert {trial.error for trial in failed} == {"dropout = 0.2 does not go with the rest"}


def test_whole_numbers_are_drawn_alike() -> None:
    space = Space.read({"base_filters": ["integer", 1, 3]}, "a test")
    drawn = [
        TpeSampler(space, seed=seed, random_first=1).suggest([])[0]["base_filters"] for seed in range(900)
    ]
    counts = np.bincount(np.array(drawn, np.int64), minlength=4)[1:]
    assert counts.sum() == 900
    assert (
        np.abs(counts - 300).max() < 60
    )  # four standard deviations; half a weight at the ends would be 150 away


@pytest.mark.usefixtures("formula")
def test_trials_side_by_side_are_the_same_trials(tmp_path: Path) -> None:
    """Random ones, since what TPE suggests depends on what has ended."""
    results = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        folder.mkdir()
        plan = small_plan(folder, evaluations=10, random_first=10)
        trials = run_formula(folder, plan, jobs=jobs)
        workers = {(folder / "trials" / trial.folder / "starts.txt").read_text() for trial in trials}
        assert len(workers) == jobs, "a worker trains one trial after the other"
        results.append([(trial.number, trial.parameters, trial.objective) for trial in trials])
    assert results[0] == results[1]


@pytest.mark.usefixtures("formula")
def test_hopeless_trials_are_stopped_early(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, evaluations=12, random_first=12, epochs=4, early_stopping=True)
    trials = run_formula(tmp_path, plan)
    stopped = [trial for trial in trials if trial.state == "stopped"]
    assert 2 <= len(stopped) <= 9
    assert all(len(trial.curve) < 4 for trial in stopped)
    finished = [trial for trial in trials if trial.state == "finished"]
    assert all(len(trial.curve) == 4 for trial in finished)
    assert max(float(t.objective or 0) for t in stopped) < max(float(t.objective or 0) for t in finished)


@pytest.mark.usefixtures("formula")
def test_a_search_starts_from_what_is_known_and_confirms_its_best(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, evaluations=5, random_first=2).with_changes(confirm=(2, 3))
    known: Parameters = {"dropout": 0.25, "activation": "relu", "class_weights.1": 83.0}
    trials = run_formula(tmp_path, plan, starts=[known])
    assert trials[0].parameters == known
    assert [trial.origin for trial in trials] == [
        "start",
        "random",
        "random",
        "tpe",
        "tpe",
        *["confirmation"] * 6,
    ]
    best = best_trials(trials)[:2]
    assert [(t.repeats, t.seed) for t in trials[5:]] == [
        (one.number, seed) for one in best for seed in (1, 2, 3)
    ]
    again = run_formula(tmp_path, plan, starts=[known])
    assert again == trials, "a search that has ended has nothing left to do"
    longer = run_formula(tmp_path, plan.with_changes(evaluations=6), starts=[known])
    assert [t.kind for t in longer[11:12]] == ["search"]


def test_slots_share_cores_and_gpus(tmp_path: Path) -> None:
    def places(jobs: int | None, gpus: Sequence[str], **given: Any) -> list[tuple[str | None, int | None]]:
        options = {"device": None, "threads": None, "cores": 8, **given}
        return [(one.gpu, one.threads) for one in make_slots(jobs, tmp_path, gpus=gpus, **options)]

    assert places(None, ()) == [(None, 8)]
    assert places(3, ()) == [(None, 2)] * 3
    assert places(None, ("0", "3")) == [("0", 4), ("3", 4)]
    assert places(3, ("0", "3")) == [("0", 2), ("3", 2), ("0", 2)]
    assert places(2, ("0", "3"), device="cpu", threads=1) == [(None, 1)] * 2
    with pytest.raises(InputError, match="--jobs 2 needs the trials' own GPUs, got --device cuda:1 for all"):
        places(2, ("0", "1"), device="cuda:1")


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (InputError("the loss was not finite"), {"failed": "the loss was not finite"}),
        (MemoryError(), {"failed": "out of memory"}),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory\nstack"),
            {"failed": "out of memory: [enforce fail] DefaultCPUAllocator: can't allocate memory"},
        ),
        (OSError(12, "Cannot allocate memory"), {"failed": "out of memory"}),
        (
            RuntimeError("CUDA error: unspecified launch failure\nmore"),
            {"broken": "the GPU is not usable any more (CUDA error: unspecified launch failure)"},
        ),
        (RuntimeError("CUDA out of memory. Tried"), {"failed": "out of memory: CUDA out of memory. Tried"}),
        (ZeroDivisionError("by\nnought"), {"failed": "ZeroDivisionError: by"}),
        (OSError(28, "No space left on device", "/a/b"), {"broken": "/a/b: no space left on device"}),
    ],
)
def test_a_worker_tells_what_the_parameters_did_from_what_the_machine_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, answer: dict[str, str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("trainer.train.train", fail)
    request = {"work": "w", "folder": str(tmp_path), "settings": {}, "device": "cpu", "threads": 1}
    assert worker._train(request, io.StringIO(), queue.SimpleQueue()) == answer


def test_a_training_can_be_given_up_and_is_asked_again_when_continued(work: Path, tmp_path: Path) -> None:
    settings = TrainSettings(base_filters=2, epochs=3, epoch_patches=4, val_patches=1, class_weights="equal")
    asked: list[int] = []

    def goes_on(rows: Sequence[dict[str, float]]) -> bool:
        asked.append(len(rows))
        return len(rows) < 2

    for _ in range(2):
        assert len(train(work, tmp_path / "run", settings, device="cpu", threads=1, goes_on=goes_on)) == 2
    assert asked == [1, 2, 2]
    for name, count in (("epoch_patches", 9), ("val_patches", 3)):
        more = dataclasses.replace(settings, **{name: count})
        with pytest.raises(
            InputError, match=f"{name} = {count} asks for more patches than .* has, {count - 1}; lower"
        ):
            train(work, tmp_path / "other", more, device="cpu", threads=1)


# The command

SEARCH = "import sys; from trainer.cli import main; sys.exit(main())"
THREADS = ["--device", "cpu", "--threads", "1"]


def command(work: Path, out: Path, space: Path, *more: str) -> list[str]:
    return ["search", str(work), "--space", str(space), "--out", str(out), *THREADS, *more]


def contents(out: Path) -> list[tuple[object, ...]]:
    with open_search(out) as store:
        return [(t.number, t.kind, t.parameters, t.seed, t.state, t.objective) for t in store.trials()]


def formula_slots(*arguments: Any, **more: Any) -> list[Slot]:
    """Make slots as the search does, whose trials are a formula."""
    slots = make_slots(*arguments, **more)
    for one in slots:
        one.command = formula_worker()
    return slots


@pytest.mark.usefixtures("formula")
def test_failed_trials_are_tried_again_when_that_is_asked_for(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.search.search.make_slots", formula_slots)
    space = write_space(tmp_path, {"dropout": ["choice", 0.5, 0.95]}, evaluations=5, random_first=5)
    out = tmp_path / "out"
    arguments = command(work, out, space, "--confirm", "0")

    def kept() -> list[Trial]:
        with open_search(out) as store:
            return store.trials()

    assert main(arguments) == 0
    before = kept()
    failed = [trial for trial in before if trial.state == "failed"]
    assert 1 <= len(failed) < 5
    folder = out / "trials" / failed[0].folder
    (folder / "metrics.csv").write_text("of the training that failed")
    (folder / "log.txt").write_text("what it said")
    (out / "mended").touch()
    assert main([*arguments, "--retry-failed"]) == 0
    for was, trial in zip(before, kept(), strict=True):
        if was.state != "failed":
            assert trial == was
            continue
        assert (trial.parameters, trial.seed, trial.origin) == (was.parameters, was.seed, was.origin)
        assert (trial.state, trial.error, trial.starts) == ("finished", was.error, was.starts + 1)
        assert len(trial.curve) == 2
    assert [path.name for path in folder.glob("*.*")] == ["log.txt", "starts.txt"]
    assert "the loss was not finite in 11 batches" in (out / "report.html").read_text()


def test_a_trial_that_fails_again_keeps_both_reasons(tmp_path: Path) -> None:
    with Store(tmp_path / "search.sqlite", write=True) as store:
        trial = store.add({}, seed=0, origin="random")
        store.record(trial.number, CURVE, objective=0.375, seconds=2.0)
        store.end(trial.number, "failed", error="the disk was lost")
        (again,) = store.retry()
        waiting = store.trial(trial.number)
        assert (again.number, waiting.is_running, waiting.objective, waiting.curve) == (1, True, None, ())
        store.end(trial.number, "failed", error="it diverged", seconds=1.0)
        assert store.trial(1).error == "it diverged; before: the disk was lost"
        assert store.trial(1).seconds == 3.0


# With trainings


@pytest.mark.timeout(900)
def test_killed_twice_and_continued_a_search_ends_with_the_same_trials(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = write_space(tmp_path, evaluations=4, random_first=2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(command(work, whole, space, "--confirm", "1x1")) == 0
    said = capsys.readouterr()
    assert "4 of 4 trials done" in said.err
    assert str(whole / "report.html") in said.out
    arguments = command(work, killed, space, "--confirm", "1x1")
    for ended in (0, 2):  # docs/RESULTS.md: measured with three
        kill_after(arguments, killed, ended)
    assert main(arguments) == 0
    assert contents(killed) == contents(whole)
    assert len(contents(killed)) == 5
    assert "<h2>Best configurations</h2>" in (killed / "report.html").read_text()
    assert not list(killed.rglob("checkpoints"))

    # the winner, trained in full, and the same by hand
    run, by_hand = tmp_path / "run", tmp_path / "by_hand"
    plan, best = winner(killed)
    changes = ["--set", "epochs=1", "epoch_patches=4", "val_patches=2"]
    assert (
        main(["train", str(work), "--from-search", str(killed), "--out", str(run), *THREADS, *changes]) == 0
    )
    settings = json.loads((run / "settings.json").read_text())
    assert settings["class_weights"] == [1.0, best.trial.parameters["class_weights.1"], 50.0]
    assert plan.full_settings(best.trial.parameters)["epochs"] == 22
    values = [f"{name}={settings[name]}" for name in ("dropout", "activation")]
    values += [
        f"class_weights={json.dumps(settings['class_weights'])}",
        "base_filters=2",
        "checkpoint_minutes=1e-9",
    ]
    hand = ["train", str(work), "--preset", "paper", "--out", str(by_hand), *THREADS, *changes, *values]
    assert main(hand) == 0
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(by_hand)[name])

    # continued with other things
    capsys.readouterr()
    assert main(command(work, killed, space, "--confirm", "1x1", "--epochs", "3")) == 1
    assert "holds another search (epochs 2 there, 3 now); choose another --out" in capsys.readouterr().err
    (run / "settings.json").write_text(json.dumps({**settings, "dropout": 0.9}))
    assert main(command(work, tmp_path / "new", space, "--start-from", str(run))) == 1
    assert "dropout = 0.9, which is not in the space (uniform 0.2, 0.6)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def kill_after(arguments: list[str], out: Path, ended: int) -> None:
    """Kill a search, not its worker, when so many trials have ended and another has a checkpoint."""
    process = subprocess.Popen([sys.executable, "-c", SEARCH, *arguments], stderr=subprocess.DEVNULL)
    while process.poll() is None and sum(state != "running" for *_, state, _ in stored(out)) < ended:
        time.sleep(0.05)
    while process.poll() is None and not list(out.glob("trials/*/checkpoints/*.pt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was to be killed before its end"


def stored(out: Path) -> list[tuple[object, ...]]:
    with contextlib.suppress(InputError, sqlite3.OperationalError):
        return contents(out)
    return []
