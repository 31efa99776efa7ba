"""Presets: the shipped ones, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithm.errors import InputError
from trainer.presets import PreparePreset, preset_names, read_preset

RIGHT = """
[prepare]
spacing_zyx_mm = [2, 1.5, 1.5]
window_hu = [-100, 200]
patch_shape_zyx = [8, 16, 16]
train_patches = 20
val_patches = 10
quotas = { pancreas = 0.5 }
[train]
anything = 1
"""


def test_the_paper_preset_is_the_paper() -> None:
    assert read_preset("paper").prepare == PreparePreset(
        spacing_zyx_mm=(2.5, 0.8, 0.8),
        window_hu=(-100, 200),
        patch_shape_zyx=(64, 128, 128),
        train_patches=8000,
        val_patches=2000,
        quotas={"1": 0.3},
        seed=0,
    )


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_is_read(name: str) -> None:
    preset = read_preset(name)
    assert preset.name == name
    # The network halves the patch four times.
    assert all(size % 16 == 0 for size in preset.prepare.patch_shape_zyx)


def test_a_file_is_read_and_its_train_table_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(RIGHT)
    preset = read_preset(str(file))
    assert preset.name == "mine"
    assert preset.prepare.spacing_zyx_mm == (2.0, 1.5, 1.5)
    assert preset.prepare.quotas == {"pancreas": 0.5}
    assert preset.prepare.seed == 0
    assert preset.train == {"anything": 1}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "train_patches",
            "trian_patches",
            r"no setting trian_patches in \[prepare\].*did you mean train_patches\?",
        ),
        ("[train]", "[trian]", r"no setting trian in the preset .*: did you mean train\?"),
        ("[prepare]", "[zzz]", r"no setting zzz .*: known are prepare, train"),
        ("val_patches = 10", "", r"val_patches is required, but missing in \[prepare\]"),
        ("val_patches = 10", "val_patches = 0", r"val_patches must be at least 1, got 0"),
        ("val_patches = 10", "val_patches = 1.5", r"val_patches must be a whole number, got 1\.5"),
        ("[2, 1.5, 1.5]", "[2, 1.5]", r"spacing_zyx_mm must be a list of 3 numbers, got \[2, 1\.5\]"),
        ("[2, 1.5, 1.5]", "[2, 0, 1]", r"spacing_zyx_mm must be 0.1 to 100 mm"),
        ("[2, 1.5, 1.5]", "[2, nan, 1]", r"spacing_zyx_mm must be 0.1 to 100 mm"),
        ("[-100, 200]", "[200, -100]", r"window_hu must be LOW < HIGH"),
        ("[-100, 200]", "[-100, 40000]", r"window_hu must be LOW < HIGH within \(-32768, 32767\)"),
        ("[-100, 200]", "[-100.5, 200]", r"window_hu must be a list of 2 whole numbers"),
        ("[8, 16, 16]", "[8, 0, 16]", r"patch_shape_zyx must be 1 to 1024"),
        (
            "pancreas = 0.5",
            "pancreas = 1.5",
            r"a quota must be a share from 0 to 1, got 1\.5 for label pancreas",
        ),
        ("{ pancreas = 0.5 }", "0.5", r"quotas must be a table"),
        ("[prepare]", "[prepare", r"is not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, before: str, after: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    assert RIGHT.count(before) == 1
    file.write_text(RIGHT.replace(before, after))
    with pytest.raises(InputError, match=message) as caught:
        read_preset(str(file))
    assert str(file) in str(caught.value)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"a preset must be one of .*paper.* got papr; did you mean paper\?"):
        read_preset("papr")
