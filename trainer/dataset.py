"""A data set in the layout of the Medical Segmentation Decathlon, read from its dataset.json."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from algorithm.errors import InputError
from algorithm.images import case_name

FILE_NAME = "dataset.json"
TASK_FOLDER = re.compile(r"Task[0-9]{2}_[A-Za-z0-9]+")
MOST_LABELS = 256  # label maps are uint8

Part = Literal["training", "test"]


@dataclass(frozen=True)
class Case:
    """One training case: its name ("pancreas_001"), its image file and its label file."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Dataset:
    """What dataset.json says, with file names turned into paths inside `folder`.

    `labels[v]` names the label value v and `channels[c]` the image channel c. Cases keep the order of the
    file: sections 3.1 and 4 of the paper split by it.
    """

    folder: Path
    name: str
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    training: list[Case]
    test: list[Path]

    @classmethod
    def read(cls, folder: Path, *, require: Iterable[Part] = ("training",)) -> Dataset:
        """Read FOLDER/dataset.json.

        Args:
            folder: the task folder, such as DATA/Task07_Pancreas.
            require: the parts whose files must be on disk: training needs no test images and a submission
                needs no training images.

        Raises:
            InputError: in one sentence, when the folder, the file, a key or a required image is missing, or
                when what the file says is contradictory.

        """
        folder = Path(folder)
        file = _find(folder)
        document = _load(file)
        training = [_training_case(folder, file, entry) for entry in _entries(document, "training", file)]
        test = [_inside(folder, file, entry) for entry in _entries(document, "test", file)]
        _refuse_duplicates([case.name for case in training], "training", file)
        _refuse_duplicates([case_name(path) for path in test], "test", file)
        dataset = cls(
            folder=folder,
            name=_text(_value(document, "name", file), "name", file),
            labels=label_names(document, file),
            channels=_by_number(document, "modality", file),
            training=training,
            test=test,
        )
        if "training" in (required := set(require)):
            _refuse_missing([path for case in training for path in (case.image, case.label)], file)
        if "test" in required:
            _refuse_missing(test, file)
        return dataset


def read_label_names(folder: Path) -> tuple[str, ...]:
    """Return the label names in FOLDER/dataset.json, by value, without a look at images; else InputError."""
    file = _find(folder)
    return label_names(_load(file), file)


def declared_test_count(folder: Path) -> int | None:
    """Return "numTest" of FOLDER/dataset.json, None where it says nothing; else InputError as `Dataset.read`."""
    file = _find(folder)
    count = _load(file).get("numTest")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool)):
        raise InputError(f'"numTest" must be a whole number, but is {_kind(count)} in {file}')
    return count


def read_channel_names(folder: Path) -> tuple[str, ...]:
    """Return the channel names in FOLDER/dataset.json, by number, without a look at images; else InputError."""
    file = _find(folder)
    return _by_number(_load(file), "modality", file)


def label_names(document: dict[str, Any], file: Path) -> tuple[str, ...]:
    """Return the names under "labels" of a parsed dataset.json, the name of value v at place v."""
    names = _by_number(document, "labels", file)
    if not 2 <= len(names) <= MOST_LABELS:
        raise InputError(
            f'"labels" must name 2 to {MOST_LABELS} values, the background first, '
            f"but names {len(names)} in {file}"
        )
    return names


def _find(folder: Path) -> Path:
    file = folder / FILE_NAME
    if file.is_file():
        return file
    if not folder.is_dir():
        raise InputError(f"a data set folder was required, but {folder} is not a folder")
    tasks = sorted(
        child
        for child in folder.iterdir()
        if TASK_FOLDER.fullmatch(child.name) and (child / FILE_NAME).is_file()
    )
    if len(tasks) == 1:
        raise InputError(f"{folder} holds no {FILE_NAME} but its sub-folder does: give {tasks[0]} instead")
    if tasks:
        names = ", ".join(task.name for task in tasks)
        raise InputError(f"{folder} holds {len(tasks)} tasks ({names}): give the folder of one of them")
    raise InputError(
        f"{folder} holds no {FILE_NAME}: give the folder of one Decathlon task, such as Task07_Pancreas"
    )


