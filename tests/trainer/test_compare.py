"""Comparisons find the difference that was put in, and none where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from algorithm.errors import InputError
from trainer.compare import (
    CAVEAT,
    PUBLISHED,
    Comparison,
    Difference,
    _judged,
    caveats,
    compare,
    published_cases,
    read_other,
)
from trainer.intervals import Paired, holm, interval_of_mean
from trainer.scores import CASE_KEYS, CaseScores, Scores

LABELS = ("background", "pancreas", "cancer")


def published(column: str, *, shift: float = 0.0, noise: float = 0.0, seed: int = 0, drop: int = 0) -> Scores:
    """Return the published scores as if they were ours: moved by `shift`, with noise that has no mean."""
    rng = np.random.default_rng(seed)
    cases = []
    blank: dict[str, float | None] = dict.fromkeys(CASE_KEYS)
    for row in published_cases()[drop:]:
        spacing = tuple(float(row[f"spacing_{axis}_mm"]) for axis in "zyx")
        records: dict[str, dict[str, float | None]] = {}
        for name, theirs in (("pancreas", "pancreas"), ("cancer", "tumour")):
            dice = float(row[f"nnunet_{column}_dice_{theirs}"]) + shift + noise * rng.standard_normal()
            records[name] = {**blank, "dice": dice, "reference_ml": float(row[f"{theirs}_ml"])}
        records["pancreas+cancer"] = blank
        cases.append(CaseScores(row["case"], np.zeros((3, 3), np.int64), 0.001, records, spacing))  # type: ignore[arg-type]
    return Scores(LABELS, 5.0, cases)


def overall(comparison: Comparison) -> dict[str, Difference]:
    return {one.label: one for one in comparison.overall}


def test_the_published_table_is_whole_and_says_where_it_is_from(real_data: Path) -> None:
    rows = published_cases()
    assert len(rows) == len({row["case"] for row in rows}) == 281
    shared = (real_data / "task07_cases.csv").read_text().splitlines()
    assert [list(row.values()) for row in rows] == [line.split(",") for line in shared[1:]]
    means = [np.mean([float(row[f"nnunet_{m}_dice_tumour"]) for row in rows]) for m in ("conv", "resenc_l")]
    assert means == pytest.approx([0.505, 0.535], abs=5e-4)  # as published
    text = (Path(__file__).parents[2] / "trainer" / "published" / "task07_nnunet.csv").read_text()
    assert "arXiv:1902.09063" in text
    assert "arXiv:2404.09556" in text


def test_equal_scores_are_inside_the_noise() -> None:
    comparison = compare(published("resenc_l"), read_other("nnunet-task07", LABELS))
    assert comparison.shared == 281
    for one in comparison.overall:
        assert one.paired is not None
        assert (one.paired.mean, one.paired.p, one.verdict) == (0.0, 1.0, "inside the noise")


@pytest.mark.parametrize("seed", range(3))
def test_noise_without_a_mean_is_called_noise(seed: int) -> None:
    comparison = compare(published("resenc_l", noise=0.1, seed=seed), read_other("nnunet-task07", LABELS))
    assert {one.verdict for one in comparison.overall} == {"inside the noise"}
    assert {one.verdict for one in comparison.grouped} <= {"inside the noise", "too few cases to tell"}


@pytest.mark.parametrize(("shift", "verdict"), [(0.03, "better"), (-0.03, "worse")])
@pytest.mark.parametrize("seed", range(2))
def test_a_shift_of_three_points_is_found_in_noise_of_ten(shift: float, verdict: str, seed: int) -> None:
    scores = published("resenc_l", shift=shift, noise=0.1, seed=seed)
    for one in compare(scores, read_other("nnunet-task07", LABELS)).overall:
        assert one.paired is not None
        assert one.paired.interval is not None
        assert one.verdict == verdict
        assert one.paired.interval[0] < shift < one.paired.interval[1]
        assert one.p is not None
        assert one.p < 0.05


def test_the_three_published_networks_differ_as_their_paper_says() -> None:
    scores = published("resenc_l")
    against_conv = overall(compare(scores, read_other("nnunet-task07-conv", LABELS)))
    assert against_conv["cancer"].verdict == "better"
    assert against_conv["cancer"].paired is not None
    assert against_conv["cancer"].paired.mean == pytest.approx(0.0294, abs=1e-3)
    against_m = overall(compare(scores, read_other("nnunet-task07-resenc-m", LABELS)))
    assert against_m["cancer"].verdict == "inside the noise"


def test_groups_are_those_of_size_and_thickness() -> None:
    comparison = compare(published("resenc_l", shift=0.05), read_other("nnunet-task07", LABELS))
    counts = {
        one.group: one.paired.cases for one in comparison.grouped if one.label == "cancer" and one.paired
    }
    rows = published_cases()
    sizes = [20 * (0.75 * float(row["tumour_ml"]) / np.pi) ** (1 / 3) for row in rows]
    slices = [float(row["spacing_z_mm"]) for row in rows]
    assert counts == {
        ("cancer size", "up to 20 mm"): sum(size <= 20 for size in sizes),
        ("cancer size", "20 to 40 mm"): sum(20 < size <= 40 for size in sizes),
        ("cancer size", "over 40 mm"): sum(size > 40 for size in sizes),
        ("slice thickness", "under 2.5 mm"): sum(thick < 2.4 for thick in slices),
        ("slice thickness", "2.5 to 3 mm"): sum(2.4 < thick < 3.1 for thick in slices),
        ("slice thickness", "over 3 mm"): sum(thick > 3.1 for thick in slices),
    }
    json.dumps(comparison.to_json(), allow_nan=False)
    assert "cancer Dice, slice thickness over 3 mm" in comparison.table()
    tests = len(comparison.overall), len(comparison.grouped)
    assert f"{tests[0]} and {tests[1]} tests were made, each table adjusted for its own" in comparison.table()
    assert "too few cases" not in comparison.table()
    assert CAVEAT in comparison.table()


def test_a_comparison_says_what_its_verdicts_cannot_tell() -> None:
    few = compare(published("resenc_l", drop=276), read_other("nnunet-task07", LABELS))
    rows = len(few.overall) + len(few.grouped)
    assert few.caveats()[0] == CAVEAT
    assert few.caveats()[1].startswith(f"{rows} of {rows} rows have too few cases to tell")
    assert len(few.caveats()) == 2  # nothing was tested
    assert caveats("mine", [[(0.2, "inside the noise")], []]) == []
    mixed = caveats("mine", [[(0.2, "inside the noise")] * 3, [(None, "too few cases to tell")]])
    assert mixed[0].startswith("3 tests were made")
    assert mixed[1].startswith("1 of 4 rows")


def test_few_cases_are_never_called_a_difference() -> None:
    scores = published("resenc_l", shift=0.3, drop=276)
    assert {one.verdict for one in compare(scores, read_other("nnunet-task07", LABELS)).overall} == {
        "too few cases to tell"
    }


@pytest.mark.parametrize(
    ("cases", "verdict"), [(6, "too few cases to tell"), (7, "too few cases to tell"), (8, "better")]
)
def test_a_difference_of_one_sign_is_noise_only_where_another_answer_was_possible(
    cases: int, verdict: str
) -> None:
    """Six scores side by side, as three structures have by Dice and NSD, need 2^-n * 2 * 6 below 5 %."""
    gains = Paired.of([0.4 + 0.01 * case for case in range(cases)])
    losses = Paired.of([(-1) ** case * 0.1 + 0.001 * case for case in range(40)])
    alone = Paired.of([0.4, 0.5])
    six = [Difference("a", "dice", None, 1.0, 0.6, paired, None, "") for paired in [gains] * 6]
    assert {one.verdict for one in _judged(six)} == {verdict}
    judged = _judged([*six, Difference("a", "dice", None, 1.0, 0.6, alone, None, "")])
    assert {one.verdict for one in judged[:6]} == {verdict}, (
        "one that cannot tell takes nothing from the others"
    )
    assert (judged[6].verdict, judged[6].p) == ("too few cases to tell", None)
    noise = _judged([Difference("a", "dice", None, 0.5, 0.5, losses, None, "")] * 6)
    assert {one.verdict for one in noise} == {"inside the noise"}


def test_rows_of_as_many_cases_are_not_both_told_and_too_few_to_tell() -> None:
    """Holm multiplies by the tests that are left: 2 / 2^8 stays below 5 % for six of them, and not for twelve."""
    sure = Paired.of([0.4 + 0.01 * case for case in range(40)])
    gains = Paired.of([0.4 + 0.01 * case for case in range(8)])
    mixed = Paired.of([0.1, 0.2, -0.1, 0.3, 0.1, -0.2, 0.1, 0.2])
    rows = [
        Difference("a", "dice", None, 1.0, 0.6, one, None, "") for one in [sure] * 6 + [gains] + [mixed] * 5
    ]
    assert [one.verdict for one in _judged(rows)] == ["better"] * 7 + ["inside the noise"] * 5
    few = [Difference("a", "dice", None, 1.0, 0.6, one, None, "") for one in [mixed] * 12]
    assert {one.verdict for one in _judged(few)} == {"too few cases to tell"}


def test_noise_is_rarely_called_a_difference_in_any_table() -> None:
    """Over many draws of noise without a mean, either table calls a difference in about 5 % of them, not more."""
    cries = {"overall": 0, "grouped": 0}
    for seed in range(100, 120):
        comparison = compare(published("resenc_l", noise=0.1, seed=seed), read_other("nnunet-task07", LABELS))
        for name in cries:
            cries[name] += any(one.verdict in ("better", "worse") for one in getattr(comparison, name))
    assert max(cries.values()) <= 4  # of 20: at 5 % more than 4 have a chance of 0.3 %


def test_cases_that_one_side_lacks_are_counted_and_left_out(tmp_path: Path) -> None:
    published("resenc_l", drop=100).write_json(tmp_path / "scores.json")
    scores = published("resenc_l", shift=0.1)
    scores.cases[150].records["cancer"]["dice"] = None  # a reference without it
    comparison = compare(scores, read_other(str(tmp_path), LABELS))
    assert (comparison.shared, comparison.only_ours, comparison.only_theirs) == (181, 100, 0)
    dice = {(one.label, one.key): one for one in comparison.overall}
    assert dice["pancreas", "dice"].paired is not None
    assert dice["pancreas", "dice"].paired.cases == 181
    assert dice["cancer", "dice"].paired is not None
    assert dice["cancer", "dice"].paired.cases == 180
    assert dice["cancer", "nsd"].verdict == "no shared case"


def test_other_patients_of_the_same_names_are_refused() -> None:
    # as a phantom's cases have the names of Task07's
    scores = published("resenc_l")
    scores.cases[5].records["cancer"]["reference_ml"] = 1.7
    with pytest.raises(
        InputError, match=r"is not the same case in both: its reference has 1\.70 ml of cancer here"
    ):
        compare(scores, read_other("nnunet-task07", LABELS))


def test_surface_dice_at_another_tolerance_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published("conv", drop=270).write_json(tmp_path / "scores.json")
    other = read_other(str(tmp_path), LABELS, nsd_tolerance_mm=3.0)
    assert {key for keys in other.values.values() for key in keys} == {"dice"}
    assert "has NSD at 5.0 mm and not at 3: only Dice is compared" in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_tests_and_intervals_against_scipy(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.4, 1.0, 60)
    paired = Paired.of(values.tolist())
    assert paired.mean == pytest.approx(values.mean())
    # of 60 normal differences the sign-flip test says what the t test says
    assert paired.p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, abs=0.02)
    flipped = stats.permutation_test((values,), np.mean, permutation_type="samples", vectorized=True)
    assert paired.p == pytest.approx(flipped.pvalue, abs=0.02)
    assert paired.p_wilcoxon == pytest.approx(stats.wilcoxon(values).pvalue, rel=0.05)
    half = stats.t.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    assert paired.interval == pytest.approx([values.mean() - half, values.mean() + half], abs=0.05)
    assert paired == Paired.of(values.tolist())


def test_small_samples_are_exact() -> None:
    # of the 2^6 signs of six equal differences two give a mean as far from 0
    assert Paired.of([0.1] * 6).p == pytest.approx(2 / 64)
    longer = np.random.default_rng(0).normal(0.4, 1.0, 17)
    signs = 1 - 2 * ((np.arange(2**17)[:, np.newaxis] >> np.arange(17)) & 1)
    assert Paired.of(longer.tolist()).p == np.mean(np.abs(signs @ longer) >= longer.sum() - 1e-9)
    uneven = [0.1, -0.2, 0.4, 0.05, 0.3, 0.1, -0.02]
    exact = stats.permutation_test((uneven,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert Paired.of(uneven).p == pytest.approx(exact.pvalue)
    # cases of equal scores change nothing, however many: a surface Dice of 1 on both sides is frequent
    assert Paired.of([*uneven, *[0.0] * 30]).p == pytest.approx(exact.pvalue)
    assert Paired.of([0.5]).p == 1.0
    assert Paired.of([0.25] * 40).p == pytest.approx(2 / 2**40)
    assert Paired.of([0.25] * 41).p == 1e-4  # of draws, of which no other is as far
    assert Paired.of([0.1, 0.2, -0.3]).p == 1.0  # 0 but for rounding
    assert Paired.of([0.0, 0.0, 0.0]).p == 1.0
    assert interval_of_mean([0.1, 0.2]) is None
    assert interval_of_mean([0.25, 0.25, 0.25]) == [0.25, 0.25]


def test_no_p_value_is_shown_as_zero() -> None:
    shown = compare(published("conv", shift=0.05), read_other("nnunet-task07-conv", LABELS)).table()
    row = next(line for line in shown.splitlines() if line.startswith("cancer Dice "))
    assert row.endswith("< 0.0001")
    assert "0.0000" not in shown


def test_p_values_are_adjusted_as_holm_did() -> None:
    # 3 x 0.01, then 2 x 0.02, then 0.03 raised to what came before
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        (
            None,
            LABELS,
            "--against must name a scores.json, a folder that holds one, or one of nnunet-task07,",
        ),
        ("{", LABELS, "must be a scores.json of `decathlon evaluate`, but is not; score it anew"),
        ("[]", LABELS, "must be a scores.json of `decathlon evaluate`, but is not; score it anew"),
        (
            '{"cases": [{"case": "a", "pancreas": {"dice": "high"}}]}',
            ("background", "pancreas"),
            "but is not; score it anew",
        ),
        (
            '{"cases": [{"case": "a", "spleen": {}}]}',
            LABELS,
            "has no 'pancreas' in each case, which these labels ask for: background, pancreas, cancer",
        ),
    ],
)
def test_what_is_no_other_is_refused(
    tmp_path: Path, content: str | None, labels: tuple[str, ...], message: str
) -> None:
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_other(str(tmp_path), labels)


def test_other_labels_and_other_cases_are_refused(tmp_path: Path) -> None:
    for name in PUBLISHED:
        with pytest.raises(InputError, match=r"of Task07, but these scores have background, spleen$"):
            read_other(name, ("background", "spleen"))
    scores = published("conv", drop=280)
    strangers = Scores(
        LABELS, 5.0, [CaseScores("x", np.zeros((3, 3), np.int64), 1.0, scores.cases[0].records)]
    )
    strangers.write_json(tmp_path / "scores.json")
    with pytest.raises(
        InputError, match=r"^no case is in both: pancreas_\d+ is one of these 1, and x one of"
    ):
        compare(scores, read_other(str(tmp_path), LABELS))
