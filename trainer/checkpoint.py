"""Checkpoints: all that a training needs to go on as if it had not stopped."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import torch

from algorithm.errors import InputError
from algorithm.faults import first_line
from algorithm.files import replacing

FORMAT_VERSION = 3
NAME = re.compile(r"epoch_(\d+)(?:_batch_(\d+))?\.pt")


def save_checkpoint(folder: Path, state: dict[str, Any], *, epochs: int, batches: int, keep: int) -> None:
    """Write `state` as that after `epochs` whole epochs and `batches` more; drop all but the `keep` newest."""
    part = f"_batch_{batches:06d}" if batches else ""
    with replacing(folder / f"epoch_{epochs:04d}{part}.pt") as temporary:
        _write(temporary, {"format_version": FORMAT_VERSION, **state})
    for old in _files(folder)[:-keep]:
        old.unlink()


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:  # what PyTorch makes of a full disk
        raise OSError(
            errno.EIO, f"a checkpoint could not be written ({first_line(error)})", str(file)
        ) from None


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
        raise InputError(
            f"{files[-1]} is not a readable checkpoint ({first_line(error)}); remove it to continue from the one before"
        ) from None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{files[-1]} has format version {version}, this software reads {FORMAT_VERSION}; "
            "finish the training with the version that began it, or choose another --out"
        )
    return state


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder by progress, the oldest first."""
    return sorted((file for file in folder.glob("epoch_*.pt") if NAME.fullmatch(file.name)), key=progress_of)


def progress_of(file: Path) -> tuple[int, int]:
    """Return the whole epochs and the further batches that a checkpoint has seen, by its name."""
    name = NAME.fullmatch(file.name)
    if name is None:
        raise ValueError(f"a checkpoint must be named epoch_N.pt or epoch_N_batch_M.pt, got {file.name}")
    return int(name[1]), int(name[2] or 0)
