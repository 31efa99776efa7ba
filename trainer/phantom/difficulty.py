"""What makes a tumour hard to find and an outline hard to agree on, by name; the plain phantom has none of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.phantom.draws import generator
from trainer.phantom.shapes import Ellipsoid
from trainer.phantom.tissue import Palette

DifficultyName = Literal["plain", "hard"]
Look = Literal["dark", "cyst", "bright"]
LOOK_STEP = (
    15**0.5 % 1.0
)  # spreads the kinds of tumours evenly over consecutive cases, as `draws.spread` does sizes


@dataclass(frozen=True)
class Difficulty:
    """The knobs; volumes, places and shapes of gland and tumour stay those of the plain phantom.

    Attributes:
        cysts, bright: shares of tumours that are cystic and that enhance more than the gland; the others are darker
            than it. Task07 holds intraductal mucinous and neuroendocrine tumours beside adenocarcinomas.
        dark_hu: least and greatest contrast of a darker tumour.
        faint_ml: a darker or brighter tumour of this volume has 63 % of its contrast above the least, a smaller one
            less: small adenocarcinomas are as bright as the gland more often than large ones.
        patchy_hu: deviation of the gland's own enhancement, with details of a centimetre.
        mimics: mean number of dark spots in the gland that are no tumour: islands of fat, small cysts.
        nodes: mean number of lymph nodes beside the gland.
        reader_mm, reader_tumour_mm: deviation of the labelled outline of gland and tumour from that of the tissue.
        noise: the scanner's noise is so many times as strong.

    """

    cysts: float
    bright: float
    dark_hu: tuple[float, float]
    faint_ml: float
    patchy_hu: float
    mimics: float
    nodes: float
    reader_mm: float
    reader_tumour_mm: float
    noise: float


DIFFICULTIES: dict[DifficultyName, Difficulty | None] = {
    "plain": None,
    "hard": Difficulty(
        cysts=0.2,
        bright=0.08,
        dark_hu=(12.0, 55.0),
        faint_ml=1.5,
        patchy_hu=5.0,
        mimics=1.5,
        nodes=2.0,
        reader_mm=1.3,
        reader_tumour_mm=1.3,
        noise=1.2,
    ),
}
NAMES: tuple[DifficultyName, ...] = get_args(DifficultyName)


@dataclass(frozen=True)
class Spot:
    """A dark spot in the gland that is no tumour.

    Attributes:
        shape: its outline before the ragged edge.
        hu: what it is filled with, `soft_mm` the width of its border, `opacity` at its middle.

    """

    shape: Ellipsoid
    hu: float
    soft_mm: float
    opacity: float


@dataclass(frozen=True)
class Hardship:
    """What one case has of a difficulty.

    Attributes:
        look: of the tumour; `tumour_hu` is its tissue, `soft_mm` the width of its border, None for the plain one's.
        patchy_hu, reader_mm, reader_tumour_mm: see `Difficulty`.
        spots: in the gland.
        nodes: beside it, with what each is filled with in HU.

    """

    look: Look
    tumour_hu: float
    soft_mm: float | None
    patchy_hu: float
    reader_mm: float
    reader_tumour_mm: float
    spots: tuple[Spot, ...]
    nodes: tuple[tuple[Ellipsoid, float], ...]


def draw_hardship(
    seed: int,
    case: int,
    difficulty: Difficulty,
    palette: Palette,
    path: NDArray[np.float64],
    tumour_ml: float,
) -> Hardship:
    """Draw what a case has of `difficulty`; `path` (n, 4) is the gland's centreline with its radii in mm."""
    rng = generator(seed, case, "hardship")
    kind = (generator(seed, 0, "look").random() + case * LOOK_STEP) % 1.0
    look: Look = "cyst" if kind < difficulty.cysts else "dark"
    if difficulty.cysts <= kind < difficulty.cysts + difficulty.bright:
        look = "bright"
    least, most = difficulty.dark_hu
    visible = 1.0 - np.exp(-tumour_ml / difficulty.faint_ml)
    contrast = least + (most - least) * visible * float(rng.beta(2.0, 1.8))
    cyst_hu, soft_mm = float(rng.uniform(8.0, 38.0)), float(rng.uniform(1.0, 2.5))
    tumour_hu = {"cyst": cyst_hu, "dark": palette.pancreas - contrast, "bright": palette.pancreas + contrast}
    spots = tuple(draw_spot(rng, palette, path) for _ in range(int(rng.poisson(difficulty.mimics))))
    nodes = tuple(draw_node(rng, palette, path) for _ in range(int(rng.poisson(difficulty.nodes))))
    return Hardship(
        look=look,
        tumour_hu=tumour_hu[look],
        soft_mm=soft_mm if look == "cyst" else None,
        patchy_hu=difficulty.patchy_hu,
        reader_mm=difficulty.reader_mm,
        reader_tumour_mm=difficulty.reader_tumour_mm,
        spots=spots,
        nodes=nodes,
    )


def draw_spot(rng: np.random.Generator, palette: Palette, path: NDArray[np.float64]) -> Spot:
    """Draw an island of fat or a small cyst within the gland."""
    at = path[int(rng.integers(1, len(path) - 1))]
    centre = at[:3] + direction(rng) * float(rng.uniform(0.0, 0.6)) * at[3]
    if rng.random() < 0.3:
        shape = ball(rng, centre, float(rng.uniform(1.8, 3.8)))
        return Spot(shape, float(rng.uniform(5.0, 25.0)), 1.2, 1.0)
    shape = ball(rng, centre, float(rng.uniform(3.0, 6.5)))
    return Spot(shape, palette.fat + 20.0, float(rng.uniform(2.5, 5.0)), float(rng.uniform(0.06, 0.25)))


def draw_node(
    rng: np.random.Generator, palette: Palette, path: NDArray[np.float64]
) -> tuple[Ellipsoid, float]:
    """Draw a lymph node that touches the gland or lies within a centimetre of it."""
    at = path[int(rng.integers(0, len(path)))]
    radius = float(rng.uniform(2.5, 6.0))
    centre = at[:3] + direction(rng) * (at[3] + radius + float(rng.uniform(-1.0, 8.0)))
    return ball(rng, centre, radius), palette.pancreas - float(rng.uniform(5.0, 35.0))


def direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random unit vector."""
    towards: NDArray[np.float64] = rng.normal(size=3)
    return np.asarray(towards / np.linalg.norm(towards), np.float64)


def ball(rng: np.random.Generator, centre: NDArray[np.float64], radius_mm: float) -> Ellipsoid:
    """Return a slightly stretched, randomly turned ball."""
    stretch = radius_mm * np.exp(rng.normal(0, 0.2, 3))
    turn = rng.uniform(-90, 90, 3)
    return Ellipsoid.at(
        (float(centre[0]), float(centre[1]), float(centre[2])),
        (float(stretch[0]), float(stretch[1]), float(stretch[2])),
        (float(turn[0]), float(turn[1]), float(turn[2])),
    )
