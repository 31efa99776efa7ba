from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from algorithm.errors import InputError
from tests.conftest import REPOSITORY
from tests.decathlon import labels, make_task, write
from trainer import evaluate as module
from trainer.cli import main
from trainer.evaluate import Pair, evaluate, pair_cases, score_case
from trainer.structures import structures

LABELS = ("background", "pancreas", "cancer")
VOXEL_ML = 0.8 * 0.9 * 2.5 / 1000

# pancreas 4 x 4 x 4 = 64 voxels, 8 of them (2 x 2 x 2) cancer; the prediction is one slice off and calls 4 of 8 cancer
REFERENCE = labels((1, (2, 2, 2), (6, 6, 6)), (2, (2, 2, 2), (4, 4, 4)))
PREDICTION = labels((1, (3, 2, 2), (7, 6, 6)), (2, (3, 2, 2), (5, 4, 4)))
# counted on paper, by slices z = 2 to 6 of 16 voxels each:
#   z=2: reference 12 pancreas + 4 cancer, predicted background
#   z=3: reference 12 + 4, predicted 12 + 4, all equal
#   z=4: reference 16 pancreas, predicted 12 + 4 cancer
#   z=5: reference 16, predicted 16; z=6: background, predicted 16
CONFUSION = [[960 - 64 - 16, 16, 0], [12, 40, 4], [4, 0, 4]]
HEALTHY = labels((1, (2, 2, 2), (4, 4, 4)))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return make_task(tmp_path, {"pancreas_001": REFERENCE, "pancreas_004": HEALTHY})


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    write(folder / "pancreas_001.nii.gz", PREDICTION)
    write(folder / "pancreas_004.mha", labels((1, (2, 2, 2), (4, 4, 4)), (2, (6, 6, 6), (7, 7, 9))))
    return folder


def run(task: Path, predictions: Path, out: Path, *options: str) -> int:
    # in this process: starting others takes seconds, and has tests of its own
    arguments = [
        "--reference",
        task / "labelsTr",
        "--prediction",
        predictions,
        "--out",
        out,
        "--threads",
        "1",
    ]
    return main(["evaluate", *map(str, arguments), *options])


def test_one_case_against_answers_computed_on_paper(tmp_path: Path) -> None:
    pair = Pair(
        "a", write(tmp_path / "r" / "a.nii.gz", REFERENCE), write(tmp_path / "p" / "a.nii.gz", PREDICTION)
    )
    scores = score_case(pair, LABELS, nsd_tolerance_mm=2.5)
    assert scores.confusion.tolist() == CONFUSION
    pancreas, cancer = scores.records["pancreas"], scores.records["cancer"]
    assert pancreas["dice"] == pytest.approx(2 * 40 / (56 + 56))
    assert cancer["dice"] == pytest.approx(2 * 4 / (8 + 8))
    assert cancer["precision"] == cancer["sensitivity"] == pytest.approx(0.5)
    assert scores.records["pancreas+cancer"]["dice"] == pytest.approx(2 * 48 / (64 + 64))
    assert pancreas["reference_ml"] == pytest.approx(56 * VOXEL_ML)
    assert cancer["prediction_ml"] == pytest.approx(8 * VOXEL_ML)
    assert cancer["volume_error_ml"] == cancer["absolute_volume_error_ml"] == 0.0
    union = scores.records["pancreas+cancer"]
    assert union["volume_error_ml"] == 0.0
    assert union["hd95_mm"] == pytest.approx(2.5)
    # 4 voxels of 8 are in both: 4 of 12, so that the one lesion is found
    assert scores.lesions["cancer"].found == (True,)
    assert scores.lesions["cancer"].reference_ml == pytest.approx((8 * VOXEL_ML,))
    assert scores.spacing_zyx_mm == pytest.approx((2.5, 0.9, 0.8))
    # one slice is 2.5 mm thick: the shift is just within the tolerance, along z and no other axis
    assert cancer["nsd"] == 1.0
    tighter = score_case(pair, LABELS, nsd_tolerance_mm=2.4).records["cancer"]["nsd"]
    assert tighter is not None
    assert tighter < 1.0


