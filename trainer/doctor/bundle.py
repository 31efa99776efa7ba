"""Examine a model bundle, a folder or the tarball of one, as it will lie in /opt/ml/model.

It must load: model.json complete and sane, every tensor of model.safetensors of the shape that it asks for. A
tarball must be gzip, hold nothing that leaves its folder, and no pickle.
"""

from __future__ import annotations

import argparse
import posixpath
import stat
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.doctor.finding import Finding, error, note, warning

if TYPE_CHECKING:
    from algorithm.bundle import Bundle

SUMMARY = "a model bundle: a folder, or a tarball for /opt/ml/model"
EXAMPLE = "decathlon doctor bundle model.tar.gz"
GZIP_MAGIC = b"\x1f\x8b"
OPEN_FOLDER = stat.S_IROTH | stat.S_IXOTH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subject."""
    parser.add_argument("path", type=Path, metavar="BUNDLE", help="a bundle: a folder or a tarball")


def examine(args: argparse.Namespace) -> list[Finding]:
    """Run the examination that the arguments ask for."""
    return check(args.path)


def check(path: Path) -> list[Finding]:
    """Return what is wrong with a bundle, or with the members of an ensemble, and what they hold."""
    from algorithm.bundle import DESCRIPTION
    from algorithm.errors import InputError
    from algorithm.shipped import located

    path = located(path)
    findings: list[Finding] = []
    if path.is_dir():
        for file in sorted(path.iterdir()):
            member = (file / DESCRIPTION).is_file() and not (path / DESCRIPTION).is_file()
            for each in sorted(file.iterdir()) if member else [file]:
                findings += _of_file(each)
    elif path.is_file():
        findings += _of_tarball(path)
        if any(finding.severity == "error" for finding in findings):
            return findings  # a tarball that should not be unpacked is not read either
    try:
        bundles = _read(path)
    except InputError as problem:
        known = {finding.sentence for finding in findings}
        return findings + ([error(problem)] if str(problem) not in known else [])
    return findings + [finding for bundle in bundles for finding in _of_bundle(path, bundle)]


def _read(path: Path) -> list[Bundle]:
    """Read a bundle, or the members of an ensemble, as the container does once the platform has unpacked a tarball."""
    from algorithm.bundle import read_bundles
    from algorithm.errors import InputError
    from algorithm.tarball import members, open_tarball

    if not path.is_file():
        return read_bundles([path])
    with tempfile.TemporaryDirectory() as folder:
        with open_tarball(path) as archive:
            for member in members(archive, path):
                archive.extract(member, folder, filter="data")
        try:
            return read_bundles([Path(folder)])
        except InputError as problem:
            raise InputError(str(problem).replace(folder, str(path))) from None


def _of_bundle(path: Path, bundle: Bundle) -> list[Finding]:
    description = bundle.description
    parameters = sum(parameter.numel() for parameter in bundle.network.parameters())
    shape = " x ".join(map(str, description.patch_shape_zyx))
    holds = (
        f"{path}: {parameters:,} parameters, patches of {shape} voxels (z, y, x), "
        f"labels {', '.join(description.labels)}, channels {', '.join(description.channels)}"
    )
    findings = [note(holds + (", with a coarse pass" if bundle.coarse else ""))]
    if not description.provenance:
        findings.append(
            warning(f"{path} does not say what it was trained on: its provenance in model.json is empty")
        )
    return findings


def _of_file(file: Path) -> list[Finding]:
    from algorithm.bundle import FILES

    findings = _of_name(file.name, f"{file}")
    if file.name in FILES and file.is_file() and not file.stat().st_mode & stat.S_IROTH:
        findings.append(
            warning(
                f"{file} can be read by its owner only, and the platform chooses another user; run chmod a+r on it"
            )
        )
    return findings


def _of_name(name: str, where: str) -> list[Finding]:
    from algorithm.bundle import FILES, PICKLES, WEIGHTS

    if name.endswith(PICKLES):
        return [error(f"{where} is a pickle, which can run code: bundles hold {WEIGHTS} only; remove it")]
    if name.startswith("._"):
        return [warning(f"{where} was left by macOS and is not read; remove it")]
    if name not in FILES and not name.startswith("."):
        return [warning(f"{where} is no file of a bundle and is not read; remove it if it is large")]
    return []


def _of_tarball(path: Path) -> list[Finding]:
    """Examine the list of a tarball's members; nothing is unpacked."""
    from algorithm.bundle import DESCRIPTION, LARGEST_BYTES, PICKLES
    from algorithm.errors import InputError
    from algorithm.tarball import members, open_tarball

    if path.suffix in PICKLES:
        return _of_name(path.name, str(path))
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    findings = []
    if not packed:
        findings.append(
            error(
                f"{path} must be compressed with gzip, as the platform unpacks it; 'decathlon package' writes it so"
            )
        )
    try:
        with open_tarball(path) as archive:
            listed = list(members(archive, path))
    except InputError as problem:
        return [error(problem)]
    size = sum(member.size for member in listed)
    if size > LARGEST_BYTES:
        findings.append(
            error(f"{path} unpacks to {size} bytes, more than the {LARGEST_BYTES} that a bundle may hold")
        )
    for member in listed:
        findings += _of_member(path, member)
    names = Counter(_normal(member.name) for member in listed)
    findings += [
        error(f"{path} holds {name} twice; which one counts depends on who unpacks it")
        for name, count in names.items()
        if count > 1
    ]
    nested = [name for name in names if name.endswith(f"/{DESCRIPTION}") and not _leads_out(name)]
    if nested and DESCRIPTION in names:
        findings.append(
            error(
                f"{path} holds both {DESCRIPTION} and {nested[0]}; a tarball is one bundle or a folder for each"
            )
        )
    elif nested:
        findings.append(
            warning(
                f"{path} holds {len(nested)} bundle{'s' if len(nested) > 1 else ''} in folders ({nested[0]}), which "
                "become an ensemble; those of one bundle lie at its root"
            )
        )
    return findings


def _of_member(path: Path, member: tarfile.TarInfo) -> list[Finding]:
    where, normal = f"{path}: {member.name}", _normal(member.name)
    if _leads_out(member.name):
        return [error(f"{where} would be unpacked outside the model's folder; make the tarball anew")]
    if member.isdir():
        if member.mode & OPEN_FOLDER == OPEN_FOLDER:
            return []
        return [
            error(
                f"{where} can be entered by its owner only (mode {member.mode & 0o777:o}), and the platform chooses "
                "another user; add it with --mode=a+rX"
            )
        ]
    if not member.isreg():
        what = "a link" if member.issym() or member.islnk() else "no regular file"
        return [error(f"{where} is {what}; a bundle holds plain files only")]
    findings = _of_name(posixpath.basename(normal), where)
    if not member.mode & stat.S_IROTH:
        findings.append(
            error(
                f"{where} can be read by its owner only (mode {member.mode & 0o777:o}), and the platform chooses "
                "another user; add it with --mode=a+r"
            )
        )
    return findings


def _leads_out(name: str) -> bool:
    return posixpath.isabs(name) or _normal(name).split("/")[0] == ".." or "\\" in name


def _normal(name: str) -> str:
    return posixpath.normpath(name)
