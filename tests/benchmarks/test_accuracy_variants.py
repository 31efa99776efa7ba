"""The ablation: every variant can be trained, differs from all others, and sees no test case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from algorithm.errors import InputError
from benchmarks.accuracy.frozen import Subset
from benchmarks.accuracy.ours import Preset
from benchmarks.accuracy.run import OURS, Equal, Run, main, refuse_other_settings, settings_of
from benchmarks.accuracy.score import Scored, pairs_of
from benchmarks.accuracy.task import Budget, Task
from benchmarks.accuracy.variants import BASE, VARIANTS
from trainer.presets import read_preset
from trainer.settings import TrainSettings, merged

REPOSITORY = Path(__file__).parents[2]


def settings(name: str) -> TrainSettings:
    budget = Budget.read("ablation")
    changes = VARIANTS[name].system().settings(budget, budget.steps)
    return TrainSettings.read(merged(read_preset("best-cpu").train, changes), name)


def test_variants_are_trained_as_long_and_each_differs_from_the_base() -> None:
    base = settings(BASE)
    assert base.epochs * (base.epoch_patches or 0) == 2 * Budget.read("ablation").steps
    for name, variant in VARIANTS.items():
        own = settings(name)
        assert (own.epochs, own.epoch_patches) == (base.epochs, base.epoch_patches)
        changed = {key for key, value in own.as_dict().items() if value != base.as_dict()[key]}
        assert changed == set(variant.changes)
        assert name == BASE or changed or variant.patch_shape_zyx or variant.bundles_of
        assert VARIANTS.keys() >= set(variant.bundles_of)


def test_each_step_of_augmentation_adds_to_the_one_before() -> None:
    none, light, full = (
        settings(name).as_dict()["augment"]
        for name in (BASE, "best-light-augmentation", "best-all-augmentation")
    )
    shares = {name for name in none if name.endswith("_share") and name != "implant_share"}
    assert {name for name in shares if none[name]} == set()
    assert {name for name in shares if light[name]} < {name for name in shares if full[name]}
    assert max(full["rotate_deg_zyx"]) > max(light["rotate_deg_zyx"])
    assert full["scale"][0] < light["scale"][0]
    assert full["scale"][1] > light["scale"][1]
    assert max(full["mirror_zyx"]) > max(light["mirror_zyx"]) == max(none["mirror_zyx"]) == 0
    assert full["implant_share"] == light["implant_share"] == none["implant_share"] > 0


@pytest.mark.parametrize("name", ["best-mirrored", "best-ensemble"])
def test_a_variant_of_the_prediction_uses_the_bundles_of_others(name: str, tmp_path: Path) -> None:
    task = Task(tmp_path, tmp_path, tmp_path / "steps" / name / "work", Budget.read("ablation"), 1, "cpu")
    others = VARIANTS[name].bundles_of
    assert others
    assert VARIANTS[name].system().bundles(task) == [
        tmp_path / "steps" / other / "work" / "run" / "bundle-last" for other in others
    ]


def test_the_best_preset_is_mirrored_as_it_was_trained() -> None:
    budget = Budget.read("ablation")
    axes = {
        name: VARIANTS[name].system().trained_mirrored(budget) for name in (BASE, "best-all-augmentation")
    }
    assert axes == {BASE: "", "best-all-augmentation": "zyx"}


def test_each_variant_is_set_beside_the_base_with_either_seed() -> None:
    names = ("best-no-ema", BASE, "best-seed-1", "best-all-augmentation", "best-mirrored", "best-ensemble")
    pairs = pairs_of([Scored(name, "steps", {}, {}) for name in names], "ablation", "validation", "best")
    assert [(one.system, [each.system for each in its]) for one, its in pairs] == [
        ("best-no-ema", [BASE, "best-seed-1"]),
        ("best-seed-1", [BASE]),
        ("best-all-augmentation", [BASE, "best-seed-1"]),
        ("best-mirrored", [BASE, "best-seed-1"]),
        ("best-mirrored", ["best-all-augmentation"]),  # whose weights it mirrors
        ("best-ensemble", [BASE, "best-seed-1"]),
        ("best-ensemble", [BASE, "best-seed-1"]),  # of its own machine
    ]


def test_the_paper_s_losses_are_compared_with_each_other() -> None:
    scored = [
        Scored(name, equal, {}, {}) for equal in get_args(Equal) for name in ("paper", "paper-topk", "best")
    ]
    pairs = pairs_of(scored, "cpu", "validation", "best")
    assert [(one.title, [each.title for each in its]) for one, its in pairs] == [
        ("paper-topk, equal steps", ["paper, equal steps"]),
        ("paper-topk, equal time", ["paper, equal time"]),
    ]


def test_what_was_tuned_on_validation_cases_is_set_beside_others_on_test_cases_alone() -> None:
    scored = [Scored(name, "steps", {}, {}) for name in ("nnunet", "best", "best-large-batch", "best-tuned")]
    told = {subset: pairs_of(scored, "cpu", subset, "best") for subset in get_args(Subset)}
    assert [one.system for one, _ in told["validation"]] == ["best", "best-large-batch"]
    assert [one.system for one, _ in told["test"]] == ["best", "best-large-batch", "best-tuned"]


def test_weights_that_are_not_trained_yet_are_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path, "cpu", "steps", "best-tuned", "cpu")
    with pytest.raises(
        InputError, match=r"uses the weights of best, which .* does not hold yet: run --systems best"
    ):
        refuse_other_settings(run)
    best = Run(tmp_path, "cpu", "steps", "best", "cpu")
    best.note(train={}, settings="of last year")
    with pytest.raises(InputError, match="are of other settings: move that folder away, and run it anew"):
        refuse_other_settings(run)
    best.note(settings=settings_of("best", Budget.read("cpu"), 2000))
    refuse_other_settings(run)
    # At equal time it has as many steps as the weights that it uses, whatever its own pace.
    replace(best, equal="time").note(steps_for_time=4321)
    assert replace(run, equal="time").steps(Budget.read("cpu")) == 4321


def test_a_run_of_other_settings_is_not_taken_for_that_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, "cpu", "steps", "best-large-batch", "cpu")
    refuse_other_settings(run)
    refuse_other_settings(run)
    run.note(system="best-large-batch")
    refuse_other_settings(run)
    refused = "was begun with other settings of best-large-batch: move that folder away"
    unknown = Run(tmp_path, "cpu", "time", "best-large-batch", "cpu")
    unknown.note(system="best-large-batch", steps_for_time=3)  # with what, its record does not say
    with pytest.raises(InputError, match=refused):
        refuse_other_settings(unknown)
    monkeypatch.setitem(OURS, "best-large-batch", Preset("best", changes={"dropout": 0.3}))  # type: ignore[misc]
    with pytest.raises(InputError, match=refused):
        refuse_other_settings(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "cpu", "--systems", "best-no-ema"], "best-no-ema is part of the ablation"),
        (["--budget", "ablation", "--subsets", "test"], "an ablation is for choosing: leave out test"),
    ],
)
def test_no_test_case_is_predicted_to_choose_by(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "root"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_what_is_said_of_the_large_patch_is_its_size() -> None:
    shape, spacing = VARIANTS["best-large-patch"].patch_shape_zyx, Budget.read("ablation").spacing_zyx_mm
    assert shape is not None
    sides: list[Any] = [round(size * step) for size, step in zip(shape[1:], spacing[1:], strict=True)]
    assert f"{sides[0]} x {sides[1]} mm" in VARIANTS["best-large-patch"].what


def test_the_shipped_weights_go_on_with_the_network_that_they_began_with() -> None:
    first, then = (
        read_preset(str(REPOSITORY / "tools" / f"{name}.toml")) for name in ("phantom-first", "phantom")
    )
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "--preset tools/phantom-first.toml --out build/phantom/first" in makefile
    assert "--preset tools/phantom.toml --weights build/phantom/first/bundle" in makefile
    began = TrainSettings.read(first.train, "phantom-first")
    goes_on = TrainSettings.read(then.train, "phantom")
    for name in ("base_filters", "depth", "context_blocks", "activation", "tie_context_convs", "augment"):
        assert getattr(goes_on, name) == getattr(began, name), name
    assert then.prepare.spacing_zyx_mm == first.prepare.spacing_zyx_mm
    assert then.prepare.patch_shape_zyx == first.prepare.patch_shape_zyx


@pytest.mark.parametrize(("budget", "preset"), [("cpu", "best-cpu"), ("gpu", "best-gpu")])
def test_best_is_the_preset_of_the_budget(budget: str, preset: str) -> None:
    told, shipped = Budget.read(budget), read_preset(preset)
    best = Preset("best", mirror=None)
    settings = TrainSettings.read(merged(best.table(told), best.settings(told, told.steps)), preset)
    own = TrainSettings.read(shipped.train, preset)
    changed = {name for name, value in settings.as_dict().items() if value != own.as_dict()[name]}
    assert changed <= {"val_patches", "epochs"}  # as many as the budget has steps
    assert best.shape(told) == list(shipped.prepare.patch_shape_zyx)
    assert told.spacing_zyx_mm == shipped.prepare.spacing_zyx_mm
