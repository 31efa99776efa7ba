"""The frozen set: what it holds, that nothing else passes for it, and that trainings see no test case."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
import torch

from algorithm.errors import InputError
from algorithm.images import read_labels, write_labels
from benchmarks.accuracy.frozen import (
    SMOKE_CASES,
    FrozenSet,
    Places,
    labels_of_tests,
    make,
    numbers,
    refuse_leaks,
)
from benchmarks.accuracy.ours import Preset
from benchmarks.accuracy.run import Run, settings_of, spawn
from benchmarks.accuracy.task import Budget
from benchmarks.machine import describe_machine
from trainer.dataset import Dataset
from trainer.phantom.statistics import TUMOUR_ML, draw_facts
from trainer.presets import FOLDER as PRESETS
from trainer.settings import TrainSettings, merged
from trainer.split import read_split


@pytest.fixture(scope="module")
def frozen() -> FrozenSet:
    return FrozenSet.read()


@pytest.fixture(scope="module")
def made(frozen: FrozenSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    make(frozen.first(SMOKE_CASES), root, workers=1)
    return root


def test_the_set_is_of_64_32_and_32_cases_that_share_none(frozen: FrozenSet) -> None:
    assert [len(cases) for cases in frozen.cases.values()] == [64, 32, 32]
    assert len({number for cases in frozen.cases.values() for number in cases}) == 128
    assert frozen.cases == numbers(64, 32, 32)
    assert set(frozen.digests) == {number for cases in frozen.cases.values() for number in cases}


def test_every_subset_has_its_share_of_small_tumours(frozen: FrozenSet) -> None:
    edges = (0.0, TUMOUR_ML[4], TUMOUR_ML[5], TUMOUR_ML[6], np.inf)
    for cases in frozen.cases.values():
        volumes = [draw_facts(frozen.seed, number).tumour_ml for number in cases]
        counts = np.histogram(volumes, edges)[0]
        assert counts.min() > 0.2 * len(cases)


def test_the_first_cases_are_made_with_their_hashes_and_without_labels_of_tests(
    frozen: FrozenSet, made: Path
) -> None:
    data = Dataset.read(Places(made).data)
    assert not data.test
    names = [case.name for case in data.training]
    split = read_split(Places(made).split, names)
    assert sorted((*split.training, *split.validation)) == names
    few = frozen.first(SMOKE_CASES)
    tests = {f"{name}.nii.gz" for name in few.names("test")}
    there = {str(path.relative_to(made)) for path in made.rglob("*.nii.gz") if path.name in tests}
    assert there == {f"test/images/{name}" for name in tests}


def test_labels_of_tests_are_made_for_the_scorer_alone(frozen: FrozenSet, made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--final alone"):
        Places(made).labels("test")
    few = frozen.first({"training": 0, "validation": 0, "test": 1})
    folder = labels_of_tests(few, tmp_path)
    labels, _ = read_labels(folder / f"{few.names('test')[0]}.nii.gz")
    assert np.unique(labels).tolist() == [0, 1, 2]


def test_a_changed_case_is_refused(frozen: FrozenSet, made: Path) -> None:
    few = frozen.first(SMOKE_CASES)
    path = Places(made).data / "labelsTr" / f"{few.names('training')[0]}.nii.gz"
    whole = path.read_bytes()
    labels, geometry = read_labels(path)
    labels[0, 0, 0] = 1
    write_labels(path, labels, geometry)
    with pytest.raises(InputError, match=f"the labels of case {few.cases['training'][0]} must have the hash"):
        make(few, made, workers=1)
    path.write_bytes(whole)


def test_a_damaged_list_is_refused(tmp_path: Path, frozen: FrozenSet) -> None:
    path = tmp_path / "set.json"
    frozen.write(path)
    document = json.loads(path.read_text())
    document["subsets"]["test"]["cases"]["3"]["image"] = "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="the hash of its test cases"):
        FrozenSet.read(path)


def test_a_test_case_among_what_trains_is_refused(frozen: FrozenSet, tmp_path: Path) -> None:
    leaked = Places(tmp_path).data / "imagesTr" / f"{frozen.names('test')[0]}.nii.gz"
    leaked.parent.mkdir(parents=True)
    leaked.write_bytes(b"")
    with pytest.raises(InputError, match="is a test case, and what trains must not hold any"):
        refuse_leaks(frozen, Places(tmp_path))


@pytest.mark.parametrize("preset", ["paper", "paper-topk", "best"])
def test_presets_take_the_steps_of_the_budget(preset: str) -> None:
    for name in ("cpu", "smoke", "gpu"):
        budget = Budget.read(name)
        changes, table = Preset(preset).settings(budget, budget.steps), Preset(preset).table(budget)
        settings = TrainSettings.read(merged(table, changes), preset)
        patches = settings.epoch_patches or budget.prepared_patches
        taken = settings.epochs * -(-patches // settings.batch_size)
        assert budget.steps <= taken <= 1.1 * budget.steps + budget.epoch_steps


def test_a_budget_s_preset_is_the_same_by_either_name() -> None:
    budget = Budget.read("gpu")
    role, name = Preset("best"), Preset("best-gpu")
    assert role.shape(budget) == name.shape(budget) != list(budget.patch_shape_zyx)
    assert role.digest(budget, budget.steps) == name.digest(budget, budget.steps)


def test_a_budget_s_own_preset_keeps_its_batch(tmp_path: Path) -> None:
    shipped = (PRESETS / "best-cpu.toml").read_text()
    (tmp_path / "own.toml").write_text(shipped.replace("batch_size = 2", "batch_size = 8"))
    budget = replace(Budget.read("cpu"), presets={"best": str(tmp_path / "own.toml")})
    changes = Preset("best").settings(budget, 2000)
    assert (changes["batch_size"], changes["epoch_patches"], changes["epochs"]) == (8, 400, 40)
    assert Preset("paper").settings(budget, 2000)["batch_size"] == budget.batch_size == 2


def timed(run: Run, steps: int, seconds: float, **other: str) -> Run:
    """Note a training as `run_system` does."""
    told = {
        "machine": describe_machine(torch.device("cpu"), ()),
        "settings": settings_of(run.system, Budget.read(run.budget), run.steps(Budget.read(run.budget))),
    }
    run.note(train={"steps": steps, "seconds": seconds}, **{**told, **other})
    return run


def test_equal_time_is_the_reference_s_at_the_system_s_own_pace(tmp_path: Path) -> None:
    for system, seconds in (("nnunet", 6000.0), ("best", 1500.0)):
        timed(Run(tmp_path, "cpu", "steps", system, "cpu"), 1000, seconds)
    run = Run(tmp_path, "cpu", "time", "best", "cpu")
    assert run.task().steps == 4 * Budget.read("cpu").steps
    # A trial on a quiet machine says what other work had added to the reference's time, and a slower one nothing.
    for steps, seconds in ((100, 300.0), (50, 900.0)):
        timed(Run(tmp_path, "cpu", "steps", "nnunet", "cpu", trial=steps), steps, seconds)
    assert run.task().steps == 2 * Budget.read("cpu").steps
    run.note(steps_for_time=77)  # a continued run keeps what it began with
    assert run.task().steps == 77


def test_a_pace_is_of_this_machine_and_of_today_s_settings(tmp_path: Path) -> None:
    timed(Run(tmp_path, "cpu", "steps", "nnunet", "cpu"), 1000, 3000.0)
    monai, trial = (
        Run(tmp_path, "cpu", "time", "monai", "cpu"),
        Run(tmp_path, "cpu", "steps", "monai", "cpu", trial=10),
    )
    for other in ({"machine": "another"}, {"settings": "others"}):
        timed(trial, 10, 60.0, **other)
        with pytest.raises(
            InputError, match="how long monai trains on this machine: run it with --equal steps or"
        ):
            monai.task()
    timed(trial, 10, 60.0)
    assert monai.task().steps == Budget.read("cpu").steps // 2  # by the pace of a trial alone


PRESET = """[prepare]
spacing_zyx_mm = [2.5, 0.8, 0.8]
window_hu = [-100, 240]
patch_shape_zyx = [64, 128, 128]
train_patches = 10
val_patches = 10
quotas = { "1" = 0.5, "2" = 0.3 }
seed = 0
normalisation = "window"