def test_the_command_writes_the_contract(
    task: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    assert run(task, predictions, out) == 0
    document = json.loads((out / "scores.json").read_text())
    assert [case["case"] for case in document["cases"]] == ["pancreas_001", "pancreas_004"]
    first, second = document["cases"]
    assert set(document["mean"]) == set(document["pooled"]) == {"pancreas", "cancer", "pancreas+cancer"}
    # the reference of the second case has no cancer: null there, out of the mean, and in the pooled numbers
    assert second["cancer"]["dice"] is None
    assert second["cancer"]["nsd"] is None
    assert second["cancer"]["prediction_ml"] == pytest.approx(3 * VOXEL_ML)
    assert document["mean"]["cancer"]["dice"] == first["cancer"]["dice"] == pytest.approx(0.5)
    assert document["mean"]["cancer"]["cases"] == 1
    assert document["mean"]["pancreas"]["cases"] == 2
    assert document["mean"]["pancreas"]["dice"] == pytest.approx((80 / 112 + 1.0) / 2)
    assert document["pooled"]["pancreas"]["dice"] == pytest.approx(2 * (40 + 8) / (64 + 64))
    assert document["pooled"]["cancer"]["dice"] == pytest.approx(2 * 4 / (8 + 8 + 3))
    assert np.sum(document["confusion"]) == 2 * 960
    # 3 voxels are called cancer where there is none: a false positive, and no volume error, which is missing there
    assert second["cancer"]["volume_error_ml"] is second["cancer"]["hd95_mm"] is None
    assert document["lesions"]["cancer"]["lesions"] == document["lesions"]["cancer"]["found"] == 1
    assert document["lesions"]["cancer"]["false_positives"] == 1
    assert document["lesions"]["cancer"]["false_positives_per_case"] == 0.5
    # in the paper's average the case without cancer counts 0
    assert document["batch_averaged"]["cancer"] == {"dice": pytest.approx(0.25), "absent": 1}
    assert document["batch_averaged"]["pancreas"]["absent"] == 0
    # by volume the patient with cancer (8 voxels) ranks above the one without (3)
    assert document["detection"]["cancer"]["score"] == "prediction_ml"
    assert (
        document["detection"]["cancer"]["roc_auc"]
        == document["detection"]["cancer"]["average_precision"]
        == 1.0
    )
    assert document["detection"]["cancer"]["specificity"] == 0.0
    assert document["intervals"]["pancreas"]["dice"] is None  # of two cases
    assert [scan["spacing_zyx_mm"] for scan in document["scans"]] == [
        [2.5, pytest.approx(0.9), pytest.approx(0.8)]
    ] * 2
    assert [group["cases"] for group in document["strata"]["cancer size"]] == [1, 0, 0]
    assert [group["cases"] for group in document["strata"]["slice thickness"]] == [0, 2, 0]
    assert document["strata"]["slice thickness"][1]["cancer"]["dice"] == 0.5
    lines = (out / "scores.csv").read_text().splitlines()
    assert lines[0] == (
        "case,label,dice,nsd,precision,sensitivity,reference_ml,prediction_ml,"
        "hd95_mm,volume_error_ml,absolute_volume_error_ml"
    )
    assert len(lines) == 1 + 2 * 3
    assert lines[5].startswith("pancreas_004,cancer,,,0.0,,0.0,")
    for name in ("confusion.png", "overlay.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:6] == ["label", "cases", "Dice", "pooled", "NSD", "5"]
    assert table[2].split()[:6] == ["cancer", "1", "of", "2", "0.500", "0.421"]
    remarks = "\n".join(table[4:])
    assert (
        "cancer: 1 of 2 references lack it and count 0 in the paper's average over batches, 0.250" in remarks
    )
    assert "cancer, lesion by lesion: 1 of 1 found, 1 false positives; by patient: ROC AUC 1.000" in remarks


def test_a_missed_structure_is_zero_and_pulls_the_mean_down(task: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "none"
    for case in ("pancreas_001", "pancreas_004"):
        write(predictions / f"{case}.nii.gz", labels())
    assert run(task, predictions, tmp_path / "scores") == 0
    document = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert document["mean"]["cancer"]["dice"] == 0.0
    assert document["mean"]["cancer"]["nsd"] == 0.0
    assert document["mean"]["cancer"]["precision"] is None
    assert document["pooled"]["cancer"]["precision"] is None


def test_patients_are_ranked_by_probability_where_every_case_has_a_map(
    task: Path,
    predictions: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    maps = predictions / "probabilities"
    for name, highest in (("pancreas_001_cancer.nii.gz", 0.6), ("pancreas_004_cancer.mha", 0.9)):
        probabilities = np.zeros((8, 10, 12), np.float32)
        probabilities[3, 4, 5] = highest
        write(maps / name, probabilities)
    assert run(task, predictions, tmp_path / "scores") == 0
    document = json.loads((tmp_path / "scores" / "scores.json").read_text())
    detection = document["detection"]["cancer"]
    # the patient without cancer has the higher probability, though less of it is labelled
    assert (detection["score"], detection["roc_auc"], detection["average_precision"]) == (
        "probability",
        0.0,
        0.5,
    )
    peaks = [scan["peak_probability"]["cancer"] for scan in document["scans"]]
    assert peaks == pytest.approx([0.6, 0.9], abs=1e-6)
    write(maps / "pancreas_004_cancer.mha", np.full((8, 10, 12), 1.5, np.float32))
    assert run(task, predictions, tmp_path / "scores") == 1
    assert "must hold probabilities from 0 to 1, but holds 1.5" in capsys.readouterr().err.splitlines()[-1]
    (maps / "pancreas_004_cancer.mha").unlink()
    with caplog.at_level(logging.WARNING):
        assert run(task, predictions, tmp_path / "scores") == 0
    assert "1 of 2 cases have no probability map of cancer (pancreas_004)" in caplog.text
    document = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert document["detection"]["cancer"]["score"] == "prediction_ml"


@pytest.mark.another_python
def test_a_process_that_was_killed_leaves_no_child_and_its_cases_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        for side in "rp":
            # a speckled block takes long enough that the kill comes in between
            array = np.zeros((30, 70, 70), np.uint8)
            array[2:28, 4:66, 4:66] = rng.random((26, 62, 62)) < 0.5
            write(tmp_path / side / f"case_{number:02d}.nii.gz", array)
    script = (
        "import sys; from pathlib import Path; from trainer.evaluate import *\n"
        "if __name__ == '__main__':\n"
        "    r, p, out = map(Path, sys.argv[1:]); evaluate(pair_cases(r, p), out, labels=('no', 'yes'), threads=2)\n"
    )
    (tmp_path / "score.py").write_text(script)
    arguments = [str(tmp_path / name) for name in ("score.py", "r", "p", "killed")]
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": "."}
    )
    kept = tmp_path / "killed" / "cases"
    until = time.monotonic() + 120
    while not list(kept.glob("case_*.json")):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    while any(alive(int(child)) for child in children):
        assert time.monotonic() < until, "a child outlives its parent"
        time.sleep(0.05)
    stamps = {path: path.stat().st_mtime_ns for path in kept.glob("case_*.json")}
    assert 0 < len(stamps) < 8
    pairs = pair_cases(tmp_path / "r", tmp_path / "p")
    continued = evaluate(pairs, tmp_path / "killed", labels=("no", "yes"), threads=1)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    fresh = [score_case(pair, ("no", "yes"), nsd_tolerance_mm=5.0).to_json() for pair in pairs[-1:]]
    assert [case.to_json() for case in continued.cases[-1:]] == fresh


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_against_another_folder_prints_and_keeps_the_comparison(
    task: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(task, task / "labelsTr", tmp_path / "perfect", "--overlay-cases", "0") == 0
    options = ("--overlay-cases", "0", "--against", str(tmp_path / "perfect"))
    capsys.readouterr()
    assert run(task, predictions, tmp_path / "scores", *options) == 0
    told = capsys.readouterr().out
    assert f"against {tmp_path / 'perfect'}: 2 shared cases (0 only here, 0 only there)" in told
    assert "too few cases to tell" in told
    kept = json.loads((tmp_path / "scores" / "comparison.json").read_text())
    dice = {(one["label"], one["key"]): one for one in kept["overall"]}
    assert dice["cancer", "dice"]["paired"]["mean"] == pytest.approx(-0.5)
    # a run without --against leaves no comparison of other scores behind
    assert run(task, predictions, tmp_path / "scores", "--overlay-cases", "0") == 0
    assert not (tmp_path / "scores" / "comparison.json").exists()
    assert run(task, predictions, tmp_path / "scores", "--against", "nowhere") == 1
    assert "--against must name a scores.json" in capsys.readouterr().err.splitlines()[-1]


def test_missing_predictions_are_refused_or_left_out(
    task: Path, predictions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (predictions / "pancreas_004.mha").unlink()
    write(predictions / "pancreas_999.nii.gz", PREDICTION)
    message = (
        r"lacks 1 of the 2 cases in .*labelsTr: pancreas_004; pass --allow-missing to score only the others$"
    )
    with pytest.raises(InputError, match=message):
        pair_cases(task / "labelsTr", predictions)
    with caplog.at_level(logging.WARNING):
        pairs = pair_cases(task / "labelsTr", predictions, allow_missing=True)
    assert [pair.case for pair in pairs] == ["pancreas_001"]
    assert "not scored, no prediction: 1 cases (pancreas_004)" in caplog.text
    assert "not scored, no reference: 1 predictions (pancreas_999)" in caplog.text


def test_folders_without_a_common_case_are_refused(task: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"labelsTr has a prediction in .*empty$"):
        pair_cases(task / "labelsTr", empty, allow_missing=True)
    with pytest.raises(InputError, match=r"empty holds no label map to compare with$"):
        pair_cases(empty, task / "labelsTr")


def test_many_missing_cases_are_counted_not_recited(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / "r" / f"c{number}.nii.gz", HEALTHY)
    write(tmp_path / "p" / "c0.nii.gz", HEALTHY)
    with pytest.raises(
        InputError, match=r"lacks 7 of the 8 cases in .*: c1, c2, c3, c4, c5 and 2 more; pass"
    ):
        pair_cases(tmp_path / "r", tmp_path / "p")


def test_another_grid_is_refused_with_what_differs(task: Path, tmp_path: Path) -> None:
    shifted = tmp_path / "shifted"
    write(shifted / "pancreas_001.nii.gz", PREDICTION, spacing_xyz_mm=(0.8, 0.9, 5.0))
    pair = Pair("pancreas_001", task / "labelsTr" / "pancreas_001.nii.gz", shifted / "pancreas_001.nii.gz")
    with pytest.raises(
        InputError,
        match=r"^.*shifted/pancreas_001\.nii\.gz must lie on the grid of .*but has spacing \(5, 0\.9, 0\.8\)",
    ):
        score_case(pair, LABELS, nsd_tolerance_mm=5.0)


@pytest.mark.parametrize("side", ["reference", "prediction"])
def test_values_without_a_name_are_refused(tmp_path: Path, side: str) -> None:
    files = {
        name: write(tmp_path / name / "a.nii.gz", labels((4 if name == side else 1, (1, 1, 1), (2, 2, 2))))
        for name in ("reference", "prediction")
    }
    pair = Pair("a", files["reference"], files["prediction"])
    message = (
        rf"{side}/a\.nii\.gz holds the label values 4, but the labels are 0 background, 1 pancreas, 2 cancer$"
    )
    with pytest.raises(InputError, match=message):
        score_case(pair, LABELS, nsd_tolerance_mm=5.0)


def test_a_bad_case_ends_the_command_in_one_sentence_and_writes_no_scores(
    task: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (predictions / "pancreas_004.mha").write_bytes(b"not an image")
    assert run(task, predictions, tmp_path / "scores") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"decathlon evaluate: {predictions / 'pancreas_004.mha'} is not a MetaImage")
    assert not (tmp_path / "scores" / "scores.json").exists()


def test_a_killed_run_continues_with_what_was_kept(
    task: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pair_cases(task / "labelsTr", predictions)
    out = tmp_path / "scores"
    scored: list[str] = []
    original = score_case

    def counting(pair: Pair, *arguments: object, **keywords: float) -> object:
        scored.append(pair.case)
        if pair.case == "pancreas_004" and len(scored) == 2:
            raise KeyboardInterrupt
        return original(pair, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "score_case", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(pairs, out, labels=LABELS, threads=1)
    assert scored == ["pancreas_001", "pancreas_004"]
    assert [path.name for path in (out / "cases").iterdir()] == ["pancreas_001.json"]
    continued = evaluate(pairs, out, labels=LABELS, threads=1)
    assert scored == ["pancreas_001", "pancreas_004", "pancreas_004"]
    fresh = evaluate(pairs, tmp_path / "fresh", labels=LABELS, threads=2)
    assert continued.to_json() == fresh.to_json()


def test_kept_scores_are_dropped_when_anything_they_depend_on_changes(
    task: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pair_cases(task / "labelsTr", predictions)[:1]
    kept = tmp_path / "scores" / "cases" / "pancreas_001.json"
    first = evaluate(pairs, tmp_path / "scores", labels=LABELS)
    before = kept.stat().st_mtime_ns
    evaluate(pairs, tmp_path / "scores", labels=LABELS)
    assert kept.stat().st_mtime_ns == before
    tighter = evaluate(pairs, tmp_path / "scores", labels=LABELS, nsd_tolerance_mm=0.1)
    assert tighter.mean()["pancreas"]["nsd"] != first.mean()["pancreas"]["nsd"]
    write(pairs[0].prediction, REFERENCE)
    assert evaluate(pairs, tmp_path / "scores", labels=LABELS).mean()["cancer"]["dice"] == 1.0
    kept.write_text('{"identity": ')
    assert evaluate(pairs, tmp_path / "scores", labels=LABELS).mean()["cancer"]["dice"] == 1.0
    monkeypatch.setattr(module, "CACHE_FORMAT", module.CACHE_FORMAT + 1)
    os.utime(kept, ns=(0, 0))
    evaluate(pairs, tmp_path / "scores", labels=LABELS)
    assert kept.stat().st_mtime_ns > 0


def test_kept_scores_see_voxels_that_lie_beside_their_header(tmp_path: Path) -> None:
    reference = write(tmp_path / "r" / "a.nii.gz", REFERENCE)
    header = write(tmp_path / "p" / "a.mhd", REFERENCE)
    pairs = [Pair("a", reference, header)]
    assert evaluate(pairs, tmp_path / "s", labels=LABELS).mean()["cancer"]["dice"] == 1.0
    state = header.stat()
    write(header, PREDICTION)
    os.utime(header, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert evaluate(pairs, tmp_path / "s", labels=LABELS).mean()["cancer"]["dice"] == 0.5


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_scores_do_not_depend_on_threads(task: Path, predictions: Path, tmp_path: Path, threads: int) -> None:
    pairs = pair_cases(task / "labelsTr", predictions)
    expected = [score_case(pair, LABELS, nsd_tolerance_mm=5.0).to_json() for pair in pairs]
    scores = evaluate(pairs, tmp_path / str(threads), labels=LABELS, threads=threads)
    assert [case.to_json() for case in scores.cases] == expected


def test_two_files_are_compared_whatever_their_names(tmp_path: Path) -> None:
    make_task(tmp_path, {"a": REFERENCE})
    reference = tmp_path / "Task07_Pancreas" / "labelsTr" / "a.nii.gz"
    prediction = write(tmp_path / "elsewhere" / "output.mha", REFERENCE)
    arguments = ["--reference", reference, "--prediction", prediction, "--out", tmp_path / "scores"]
    assert main(["evaluate", *map(str, arguments)]) == 0
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["mean"]["cancer"]["dice"] == 1.0


def test_label_names_come_from_the_option_the_dataset_or_the_neighbour(
    task: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(task, predictions, tmp_path / "s", "--labels", "air, organ ,lesion", "--overlay-cases", "0") == 0
    )
    assert "organ+lesion" in json.loads((tmp_path / "s" / "scores.json").read_text())["pooled"]
    assert not (tmp_path / "s" / "overlay.png").exists()
    (task / "labelsTr").rename(tmp_path / "moved")
    arguments = ["--reference", tmp_path / "moved", "--prediction", predictions, "--out", tmp_path / "t"]
    assert main(["evaluate", *map(str, arguments), "--dataset", str(task)]) == 0
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the labels have no names, since" in error
    assert "pass --dataset FOLDER, or --labels background," in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "background"), "--labels must be two or more different names"),
        (("--labels", "a,b,b"), "--labels must be two or more different names"),
        (("--labels", "a,,b"), "--labels must be two or more different names"),
        (("--overlay-cases", "-1"), "--overlay-cases must be at least 0, got -1"),
        (("--nsd-tolerance-mm", "0"), "--nsd-tolerance-mm must be above 0, got 0"),
        (("--nsd-tolerance-mm", "nan"), "--nsd-tolerance-mm must be above 0, got nan"),
        (("--threads", "0"), "--threads must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(
    task: Path,
    predictions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert run(task, predictions, tmp_path / "s", *options) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "s").exists()


def test_the_union_is_scored_for_a_few_labels_only() -> None:
    assert structures(("background", "spleen")) == {"spleen": [1]}
    assert structures(("background", "a", "b", "c")) == {"a": [1], "b": [2], "c": [3], "a+b+c": [1, 2, 3]}
    assert list(structures(("background", *"abcde"))) == list("abcde")


@pytest.mark.parametrize("labels", [("background", "case"), ("background", "a", "a")])
def test_labels_whose_scores_would_hide_each_other_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="labels must have names of their own"):
        structures(labels)


def test_real_anatomy_scores_one_against_itself(real_data: Path) -> None:
    file = real_data / "abdomen_crlm_1004" / "pancreas_auto.nii.gz"
    scores = score_case(Pair("crlm", file, file), ("background", "pancreas"), nsd_tolerance_mm=5.0)
    assert scores.records["pancreas"]["dice"] == scores.records["pancreas"]["nsd"] == 1.0
    assert scores.records["pancreas"]["reference_ml"] == pytest.approx(46, abs=3)
