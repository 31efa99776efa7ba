"""`decathlon train --minutes`: as many epochs as the machine trains in a given time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from algorithm.errors import InputError
from tests.trainer.runs import arguments, rows, weights
from trainer.cli import main
from trainer.distributed import World
from trainer.loop import Trainer
from trainer.pace import Pace, epochs_within, measure
from trainer.parts import loader_threads
from trainer.settings import TrainSettings
from trainer.train import begun_with, open_patches
from trainer.volume_batches import open_volumes


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
        (Pace(8.0, 2.0, 5.0, 4), 14.0, 0),
        (Pace(8.0, 2.0, 5.0, 4), 15.0, 1),
        (Pace(8.0, 2.0, 5.0, 4), 45.0, 4),
        (Pace(8.0, 2.0, 5.0, 4), 59.0, 4),
        (Pace(8.0, 2.0, 5.0, 4), 60.0, 5),
    ],
)
def test_epochs_are_the_most_that_fit(pace: Pace, seconds: float, epochs: int) -> None:
    assert pace.epochs_within(seconds) == epochs
    assert epochs == 0 or pace.seconds(epochs) <= seconds < pace.seconds(epochs + 1)


def test_weights_are_those_of_as_many_epochs_and_the_trial_leaves_no_trace(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(trainer: Trainer) -> Pace:
        real = measure(trainer)
        assert min(real.training_s, real.validation_s, real.volumes_s) > 0
        return Pace(20.0)

    monkeypatch.setattr("trainer.pace.measure", measured)
    assert main(in_minutes(work, tmp_path / "run", 1, volume_epochs=2)) == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["epochs"] == 3
    assert main(arguments(work, tmp_path / "same", volume_epochs=2, epochs=3)) == 0
    first, second = weights(tmp_path / "run"), weights(tmp_path / "same")
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_a_training_that_waits_for_data_has_the_pace_of_its_data(work: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        TrainSettings(base_filters=2), *open_patches(work), tmp_path / "run", torch.device("cpu")
    )
    batch = next(iter(trainer.batches.batches(0)))

    class Slow:
        """Sixteen batches lie ready; those after them take 0.3 s each."""

        def __len__(self) -> int:
            return 40

        def batches(self, *_: int, **__: int) -> Iterator[Any]:
            for number in range(len(self)):
                time.sleep(0.3 if number >= 2 * loader_threads(World()) else 0.0)
                yield batch

    trainer.batches = Slow()
    assert measure(trainer).training_s > 40 * 0.3


def test_what_was_begun_keeps_its_epochs(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(arguments(work, run, epochs=2)) == 0
    with caplog.at_level("INFO"):
        assert main(in_minutes(work, run, 10)) == 0
    assert f"the training in {run} was begun with 2 epochs, and keeps them" in caplog.text
    assert len(rows(run)) == 2


def test_a_time_without_an_epoch_is_refused(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(in_minutes(work, run, 1e-4)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--minutes must be at least 0." in said
    assert "here, which one epoch takes, most of it for " in said
    assert ", got 0.0001; " in said
    assert not run.exists()


def test_minutes_and_epochs_are_one_too_many(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(work, tmp_path / "run", epochs=3), "--minutes", "2"]) == 1
    assert "--minutes 2 chooses the number of epochs, got --set epochs=3 too" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("pace", "said"),
    [
        (Pace(90.0, 20.0, 50.0, 1), "8 batches, got 1; lower epoch_patches"),
        (Pace(20.0, 90.0, 50.0, 1), "3 batches of validation, got 1; lower val_patches"),
        (Pace(20.0, 50.0, 90.0, 1), "whole validation volumes, got 1; set volume_epochs=null"),
    ],
)
def test_the_remedy_is_for_what_takes_longest(pace: Pace, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.pace.measure", lambda _: pace)
    trainer = SimpleNamespace(batches=range(8), val_batches=range(3))
    with pytest.raises(
        InputError, match=f"must be at least 2.7 here, which one epoch takes, most of it for {said}"
    ):
        epochs_within(1, cast(Trainer, trainer))


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_are_a_time(
    work: Path, tmp_path: Path, minutes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments(work, tmp_path / "run"), "--minutes", minutes])
    assert ended.value.code == 2
    assert f"must be a number above 0, got {minutes}" in capsys.readouterr().err


def test_volumes_are_counted_by_their_voxels(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(base_filters=2, volume_epochs=2)
    trainer = Trainer(settings, *open_patches(work), tmp_path / "run", torch.device("cpu"))
    cases = trainer.val_file.meta.validation_cases
    sizes = [label.size for _, label in open_volumes(work, cases)]
    monkeypatch.setattr(trainer, "validate_volumes", lambda *_, **__: time.sleep(0.5))
    seconds = measure(trainer).volumes_s
    assert 0.5 * sum(sizes) / sizes[0] <= seconds < 3 * sum(sizes) / sizes[0]


def test_another_training_s_settings_may_be_odd(tmp_path: Path) -> None:
    for text in ("", "[]", '{"epochs": true}', '{"epochs": 0}', '{"epochs": "3"}', "{}"):
        (tmp_path / "settings.json").write_text(text)
        assert begun_with(tmp_path) is None, text
    (tmp_path / "settings.json").write_text('{"epochs": 7}')
    assert begun_with(tmp_path) == 7
    assert begun_with(tmp_path / "nothing") is None
