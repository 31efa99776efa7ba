"""The ten tasks of the Decathlon: their folders, and what a leaderboard does with a submission that lacks some.

Names of cases, labels and channels come from each task's dataset.json; only the ten folder names are known here,
to say which are missing.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from algorithm.errors import InputError
from trainer.dataset import FILE_NAME, TASK_FOLDER

TASKS = (
    "Task01_BrainTumour",
    "Task02_Heart",
    "Task03_Liver",
    "Task04_Hippocampus",
    "Task05_Prostate",
    "Task06_Lung",
    "Task07_Pancreas",
    "Task08_HepaticVessel",
    "Task09_Spleen",
    "Task10_Colon",
)


def find_tasks(folder: Path) -> dict[str, Path]:
    """Return the data sets at a path by task name: the folder itself, or those that it holds.

    Raises:
        InputError: there is none, or the folder of the only one is not called TaskNN_Name.

    """
    if not folder.is_dir():
        raise InputError(f"a data set folder was required, but {folder} is not a folder")
    if (folder / FILE_NAME).is_file():
        return {task_name(folder): folder}
    found = {child.name: child for child in task_folders(folder) if (child / FILE_NAME).is_file()}
    if not found:
        raise InputError(
            f"{folder} holds no {FILE_NAME} and no task folder with one: give a task folder, such as "
            "Task07_Pancreas, or the folder of several"
        )
    return found


def task_folders(folder: Path) -> list[Path]:
    """Return the folders called TaskNN_Name in a folder, in order of their names."""
    return sorted(child for child in folder.iterdir() if TASK_FOLDER.fullmatch(child.name) and child.is_dir())


def task_name(dataset_folder: Path) -> str:
    """Return the name of the task's folder, such as Task07_Pancreas; InputError when it is none."""
    name = dataset_folder.resolve().name
    if not TASK_FOLDER.fullmatch(name):
        raise InputError(
            "the data set folder must be called TaskNN_Name, such as Task07_Pancreas, since the leaderboard "
            f"finds the task by it, but is {name}"
        )
    return name


def nearest_task(name: str, known: Collection[str] = TASKS) -> str:
    """Return "; did you mean Task07_Pancreas?" where a name is near one that is known, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def missing_tasks(present: Collection[str]) -> list[str]:
    """Return the tasks of the Decathlon that are not among these."""
    return [task for task in TASKS if task not in present]


def said_of_missing(present: Sequence[str]) -> str | None:
    """Return what is known to happen to a submission of these tasks alone, None where none of the ten lacks."""
    missing = missing_tasks(present)
    if not missing:
        return None
    folder = ""
    if len(present) == 1:
        folder = (
            f"; besides, the platform strips the folder that all files of a zip share, so that one of {present[0]} "
            "alone arrives without that folder, however it is packed"
        )
    return (
        f"the submission lacks {len(missing)} of the Decathlon's ten tasks ({', '.join(missing)}); one of a single "
        'task was refused in public with "Could not load … /input/Task01_BrainTumour", so all ten appear to be '
        f"required{folder}; 'decathlon submission --fill-empty' completes it where the test images of all ten are there"
    )
