"""Checkpoints: all that a training needs to go on as if it had not stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from algorithm.errors import InputError
from algorithm.files import replacing

FORMAT_VERSION = 3


def save_checkpoint(folder: Path, state: dict[str, Any], *, epochs: int, batches: int, keep: int) -> None:
    """Write `state` as that after `epochs` whole epochs and `batches` more; drop all but the `keep` newest."""
    # Names sort by progress: "epoch_0002.pt" comes before "epoch_0002_batch_000100.pt".
    part = f"_batch_{batches:06d}" if batches else ""
    with replacing(folder / f"epoch_{epochs:04d}{part}.pt") as temporary:
        torch.save({"format_version": FORMAT_VERSION, **state}, temporary)
    for old in _files(folder)[:-keep]:
        old.unlink()


def load_newest_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the newest state, its tensors on `device`; None where there is none.

    Only tensors and plain values are read, never pickled code.

    Raises:
        InputError: the newest file cannot be read.

    """
    files = _files(folder)
    if not files:
        return None
    try:
        state: dict[str, Any] = torch.load(files[-1], map_location=device, weights_only=True)
        version = state["format_version"]
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{files[-1]} is not a readable checkpoint ({reason}); remove it to continue from the one before"
        ) from None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{files[-1]} has format version {version}, this software reads {FORMAT_VERSION}; "
            "finish the training with the version that began it, or choose another --out"
        )
    return state


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch_*.pt"))
