"""The scorer of the accuracy benchmark, against masks and maps that the eye can count."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.images import write_labels, write_shares
from algorithm.probabilities import map_path
from benchmarks.accuracy import pictures
from benchmarks.accuracy.calibration import Calibration
from benchmarks.accuracy.froc import (
    SMALLEST_ML,
    THRESHOLDS,
    Curve,
    Response,
    difference,
    response_of,
    without_specks,
)
from benchmarks.accuracy.frozen import FrozenSet, Places
from benchmarks.accuracy.patches import main as patches_main
from benchmarks.accuracy.patches import told as told_dice
from benchmarks.accuracy.run import settings_of, system_of
from benchmarks.accuracy.score import (
    RESULTS,
    Case,
    Scored,
    adjust,
    at_points,
    beside,
    machines,
    main,
    minutes,
    pairs_of,
    reference_of,
    score,
    told_specks,
)
from benchmarks.accuracy.task import LABELS, Budget
from trainer.overlay import OverlayRow

GRID = Geometry((12, 40, 40), (2.5, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
VOXEL_ML = 0.0025
TUMOUR = (slice(3, 7), slice(10, 20), slice(10, 20))  # 400 voxels, 1 ml: the smallest quartile
ELSEWHERE = (slice(2, 9), slice(27, 38), slice(27, 38))  # 2.1 ml: no smallest call lets the tumour pass alone


def mask(*places: tuple[slice, ...]) -> np.ndarray:
    found = np.zeros(GRID.shape_zyx, bool)
    for place in places:
        found[place] = True
    return found


def probability(**places: float) -> np.ndarray:
    found = np.zeros(GRID.shape_zyx, np.float32)
    for name, value in places.items():
        found[{"tumour": TUMOUR, "elsewhere": ELSEWHERE}[name]] = value
    return found


def response(*, tumour: float, elsewhere: float) -> Response:
    maps = probability(tumour=tumour, elsewhere=elsewhere)
    return response_of("case", mask(TUMOUR), maps, voxel_ml=VOXEL_ML)


def test_a_lesion_is_found_up_to_its_probability_and_a_false_one_called_up_to_its_own() -> None:
    found = response(tumour=0.3, elsewhere=0.6)
    thresholds = np.array(THRESHOLDS)
    points = len(SMALLEST_ML), len(THRESHOLDS)
    for smallest_ml, hits, calls in zip(
        SMALLEST_ML, found.found.reshape(points), found.false_positives.reshape(points), strict=True
    ):
        np.testing.assert_array_equal(hits, (thresholds <= np.float32(0.3)) & (smallest_ml <= 1.0))
        np.testing.assert_array_equal(calls, (thresholds <= np.float32(0.6)) & (smallest_ml <= 2.0))
    assert found.volumes_ml == pytest.approx((1.0,))


def test_specks_are_no_calls() -> None:
    speck = mask((slice(0, 1), slice(0, 3), slice(0, 3)), ELSEWHERE)
    np.testing.assert_array_equal(without_specks(speck, 10), mask(ELSEWHERE))
    np.testing.assert_array_equal(without_specks(speck, 9), speck)
    assert not without_specks(np.zeros((2, 3, 4), bool), 1).any()


def test_a_speck_of_the_reference_is_no_tumour() -> None:
    speck = (slice(0, 1), slice(0, 3), slice(0, 3))  # 0.02 ml that nothing finds
    with_it = response_of("case", mask(TUMOUR, speck), probability(tumour=0.9), voxel_ml=VOXEL_ML)
    assert sorted(with_it.volumes_ml) == pytest.approx([0.0225, 1.0])
    curve = Curve.of([with_it])
    assert curve.lesions.tolist() == [1]
    assert curve.missed_at(0.0).tolist() == [0.0]
    case = Case({"pancreas": 0.8, "cancer": 0.9}, (0.0225, 1.0), (False, True), 0, with_it)
    whole = Scored("nnunet", "steps", {}, {"case": case})
    assert whole.lesions() == (1, 0, 0.0)
    assert whole.missed_by_quartile() == [(1, 0), (0, 0), (0, 0), (0, 0)]
    assert whole.specks() == (1, 1)
    assert "1 of them no system finds at any operating point" in told_specks([whole])
    lucky = replace(whole, cases={"case": replace(case, found=(True, True))})
    assert lucky.specks() == (1, 0)
    assert "0 of them no system finds" in told_specks([whole, lucky])
    assert not told_specks([replace(whole, cases={"case": replace(case, volumes_ml=(1.0, 1.0))})])


@pytest.mark.parametrize("name", ["cpu-test", "cpu-validation", "ablation-validation"])
def test_what_is_kept_has_one_tumour_a_case_and_is_counted_as_today(name: str) -> None:
    file = RESULTS.parents[1] / "benchmarks" / "accuracy" / f"{name}.json"
    systems = json.loads(file.read_text())["systems"]
    assert systems
    for told in systems:
        one = Scored.from_json(told)
        assert [len(case.tumours) for case in one.cases.values()] == [1] * 32
        counted = json.loads(json.dumps(one.to_json()))  # as today
        for count in ("tumours", "missed", "specks", "missed_by_quartile", "missed_at", "cases"):
            assert counted[count] == told[count]
        for label, (mean, interval) in told["dice"].items():
            assert [counted["dice"][label][0], *counted["dice"][label][1]] == pytest.approx([mean, *interval])


def test_misses_are_counted_where_the_false_positives_are_few_enough() -> None:
    # The second case's tumour is found below 0.2 alone, where both cases have a false positive.
    curve = Curve.of([response(tumour=0.9, elsewhere=0.5), response(tumour=0.2, elsewhere=0.4)])
    assert curve.missed_at(0.0).tolist() == [1.0]
    assert curve.missed_at(0.9).tolist() == [1.0]
    assert curve.missed_at(1.0).tolist() == [0.0]


def test_all_are_missed_where_no_threshold_is_strict_enough() -> None:
    curve = Curve.of([response(tumour=1.0, elsewhere=1.0)])
    assert curve.missed_at(0.5).tolist() == [1.0]


def test_probabilities_that_come_true_as_often_as_they_say_are_calibrated() -> None:
    probability = np.array([0.8] * 10 + [0.2] * 10 + [0.005] * 5)
    fair = np.array([True] * 8 + [False] * 2 + [True] * 2 + [False] * 8 + [True] * 5)
    assert Calibration.of(fair, probability).error == pytest.approx(0.0)
    assert Calibration.of(fair, probability).voxels.sum() == 20  # what is nearly certain air is left out
    never = Calibration.of(np.zeros(25, bool), probability)
    assert never.error == pytest.approx(0.5)
    both = Calibration.total([never, Calibration.of(fair, probability)])
    assert both.error == pytest.approx(0.25)
    assert Calibration.from_json(both.to_json()).error == pytest.approx(0.25)
    assert Calibration.of(np.ones(1, bool), np.ones(1)).lesions[-1] == 1  # certainty has a place


def test_a_resample_weighs_cases() -> None:
    curve = Curve.of([response(tumour=0.9, elsewhere=0.0), response(tumour=0.0, elsewhere=0.0)])
    weights = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert curve.missed_at(0.0, weights).tolist() == [0.0, 2.0, 1.0]


def test_a_difference_of_many_cases_has_an_interval_away_from_0_and_one_of_equals_has_none() -> None:
    good = Curve.of([response(tumour=0.9, elsewhere=0.0)] * 20)
    bad = Curve.of([response(tumour=0.9 * (number % 2), elsewhere=0.0) for number in range(20)])
    mean, (low, high) = difference(good, [bad], 0.5)
    assert mean == -10.0
    assert -16 <= low < -10 < high <= -4  # ten of twenty differ: a standard deviation of about 2.2
    assert difference(bad, [bad], 0.5) == (0.0, (0.0, 0.0))
    assert difference(good, [good, bad], 0.5)[0] == -5.0  # beside the mean of two


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four validation cases and two systems: "nnunet" misses two tumours, "best" one, and calls one more."""
    places = {"nnunet": ["hit", "hit", "miss", "miss"], "best": ["hit", "hit", "hit", "false"]}
    for number in range(4):
        labels = mask((slice(2, 9), slice(5, 25), slice(5, 25))).astype(np.uint8)
        labels[TUMOUR] = 2
        name = f"pancreas_{number:03d}.nii.gz"
        write_labels(tmp_path / "validation" / "labels" / name, labels, GRID)
        for system, answers in places.items():
            predicted, maps = labels.copy(), np.zeros(GRID.shape_zyx, np.uint8)
            if answers[number] == "hit":
                maps[TUMOUR] = 250
            else:
                predicted[TUMOUR] = 1
                maps[TUMOUR] = 20
            if answers[number] == "false":
                predicted[ELSEWHERE] = 2
                maps[ELSEWHERE] = 200
            out = tmp_path / "runs" / "cpu" / "steps" / system / "predictions" / "validation" / name
            write_labels(out, predicted, GRID)
            write_shares(map_path(out, LABELS[2]), maps, GRID)
    for system in places:
        record = {
            "machine": "a machine",
            "threads": 2,
            "versions": {"torch": "2"},
            "train": {"steps": 100, "batch_size": 2, "seconds": 60.0, "memory_mib": 1024.0},
            "validation": {"seconds": 1.0},
            "set": {"validation": FrozenSet.read().subset_digest("validation")},
            "shared": Budget.read("cpu").shared,
            "settings": system_of(system).digest(Budget.read("cpu"), Budget.read("cpu").steps),
        }
        (tmp_path / "runs" / "cpu" / "steps" / system / "record.json").write_text(json.dumps(record))
    return tmp_path


