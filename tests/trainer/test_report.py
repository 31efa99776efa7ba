"""The report of a small training, read as HTML and opened in a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from algorithm.colours import COLOURS, LINE_COLOURS
from algorithm.geometry import Geometry
from tests.bundles import write_random_bundle
from tests.chromium import chromium
from tests.decathlon import IN_4D, labels, make_task, write
from tests.trainer.runs import arguments
from trainer.charts import Line, chart
from trainer.cli import main
from trainer.page import asset
from trainer.report import choose
from trainer.sources import Source
from trainer.viewer import MOST_VOXELS, Scan, embed

ORGAN = (1, (2, 2, 2), (6, 8, 10))
# predictions from good to bad: the whole tumour, half of it, none
PREDICTED = {
    "pancreas_001": labels(ORGAN, (2, (3, 3, 3), (5, 5, 7))),
    "pancreas_002": labels(ORGAN, (2, (3, 3, 3), (5, 5, 5))),
    "pancreas_003": labels(ORGAN),
    "pancreas_004": labels(ORGAN),
}
REFERENCE = labels(ORGAN, (2, (3, 3, 3), (5, 5, 7)))
CTRL, SHIFT = 2, 8  # as the protocol has them
VIEWER = "document.getElementById('viewer')"


class Page(HTMLParser):
    """What tests ask of a page: ids, links, table rows, and addresses that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            self.links.append(str(values["href"]))
        elif values.get("href") or values.get("src"):
            self.fetched.append(str(values.get("href") or values.get("src")))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Return SCORES of four cases, one without a tumour, compared with perfect ones."""
    task = make_task(
        tmp_path / "scored", {name: labels(ORGAN) if name.endswith("4") else REFERENCE for name in PREDICTED}
    )
    for number, file in enumerate(sorted((task / "imagesTr").iterdir())):
        write(file, np.random.default_rng(number).normal(40, 30, (8, 10, 12)).astype(np.int16) - 1000)
    for name, array in PREDICTED.items():
        write(tmp_path / "predicted" / f"{name}.nii.gz", array)
    shared = ["evaluate", "--reference", str(task / "labelsTr"), "--overlay-cases", "0", "--threads", "1"]
    perfect, scores = str(tmp_path / "perfect"), str(tmp_path / "scores")
    assert main([*shared, "--prediction", str(task / "labelsTr"), "--out", perfect]) == 0
    predicted = ["--prediction", str(tmp_path / "predicted"), "--out", scores, "--against", perfect]
    assert main([*shared, *predicted]) == 0
    return Path(scores)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a RUN as `decathlon train` leaves it, without training."""
    folder = tmp_path / "run"
    write_random_bundle(folder / "bundle", provenance={"data_set": {"name": "<Pancreas>", "sha256": "abc"}})
    (folder / "metrics.csv").write_text(
        "epoch,train_loss,val_loss,train_dice_pancreas,val_dice_pancreas,val_volume_pancreas\n"
        "1,0.9,0.8,0.1,0.2,nan\n2,0.5,0.6,0.5,0.4,0.45\n"
    )
    return folder


