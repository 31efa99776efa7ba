"""A skull-stripped brain with a glioma in four MR channels, as Task01_BrainTumour has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.phantom.acquisition import Size
from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.mr import Grid, Reals, Triple, ellipsoid, seen, share, write_case

SHAPES: dict[Size, tuple[tuple[int, int, int], float]] = {
    "full": ((155, 240, 240), 1.0),
    "small": ((64, 88, 72), 2.0),
}
# Signal by channel (FLAIR, T1w, t1gd, T2w), white matter 1 on T1w: the order of brightness that radiologists know.
SIGNALS: dict[str, tuple[float, float, float, float]] = {
    "csf": (0.15, 0.25, 0.25, 1.70),
    "grey": (0.82, 0.65, 0.68, 0.90),
    "white": (0.60, 1.00, 1.00, 0.65),
    "lesion": (1.00, 0.80, 0.80, 1.10),  # of small vessels, old, and no part of a tumour
    "vessel": (0.30, 0.45, 1.50, 0.30),
    "edema": (0.95, 0.76, 0.76, 1.05),
    "core": (0.80, 0.55, 0.55, 1.20),
    "rim": (0.95, 0.62, 1.50, 1.00),
}
WITHOUT_RIM_SHARE = 0.12  # of the tumours: a low grade takes up no contrast medium
FIRMNESS = 0.06  # relative deviation of a tissue's signal over scans


def make_brain(seed: int, case: int, size: Size, image: Path, label: Path) -> None:
    """Write one case: int16 (4, z, y, x) with a background of exactly zero, and labels 1 edema, 2 core, 3 rim."""
    shape, spacing = SHAPES[size]
    grid = Grid(shape, spacing, generator(seed, case, "brain"))
    rng = grid.rng
    points = grid.warped(2.5, 35.0, 3.0)
    points = [
        axis / np.float32(factor) for axis, factor in zip(points, rng.normal(1.0, 0.04, 3), strict=True)
    ]
    z, _, x = points
    folds, fine = grid.noise(9.0), grid.noise(5.0)
    depth = -ellipsoid(points, (0, 0, 0), (56, 78, 62)) - 3.0 * np.maximum(folds, 0)  # below the surface
    tissue = {"grey": share(-depth, spacing)}
    tissue["white"] = share(5.0 + 2.5 * folds + fine - depth, 2.0)
    for side in (-1, 1):
        nucleus = ellipsoid(points, (-2, -4, 21.0 * side), (9, 16, 8)) + fine
        tissue["white"] *= 1 - share(nucleus, 2.0)
    ventricles = [
        ellipsoid(points, (7, 4, 10.0 * side), tuple(rng.uniform((6, 24, 4), (11, 34, 8)).tolist()))
        for side in (-1, 1)
    ]
    fluid = np.minimum.reduce([*ventricles, np.maximum(np.abs(x) - 1.2, 12 - z), 7.0 * (1.1 - folds) + depth])
    tissue["csf"] = share(fluid, spacing) * share(-depth, spacing)
    old = np.maximum(np.minimum(*ventricles) - 7, 9.0 * (1.5 - fine))
    tissue["lesion"] = share(old, spacing) * tissue["white"]
    tissue["vessel"] = share(np.maximum(7.0 * (1.9 - fine), np.abs(depth - 6) - 5), spacing)

    edema, core, rim = _tumour(grid, points, depth, folds, fine)
    inside = (1 - tissue["csf"]) * share(2.0 - depth, spacing)
    tissue["edema"] = share(edema, 2 * spacing) * inside * np.maximum(tissue["white"], share(core, spacing))
    tissue["core"] = share(core, spacing) * inside
    tissue["rim"] = share(rim, spacing) * tissue["core"]
    labels = np.zeros(shape, np.uint8)
    for value, name in enumerate(("edema", "core", "rim"), start=1):
        labels[tissue[name] >= 0.5] = value
    brain = depth > 0
    labels[~brain] = 0

    channels = []
    for number in range(4):
        signal = np.zeros(shape, np.float32)
        for name, amount in tissue.items():  # each is painted over those before it
            strength = np.float32(SIGNALS[name][number] * max(0.1, rng.normal(1.0, FIRMNESS)))
            signal += amount * (strength * (1 + 0.04 * fine) - signal)
        scan = seen(signal, grid, noise=rng.uniform(0.04, 0.08), bias=0.15)
        scale = np.exp(rng.uniform(np.log(100), np.log(2000)))  # arbitrary, as MR is
        channels.append(np.where(brain, np.clip(np.rint(scan * scale), 1, 32767), 0).astype(np.int16))
    write_case(grid, channels, labels, image, label)


def _tumour(
    grid: Grid, points: list[Floats], depth: Reals, folds: Floats, fine: Floats
) -> tuple[Reals, Reals, Reals]:
    """Return the distances to swelling, core and contrast-enhancing rim."""
    rng = grid.rng
    radius = float(rng.uniform(9, 19))
    while True:
        centre: Triple = tuple(rng.uniform((-28, -48, -42), (36, 48, 42)).tolist())
        if (centre[0] / 56) ** 2 + (centre[1] / 78) ** 2 + (centre[2] / 62) ** 2 < 0.5 and abs(
            centre[2]
        ) > 12:
            break
    radii: Triple = tuple((radius * rng.uniform(0.8, 1.25, 3)).tolist())
    core = ellipsoid(points, centre, radii) + 1.8 * folds + 0.8 * fine
    swelling = float(rng.uniform(4, 14))
    edema = core - np.float32(swelling) + 4.0 * grid.noise(16.0)
    edema = np.maximum(edema, 3.0 - depth)
    if rng.random() < WITHOUT_RIM_SHARE:
        return edema, core, np.full_like(core, 99.0)
    thickness = float(rng.uniform(3.0, 5.5))
    rim = np.maximum(core, -core - np.float32(thickness) - 1.5 * fine)
    return edema, core, rim
