from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from algorithm.colours import COLOURS, LINE_COLOURS
from algorithm.errors import InputError
from algorithm.geometry import Geometry
from tests.decathlon import write
from trainer.figures import plain, save_confusion, save_curves, save_histogram, save_overlay_grid
from trainer.overlay import OverlayRow, choose_rows, telling_slice
from trainer.scores import CaseScores, Scores

LABELS = ("background", "pancreas", "cancer")
LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: str, tolerance: int = 12) -> np.ndarray:
    rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return np.abs(picture - rgb).max(axis=2) <= tolerance


def volume(spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Return an image that is bright on the patient's left, its labels and its grid, in LPS."""
    image = np.full((6, 40, 60), -100, dtype=np.int16)
    image[:, :, 30:] = 200
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[1:5, 10:30, 10:50] = 1
    labels[3, 15:20, 20:30] = 2
    return image, labels, Geometry((6, 40, 60), spacing, (0.0, 0.0, 0.0), LPS)


def row(title: str = "case", spacing: tuple[float, float, float] = (5.0, 1.0, 1.0)) -> OverlayRow:
    image, labels, geometry = volume(spacing)
    return OverlayRow.of(title, image, labels, labels, geometry)


def test_the_slice_with_most_of_the_tumour_is_shown() -> None:
    labels = np.zeros((5, 4, 4), dtype=np.uint8)
    labels[0] = 1
    labels[2, :1], labels[3, :2] = 2, 2
    nothing = np.zeros_like(labels)
    assert telling_slice(labels, nothing) == 3
    assert telling_slice(nothing, labels) == 3
    assert telling_slice(None, labels) == 3
    assert telling_slice(nothing, nothing) == 2
    labels[labels == 2] = 0
    assert telling_slice(labels, nothing) == 0


def test_a_scan_is_shown_the_same_in_whatever_order_it_is_stored() -> None:
    image, labels, geometry = volume((5.0, 1.0, 1.0))
    expected = OverlayRow.of("case", image, labels, labels, geometry)
    flipped = (slice(None), slice(None, None, -1), slice(None, None, -1))
    stored = Geometry((6, 40, 60), (5.0, 1.0, 1.0), (59.0, 39.0, 0.0), RAS)
    shown = OverlayRow.of("case", image[flipped], labels[flipped], labels[flipped], stored)
    np.testing.assert_array_equal(shown.image, expected.image)
    np.testing.assert_array_equal(shown.prediction, expected.prediction)
    assert shown.title == expected.title == "case, slice 4 of 6"
    # radiological view: the patient's left, bright here, is on the right of the picture
    assert shown.image[0, -1] == 200
    assert shown.image[0, 0] == -100


def test_the_view_is_cut_around_the_labels_in_millimetres() -> None:
    image = np.zeros((1, 400, 400), dtype=np.int16)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[0, 190:210, 20:40] = 1
    geometry = Geometry((1, 400, 400), (5.0, 1.0, 2.0), (0.0, 0.0, 0.0), LPS)
    shown = OverlayRow.of("case", image, labels, labels, geometry)
    assert shown.image.shape == (190, 95)
    assert (shown.prediction == 1).sum() == 400
    # centred along y; along x the window would leave the scan and is moved inside
    assert np.flatnonzero(shown.prediction.any(axis=1)).tolist() == list(range(85, 105))
    assert np.flatnonzero(shown.prediction.any(axis=0)).tolist() == list(range(20, 40))


def test_files_on_different_grids_make_no_picture(tmp_path: Path) -> None:
    image, labels, _ = volume((5.0, 1.0, 1.0))
    scan = write(tmp_path / "scan.nii.gz", image)
    good = write(tmp_path / "good.nii.gz", labels)
    other = write(tmp_path / "other.nii.gz", labels, origin_xyz_mm=(0.0, 0.0, 0.0))
    assert OverlayRow.read("case", scan, None, good).reference is None
    with pytest.raises(
        InputError, match=r"other\.nii\.gz must lie on the grid of .*scan\.nii\.gz, but has origin"
    ):
        OverlayRow.read("case", scan, other, good)


def test_overlay_grid_has_three_panels_in_physical_proportions(tmp_path: Path) -> None:
    # pixels of 2 mm by 1 mm: 40 x 60 voxels are 80 mm high and 60 mm wide
    save_overlay_grid(tmp_path / "grid.png", [row(spacing=(5.0, 2.0, 1.0))], labels=LABELS)
    picture = pixels(tmp_path / "grid.png")
    panel = picture[:, : picture.shape[1] // 3]
    bright = near(panel, "#E6E6E6", 2)  # 200 HU in the window from -160 to 240: (200 + 160) / 400 of white
    ys, xs = (np.flatnonzero(bright.sum(axis=axis) > 50) for axis in (1, 0))
    assert np.ptp(ys) / np.ptp(xs) == pytest.approx(80 / 30, rel=0.04)
    # the outline of a label is in its own colour, in the second and third panel and not in the first
    for column, expected in enumerate((False, True, True)):
        start, stop = (picture.shape[1] * part // 3 for part in (column, column + 1))
        body = picture[: int(picture.shape[0] * 0.9), start:stop]
        assert near(body, COLOURS[0]).any() == expected
        assert near(body, COLOURS[1]).any() == expected


def test_overlay_grid_takes_rows_without_reference_and_without_labels(tmp_path: Path) -> None:
    image, labels, geometry = volume((5.0, 1.0, 1.0))
    rows = [
        OverlayRow.of("no reference", image, None, labels, geometry),
        OverlayRow.of("nothing found", image, labels * 0, labels * 0, geometry),
        row("one pixel"),
    ]
    save_overlay_grid(tmp_path / "one.png", rows[:1], labels=LABELS)
    save_overlay_grid(tmp_path / "three.png", rows, labels=LABELS)
    one, three = pixels(tmp_path / "one.png"), pixels(tmp_path / "three.png")
    assert three.shape[0] > 2 * one.shape[0] * 0.8
    assert three.shape[1] == one.shape[1]
    with pytest.raises(ValueError, match="rows must hold at least one case"):
        save_overlay_grid(tmp_path / "none.png", [], labels=LABELS)


def test_confusion_is_coloured_by_the_share_of_the_row(tmp_path: Path) -> None:
    # a background a million times larger must not hide that half of the cancer was missed
    confusion = np.array([[10**9, 0, 0], [0, 0, 0], [500, 0, 500]])
    save_confusion(tmp_path / "c.png", confusion, labels=LABELS)
    picture = pixels(tmp_path / "c.png")
    blues = matplotlib.colormaps["Blues"]
    for share, least in ((1.0, 5000), (0.5, 10000)):
        colour = "#" + "".join(f"{round(255 * value):02X}" for value in blues(share)[:3])
        assert near(picture, colour, 2).sum() > least


@pytest.mark.parametrize("classes", [2, 13])
def test_confusion_of_any_number_of_labels_fits_its_picture(tmp_path: Path, classes: int) -> None:
    names = [f"structure {value}" for value in range(classes)]
    save_confusion(tmp_path / "c.png", np.eye(classes, dtype=np.int64) * 7, labels=names)
    height, width, _ = pixels(tmp_path / "c.png").shape
    assert max(height, width) < 2600


def test_curves_draw_what_the_history_has_and_leave_gaps(tmp_path: Path) -> None:
    history: list[dict[str, float | None]] = [
        {"epoch": 1.0, "train_loss": 0.3, "val_loss": None, "val_dice_pancreas": 0.1},
        {"epoch": 2.0, "train_loss": 0.2, "val_loss": 0.3, "val_dice_pancreas": 0.2},
    ]
    save_curves(tmp_path / "full.png", history, labels=LABELS)
    full = pixels(tmp_path / "full.png")
    assert near(full, LINE_COLOURS[0]).any()
    assert not near(full, LINE_COLOURS[1]).any()
    save_curves(tmp_path / "one.png", history[:1], labels=LABELS)
    save_curves(tmp_path / "none.png", [], labels=LABELS)
    assert pixels(tmp_path / "none.png").shape == full.shape


def test_names_are_drawn_as_they_are_and_not_as_formulas(tmp_path: Path) -> None:
    broken, formula, quiet = "$\\frac{$", "a$^2$b", "_^%#&{}\\"
    names = (broken, formula, quiet)
    assert plain(formula) == r"a\$^2\$b"
    history: list[dict[str, float | None]] = [
        {"epoch": 1.0, **{f"val_dice_{name}": 0.1 * place for place, name in enumerate(names)}}
    ]
    save_confusion(tmp_path / "confusion.png", np.eye(3, dtype=np.int64), labels=names)
    save_curves(tmp_path / "curves.png", history, labels=names)
    save_histogram(
        tmp_path / "histogram.png", [[1, 2]] * 3, edges_hu=[0, 16, 32], labels=names, window_hu=(0, 32)
    )
    save_overlay_grid(tmp_path / "overlay.png", [row(f"{broken}: Dice {formula}")], labels=names)
    # the last name begins with what Matplotlib leaves out of a legend, unless told
    save_curves(tmp_path / "without.png", [{"epoch": 1.0, f"val_dice_{formula}": 0.1}], labels=names)
    foot = [pixels(tmp_path / f"{name}.png")[-90:] for name in ("curves", "without")]
    assert near(foot[0], LINE_COLOURS[1]).sum() > near(foot[1], LINE_COLOURS[1]).sum() + 20


def test_pictures_are_the_same_bytes_twice_and_settings_stay(tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    for name in ("a.png", "b.png"):
        save_overlay_grid(tmp_path / name, [row()], labels=LABELS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert dict(matplotlib.rcParams) == settings


def test_rows_are_spread_from_the_best_case_to_the_worst(tmp_path: Path) -> None:
    from trainer.evaluate import Pair

    image, labels, _ = volume((5.0, 1.0, 1.0))
    pairs, cases = [], []
    for number, dice in enumerate((0.2, 0.9, 0.5, None, 0.7)):
        name = f"c{number}"
        write(tmp_path / "images" / f"{name}.nii.gz", image)
        label = write(tmp_path / "labels" / f"{name}.nii.gz", labels)
        pairs.append(Pair(name, label, label))
        cases.append(CaseScores(name, np.zeros((2, 2), np.int64), 0.1, {"pancreas": {"dice": dice}}))
    scores = Scores(("background", "pancreas"), 5.0, cases)
    images = tmp_path / "images"
    names = [shown.title.split(",")[0] for shown in choose_rows(pairs, scores, images, most=3)]
    assert names == ["c1: Dice pancreas 0.90", "c2: Dice pancreas 0.50", "c3"]
    assert len(choose_rows(pairs, scores, images, most=99)) == 5
    assert choose_rows(pairs, scores, images, most=0) == []
    assert choose_rows(pairs, scores, None, most=3) == []
    (images / "c1.nii.gz").unlink()
    assert choose_rows(pairs, scores, images, most=1)[0].title.startswith("c4: Dice pancreas 0.70")