def test_the_page_holds_every_part_and_fetches_nothing(run: Path, scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(run), str(scored), "--out", str(out), "--cases", "2"]) == 0
    text = out.read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for part in (
        "scores",
        "comparison",
        "cases",
        "viewer",
        "slices",
        "groups",
        "confusion",
        "curves",
        "made-by",
    ):
        assert part in page.ids
    assert all(address.startswith("data:") for address in page.fetched)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://", text)
    assert "<Pancreas>" not in text
    assert "&lt;Pancreas&gt;" in text
    # worst first; the case without a tumour counts by its pancreas alone, which is whole
    cases = [row for row in page.rows if row and row[0].startswith("pancreas_00")]
    assert [row[0] for row in cases] == ["pancreas_003", "pancreas_002", "pancreas_001", "pancreas_004"]
    assert [row[1] for row in cases] == ["show", "", "", "show"]
    assert "1 of 4 references lack cancer" in text
    heads = next(row for row in page.rows if row[:2] == ["score", "cases"])
    assert heads[heads.index("difference") + 1] == "verdict"
    compared = [row for row in page.rows if row[0].startswith("cancer Dice") and len(row) == len(heads)]
    assert {row[5] for row in compared} == {"too few cases to tell"}
    assert "18 of 18 rows have too few cases to tell" in text
    (scored_heads,) = (row for row in page.rows if row[:2] == ["label", "cases with it"])
    assert scored_heads[4] == "Dice, absent counts 0"
    assert "“Dice, absent counts 0” is how the paper averages" in text
    scores = json.loads((scored / "scores.json").read_text())
    (summary,) = (row for row in page.rows if row[:2] == ["cancer", "3 of 4"])
    assert summary[2].startswith(f"{scores['mean']['cancer']['dice']:.3f}(")
    assert summary[4] == f"{scores['batch_averaged']['cancer']['dice']:.3f}"
    # the same page again, byte for byte
    assert main(["report", str(run), str(scored), "--out", str(tmp_path / "again.html"), "--cases", "2"]) == 0
    assert (tmp_path / "again.html").read_text() == text


