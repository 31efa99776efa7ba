"""What a person watches a training by: fixed slices drawn again and again, and TensorBoard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from matplotlib.image import imread
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from trainer.figures import display_window, save_overlay_grid
from trainer.history import History
from trainer.overlay import OverlayRow, telling_slice
from trainer.patches import PatchFile

LOOKED_AT = (
    64  # patches of a validation file are in random order, so that its first ones are as good as others
)


@dataclass(frozen=True)
class _Slice:
    patch: int
    z: int
    title: str
    image: NDArray[np.int16]
    reference: NDArray[np.uint8]


class FixedSlices:
    """Slices of a few validation patches, the same in every epoch and every continued training.

    Of the first patches of the file those with most labels, of different cases while there are any; of each the slice
    with most of its highest label.

    Args:
        file: the validation patches.
        most: how many slices.
        patches: only the first so many patches are predicted; None for all.

    """

    def __init__(self, file: PatchFile, most: int = 4, patches: int | None = None) -> None:
        self.labels, self.spacing_zyx_mm = file.meta.labels, file.meta.spacing_zyx_mm
        self.window_hu = display_window(file.meta.normalisation, file.meta.window_hu)
        self._slices = [self._cut(file, index) for index in _choose(file, most, patches)]
        self._predicted: dict[int, NDArray[np.uint8]] = {}

    @staticmethod
    def _cut(file: PatchFile, index: int) -> _Slice:
        images, labels = file.read([index])
        z = telling_slice(labels[0], labels[0])
        case = file.meta.cases[file.case[index]]
        title = f"validation patch {index + 1} of {case}, slice {z + 1} of {labels.shape[1]}"
        return _Slice(index, z, title, images[0, 0, z].copy(), labels[0, z].copy())

    def see(self, first: int, logits: Tensor) -> None:
        """Take what is predicted for the patches from `first` on, from logits (n, K, z, y, x)."""
        for shown in self._slices:
            if first <= shown.patch < first + len(logits):
                labels = logits[shown.patch - first, :, shown.z].argmax(dim=0)
                self._predicted[shown.patch] = labels.cpu().numpy().astype(np.uint8)

    @property
    def are_seen(self) -> bool:
        """Whether all of them have been predicted since this was made."""
        return all(shown.patch in self._predicted for shown in self._slices)

    def draw(self, path: Path) -> None:
        """Draw what was predicted last, beside image and reference."""
        rows = [
            OverlayRow(
                title=shown.title,
                image=shown.image,
                reference=shown.reference,
                prediction=self._predicted[shown.patch],
                spacing_yx_mm=self.spacing_zyx_mm[1:],
            )
            for shown in self._slices
        ]
        save_overlay_grid(path, rows, labels=self.labels, window_hu=self.window_hu)


def _choose(file: PatchFile, most: int, patches: int | None) -> list[int]:
    """Return the patches with most labels, the best of every case before the second best of any."""
    looked_at = range(min(LOOKED_AT, len(file) if patches is None else patches))
    ranked = sorted(looked_at, key=lambda index: -len(np.unique(file.read([index])[1])))
    places: Counter[int] = Counter()
    turns: list[tuple[int, int]] = []
    for index in ranked:
        case = int(file.case[index])
        turns.append((places[case], index))
        places[case] += 1
    return [index for _, index in sorted(turns, key=lambda turn: turn[0])][:most]


class Board:
    """RUN/tensorboard: every column of metrics.csv as a curve, and every overlay that was drawn.

    Args:
        run: the run's folder.
        epochs_done: what was written after this epoch, before a training was stopped, is taken back.

    """

    def __init__(self, run: Path, epochs_done: int) -> None:
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=epochs_done + 1)

    def add(self, history: History) -> None:
        """Write the newest row of the history."""
        row = history.last
        epoch = int(row["epoch"])
        for name, value in row.items():
            part, _, rest = name.partition("_")
            if name != "epoch" and not np.isnan(value):
                self._writer.add_scalar(f"{part}/{rest}" if part in ("train", "val") else name, value, epoch)
        self._writer.flush()

    def add_picture(self, epoch: int, overlay: Path) -> None:
        """Write the picture of an epoch."""
        self._writer.add_image("overlay", imread(overlay)[..., :3], epoch, dataformats="HWC")
        self._writer.flush()

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
