"""Examine a model bundle, a folder or the tarball of one, as it will lie in /opt/ml/model.

It must load: model.json complete and sane, every tensor of model.safetensors of the shape that it asks for. A
tarball must be gzip, hold nothing that leaves its folder, and no pickle.
"""

from __future__ import annotations

import argparse
import posixpath
import stat
import tarfile
import zlib
from collections import Counter
from pathlib import Path

from trainer.doctor.finding import Finding, error, note, warning

SUMMARY = "a model bundle: a folder, or a tarball for /opt/ml/model"
EXAMPLE = "decathlon doctor bundle model.tar.gz"
GZIP_MAGIC = b"\x1f\x8b"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subject."""
    parser.add_argument("path", type=Path, metavar="BUNDLE", help="a bundle: a folder or a tarball")


def examine(args: argparse.Namespace) -> list[Finding]:
    """Run the examination that the arguments ask for."""
    return check(args.path)


def check(path: Path) -> list[Finding]:
    """Return what is wrong with a bundle, and what it holds."""
    from algorithm.bundle import FILES, read_bundle
    from algorithm.errors import InputError

    findings: list[Finding] = []
    if path.is_dir():
        for file in sorted(path.iterdir()):
            findings += _of_file(file, FILES)
    elif path.is_file():
        findings += _of_tarball(path, FILES)
    known = {finding.sentence for finding in findings}
    if any(finding.severity == "error" for finding in findings) and path.is_file():
        return findings  # a tarball that should not be unpacked is not read either
    try:
        bundle = read_bundle(path)
    except InputError as problem:
        return findings + ([error(problem)] if str(problem) not in known else [])
    description = bundle.description
    parameters = sum(parameter.numel() for parameter in bundle.network.parameters())
    shape = " x ".join(map(str, description.patch_shape_zyx))
    findings.append(
        note(
            f"{path}: {parameters:,} parameters, patches of {shape} voxels (z, y, x), "
            f"labels {', '.join(description.labels)}, channels {', '.join(description.channels)}"
            + (", with a coarse pass" if bundle.coarse else "")
        )
    )
    if not description.provenance:
        findings.append(
            warning(f"{path} does not say what it was trained on: its provenance in model.json is empty")
        )
    return findings


def _of_file(file: Path, known: tuple[str, ...]) -> list[Finding]:
    findings = _of_name(file.name, f"{file}", known)
    if file.name in known and file.is_file() and not file.stat().st_mode & stat.S_IROTH:
        findings.append(
            warning(
                f"{file} can be read by its owner only, and the platform chooses another user; run chmod a+r on it"
            )
        )
    return findings


def _of_name(name: str, where: str, known: tuple[str, ...]) -> list[Finding]:
    from algorithm.bundle import PICKLES, WEIGHTS

    if name.endswith(PICKLES):
        return [error(f"{where} is a pickle, which can run code: bundles hold {WEIGHTS} only; remove it")]
    if name.startswith("._"):
        return [warning(f"{where} was left by macOS and is not read; remove it")]
    if name not in known and not name.startswith("."):
        return [warning(f"{where} is no file of a bundle and is not read; remove it if it is large")]
    return []


def _of_tarball(path: Path, known: tuple[str, ...]) -> list[Finding]:
    """Examine the list of a tarball's members; nothing is unpacked."""
    from algorithm.bundle import LARGEST_BYTES, PICKLES

    if path.suffix in PICKLES:
        return _of_name(path.name, str(path), known)
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
        with tarfile.open(path) as archive:
            members = archive.getmembers()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as problem:
        return [error(f"{path} is not a readable tarball of a model bundle: {problem}")]
    size = sum(member.size for member in members)
    if size > LARGEST_BYTES:
        findings.append(
            error(f"{path} unpacks to {size} bytes, more than the {LARGEST_BYTES} that a bundle may hold")
        )
    for member in members:
        findings += _of_member(path, member, known)
    twice = [name for name, count in Counter(_normal(member.name) for member in members).items() if count > 1]
    findings += [
        error(f"{path} holds {name} twice; which one counts depends on who unpacks it") for name in twice
    ]
    return findings


def _of_member(path: Path, member: tarfile.TarInfo, known: tuple[str, ...]) -> list[Finding]:
    where, normal = f"{path}: {member.name}", _normal(member.name)
    if posixpath.isabs(member.name) or normal.split("/")[0] == ".." or "\\" in member.name:
        return [error(f"{where} would be unpacked outside the model's folder; make the tarball anew")]
    if member.isdir():
        return []
    if not member.isreg():
        what = "a link" if member.issym() or member.islnk() else "no regular file"
        return [error(f"{where} is {what}; a bundle holds plain files only")]
    findings = _of_name(posixpath.basename(normal), where, known)
    if "/" in normal and posixpath.basename(normal) in known:
        findings.append(
            error(f"{where} must lie at the root of the tarball, which becomes /opt/ml/model; make it anew")
        )
    if not member.mode & stat.S_IROTH:
        findings.append(
            error(
                f"{where} can be read by its owner only (mode {member.mode & 0o777:o}), and the platform chooses "
                "another user; add it with --mode=a+r"
            )
        )
    return findings


def _normal(name: str) -> str:
    return posixpath.normpath(name)