def scored(root: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    text = score(
        root, "cpu", FrozenSet.read(), "validation", ours="best", final=False, out=root / "out", **options
    )
    return text, json.loads((root / "out" / "cpu-validation.json").read_text())


def test_the_table_says_what_was_missed_and_what_a_difference_is_worth(root: Path) -> None:
    text, content = scored(root)
    nnunet, best = content["systems"]
    assert (nnunet["system"], nnunet["tumours"], nnunet["missed"]) == ("nnunet", 4, 2)
    assert (best["system"], best["tumours"], best["missed"]) == ("best", 4, 1)
    assert (nnunet["false_positives_per_scan"], best["false_positives_per_scan"]) == (0.0, 0.25)
    assert nnunet["missed_by_quartile"] == [[4, 2], [0, 0], [0, 0], [0, 0]]
    assert nnunet["dice"]["cancer"][0] == pytest.approx(0.5)
    assert nnunet["dice"]["pancreas"][0] < 1.0
    # At 20/255 every tumour is found; the false one is then called too, in one scan of four.
    assert nnunet["missed_at"] == {"0.125": 0, "0.25": 0, "0.5": 0, "1.0": 0}
    assert best["missed_at"] == {"0.125": 1, "0.25": 0, "0.5": 0, "1.0": 0}
    (found,) = content["differences"]
    assert found["cancer"]["mean"] == pytest.approx(0.25)
    assert found["missed_at"]["0.125"]["mean"] == 1.0
    assert "| nnunet | steps | 100 | 2 | 1 min |" in text
    assert "| best-cpu | steps | 100 | 2 | 1 min |" in text
    assert "best-cpu, equal steps, less nnunet, equal steps" in text
    # 20 / 255 in two tumours of four, 250 / 255 in the others: each is lesion everywhere.
    assert nnunet["calibration"]["error"] == pytest.approx((235 + 5) / 255 / 2, abs=1e-3)
    assert f"| {nnunet['calibration']['error']:.3f} | 1.0 GiB |" in text


def test_scores_stay_when_the_predictions_are_gone(root: Path) -> None:
    first = scored(root)
    shutil.rmtree(root / "runs" / "cpu" / "steps" / "nnunet")
    assert scored(root) == first


@pytest.mark.parametrize(
    "changes", [{"shared": {"steps": 4000}}, {"set": {"validation": "another"}}, {"set": None}], ids=str
)
def test_scores_of_another_budget_or_of_other_cases_do_not_stay(
    root: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scored(root)
    shutil.rmtree(root / "runs" / "cpu" / "steps" / "nnunet")
    kept = root / "out" / "cpu-validation.json"
    content = json.loads(kept.read_text())
    content["systems"][0]["record"].update(changes)
    kept.write_text(json.dumps(content))
    _, left = scored(root)
    assert [one["system"] for one in left["systems"]] == ["best"]
    assert "nnunet is of another budget or other cases, and is left out" in capsys.readouterr().err


def test_scores_of_other_settings_do_not_stay(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored(root)
    kept = root / "out" / "cpu-validation.json"
    content = json.loads(kept.read_text())
    content["systems"][0]["record"]["settings"] = "those of last year"
    gone = json.loads(json.dumps(content["systems"][1]))
    gone["system"] = "a-preset-that-is-no-more"
    content["systems"].append(gone)
    kept.write_text(json.dumps(content))
    shutil.rmtree(root / "runs" / "cpu" / "steps" / "nnunet")
    _, left = scored(root)
    assert [one["system"] for one in left["systems"]] == ["best"]
    said = capsys.readouterr().err
    assert "nnunet is of other settings, and is left out" in said
    assert "a-preset-that-is-no-more is of other settings, and is left out" in said


def test_a_run_of_other_settings_is_not_scored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "runs" / "cpu" / "steps" / "nnunet" / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "settings": None}))
    _, left = scored(root)
    assert [one["system"] for one in left["systems"]] == ["best"]
    assert "nnunet is of other settings of nnunet, and is left out: move it away" in capsys.readouterr().err


