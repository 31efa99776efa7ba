"""The split: the paper's share, and files that name the cases."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from algorithm.errors import InputError
from trainer import split as split_module
from trainer.cli import main
from trainer.split import Split, first_share, fold, read_split

from .conftest import MakeTask


@pytest.mark.parametrize(
    ("cases", "training"),
    [(281, 210), (2, 1), (3, 2), (4, 3), (10, 7), (24, 18), (100, 75), (41, 31)],
)
def test_the_first_share_of_the_cases_trains(cases: int, training: int) -> None:
    names = [f"case_{number:03d}" for number in reversed(range(cases))]
    split = first_share(names)
    assert split.training == tuple(names[:training])
    assert split.validation == tuple(names[training:])
    assert split.shared == ()


def test_folds_are_those_of_the_published_scores() -> None:
    """`nnunet_fold` says which of nnU-Net's networks did not see a case."""
    published = Path(split_module.__file__).with_name("published") / "task07_nnunet.csv"
    lines = [line for line in published.read_text().splitlines() if not line.startswith("#")]
    folds = {row["case"]: int(row["nnunet_fold"]) for row in csv.DictReader(lines)}
    assert len(folds) == 281
    names = sorted(folds, reverse=True)
    for number in range(5):
        split = fold(names, number)
        assert split.validation == tuple(name for name in names if folds[name] == number)
        assert split.training == tuple(name for name in names if folds[name] != number)


@pytest.mark.parametrize("cases", [5, 7, 24])
def test_folds_of_any_number_of_cases_are_scikit_learns(cases: int) -> None:
    names = np.array([f"case_{number:03d}" for number in range(cases)])
    for number, (_, held_out) in enumerate(KFold(5, shuffle=True, random_state=12345).split(names)):
        assert fold(list(names), number).validation == tuple(names[held_out])


def test_a_fold_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="--fold must be from 0 to 4, got 5"):
        fold(["a"] * 9, 5)
    with pytest.raises(InputError, match="5 folds need at least 5 training cases, but the data set has 4"):
        fold(list("abcd"), 0)
    assert fold(list("abcdef"), 0, overfit=True).training == tuple("abcdef")


def test_one_case_needs_overfit() -> None:
    with pytest.raises(
        InputError, match=r"at least 2 training cases, but the data set has 1: pass --overfit"
    ):
        first_share(["a"])
    split = first_share(["a"], overfit=True)
    assert split == Split(("a",), ("a",))
    assert split.shared == ("a",)


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_file_gives_sides_in_the_order_of_the_data_set(tmp_path: Path) -> None:
    file = write(tmp_path / "s.json", {"training": ["d", "a"], "validation": ["b"], "unused": ["c"]})
    assert read_split(file, ["a", "b", "c", "d"]) == Split(("a", "d"), ("b",))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    split = Split(("a", "c"), ("b",))
    split.write(tmp_path / "split.json")
    assert read_split(tmp_path / "split.json", ["a", "b", "c"]) == split
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": ["a", "b"], "validation": ["b", "c"]}, r"has b on both sides: .* or pass --overfit"),
        ({"training": ["a", "b"], "validation": ["c", "x"]}, r'names the case x under "validation" .* lacks'),
        ({"training": ["a"], "validation": ["b"]}, r"does not name c: add it to a side or to \"unused\""),
        ({"training": ["a", "a", "b"], "validation": ["c"]}, r'lists the case a twice under "training"'),
        ({"training": ["a", "b", "c"], "validation": []}, r'at least one case under "validation"'),
        (
            {"training": ["a", "b"], "validation": ["c"], "unused": ["a"]},
            r'lists a under "unused" and on a side',
        ),
        ({"training": ["a", "b", "c"]}, r"must be \{\"training\": \[names\], \"validation\": \[names\]\}"),
        ({"training": ["a"], "validation": ["b"], "test": ["c"]}, r"a split file must be"),
        ({"training": [1], "validation": ["b"]}, r"a split file must be"),
        ({"training": "abc", "validation": ["b"]}, r"a split file must be"),
        (["a"], r"a split file must be"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    file = write(tmp_path / "s.json", content)
    with pytest.raises(InputError, match=message) as caught:
        read_split(file, ["a", "b", "c"])
    assert str(file) in str(caught.value)


def test_sides_may_share_cases_only_when_asked(tmp_path: Path) -> None:
    file = write(tmp_path / "s.json", {"training": ["a"], "validation": ["a"]})
    with pytest.raises(InputError, match="on both sides"):
        read_split(file, ["a"])
    assert read_split(file, ["a"], overfit=True).shared == ("a",)


def test_no_json_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        read_split(tmp_path / "s.json", ["a"])
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_split(tmp_path / "none.json", ["a"])


def test_a_fold_and_a_split_file_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_task: MakeTask
) -> None:
    file = write(tmp_path / "split.json", {})
    command = [
        "prepare",
        str(make_task([(8, 20, 20)] * 2)),
        "--out",
        str(tmp_path / "work"),
        "--fold",
        "0",
        "--split",
        str(file),
    ]
    assert main(command) == 1
    assert "--fold and --split both say which cases are held out" in capsys.readouterr().err