def test_scans_that_are_gone_are_left_out_and_said(
    run: Path, scored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in PREDICTED:
        (tmp_path / "predicted" / f"{name}.nii.gz").unlink()
    out = tmp_path / "report.html"
    assert main(["report", str(run), str(scored), "--out", str(out)]) == 0
    assert "pancreas_003 is not shown" in caplog.text
    assert "No scan was at hand" in out.read_text()


def test_a_label_map_that_changed_since_it_was_scored_is_not_shown(
    run: Path, scored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predicted = tmp_path / "predicted"
    for name in PREDICTED:  # another time alone is no change
        os.utime(predicted / f"{name}.nii.gz", (0, 0))
    out = tmp_path / "report.html"
    assert main(["report", str(run), str(scored), "--out", str(out)]) == 0
    assert "is not shown" not in caplog.text
    write(predicted / "pancreas_003.nii.gz", PREDICTED["pancreas_001"])
    assert main(["report", str(run), str(scored), "--out", str(out)]) == 0
    assert "pancreas_003 is not shown" in caplog.text
    assert "pancreas_003.nii.gz is no longer what was scored; run decathlon evaluate again" in caplog.text
    assert hashlib.sha256((predicted / "pancreas_002.nii.gz").read_bytes()).hexdigest() in out.read_text()


def test_a_scan_that_cannot_be_read_makes_room_for_another(
    run: Path, scored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (worst,) = (tmp_path / "scored").glob("**/imagesTr/pancreas_003.nii.gz")
    worst.write_bytes(worst.read_bytes()[:100])
    out = tmp_path / "report.html"
    assert main(["report", str(run), str(scored), "--out", str(out), "--cases", "2"]) == 0
    assert "pancreas_003 is not shown: " in caplog.text
    assert out.read_text().count('class="plate"') == 2


def test_a_run_of_other_labels_is_refused(
    run: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = run / "bundle" / "model.json"
    document = json.loads(model.read_text())
    model.write_text(json.dumps(document | {"labels": ["background", "PZ", "TZ"]}))
    assert main(["report", str(run), str(scored), "--out", str(tmp_path / "report.html")]) == 1
    assert "RUN and SCORES must have the same labels" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("scores/scores.json", {"cases": []}, "must hold cases with a score of each of"),
        ("scores/scores.json", {"cases": [{"case": "a"}]}, "must hold cases with a score of each of"),
        ("scores/scores.json", {"intervals": None}, "it lacks 'intervals'"),
        ("scores/comparison.json", {"overall": None}, "it lacks 'overall'"),
    ],
)
def test_damaged_scores_are_refused(
    run: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    file: str, change: dict[str, object], message: str,
) -> None:  # fmt: skip
    document = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(document | change))
    assert main(["report", str(run), str(scored), "--out", str(tmp_path / "report.html")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert message in said
    assert "unexpected" not in said


def test_a_run_without_provenance_or_epochs(
    run: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = run / "bundle" / "model.json"
    model.write_text(json.dumps(json.loads(model.read_text()) | {"provenance": []}))
    words = ["report", str(run), str(scored), "--out", str(tmp_path / "report.html")]
    assert main(words) == 0
    (run / "metrics.csv").write_text("loss\n0.5\n")
    assert main(words) == 1
    assert "must hold a row of numbers an epoch" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("run/metrics.csv", "RUN must be the folder of `decathlon train`"),
        ("run/bundle/model.json", "give the RUN of `decathlon train`"),
        ("scores/scores.json", "run `decathlon evaluate"),
        ("scores/sources.json", "run `decathlon evaluate` again"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_written(
    run: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, message: str
) -> None:
    (tmp_path / missing).unlink()
    assert main(["report", str(run), str(scored), "--out", str(tmp_path / "report.html")]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "report.html").exists()


def test_scores_of_an_older_release_are_refused(
    run: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scored / "scores.json").write_text('{"mean": {}, "pooled": {}, "cases": []}')
    assert main(["report", str(run), str(scored), "--out", str(tmp_path / "report.html")]) == 1
    assert "is damaged or of an older release" in capsys.readouterr().err.splitlines()[-1]


def test_the_worst_cases_and_the_best_are_chosen(tmp_path: Path) -> None:
    sources = [Source(name, tmp_path, tmp_path, tmp_path if name != "b" else None) for name in "abcde"]
    assert [source.case for source in choose("abcde", sources, 3)] == ["a", "c", "e"]
    assert [source.case for source in choose("abcde", sources, 1)] == ["a"]
    assert choose("abcde", sources, 0) == []
    assert len(choose("abcde", sources, 9)) == 4


def test_a_large_scan_is_thinned_in_its_slices_and_says_so() -> None:
    shape = (30, 600, 600)
    marked = np.zeros(shape, np.uint8)
    marked[0, 0, 0] = marked[-1, -1, -1] = 1
    marked[10, 300:310, 400:410] = 2
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(shape, (2.5, 0.8, 0.8), (0.0, 0.0, 0.0), identity)
    scan = Scan("x", np.full(shape, -1000, np.int16), None, marked, geometry)
    description, _ = embed(scan, 0, ("background", "pancreas", "cancer"))
    assert np.prod(description["shape"]) <= MOST_VOXELS
    assert description["every"] == [1, 2, 2]
    assert description["spacing"] == [2.5, 1.6, 1.6]
    assert "one voxel of 2 along x and y" in description["note"]
    z, y, x = description["start"]
    assert (z, 2 * y, 2 * x) == (10, 304, 404)


def test_a_chart_places_its_points_and_leaves_out_empty_lines() -> None:
    svg = chart("T", [Line("a", 1, [(0, 0), (1, 1)]), Line("b", 2, [])], across="x", y_range=(0, 1))
    assert 'd="M44.0 204.0L350.0 26.0"' in svg  # from the lower left of the frame to its upper right
    assert "series-2" not in svg
    assert chart("T", [Line("b", 2, [])], across="x") == ""


def test_ticks_of_a_chart_are_round() -> None:
    svg = chart("T", [Line("a", 1, [(epoch, 0.465 / epoch) for epoch in range(1, 13)])], across="epoch")
    ticks = re.findall(r'text-anchor="(end|middle)">([\d.]+)<', svg)
    assert [float(text) for kind, text in ticks if kind == "end"] == [0, 0.2, 0.4, 0.6, 0.8]
    assert [float(text) for kind, text in ticks if kind == "middle"] == [1, 4, 7, 10]


def test_the_viewer_begins_within_the_reference_and_not_between_it_and_what_was_found_elsewhere() -> None:
    reference, found = np.zeros((2, 4, 20, 20), np.uint8)
    reference[2, 5:8, 5:8] = 2
    found[2, 15:20, 15:20] = 2
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry((4, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), identity)
    whole = [slice(0, size) for size in geometry.shape_zyx]
    voxels = np.zeros((4, 20, 20), np.int16)
    assert Scan("x", voxels, reference, found, geometry).start_zyx(whole, (1, 1, 1)) == [2, 6, 6]
    assert Scan("x", voxels, None, found, geometry).start_zyx(whole, (1, 1, 1)) == [2, 17, 17]
    assert Scan("x", voxels, reference * 0, found, geometry).start_zyx(whole, (1, 1, 1)) == [2, 17, 17]


def test_lines_of_a_chart_differ_in_their_marks_and_few_of_many_points_have_one() -> None:
    lines = [Line(str(series), series, [(x, 0.1 * series) for x in range(200)]) for series in range(1, 8)]
    svg = chart("T", [*lines, Line("t", 1, [(0, 0)], dotted=True)], across="x")
    groups = re.findall(r'<g class="(series-\d)">(.*?)</g>', svg)
    assert len(groups) == 2 * 8  # and each again in the legend
    marks = [re.findall(r'<path(?: class="hollow")? d="([^"]+)" transform', inside) for _, inside in groups]
    assert [len(found) for found in marks] == [8] * 7 + [1] * 9
    assert len({found[0] for found in marks[:7]}) == 7
    assert [found[0] for found in marks[8:15]] == [found[0] for found in marks[:7]]
    assert 'class="hollow"' in groups[7][1]
    assert 'class="hollow"' not in "".join(inside for _, inside in groups[:7])


def luminance(colour: str) -> float:
    """Return the relative luminance of "#RRGGBB", as WCAG 2.2 defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("scheme", "palette"), [("light", LINE_COLOURS), ("dark", COLOURS)])
def test_what_is_drawn_stands_out_from_the_page(scheme: str, palette: tuple[str, ...]) -> None:
    light, dark = asset("page.css").split("prefers-color-scheme: dark")
    values = dict(re.findall(r"--([\w-]+): (#[0-9a-fA-F]{6})", light if scheme == "light" else dark))
    assert [values[f"series-{number}"] for number in range(1, 8)] == list(palette)
    for name, colour in values.items():
        least = 3.0 if name.startswith("series") or name == "edge" else 4.5
        if name in ("ground", "plate", "line"):
            continue
        for behind in ("ground", "plate"):
            low, high = sorted((luminance(colour), luminance(values[behind])))
            assert (high + 0.05) / (low + 0.05) >= least, (name, behind)


def make_mr(tmp_path: Path, normalisation: str) -> dict[str, np.ndarray]:
    """Make the scored scans MR of two channels with values from 0 to 1, and the run one of these; return the second."""
    model = tmp_path / "run" / "bundle" / "model.json"
    changes = {"channels": ["T2", "ADC"], "normalisation": normalisation}
    model.write_text(json.dumps(json.loads(model.read_text()) | changes))
    second = {}
    for number, file in enumerate(sorted((tmp_path / "scored" / "Task07_Pancreas" / "imagesTr").iterdir())):
        voxels = np.random.default_rng(number).random((2, 8, 10, 12), np.float32)
        write(file, voxels, **IN_4D)
        second[file.name.removesuffix(".nii.gz")] = voxels[1]
    return second


@pytest.mark.parametrize("normalisation", ["window", "zscore"])
def test_a_channel_of_mr_scans_is_shown_between_its_own_percentiles(
    run: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], normalisation: str
) -> None:
    second = make_mr(tmp_path, normalisation)
    out = tmp_path / "report.html"
    words = ["report", str(run), str(scored), "--out", str(out)]
    assert main([*words, "--channel", "1"]) == 0
    text = out.read_text()
    scans = json.loads(re.search(r'id="scans">(.*?)</script>', text)[1])  # type: ignore[index]
    assert len(scans) == 4
    for scan in scans:
        voxels = second[scan["title"].split(":")[0]]
        assert scan["window"] == pytest.approx(np.percentile(voxels, (0.5, 99.5)), abs=1e-3)
        assert scan["unit"] == "(image value)"
        assert scan["note"].startswith("Channel 1, ADC, of 2. ")
        packed = re.search(rf'id="{scan["image"]["id"]}">(.*?)</script>', text)[1]  # type: ignore[index]
        grey = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.uint8).reshape(scan["shape"])
        assert len(np.unique(grey)) > 200
        values = scan["image"]["low"] + scan["image"]["step"] * grey
        clipped = np.clip(voxels[:, ::-1, ::-1], *scan["window"])
        np.testing.assert_allclose(values, clipped, atol=scan["image"]["step"])
    assert main([*words, "--channel", "2"]) == 1
    assert "--channel must be one of the model's (0 T2, 1 ADC), got 2" in capsys.readouterr().err
    assert main([*words, "--channel", "-1"]) == 1
    assert "--channel must be at least 0, got -1" in capsys.readouterr().err


def test_a_window_of_fractions_is_set_in_a_browser(run: Path, scored: Path, tmp_path: Path) -> None:
    make_mr(tmp_path, "zscore")
    out = tmp_path / "report.html"
    assert main(["report", str(run), str(scored), "--out", str(out), "--cases", "1"]) == 0
    with chromium() as browser:
        browser.look()
        browser.open(out.as_uri())
        browser.wait(f"{VIEWER}.dataset.state === 'ready'")

        def mean() -> float:
            address = browser.value("document.querySelector('[data-part=axial] canvas').toDataURL()")
            with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
                return float(np.asarray(picture.convert("L")).mean())

        def type_into(part: str, value: str) -> None:
            field = f"document.querySelector('[data-part={part}]')"
            browser.value(f"{field}.value = '{value}'; {field}.dispatchEvent(new Event('input'))")

        width = "document.querySelector('[data-part=width]')"
        assert 0.9 < float(browser.value(f"{width}.value")) < 1
        assert float(browser.value(f"{width}.step")) == 0.01
        at_first = mean()
        type_into("level", "0.9")
        assert mean() < at_first - 20  # darker
        type_into("level", "0.1")
        assert mean() > at_first + 20
        for nonsense in ("", "0", "-1"):
            before = mean()
            type_into("width", nonsense)
            assert mean() == before
        assert re.search(
            r"; (at most |at least )?0\.\d{3} \(image value\);",
            str(browser.value("document.querySelector('[data-part=readout]').textContent")),
        )
        assert browser.problems == []


def test_a_trained_runs_report_works_in_a_browser(work: Path, scored: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    assert main(arguments(work, trained)) == 0
    out = tmp_path / "report.html"
    assert main(["report", str(trained), str(scored), "--out", str(out)]) == 0
    with chromium() as browser:
        browser.look()
        browser.open(out.as_uri())
        browser.wait(f"{VIEWER}.dataset.state === 'ready'")

        def first() -> str:
            return str(browser.value("document.querySelector('table[data-sortable] tbody td').textContent"))

        def readout() -> str:
            return str(browser.value("document.querySelector('[data-part=readout]').textContent"))

        def picture(plane: str) -> str:
            return str(browser.value(f"document.querySelector('[data-part={plane}] canvas').toDataURL()"))

        # a head sorts up, then down
        assert first() == "pancreas_003"
        browser.click("table[data-sortable] th:first-child button")
        assert first() == "pancreas_001"
        browser.click("table[data-sortable] th:first-child button")
        assert first() == "pancreas_004"
        # what is missing stays last both ways
        heads = browser.value(
            "[...document.querySelectorAll('table[data-sortable] th')].map(h => h.textContent)"
        )
        column = heads.index("cancer Dice") + 1
        for _ in range(2):
            browser.click(f"table[data-sortable] th:nth-child({column}) button")
            last = "document.querySelector('table[data-sortable] tbody tr:last-child td').textContent"
            assert browser.value(last) == "pancreas_004"

        # the worst case comes up in its tumour, which the prediction lacks
        assert readout().startswith("pancreas_003")
        assert "reference: cancer; prediction: pancreas" in readout()
        canvas = "[data-part=axial] canvas"
        slice_of = f"Number(document.querySelector('{canvas}').dataset.slice)"
        start = browser.value(slice_of)
        browser.wheel(canvas, 100)
        browser.wait(f"{slice_of} === {start + 1}")
        browser.value(f"document.querySelector('{canvas}').focus()")
        browser.press("ArrowDown", 40)
        browser.press("ArrowDown", 40)
        browser.wait(f"{slice_of} === {start - 1}")
        browser.press("End", 35)
        browser.wait(f"{slice_of} === 7")
        assert "slice 8 of 8" in readout()
        # a key hides the prediction, and the picture changes
        browser.press("Home", 36)
        for _ in range(3):
            browser.press("ArrowUp", 38)
        browser.wait(f"{slice_of} === 3")
        with_both = picture("axial")
        browser.press("p", 80, "p")
        browser.wait("!document.querySelector('[data-part=prediction]').checked")
        without = picture("axial")
        assert without != with_both
        browser.press("p", 80, "p")
        assert picture("axial") == with_both
        # without its tint, and with it again
        browser.press("f", 70, "f")
        browser.wait("!document.querySelector('[data-part=fill]').checked")
        assert picture("axial") not in (with_both, without)
        browser.press("f", 70, "f")
        assert picture("axial") == with_both
        # the upper left corner is the patient's right and front, whatever the file's order
        browser.click(canvas, 0.01, 0.01)
        assert "row 1 from the front, column 1 from the right;" in readout()
        # x and y of the RAS files turn round: the tumour at x 3 to 6, y 3 to 4 lies at 5 to 8 and 5 to 6
        for across, down, label in (
            (5.5, 5.5, "cancer"),
            (8.5, 6.5, "cancer"),
            (9.5, 5.5, "pancreas"),
            (5.5, 4.5, "pancreas"),
        ):
            browser.click(canvas, across / 12, down / 10)
            assert f"reference: {label};" in readout(), (across, down)
        # Ctrl and the wheel zoom around the pointer: what lies there stays
        browser.click(canvas, 8.5 / 12, 6.5 / 10)
        there = readout()
        for _ in range(5):
            browser.wheel(canvas, -100, 8.5 / 12, 6.5 / 10, modifiers=CTRL)
        browser.wait("document.querySelector('[data-part=zoom]').textContent === '3.1\\u00d7'")
        assert browser.value(slice_of) == 3
        assert picture("axial") != with_both
        browser.click(canvas, 8.5 / 12, 6.5 / 10)
        assert readout() == there
        # the left edge is column 12 * (8.5 / 12) * (1 - 1 / 1.25^5) = 5.7 from 0
        browser.click(canvas, 0.01, 6.5 / 10)
        assert "column 6 from the right" in readout()
        # Shift and a drag pan by what the pointer moved: half the plane is 12 / 3.05 / 2 = 2 columns
        browser.drag(canvas, (0.25, 0.5), (0.75, 0.5), modifiers=SHIFT)
        browser.click(canvas, 0.01, 6.5 / 10)
        assert "column 4 from the right" in readout()
        zoomed = picture("coronal")
        browser.value(f"document.querySelector('{canvas}').focus()")
        browser.press("ArrowRight", 39, modifiers=SHIFT)
        assert picture("coronal") != zoomed
        browser.press("0", 48, "0")
        browser.wait("document.querySelector('[data-part=zoom]').textContent === '1\\u00d7'")
        browser.press("+", 187, "+")
        browser.click("button[data-zoom=in]")
        browser.wait("document.querySelector('[data-part=zoom]').textContent === '1.6\\u00d7'")
        browser.click("button[data-zoom=all]")
        browser.click(canvas, 0.01, 0.01)
        assert "row 1 from the front, column 1 from the right;" in readout()
        # the overlays are there
        assert browser.value("document.images.length") == 4
        assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 500)")
        # a button of the table opens its case
        browser.click("button[data-scan='2']")
        browser.wait(f"{VIEWER}.dataset.state === 'ready'")
        browser.wait("document.querySelector('[data-part=readout]').textContent.startsWith('pancreas_001')")
        assert browser.value("document.activeElement.tagName") == "CANVAS"
        light = browser.value("getComputedStyle(document.body).backgroundColor")
        browser.look(dark=True, width=400)
        browser.wait(f"getComputedStyle(document.body).backgroundColor !== '{light}'")
        # on a narrow screen nothing is wider than the window but tables, which scroll by themselves
        assert browser.value("document.documentElement.scrollWidth") <= 400
        assert browser.value("document.querySelectorAll('figure svg').length") >= 3
        assert browser.problems == []
        assert all(request.startswith(("file:", "data:")) for request in browser.requests)