def system(name: str, tumours: list[float], *, calls: float = 0.0) -> Scored:
    """Four cases in which the tumour has these probabilities, and elsewhere is called with another."""
    cases = {
        str(number): Case(
            {"pancreas": 0.8 + value / 10, "cancer": value},
            (1.0,),
            (value >= 0.5,),
            0,
            response(tumour=value, elsewhere=calls),
        )
        for number, value in enumerate(tumours)
    }
    return Scored(name, "steps", {"train": {"seconds": 60.0}}, cases)


def test_validation_chooses_the_operating_point_and_test_cases_are_counted_at_it() -> None:
    validation = system("nnunet", [0.9, 0.9, 0.9, 0.4], calls=0.3)
    test = system("nnunet", [0.9, 0.35, 0.2, 0.1], calls=0.5)
    # Just above 0.3 all four are found without a false one; in the test cases that misses two and calls four.
    assert at_points([test], [validation]) == {test.title: [(2, 1.0)] * 4}
    assert Curve.of(test.responses).missed_at(0.125).tolist() == [3.0]
    assert at_points([test], []) == {}
    # Points of the same system's other training say nothing of this one's probabilities.
    assert at_points([test], [replace(validation, record={"train": {"seconds": 61.0}})]) == {}


def test_the_table_names_each_machine_and_what_it_trained() -> None:
    told = {"machine": "one", "threads": 1}
    first, second = (replace(system(name, [0.9]), record=told) for name in ("nnunet", "best"))
    assert machines([first, second], Budget.read("cpu")) == "one, 1 threads"
    second = replace(second, record={**told, "machine": "another"})
    assert machines([first, second], Budget.read("cpu")) == (
        "one, 1 threads (nnunet, equal steps); another, 1 threads (best-cpu, equal steps)"
    )


