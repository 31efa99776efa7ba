"""The hard phantom: what it changes, what it leaves, and that the plain one stays as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from algorithm.errors import InputError
from trainer.cli import main
from trainer.phantom import Settings, make_dataset
from trainer.phantom.case import Volume, make_volume
from trainer.phantom.difficulty import DIFFICULTIES, draw_hardship
from trainer.phantom.statistics import draw_facts
from trainer.phantom.tissue import draw_palette

HARD = DIFFICULTIES["hard"]
PATH = np.column_stack([np.linspace(-30, 80, 20), np.zeros(20), np.zeros(20), np.full(20, 10.0)])


@pytest.fixture(scope="module")
def both() -> tuple[Volume, Volume]:
    return make_volume(2026, 5, "small"), make_volume(2026, 5, "small", HARD)


def test_a_hard_case_is_the_same_patient_on_the_same_grid(both: tuple[Volume, Volume]) -> None:
    plain, hard = both
    assert hard.grid == plain.grid
    np.testing.assert_array_equal(hard.origin_xyz_mm, plain.origin_xyz_mm)
    # Bone, air and fat are where they were; the noise is stronger.
    for low, high in ((250, 4000), (-4000, -300)):
        there, here = ((one.image > low) & (one.image < high) for one in both)
        assert 2 * (there & here).sum() / (there.sum() + here.sum()) > 0.9
    facts = draw_facts(2026, 5)
    assert (hard.labels == 1).sum() * hard.grid.voxel_ml == pytest.approx(facts.pancreas_ml, rel=0.25)


def test_the_plain_phantom_keeps_its_bytes() -> None:
    volume = make_volume(0, 3, "small")
    digest = hashlib.sha256(volume.image.tobytes() + volume.labels.tobytes()).hexdigest()
    assert digest.startswith("5d6ec41d29da4ed6")  # as before there was a hard one


def test_outlines_are_those_of_a_reader_who_errs(both: tuple[Volume, Volume]) -> None:
    there, here = (one.labels > 0 for one in both)
    assert 0.75 < 2 * (there & here).sum() / (there.sum() + here.sum()) < 0.95


def test_a_hard_case_is_repeatable(both: tuple[Volume, Volume]) -> None:
    again = make_volume(2026, 5, "small", HARD)
    np.testing.assert_array_equal(again.image, both[1].image)
    np.testing.assert_array_equal(again.labels, both[1].labels)


def test_tumours_are_dark_cystic_and_bright_in_their_shares_and_small_ones_faint() -> None:
    assert HARD is not None
    drawn = {}
    for ml in (1.0, 40.0):
        found = []
        for case in range(400):
            palette = draw_palette(0, case)
            hardship = draw_hardship(0, case, HARD, palette, PATH, ml)
            found.append((hardship.look, palette.pancreas - hardship.tumour_hu))
        drawn[ml] = found
    looks = [look for look, _ in drawn[1.0]]
    assert looks.count("cyst") / 400 == pytest.approx(HARD.cysts, abs=0.06)
    assert looks.count("bright") / 400 == pytest.approx(HARD.bright, abs=0.05)
    least, most = HARD.dark_hu
    means = []
    for ml in (1.0, 40.0):
        drops = np.array([drop for look, drop in drawn[ml] if look == "dark"])
        assert least <= drops.min() <= drops.max() <= most
        assert all(drop < -least / 2 for look, drop in drawn[ml] if look == "bright")
        assert all(drop > 30 for look, drop in drawn[ml] if look == "cyst")
        means.append(drops.mean())
    assert means[0] < 0.8 * means[1]


def test_spots_lie_in_the_gland_and_nodes_beside_it() -> None:
    assert HARD is not None
    spots, nodes = [], []
    for case in range(200):
        hardship = draw_hardship(1, case, HARD, draw_palette(1, case), PATH, 5.0)
        spots += [spot.shape.centre for spot in hardship.spots]
        nodes += [(shape.centre, shape.radii.mean()) for shape, _ in hardship.nodes]
    assert len(spots) / 200 == pytest.approx(HARD.mimics, rel=0.2)
    assert len(nodes) / 200 == pytest.approx(HARD.nodes, rel=0.2)
    away = [np.linalg.norm(PATH[:, :3] - centre, axis=1).min() for centre in spots]
    assert max(away) < 10.0
    away = [np.linalg.norm(PATH[:, :3] - centre, axis=1).min() - radius for centre, radius in nodes]
    assert np.median(away) > 8.0


def test_a_folder_of_the_other_difficulty_is_refused(tmp_path: Path) -> None:
    folder, _ = make_dataset(
        tmp_path, settings=Settings(3, "small", difficulty="hard"), training=1, test=0, workers=1
    )
    assert json.loads((folder / "phantom.json").read_text())["difficulty"] == "hard"
    with pytest.raises(
        InputError, match="made with difficulty hard and cannot be continued with difficulty plain"
    ):
        make_dataset(tmp_path, settings=Settings(3, "small"), training=1, test=0)


@pytest.mark.parametrize("others", [["--kind", "brain"], ["--anatomy", "body.nii.gz"]])
def test_only_the_synthetic_pancreas_is_hard(
    others: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["phantom", str(tmp_path / "data"), "--difficulty", "hard", *others]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "decathlon phantom: --difficulty hard is of the synthetic pancreas: leave out --anatomy and --kind."
    )
    assert not (tmp_path / "data").exists()
