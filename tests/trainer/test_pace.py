"""`decathlon train --minutes`: as many epochs as the machine trains in a given time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from tests.trainer.runs import arguments, rows, weights
from trainer.cli import main
from trainer.loop import Trainer
from trainer.pace import Pace, measure
from trainer.settings import TrainSettings
from trainer.train import open_patches

SECONDS = 4.0


def in_minutes(work: Path, run: Path, minutes: float, **changes: object) -> list[str]:
    words = [word for word in arguments(work, run, **changes) if not word.startswith("epochs=")]
    return [*words, "--minutes", str(minutes)]


@pytest.mark.parametrize(
    ("pace", "seconds", "epochs"),
    [
        (Pace(10.0), 9.9, 0),
        (Pace(10.0), 10.0, 1),
        (Pace(10.0), 59.0, 5),
        # One whole validation after the last epoch, however few there are, and one after every fourth.
        (Pace(10.0, 5.0, 4), 14.0, 0),
        (Pace(10.0, 5.0, 4), 15.0, 1),
        (Pace(10.0, 5.0, 4), 45.0, 4),
        (Pace(10.0, 5.0, 4), 59.0, 4),
        (Pace(10.0, 5.0, 4), 60.0, 5),
    ],
)
def test_epochs_are_the_most_that_fit(pace: Pace, seconds: float, epochs: int) -> None:
    assert pace.epochs_within(seconds) == epochs
    assert epochs == 0 or pace.seconds(epochs) <= seconds < pace.seconds(epochs + 1)


def test_a_training_takes_about_its_time_and_its_weights_are_those_of_so_many_epochs(
    work: Path, tmp_path: Path
) -> None:
    assert main(in_minutes(work, tmp_path / "run", SECONDS / 60, volume_epochs=100)) == 0
    chosen = json.loads((tmp_path / "run" / "settings.json").read_text())["epochs"]
    assert len(rows(tmp_path / "run")) == chosen
    spent = sum(float(row["seconds"]) for row in rows(tmp_path / "run"))
    assert SECONDS / 4 < spent < 4 * SECONDS, "the pace is of a machine that does other work too"
    # What was trained for the pace has left no trace.
    assert main(arguments(work, tmp_path / "same", volume_epochs=100, epochs=chosen)) == 0
    first, second = weights(tmp_path / "run"), weights(tmp_path / "same")
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_what_was_begun_keeps_its_epochs(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=2)) == 0
    with caplog.at_level("INFO"):
        assert main(in_minutes(work, run, 10)) == 0
    assert f"continuing with the 2 epochs that the training in {run} began with" in caplog.text
    assert len(rows(run)) == 2


def test_a_time_without_an_epoch_is_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(in_minutes(work, run, 1e-4)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--minutes must be at least 0." in said
    assert said.endswith("batches, got 0.0001; for a shorter epoch lower epoch_patches")
    assert not run.exists()


def test_minutes_and_epochs_are_one_too_many(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(work, tmp_path / "run", epochs=3), "--minutes", "2"]) == 1
    assert "--minutes 2 chooses the number of epochs, got --set epochs=3 too" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_minutes_are_a_time(work: Path, tmp_path: Path, minutes: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments(work, tmp_path / "run"), "--minutes", minutes])
    assert ended.value.code == 2


def test_slow_volumes_are_counted(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings(base_filters=2, volume_epochs=2)
    trainer = Trainer(settings, *open_patches(work), tmp_path / "run", torch.device("cpu"))
    cases = len(trainer.val_file.meta.validation_cases)
    monkeypatch.setattr(trainer, "validate_volumes", lambda *_, **__: time.sleep(0.2))
    assert measure(trainer).volumes_s == pytest.approx(0.2 * cases, rel=0.5)