def test_nothing_is_called_where_validation_has_no_point_with_so_few_false_positives() -> None:
    curve = Curve(np.array([1]), np.array([[0, 0]]), np.array([[1, 2]]))
    assert (curve.point_at(1.0), curve.point_at(0.5)) == (0, None)
    assert (curve.at(0), curve.at(None)) == ((0, 1.0), (1, 0.0))


def test_an_ingredient_is_set_beside_the_mean_of_all_trainings_of_the_base() -> None:
    scored = [
        replace(system(name, tumours), record={"machine": machine, "train": {}})
        for machine, name, tumours in (
            ("one", "best-all", [0.5, 0.6, 0.7, 0.8]),
            ("one", "best-no-ema", [0.6, 0.7, 0.8, 0.9]),
            ("one", "best-seed-1", [0.7, 0.8, 0.9, 1.0]),
            ("another", "best-all", [0.3, 0.4, 0.5, 0.6]),
        )
    ]
    told = [
        beside(ours, theirs, "ablation")
        for ours, theirs in pairs_of(scored, "ablation", "validation", "best")
    ]
    assert [(one["ours"], one["theirs"], one["trainings"]) for one in told] == [
        ("best-no-ema, equal steps", ["best-all, equal steps", "best-seed-1, equal steps"], 3),
        ("best-seed-1, equal steps", ["best-all, equal steps"], 1),
    ]
    assert told[0]["cancer"]["mean"] == pytest.approx(0.1)
    assert told[1]["cancer"]["mean"] == pytest.approx(0.2)  # of the same machine
    assert adjust(told, "ablation") == 0
    assert all(one[label]["p_of_all"] >= one[label]["p"] for one in told for label in ("pancreas", "cancer"))


def test_an_ablation_keeps_what_was_trained_on_another_machine(tmp_path: Path) -> None:
    budget = Budget.read("ablation")
    record = {
        "settings": settings_of("best-all", budget, budget.steps),
        "shared": budget.shared,
        "set": {"validation": FrozenSet.read().subset_digest("validation")},
        "threads": 1,
        "versions": {},
        "train": {"steps": 1, "batch_size": 2, "seconds": 1.0, "memory_mib": 1.0},
    }
    one = system("best-all", [0.9, 0.8])
    rows = [replace(one, record={**record, "machine": name}).to_json() for name in ("one, 1 cores", "two")]
    (tmp_path / "ablation-validation.json").write_text(json.dumps({"systems": rows}))
    Places(tmp_path).labels("validation").mkdir(parents=True)
    text = score(tmp_path, "ablation", FrozenSet.read(), "validation", ours="best", final=False, out=tmp_path)
    assert "as it is (one) | steps" in text
    assert "as it is (two) | steps" in text


