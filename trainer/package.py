"""A bundle in other forms: with a coarse pass, as a tarball."""

from __future__ import annotations

import dataclasses
import math
import tarfile
import tempfile
from pathlib import Path

import torch

from algorithm.bundle import Bundle, write_bundle
from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.locate import CoarseToFine


def with_coarse_pass(bundle: Bundle, coarse: Bundle, settings: CoarseToFine) -> Bundle:
    """Return a bundle whose network sees only the box that another one chooses.

    Raises:
        InputError: the coarse one has other channels, a coarse pass itself or voxels that are not larger, or a
            setting is out of range.

    """
    for name, what in settings.faults():
        raise InputError(f"{name} must be {what}, got {getattr(settings, name):g}")
    ours, theirs = bundle.description, coarse.description
    if (ours.channels, ours.normalisation) != (theirs.channels, theirs.normalisation):
        raise InputError(f"the coarse pass must see {ours.sees}, but was trained on {theirs.sees}")
    if coarse.coarse is not None:
        raise InputError("the coarse pass must be a bundle without a coarse pass of its own")
    if math.prod(theirs.spacing_zyx_mm) <= math.prod(ours.spacing_zyx_mm):
        raise InputError(
            f"the coarse pass must have larger voxels than {ours.spacing_zyx_mm} mm (z, y, x), "
            f"but has {theirs.spacing_zyx_mm}"
        )
    return Bundle(bundle.network, dataclasses.replace(ours, coarse_to_fine=settings), coarse)


def write_tarball(path: Path, bundle: Bundle, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a bundle as .tar.gz, for /opt/ml/model: its files at the top, without owners or times.

    `dtype` is that of the weights in it, as for `write_bundle`.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "bundle", bundle, dtype=dtype)
        with replacing(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
            for file in sorted((Path(folder) / "bundle").iterdir()):
                archive.add(file, arcname=file.name, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
