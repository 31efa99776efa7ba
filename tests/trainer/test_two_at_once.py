"""A second process in a folder that another one writes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from algorithm.lock import alone_in
from tests.bundles import write_random_bundle
from tests.decathlon import labels, make_task, write
from tests.trainer.runs import arguments as train_arguments
from tests.trainer.searching import write_space
from trainer.cli import main

ARRAY = labels((1, (1, 1, 1), (5, 6, 7)), (2, (2, 2, 2), (3, 4, 4)))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    task = make_task(tmp_path, {"a": ARRAY, "b": ARRAY}, ("c",))
    write(tmp_path / "predictions" / "c.nii.gz", ARRAY)
    return task


@pytest.mark.parametrize("verb", ["prepare", "predict", "evaluate", "submission", "phantom", "doctor"])
def test_a_second_process_is_refused_by_name(
    verb: str, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    truth = str(task / "labelsTr")
    held = {"submission": tmp_path / ".out.zip.parts", "phantom": out / "Task07_Pancreas"}.get(verb, out)
    arguments = {
        "prepare": [str(task), "--out", str(out)],
        "predict": [str(task / "imagesTs"), "--model", str(tmp_path / "model"), "--out", str(out)],
        "evaluate": ["--reference", truth, "--prediction", truth, "--out", str(out)],
        "submission": [str(tmp_path / "predictions"), "--dataset", str(task), "--out", f"{out}.zip"],
        "phantom": [str(out), "--cases", "1", "--size", "small"],
        "doctor": ["dataset", str(task), "--out", str(out), "--threads", "1"],
    }[verb]
    if verb == "predict":
        write_random_bundle(tmp_path / "model")
    assert_refused([verb, *arguments], held, capsys)


def test_a_second_training_or_search_is_refused_by_name(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    capsys.readouterr()
    assert_refused(train_arguments(work, out), out, capsys)
    space = str(write_space(tmp_path))
    assert_refused(["search", str(work), "--space", space, "--out", str(out)], out, capsys)


def assert_refused(arguments: list[str], held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alone_in(held, "decathlon before"):
        (held / "of_the_first").touch()
        assert main(arguments) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"decathlon {arguments[0]}: decathlon before (process {os.getpid()} on ")
        assert last.endswith(f" is at work in {held}: wait for it to end")
        assert {path.name for path in held.iterdir()} == {".lock", "of_the_first"}
