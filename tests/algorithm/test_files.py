"""Files and folders are complete under their final name or not there, whatever happens meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from algorithm.files import replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half_write_file(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")


def half_write_folder(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        raise RuntimeError("half way")


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "a.nii.gz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith("a.nii.gz")
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.nii.gz"]


def test_a_failure_keeps_the_previous_file_and_removes_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"):
        half_write_file(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_failure_before_the_first_byte_is_the_one_that_is_seen(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="at once"), replacing(tmp_path / "a.json"):
        raise RuntimeError("at once")
    assert names(tmp_path) == []


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.json"):
        pass
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_previous_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_replaces_a_folder_whole(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").touch()
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["bundle"]


def test_a_failure_removes_a_half_written_folder(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError, match="half way"):
        half_write_folder(path)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["bundle"]


def test_a_folder_that_cannot_take_its_place_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp-"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(OSError, match="no"), replacing(path) as temporary:
        temporary.mkdir()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["bundle"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(IsADirectoryError), replacing(path) as temporary:
        temporary.write_text("new")
    assert names(path) == ["old"]
    assert names(tmp_path) == ["bundle"]


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer one ends last
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("previous", [None, "old"])
def test_a_killed_process_leaves_no_final_name(tmp_path: Path, previous: str | None) -> None:
    path = tmp_path / "a.json"
    if previous:
        path.write_text(previous)
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from algorithm.files import replacing
        with replacing(Path(sys.argv[1])) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == previous
    assert all(name.startswith(".") for name in names(tmp_path) if name != "a.json")
