"""The command: exit codes, and a last line of stderr that says what went wrong."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from algorithm.errors import InputError
from trainer import cli

Run = Callable[[argparse.Namespace], None]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Return what puts a function in the place of `decathlon train`."""

    def install(run: Run) -> None:
        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("work")
            parser.add_argument("--epochs", type=int, default=3, help="passes over the data")

        module = types.ModuleType("trainer.cli.train", "Train the network.")
        vars(module).update(EXAMPLE="decathlon train WORK --epochs 5", add_arguments=add_arguments, run=run)
        monkeypatch.setitem(sys.modules, "trainer.cli.train", module)

    return install


def raising(error: BaseException) -> Run:
    def run(_: argparse.Namespace) -> None:
        raise error

    return run


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.endswith("\n")
    return text.splitlines()[-1]


def test_done_is_zero(verb: Callable[[Run], None], capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[argparse.Namespace] = []
    verb(seen.append)
    assert cli.main(["train", "W", "--epochs", "7"]) == 0
    assert (seen[0].work, seen[0].epochs, seen[0].verb) == ("W", 7, "train")
    assert capsys.readouterr().err == ""


def test_arguments_come_from_the_command_line(
    verb: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    verb(seen.append)
    monkeypatch.setattr(sys, "argv", ["decathlon", "train", "W"])
    assert cli.main() == 0
    assert seen[0].work == "W"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("W must hold train.h5"), 1, "decathlon train: W must hold train.h5"),
        (InputError("two\nlines"), 1, "decathlon train: two\\nlines"),
        (KeyboardInterrupt(), 130, "decathlon train: interrupted; the same command continues"),
        (ZeroDivisionError("by\n  nought"), 1, "decathlon train: unexpected ZeroDivisionError: by nought"),
        (
            MemoryError(),
            1,
            "decathlon train: out of memory: close other programs, or train with a smaller batch_size",
        ),
        (
            ModuleNotFoundError("No module named 'h5py'", name="h5py"),
            1,
            "decathlon train: h5py is not installed; pip install 'decathlon-unet[trainer]'",
        ),
    ],
)
def test_failures_have_a_code_and_a_last_line(
    verb: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    verb(raising(error))
    assert cli.main(["train", "W"]) == code
    assert last_line(capsys) == line


def test_only_the_unexpected_has_a_traceback(
    verb: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(InputError("no")))
    cli.main(["train", "W"])
    assert capsys.readouterr().err == "decathlon train: no\n"
    verb(raising(KeyError("lost")))
    cli.main(["train", "W"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "a VERB is required|required: VERB"),
        (
            ["trian"],
            "there is no verb 'trian'; did you mean 'train'\\?; the verbs are phantom, prepare, train, ",
        ),
        (["xyzzy"], "there is no verb 'xyzzy'; the verbs are phantom, prepare, train, "),
        (["train"], "the following arguments are required: work$"),
        (["train", "W", "--epoch", "5"], "there is no argument '--epoch'; did you mean '--epochs'\\?$"),
        (["train", "W", "--epoch=5"], "there is no argument '--epoch=5'; did you mean '--epochs'\\?$"),
        (["--epochs=5", "train", "W"], "'--epochs=5' must stand behind 'train'$"),
        (["train", "W", "more"], "there is no argument 'more'$"),
        (["train", "W", "--epochs", "x"], "argument --epochs: invalid int value: 'x'$"),
    ],
)
def test_wrong_usage_is_two(
    verb: Callable[[Run], None], capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    verb(raising(AssertionError("must not run")))
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2
    message = last_line(capsys)
    assert message.startswith("decathlon")
    with pytest.raises(ValueError, match=line):
        raise ValueError(message)


def test_help_gives_the_example(verb: Callable[[Run], None], capsys: pytest.CaptureFixture[str]) -> None:
    verb(raising(AssertionError("must not run")))
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["train", "--help"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    assert "Train the network." in shown
    assert "example:\n  decathlon train WORK --epochs 5" in shown


def test_help_lists_the_verbs_without_loading_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["--help"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.VERBS)


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    script = (
        "import sys, types, trainer.cli as cli\n"
        "module = types.ModuleType('trainer.cli.train', 'doc')\n"
        "module.EXAMPLE = 'x'\n"
        "module.add_arguments = lambda parser: None\n"
        "module.run = lambda parsed: [sys.stdout.write('line\\n' * 10000) for _ in range(10)]\n"
        "sys.modules['trainer.cli.train'] = module\n"
        "sys.exit(cli.main(['train']))\n"
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", script],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(write_end)
    assert done.returncode == 1
    assert done.stderr == "decathlon train: the reader of its output went away\n"