def test_the_claims_alone_pay_for_their_number() -> None:
    ours, other, peer = (
        system(name, [0.9 - worse, 0.8 - worse, 0.7, 0.6 - worse])
        for name, worse in (("best-large-batch", 0.0), ("best", 0.1), ("nnunet", 0.2))
    )
    told = [beside(ours, [peer], "cpu"), beside(other, [peer], "cpu")]
    # Two columns, two peers, two labels: eight tests, of which two are there.
    assert adjust(told, "cpu") == 6
    assert [one["claimed"] for one in told] == [True, False]
    smaller, larger = sorted(told[0][label]["p"] for label in ("pancreas", "cancer"))
    adjusted = sorted(told[0][label]["p_of_all"] for label in ("pancreas", "cancer"))
    assert adjusted == pytest.approx([min(1.0, 8 * smaller), min(1.0, 7 * larger)])
    assert not any("p_of_all" in told[1][label] for label in ("pancreas", "cancer"))


def test_dice_of_patches_is_pooled_over_all_of_their_voxels() -> None:
    by_case = np.zeros((2, 3, 3), np.int64)
    by_case[0, 1, 1], by_case[0, 1, 0] = 8, 4  # 8 of 12 voxels of the organ: 0.8
    by_case[1, 1, 1], by_case[1, 2, 2] = 0, 5
    assert told_dice(by_case).startswith("pancreas 0.800 (")
    assert "cancer 1.000 (0.000 to 1.000)" in told_dice(
        by_case
    )  # resamples without the second case have none


def test_pooled_dice_asks_for_weights_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.accuracy.patches.decathlon", lambda *_: None)
    assert patches_main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("accuracy: ")


def test_time_is_that_of_the_process_where_it_says_more() -> None:
    train = {"seconds": 600.0, "wall_seconds": 720.0, "prepare_seconds": 60.0}
    assert minutes(train) == 11.0
    assert minutes({**train, "wall_seconds": 70.0}) == 10.0  # begun again near its end


def test_labels_of_test_cases_are_on_disk_while_they_are_used_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_labels(_: FrozenSet, folder: Path) -> Path:
        (folder / "pancreas_000.nii.gz").touch()
        return folder

    monkeypatch.setattr("benchmarks.accuracy.score.labels_of_tests", make_labels)
    with reference_of(tmp_path, FrozenSet.read(), "test") as folder:
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_an_ensemble_is_of_other_settings_where_a_member_is() -> None:
    ablation = Budget.read("ablation")
    names = ("best-all", "best-ensemble", "best-mirrored")
    assert len({settings_of(name, ablation, ablation.steps) for name in names}) == 3
    assert settings_of("best-all", ablation, 9) == system_of("best-all").digest(ablation, 9)


def test_pictures_show_what_was_found_and_what_was_missed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (root / "validation" / "labels").glob("*.nii.gz"):
        scan = mask(TUMOUR).astype(np.uint8) * 60  # 60 HU above all else
        write_labels(root / "validation" / "images" / path.name, scan, GRID)
    drawn: dict[str, list[str]] = {}
    save = pictures.save_overlay_grid

    def watched(path: Path, rows: list[OverlayRow], **options: Any) -> None:
        drawn[path.stem] = [row.title for row in rows]
        save(path, rows, **options)

    monkeypatch.setattr(pictures, "save_overlay_grid", watched)
    assert pictures.main([str(root), "--system", "nnunet", "--out", str(root / "docs")]) == 0
    assert sorted(path.name for path in (root / "docs").iterdir()) == [
        "accuracy-hits.png",
        "accuracy-misses.png",
    ]
    hits, misses = drawn["accuracy-hits"], drawn["accuracy-misses"]
    # Two are missed, which is less than ten: the worse half of the hits is shown with them.
    assert [title[:12] for title in misses] == ["pancreas_002", "pancreas_003", "pancreas_000"]
    assert [title[:12] for title in hits] == ["pancreas_001"]
    assert "probability up to 0.08, missed" in misses[0]
    for title in (hits[0], misses[2]):
        assert ": 1.0 ml, +60 HU against the pancreas, probability up to 0.98, Dice 1.00, slice" in title


def test_test_cases_are_refused_without_final(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="are scored with --final alone"):
        score(root, "cpu", FrozenSet.read(), "test", ours="best", final=False)
    monkeypatch.chdir(root)
    assert main([str(root), "--budget", "gpu", "--out", "out"]) == 1
    assert "holds no predictions of validation cases" in capsys.readouterr().err
