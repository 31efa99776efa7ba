"""Which cases are trained on and which are held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithm.errors import InputError
from algorithm.files import replacing

PAPER_TRAINING, PAPER_CASES = 210, 281  # sections 3.1 and 4: the first 210 of 281 scans train
FOLDS, FOLD_SEED = 5, 12345  # of nnU-Net
KEYS = ("training", "validation", "unused")


@dataclass(frozen=True)
class Split:
    """Case names of both sides, in the order of the data set; a case on both sides is an over-fit check."""

    training: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def shared(self) -> tuple[str, ...]:
        """Cases on both sides: none, unless over-fitting was asked for."""
        return tuple(name for name in self.training if name in set(self.validation))

    def write(self, path: Path) -> None:
        """Write the split as JSON, in the form that `read_split` takes."""
        with replacing(path) as temporary:
            sides = {"training": self.training, "validation": self.validation}
            temporary.write_text(json.dumps(sides, indent=1) + "\n", encoding="utf-8")


def first_share(names: Sequence[str], *, overfit: bool = False) -> Split:
    """Split as the paper does: the first 210 of 281 train, the same share of any other number of cases.

    "First" is by the order of dataset.json: it is the only order that a data set itself states, and the one
    that a loop over its "training" list meets. Either side gets at least one case.

    Args:
        names: case names in the order of dataset.json.
        overfit: put every case on both sides.

    Raises:
        InputError: fewer than two cases without `overfit`.

    """
    if overfit:
        return Split(tuple(names), tuple(names))
    if len(names) < 2:
        raise InputError(
            f"a split needs at least 2 training cases, but the data set has {len(names)}: "
            "pass --overfit to train and validate on the same case, as a check of the path only"
        )
    count = min(max(round(len(names) * PAPER_TRAINING / PAPER_CASES), 1), len(names) - 1)
    return Split(tuple(names[:count]), tuple(names[count:]))


def fold(names: Sequence[str], number: int, *, overfit: bool = False) -> Split:
    """Split as nnU-Net does for a five-fold cross-validation, so that its published scores compare case by case.

    Args:
        names: case names in the order of dataset.json.
        number: of the fold whose cases are held out, from 0 to 4.
        overfit: train on the held-out cases, too.

    Raises:
        InputError: there is no such fold, or fewer cases than folds.

    """
    if not 0 <= number < FOLDS:
        raise InputError(f"--fold must be from 0 to {FOLDS - 1}, got {number}")
    if len(names) < FOLDS:
        raise InputError(
            f"{FOLDS} folds need at least {FOLDS} training cases, but the data set has {len(names)}"
        )
    shuffled = sorted(names)
    # What scikit-learn's KFold(5, shuffle=True, random_state=12345) draws, by the generator that it keeps.
    np.random.RandomState(FOLD_SEED).shuffle(shuffled)
    held_out = set(np.array_split(np.array(shuffled, object), FOLDS)[number])
    return Split(
        tuple(name for name in names if overfit or name not in held_out),
        tuple(name for name in names if name in held_out),
    )


def read_split(path: Path, names: Sequence[str], *, overfit: bool = False) -> Split:
    """Read {"training": […], "validation": […]}, and an optional "unused": […], as case names.

    Every case of the data set must be named, so that a case cannot be lost by a slip; the ones to leave out
    go under "unused".

    Args:
        path: the JSON file.
        names: all case names, in the order of dataset.json.
        overfit: allow a case on both sides.

    Raises:
        InputError: not such a file, a name that is unknown, missing, listed twice, or on two sides.

    """
    sides = _read_sides(path)
    known = set(names)
    for key in KEYS:
        for name in sides[key]:
            if name not in known:
                raise InputError(
                    f'the split names the case {name} under "{key}" that the data set lacks: {path}'
                )
            if sides[key].count(name) > 1:
                raise InputError(f'the split lists the case {name} twice under "{key}": {path}')
    training, validation, unused = (set(sides[key]) for key in KEYS)
    for key in KEYS[:2]:
        if not sides[key]:
            raise InputError(f'the split needs at least one case under "{key}": {path}')
    both = sorted((training & validation) - (training if overfit else set()))
    if both:
        raise InputError(
            f"the split has {both[0]} on both sides: remove it from one, or pass --overfit to train "
            f"and validate on the same cases, as a check of the path only: {path}"
        )
    contradictory = sorted(unused & (training | validation))
    if contradictory:
        raise InputError(f'the split lists {contradictory[0]} under "unused" and on a side: {path}')
    missing = [name for name in names if name not in training | validation | unused]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f'the split does not name {missing[0]}{others}: add it to a side or to "unused": {path}'
        )
    return Split(
        tuple(name for name in names if name in training),
        tuple(name for name in names if name in validation),
    )


def _read_sides(path: Path) -> dict[str, list[str]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the split file {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"the split file {path} is not valid JSON: {error}") from error
    if (
        not isinstance(document, dict)
        or not {"training", "validation"} <= document.keys() <= set(KEYS)
        or not all(isinstance(side, list) for side in document.values())
        or not all(isinstance(name, str) for side in document.values() for name in side)
    ):
        raise InputError(
            'a split file must be {"training": [names], "validation": [names]}, '
            f'with "unused": [names] if some are left out, which {path} is not'
        )
    return {key: document.get(key, []) for key in KEYS}
