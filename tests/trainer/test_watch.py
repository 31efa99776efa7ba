"""What a person watches a training by: status lines, fixed slices, TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.history import EpochScores, History
from trainer.tally import Tally
from trainer.watch import Board, FixedSlices

LABELS = ("background", "pancreas", "cancer")


class Patches:
    """A validation file of six patches of three cases; patch 3 alone shows both labels, in slice 5."""

    def __init__(self) -> None:
        self.case = np.array([0, 0, 1, 1, 2, 2], dtype=np.int32)
        self.meta = SimpleNamespace(
            labels=LABELS,
            spacing_zyx_mm=(2.5, 1.0, 1.0),
            normalisation="window",
            window_hu=(-100, 200),
            cases=("a", "b", "c"),
        )
        self.labels = np.zeros((6, 8, 32, 32), dtype=np.uint8)
        self.labels[1:4, 2, 4:20, 4:20] = 1
        self.labels[3, 5, 8:16, 8:16] = 2
        self.images = np.full((6, 1, 8, 32, 32), 50, dtype=np.int16)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        return self.images[indices], self.labels[indices]


def logits_of(labels: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 3).movedim(-1, 1).float()


@pytest.mark.parametrize(
    ("most", "patches"), [(1, ["4 of b"]), (3, ["4 of b", "2 of a", "5 of c"]), (9, list("423156"))]
)
def test_slices_of_the_telling_patches_of_different_cases_come_first(most: int, patches: list[str]) -> None:
    slices = FixedSlices(Patches(), most)  # type: ignore[arg-type]
    titles = [shown.title.removeprefix("validation patch ") for shown in slices._slices]
    assert len(titles) == len(patches)
    if most < 9:
        assert [title.split(",")[0] for title in titles] == patches
        assert titles[0] == "4 of b, slice 6 of 8"
    else:
        assert sorted(title[0] for title in titles) == sorted(patches)


def test_what_is_drawn_is_what_was_predicted_last(tmp_path: Path) -> None:
    file = Patches()
    slices = FixedSlices(file, 1)  # type: ignore[arg-type]
    missed, found = np.zeros_like(file.labels), file.labels
    pictures = []
    for predicted in (missed, found):
        for first in (0, 2, 4):
            slices.see(first, logits_of(predicted[first : first + 2]))
        slices.draw(tmp_path / "overlay.png")
        pictures.append(imread(tmp_path / "overlay.png")[..., :3])
    without, with_tumour = (picture.astype(float) for picture in pictures)
    width = without.shape[1]
    changed = np.abs(without - with_tumour).max(axis=2) > 0.1
    assert changed[:, 2 * width // 3 :].any(), "the prediction is the right third"
    assert not changed[:, : 2 * width // 3].any(), "image and reference stay"
    reference, prediction = (
        with_tumour[40:-60, part * width // 3 + 20 : (part + 1) * width // 3 - 20] for part in (1, 2)
    )
    orange = [np.abs(part - [0.93, 0.7, 0.3]).max(axis=2) < 0.25 for part in (reference, prediction)]
    assert orange[0].sum() == pytest.approx(orange[1].sum(), rel=0.05)
    assert orange[0].any()


def test_a_status_is_worked_out_from_all_batches_so_far() -> None:
    tally = Tally()
    assert tally.describe(LABELS) == "no batch yet"
    # Of four pancreas voxels two are found and none invented: Dice 4/6. There is no cancer: 0.
    for loss in (1.0, 2.0):
        tally.losses.append(torch.tensor(loss))
        tally.confusions.append(torch.tensor([[999_998, 0, 0], [1, 1, 0], [0, 0, 0]]))
    tally.spent_s = 0.5
    assert tally.describe(LABELS) == "loss 1.5000, Dice pancreas 0.67, cancer 0.00, 4.00 Mvoxel/s"
    tally.losses.append(torch.tensor(3.0))
    tally.confusions.append(torch.tensor([[0, 0, 0], [0, 4, 0], [0, 0, 0]]))
    assert tally.describe(LABELS) == "loss 2.0000, Dice pancreas 0.86, cancer 0.00, 4.00 Mvoxel/s"
    assert tally.voxels_per_s() == 4_000_008
    assert Tally(**tally.state()).describe(LABELS) == tally.describe(LABELS)


def test_only_what_a_batch_is_waited_for_counts_as_waiting() -> None:
    tally = Tally()

    def slow() -> Iterator[int]:
        for batch in range(2):
            time.sleep(0.05)
            yield batch

    for _ in tally.waiting_for(slow()):
        time.sleep(0.3)
    assert 0.1 <= tally.waited_s < 0.3


def history_of(epochs: int) -> History:
    history = History(LABELS)
    for epoch in range(1, epochs + 1):
        scores = EpochScores(1 / epoch, (1.0, 0.1 * epoch, 0.0), (1.0, 0.1 * epoch, 0.0))
        rest: dict[str, Any] = {
            "learning_rate": 0.1,
            "seconds": 1.0,
            "waited_share": 0.0,
            "voxels_per_s": 1.0,
        }
        volumes = (1.0, 0.5, float("nan")) if epoch == 2 else (float("nan"),) * 3
        history.append(epoch=epoch, train=scores, val=scores, volume_dice=volumes, **rest)
    return history


def test_tensorboard_has_each_epoch_once_also_after_a_restart(tmp_path: Path) -> None:
    file = Patches()
    slices = FixedSlices(file)  # type: ignore[arg-type]
    slices.see(0, logits_of(file.labels))
    slices.draw(tmp_path / "overlay.png")
    for epochs_done, upto in ((0, 3), (2, 4)):  # stopped after epoch 3, whose checkpoint was not yet written
        with Board(tmp_path, epochs_done) as board:
            for epoch in range(epochs_done + 1, upto + 1):
                board.add(history_of(epoch))
                board.add_picture(epoch, tmp_path / "overlay.png")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    loss = events.Scalars("train/loss")
    assert [event.step for event in loss] == [1, 2, 3, 4]
    assert [event.value for event in loss] == pytest.approx([1 / epoch for epoch in range(1, 5)])
    assert [event.step for event in events.Scalars("val/volume_pancreas")] == [2]
    assert len({event.step for event in events.Images("overlay")}) == 4