def _load(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not valid JSON: {error.msg} at line {error.lineno}") from error
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{file} must hold a JSON object, but holds {_kind(document)}")
    return document


def _kind(value: object) -> str:
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _value(document: dict[str, Any], key: str, file: Path) -> Any:
    if key not in document:
        raise InputError(f'"{key}" is required, but missing in {file}')
    return document[key]


def _text(value: object, what: str, file: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f'"{what}" must be a text that is not empty, but is {_kind(value)} in {file}')
    return value


def _entries(document: dict[str, Any], key: str, file: Path) -> list[Any]:
    """Return the list under `key` without the ._ files that macOS leaves beside the images."""
    entries = _value(document, key, file)
    if not isinstance(entries, list):
        raise InputError(f'"{key}" must be a list of cases, but is {_kind(entries)} in {file}')
    return [entry for entry in entries if not _left_by_macos(entry)]


def _left_by_macos(entry: object) -> bool:
    image = entry.get("image") if isinstance(entry, dict) else entry
    return isinstance(image, str) and PurePosixPath(image).name.startswith("._")


def _by_number(document: dict[str, Any], key: str, file: Path) -> tuple[str, ...]:
    """Turn {"0": "background", "1": "pancreas"} into a tuple; the numbers must be 0 to n - 1, each once."""
    table = _value(document, key, file)
    if not isinstance(table, dict) or not table:
        raise InputError(
            f'"{key}" must be an object from number to name, such as {{"0": "…"}}, but is '
            f"{'empty' if table == {} else _kind(table)} in {file}"
        )
    names: dict[int, str] = {}
    for number, name in table.items():
        if not re.fullmatch(r"[0-9]{1,6}", number):
            raise InputError(
                f'"{key}" must be keyed by number, such as "0", but has the key "{number}" in {file}'
            )
        if int(number) in names:
            raise InputError(f'"{key}" has the number {int(number)} twice in {file}')
        names[int(number)] = _text(name, f"{key}.{number}", file)
    if sorted(names) != list(range(len(names))):
        raise InputError(
            f'the numbers in "{key}" must be 0 to {len(names) - 1} without a gap, '
            f"but are {', '.join(map(str, sorted(names)))} in {file}"
        )
    ordered = tuple(names[number] for number in sorted(names))
    twice = [name for name, count in Counter(ordered).items() if count > 1]
    if twice:
        raise InputError(f'"{key}" has the name "{twice[0]}" twice in {file}')
    return ordered


def _training_case(folder: Path, file: Path, entry: object) -> Case:
    if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
        raise InputError(
            f'each entry of "training" must have "image" and "label", '
            f"but one is {json.dumps(entry, ensure_ascii=False)[:80]} in {file}"
        )
    image = _inside(folder, file, entry["image"])
    if case_name(image).strip(".") == "" or not case_name(image).isprintable():
        # Work on a case lies in a folder of its name.
        raise InputError(
            f'a case needs a printable name beside its suffix, but one is "{image.name}" in {file}'
        )
    return Case(name=case_name(image), image=image, label=_inside(folder, file, entry["label"]))


def _inside(folder: Path, file: Path, entry: object) -> Path:
    """Join a path from dataset.json to the folder; links on disk are followed, ".." out of it is not."""
    if not isinstance(entry, str) or not entry:
        raise InputError(f"an image path must be a text, but is {_kind(entry)} in {file}")
    normal = posixpath.normpath(entry)
    if posixpath.isabs(normal) or normal == "." or normal.split("/")[0] == ".." or "\0" in normal:
        raise InputError(f"an image path must lie inside the data set folder, but is {entry!r} in {file}")
    return folder / normal


def _refuse_duplicates(names: list[str], part: Part, file: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f'the case {name} is listed twice under "{part}" in {file}')
        seen.add(name)


def _refuse_missing(paths: list[Path], file: Path) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" (and {len(missing) - 1} more files are missing)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]} is listed in {file} but is not there{others}")
