"""The frozen phantom set: python -m benchmarks.accuracy.frozen make ROOT.

64 training, 32 validation and 32 test phantoms of the difficulty "hard". `set.json` holds their seeds and the hash of
each one's decoded voxels and grid; `make` makes what is missing in ROOT and compares every hash, `freeze` writes the
hashes anew, which makes another set of it. Training and validation cases lie in ROOT/data in Decathlon layout; the
images of the test cases in ROOT/test, where nothing that trains looks, and their labels nowhere:
`benchmarks.accuracy.score --final` makes those.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.files import replacing
from trainer.phantom.acquisition import Size
from trainer.phantom.case import Volume, as_stored, make_volume
from trainer.phantom.dataset import case_file, case_numbers, description
from trainer.phantom.difficulty import DIFFICULTIES, DifficultyName
from trainer.processes import in_processes
from trainer.split import Split

FILE = Path(__file__).with_name("set.json")
TASK = "Task07_Pancreas"
SPLIT_FILE = "split.json"
Subset = Literal["training", "validation", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
Part = Literal["image", "labels"]
SMOKE_CASES: dict[Subset, int] = {"training": 2, "validation": 1, "test": 1}


@dataclass(frozen=True)
class FrozenSet:
    """Which phantoms there are.

    Attributes:
        seed, size, difficulty: of `decathlon phantom`.
        cases: numbers of the cases of each subset.
        digests: of each case's image and labels, by number; empty before they are frozen.

    """

    seed: int
    size: Size
    difficulty: DifficultyName
    cases: dict[Subset, tuple[int, ...]]
    digests: dict[int, dict[Part, str]]

    @classmethod
    def read(cls, path: Path = FILE) -> FrozenSet:
        document = json.loads(path.read_text(encoding="utf-8"))
        subsets = document["subsets"]
        digests = {int(number): one for part in subsets.values() for number, one in part["cases"].items()}
        cases: dict[Subset, tuple[int, ...]] = {
            name: tuple(int(number) for number in subsets[name]["cases"]) for name in SUBSETS
        }
        found = cls(document["seed"], document["size"], document["difficulty"], cases, digests)
        for name in SUBSETS:
            if found.subset_digest(name) != subsets[name]["sha256"]:
                raise InputError(
                    f"{path} is damaged: the hash of its {name} cases is not that of their hashes"
                )
        return found

    def write(self, path: Path = FILE) -> None:
        document = {
            "seed": self.seed,
            "size": self.size,
            "difficulty": self.difficulty,
            "subsets": {
                name: {
                    "sha256": self.subset_digest(name),
                    "cases": {str(number): self.digests[number] for number in self.cases[name]},
                }
                for name in SUBSETS
            },
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def subset_digest(self, subset: Subset) -> str:
        """Return one hash of all cases of a subset."""
        lines = (
            f"{number} {part} {self.digests[number][part]}\n"
            for number in self.cases[subset]
            for part in get_args(Part)
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def first(self, counts: dict[Subset, int]) -> FrozenSet:
        """Return the set of the first so many cases of each subset, for a smoke run."""
        return replace(self, cases={name: self.cases[name][: counts[name]] for name in SUBSETS})

    def names(self, subset: Subset) -> list[str]:
        """Return the names of the cases of a subset."""
        return [case_file(number).removesuffix(".nii.gz") for number in self.cases[subset]]

    def volume(self, number: int) -> Volume:
        """Make a case."""
        return make_volume(self.seed, number, self.size, DIFFICULTIES[self.difficulty])


def numbers(training: int, validation: int, test: int) -> dict[Subset, tuple[int, ...]]:
    """Return the cases of each subset: every third is a test case, and every third of the others validates.

    Consecutive cases cover the quantiles of volumes evenly, and so do those of each subset.
    """
    others, tests = case_numbers(training + validation, test)
    held_out = others[2::3][:validation]
    return {
        "training": tuple(number for number in others if number not in held_out),
        "validation": tuple(held_out),
        "test": tuple(tests),
    }


@dataclass(frozen=True)
class Places:
    """Where the set lies.

    Attributes:
        root: folder of everything.

    """

    root: Path

    @property
    def data(self) -> Path:
        """Training and validation cases: all that a training is given."""
        return self.root / "data" / TASK

    @property
    def split(self) -> Path:
        return self.root / "data" / SPLIT_FILE

    def images(self, subset: Subset) -> Path:
        """Return the folder of the images of one subset."""
        return self.data / "imagesTr" if subset == "training" else self.root / subset / "images"

    def labels(self, subset: Subset) -> Path:
        """Return the folder of the reference labels of one subset; those of the test cases are never there."""
        if subset == "test":
            raise InputError("labels of test cases are made by benchmarks.accuracy.score --final alone")
        return self.data / "labelsTr" if subset == "training" else self.root / subset / "labels"


def digest(image: sitk.Image) -> str:
    """Return the hash of the grid, pixel type and voxels of an image as it was read from a file."""
    grid = (
        image.GetSize(),
        *(
            [round(value, 4) + 0.0 for value in values]
            for values in (image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        ),
        image.GetPixelIDTypeAsString(),
    )
    found = hashlib.sha256(json.dumps(grid).encode())
    found.update(sitk.GetArrayViewFromImage(image).tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Job:
    """A case to be made: its number, and the files of its image and labels; None for a file that is not wanted."""

    frozen: FrozenSet
    number: int
    image: Path | None
    labels: Path | None


def make_one(job: Job) -> tuple[int, dict[Part, str]]:
    """Make the files of a case that are missing; return the digests of all that are wanted."""
    parts: dict[Part, Path] = {
        part: path for part in get_args(Part) if (path := getattr(job, part)) is not None
    }
    if not all(path.is_file() for path in parts.values()):
        volume = job.frozen.volume(job.number)
        arrays: dict[Part, Any] = {"image": volume.image, "labels": volume.labels}
        for part, path in parts.items():
            with replacing(path) as temporary:
                sitk.WriteImage(as_stored(arrays[part], volume), temporary)
    return job.number, {part: digest(sitk.ReadImage(path)) for part, path in parts.items()}


def make(frozen: FrozenSet, root: Path, *, workers: int | None = None) -> Places:
    """Make what is missing of the set in `root`, and compare all of it with its hashes; return where it lies.

    Raises:
        InputError: a case is not what was frozen.

    """
    places = Places(root)
    ours = sorted({*frozen.cases["training"], *frozen.cases["validation"]})
    images, labels = (places.data / name for name in ("imagesTr", "labelsTr"))
    jobs = [Job(frozen, number, images / case_file(number), labels / case_file(number)) for number in ours]
    jobs += [
        Job(frozen, number, places.images("test") / case_file(number), None)
        for number in frozen.cases["test"]
    ]
    refuse_others(frozen, in_processes(make_one, jobs, workers or len(os.sched_getaffinity(0))))
    for name in map(case_file, frozen.cases["validation"]):
        for folder, source in ((places.images("validation"), images), (places.labels("validation"), labels)):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                (folder / name).symlink_to((source / name).resolve())
    with replacing(places.data / "dataset.json") as temporary:
        temporary.write_text(json.dumps(description("pancreas", ours, []), indent=1) + "\n", encoding="utf-8")
    Split(tuple(frozen.names("training")), tuple(frozen.names("validation"))).write(places.split)
    refuse_leaks(frozen, places)
    return places


def labels_of_tests(frozen: FrozenSet, folder: Path) -> Path:
    """Make the labels of the test cases in `folder` for the scorer, and compare them with their hashes."""
    jobs = [Job(frozen, number, None, folder / case_file(number)) for number in frozen.cases["test"]]
    refuse_others(frozen, in_processes(make_one, jobs, len(os.sched_getaffinity(0))))
    return folder


def refuse_others(frozen: FrozenSet, found: Iterable[tuple[int, dict[Part, str]]]) -> None:
    """Raise InputError where a case is not the frozen one."""
    for number, digests in found:
        for part, one in digests.items():
            if frozen.digests and one != frozen.digests[number][part]:
                raise InputError(
                    f"the {part} of case {number} must have the hash {frozen.digests[number][part][:12]}, but has "
                    f"{one[:12]}: delete the file if it was changed; else this machine computes otherwise, and its "
                    "scores are of another set"
                )


def refuse_leaks(frozen: FrozenSet, places: Places) -> None:
    """Raise InputError where something that trains could read a test case."""
    tests = {case_file(number) for number in frozen.cases["test"]}
    leaked = sorted(path for path in (places.root / "data").rglob("*.nii.gz") if path.name in tests)
    if leaked:
        raise InputError(f"{leaked[0]} is a test case, and what trains must not hold any: delete it")


def freeze(frozen: FrozenSet, *, workers: int | None = None) -> FrozenSet:
    """Return the set with the hashes of what this machine makes."""
    with tempfile.TemporaryDirectory() as name:
        jobs = [
            Job(frozen, number, Path(name) / "images" / case_file(number), Path(name) / case_file(number))
            for subset in SUBSETS
            for number in frozen.cases[subset]
        ]
        found = dict(in_processes(make_one, jobs, workers or len(os.sched_getaffinity(0))))
    return replace(frozen, digests=found)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.frozen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="make what is missing, and compare every hash")
    making.add_argument("root", type=Path, metavar="ROOT")
    freezing = verbs.add_parser("freeze", help="write set.json anew")
    freezing.add_argument("--seed", type=int, default=2026)
    freezing.add_argument("--difficulty", choices=DIFFICULTIES, default="hard")
    freezing.add_argument(
        "--cases", type=int, nargs=3, default=(64, 32, 32), metavar=("TRAIN", "VAL", "TEST")
    )
    freezing.add_argument("--out", type=Path, default=FILE)
    for verb in (making, freezing):
        verb.add_argument("--workers", type=int, help="processes (one a core)")
    args = parser.parse_args(argv)
    try:
        if args.verb == "freeze":
            plain = FrozenSet(args.seed, "small", args.difficulty, numbers(*args.cases), {})
            frozen = freeze(plain, workers=args.workers)
            frozen.write(args.out)
        else:
            frozen = FrozenSet.read()
            make(frozen, args.root, workers=args.workers)
    except InputError as error:
        sys.stderr.write(f"frozen: {error}\n")
        return 1
    for subset in SUBSETS:
        sys.stdout.write(f"{subset}: {len(frozen.cases[subset])} cases, {frozen.subset_digest(subset)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
