"""Scores by epoch: kept as rows of plain numbers, written as metrics.csv and as the curves of figures 3 and 4."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithm.files import replacing
from trainer.metrics import paper_dice

Row = dict[str, float]


@dataclass(frozen=True)
class EpochScores:
    """Scores of one pass over patches.

    Attributes:
        loss: mean of the batches' losses (the paper's epoch loss, figure 3).
        batch_dice: Dice per label averaged over batches, an absent label scoring 0 (figure 4 of the paper).
        pooled_dice: Dice per label of all voxels at once (section 5 of the paper).

    """

    loss: float
    batch_dice: tuple[float, ...]
    pooled_dice: tuple[float, ...]

    @classmethod
    def of(cls, losses: NDArray[np.floating], confusions: NDArray[np.int64]) -> EpochScores:
        """Reduce losses (batches,) and confusion matrices (batches, K, K)."""
        return cls(
            loss=float(losses.mean(dtype=np.float64)),
            batch_dice=tuple(paper_dice(confusions).mean(axis=0).tolist()),
            pooled_dice=tuple(paper_dice(confusions.sum(axis=0)).tolist()),
        )


class History:
    """One row an epoch; column names are `train_loss`, `val_pooled_pancreas` and the like.

    `val_volume_pancreas` is the mean Dice of whole volumes, NaN after epochs in which they were not segmented; the
    columns are there from the first row on, if ever.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.rows: list[Row] = []

    @classmethod
    def from_rows(cls, labels: Sequence[str], rows: list[Row]) -> History:
        """Rebuild what a checkpoint kept."""
        history = cls(labels)
        history.rows = list(rows)
        return history

    def append(
        self,
        *,
        epoch: int,
        train: EpochScores,
        val: EpochScores,
        learning_rate: float,
        seconds: float,
        waited_share: float,
        voxels_per_s: float,
        volume_dice: Sequence[float] | None = None,
    ) -> None:
        """Add the row of `epoch`, counted from 1; `volume_dice` has one number a label."""
        row: Row = {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "seconds": seconds,
            "waited_share": waited_share,
            "voxels_per_s": voxels_per_s,
        }
        for part, scores in (("train", train), ("val", val)):
            row[f"{part}_loss"] = scores.loss
            for kind, dice in (("dice", scores.batch_dice), ("pooled", scores.pooled_dice)):
                row.update(
                    {f"{part}_{kind}_{name}": value for name, value in zip(self.labels, dice, strict=True)}
                )
        if volume_dice is not None:
            names = zip(self.labels, volume_dice, strict=True)
            row.update({f"val_volume_{name}": value for name, value in names})
        self.rows.append(row)

    @property
    def last(self) -> Row:
        """The newest row; empty before the first epoch ends."""
        return self.rows[-1] if self.rows else {}

    @property
    def is_decided(self) -> bool:
        """Whether the newest row has the score that the best epoch is chosen by."""
        volumes = [self.last.get(f"val_volume_{name}", 0.0) for name in self.labels[1:]]
        return bool(self.rows) and not bool(np.isnan(volumes).all())

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, whose mean validation Dice of the foreground labels is highest.

        That of whole volumes, where any were segmented; else the pooled one of patches.
        """
        scores = np.array(
            [[row.get(f"val_volume_{name}", np.nan) for name in self.labels[1:]] for row in self.rows]
        )
        if np.isnan(scores).all():
            scores = np.array([[row[f"val_pooled_{name}"] for name in self.labels[1:]] for row in self.rows])
        with_scores = ~np.isnan(scores)
        means = np.where(with_scores, scores, 0).sum(axis=1) / np.maximum(with_scores.sum(axis=1), 1)
        return int(np.argmax(np.where(with_scores.any(axis=1), means, -1.0))) + 1

    def describe(self, epoch: int) -> str:
        """Return one line about an epoch, counted from 1."""
        row = self.rows[epoch - 1]
        dice = ", ".join(f"{name} {row[f'val_pooled_{name}']:.3f}" for name in self.labels[1:])
        volumes = [
            f"{name} {row[f'val_volume_{name}']:.3f}"
            for name in self.labels[1:]
            if self._has_volume(row, name)
        ]
        whole = f"; whole volumes {', '.join(volumes)}" if volumes else ""
        return (
            f"loss {row['train_loss']:.4f} train, {row['val_loss']:.4f} validation; pooled Dice {dice}{whole}; "
            f"{row['seconds']:.0f} s, {row['voxels_per_s'] / 1e6:.2f} Mvoxel/s, "
            f"{row['waited_share']:.1%} waiting for data"
        )

    @staticmethod
    def _has_volume(row: Row, name: str) -> bool:
        return not np.isnan(row.get(f"val_volume_{name}", np.nan))

    def write(self, run: Path) -> None:
        """Write RUN/metrics.csv."""
        with replacing(run / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def draw(self, run: Path) -> None:
        """Draw RUN/curves.png."""
        from trainer.figures import save_curves

        save_curves(run / "curves.png", self.rows, labels=self.labels)