[train]
loss = "dice_ce"
"""


ZSCORE = PRESET.replace("window_hu = [-100, 240]\n", "").replace('"window"', '"zscore"')


@pytest.mark.parametrize(
    ("preset", "before", "after"),
    [
        (PRESET, "[-100, 240]", "[-100, 200]"),
        (PRESET, '"2" = 0.3', '"2" = 0.2'),
        (PRESET, "seed = 0", "seed = 1"),
        (PRESET, '"dice_ce"', '"topk_ce"'),
        (ZSCORE, '"zscore"', '"zscore_foreground"'),
    ],
)
def test_a_preset_that_prepares_or_trains_otherwise_is_another(
    tmp_path: Path, preset: str, before: str, after: str
) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text(preset)
    other.write_text(preset.replace(before, after))
    budget = Budget.read("cpu")
    assert settings_of(str(one), budget, 9) != settings_of(str(other), budget, 9)
    # What the budget decides for all is not the preset's.
    other.write_text(preset.replace("[2.5, 0.8, 0.8]", "[3.0, 0.8, 0.8]").replace("= 10", "= 11"))
    assert settings_of(str(one), budget, 9) == settings_of(str(other), budget, 9)


def test_a_phase_that_was_killed_has_taken_what_all_its_processes_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks at a process that fails, then two at one that ends: both times together, and the most of both."""
    clock, memory, codes = iter(range(0, 10**4, 61)), iter([3, 9, 1, 2]), iter([1, 0])
    so_far: list[float] = []  # what a kill of both processes would have left
    run = Run(tmp_path, "cpu", "steps", "nnunet", "cpu")

    class Process:
        pid = 1

        def __init__(self, *_: object, stdout: TextIO, **__: object) -> None:
            stdout.write('{"steps": 9}\n')
            self.returncode = next(codes)
            self.looks = iter([None, None, self.returncode])

        def poll(self) -> int | None:
            file = run.folder / ".train.spent.json"
            so_far.append(json.loads(file.read_text())["wall_seconds"] if file.is_file() else 0.0)
            return next(self.looks)

    module = "benchmarks.accuracy.run"
    monkeypatch.setattr(f"{module}.subprocess.Popen", Process)
    monkeypatch.setattr(f"{module}.held", lambda _: next(memory) * 2**20)
    monkeypatch.setattr(f"{module}.time.sleep", lambda _: None)
    monkeypatch.setattr(f"{module}.time.monotonic", lambda: float(next(clock)))
    with pytest.raises(InputError, match="nnunet failed in phase train"):
        spawn(run, "train")
    assert so_far == [0.0, 61.0, 122.0]
    assert "train" not in run.record()
    spawn(run, "train")
    assert so_far[3:] == [122.0, 183.0, 244.0]
    assert run.record() == {"train": {"steps": 9, "memory_mib": 9.0, "wall_seconds": 244.0}}
    assert [path.name for path in run.folder.iterdir() if "spent" in path.name] == []


def test_unknown_budgets_are_refused() -> None:
    with pytest.raises(InputError, match="a budget must be one of ablation, cpu, gpu, smoke, got none"):
        Budget.read("none")
