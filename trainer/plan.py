"""Where the patches lie: which case, which start, as a function of seed and patch number only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import voxelcore
from algorithm.errors import InputError
from trainer.volumes import Volume

Role = Literal["training", "validation"]
ROUND = {"training": 0, "validation": 1}
ORDER, VOXEL = (
    101,
    102,
)  # streams of random numbers, apart from those that voxelcore uses for volumes and starts

Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """How a quota was met: `natural` patches held the label by chance, `held` hold it in the end."""

    label: int
    share: float
    natural: int
    held: int


@dataclass(frozen=True)
class Plan:
    """Patches in the order of the file: index of the case, int64 (n,), and start in voxels, int64 (n, 3)."""

    case: Integers
    start_zyx: Integers
    tallies: tuple[Tally, ...]


def plan_patches(
    volumes: Sequence[Volume],
    count: int,
    *,
    patch_shape_zyx: tuple[int, int, int],
    quotas: Mapping[int, float],
    seed: int,
    role: Role,
) -> Plan:
    """Draw `count` patches from `volumes` (section 3.1 of the paper).

    A volume is drawn with a probability proportional to its voxels, and the start uniformly within it. Then,
    for each quota {label: share}, the patches that hold the label are counted. If they are fewer than
    ceil(share * count), exactly the missing number of patches is drawn anew around a voxel of that label,
    each within its own volume where that has the label. So a quota is met exactly where chance does not meet
    it, and where chance exceeds it the distribution of the scans is left alone: the paper warns of patches
    that are no longer like the scans to be segmented.

    Labels are taken from the rarest to the commonest, since a patch around a tumour mostly holds the organ as
    well; a patch that holds a label of an earlier quota is not drawn anew for a later one, whose patches may
    add to the earlier. Which patches are drawn anew is decided by counter-based numbers, so the plan depends
    on the volumes, the quotas and the seed, and on nothing else.

    Raises:
        InputError: a quota for a label that no volume holds, or quotas that do not fit together.

    """
    draw = _Draw(volumes, patch_shape_zyx, seed)
    everyone = np.arange(count, dtype=np.int64)
    case = draw.volumes_of(everyone, draw.voxels, ROUND[role])
    start = draw.starts_of(everyone, case, ROUND[role])
    totals = {label: int(draw.totals[:, label].sum()) for label in quotas}
    ordered = sorted(quotas, key=lambda label: (totals[label], label))
    held = {label: draw.holding(case, start, label) for label in ordered}
    natural = {label: int(held[label].sum()) for label in ordered}
    serving = np.zeros(count, dtype=bool)
    for label in ordered:
        wanted = math.ceil(
            round(quotas[label] * count, 6)
        )  # 0.3 · 8000 is not above 2400 by a rounding error
        deficit = wanted - int(held[label].sum())
        if deficit > 0:
            if totals[label] == 0:
                raise InputError(
                    f"a quota of {quotas[label]:g} is set for label {label}, but no {role} case holds it: "
                    f"drop the quota with --quota {label}=0"
                )
            free = np.flatnonzero(~held[label] & ~serving)
            if free.size < deficit:
                raise InputError(
                    f"the quotas do not fit together: label {label} lacks {deficit} {role} patches, but only "
                    f"{free.size} hold none of the rarer labels with a quota: lower the shares"
                )
            rank = voxelcore.uniform(free, seed=seed, epoch=_round(role, label), stream=ORDER)
            chosen = np.sort(free[np.argsort(rank, kind="stable")[:deficit]])
            case[chosen], start[chosen] = draw.around(label, chosen, case[chosen], _round(role, label))
            for other in ordered:
                held[other][chosen] = draw.holding(case[chosen], start[chosen], other)
        serving |= held[label]
    tallies = tuple(
        Tally(label, quotas[label], natural[label], int(held[label].sum())) for label in sorted(quotas)
    )
    return Plan(case, start, tallies)


def _round(role: Role, label: int) -> int:
    """Return a number that no other draw of either file has; 0 stands for the draw before any quota."""
    return ROUND[role] + len(ROUND) * label


class _Draw:
    """The draws over a fixed list of volumes; each maps counters to results, whatever else was drawn."""

    def __init__(self, volumes: Sequence[Volume], patch_shape_zyx: tuple[int, int, int], seed: int) -> None:
        self.volumes = volumes
        self.patch_shape_zyx = patch_shape_zyx
        self.seed = seed
        self.voxels = np.array([volume.voxels for volume in volumes], dtype=np.float64)
        self.totals = np.stack([volume.label_slices.sum(axis=1) for volume in volumes])

    def volumes_of(self, counters: Integers, weights: NDArray[np.float64], number: int) -> Integers:
        return voxelcore.draw_volumes(weights, counters, seed=self.seed, epoch=number)

    def starts_of(
        self, counters: Integers, case: Integers, number: int, around: Integers | None = None
    ) -> Integers:
        starts = np.empty((counters.size, 3), dtype=np.int64)
        for index in np.unique(case):
            mine = case == index
            starts[mine] = voxelcore.draw_starts(
                self.volumes[index].shape_zyx,
                self.patch_shape_zyx,
                counters[mine],
                seed=self.seed,
                epoch=number,
                around=None if around is None else around[mine],
            )
        return starts

    def around(
        self, label: int, counters: Integers, case: Integers, number: int
    ) -> tuple[Integers, Integers]:
        """Return case and start of patches that contain a uniformly drawn voxel of `label`."""
        has = self.totals[:, label] > 0
        elsewhere = ~has[case]
        case = case.copy()
        if elsewhere.any():
            case[elsewhere] = self.volumes_of(counters[elsewhere], self.voxels * has, number)
        fraction = voxelcore.uniform(counters, seed=self.seed, epoch=number, stream=VOXEL)
        rank = (fraction * self.totals[case, label]).astype(np.int64)
        voxel = np.empty_like(counters)
        for index in np.unique(case):
            mine = case == index
            voxel[mine] = _voxels_by_rank(self.volumes[index], label, rank[mine])
        return case, self.starts_of(counters, case, number, voxel)

    def holding(self, case: Integers, start_zyx: Integers, label: int) -> Flags:
        """Return which patches hold at least one voxel of `label`, bool (n,)."""
        held = np.zeros(case.size, dtype=bool)
        for index in np.unique(case):
            if self.totals[index, label]:
                mine = np.flatnonzero(case == index)
                held[mine] = _holding(self.volumes[index], start_zyx[mine], self.patch_shape_zyx, label)
        return held


def _holding(volume: Volume, start_zyx: Integers, patch_shape_zyx: Sequence[int], label: int) -> Flags:
    """Return which patches of one volume hold `label`; padding repeats voxels, so it cannot add one."""
    labels, slices = volume.label(), volume.label_slices[label]
    low = np.maximum(start_zyx, 0)
    high = np.minimum(start_zyx + np.asarray(patch_shape_zyx), volume.shape_zyx)
    held = np.zeros(len(start_zyx), dtype=bool)
    for number, ((z0, y0, x0), (z1, y1, x1)) in enumerate(zip(low, high, strict=True)):
        present = z0 + np.flatnonzero(slices[z0:z1])
        held[number] = present.size and bool(
            np.any(labels[present[0] : present[-1] + 1, y0:y1, x0:x1] == label)
        )
    return held


def _voxels_by_rank(volume: Volume, label: int, rank: Integers) -> Integers:
    """Return the flat index of the rank-th voxel of `label` in raster order, reading single slices only."""
    labels, last = volume.label(), np.cumsum(volume.label_slices[label])
    _, rows, columns = volume.shape_zyx
    slices = np.searchsorted(last, rank, side="right")
    voxels = np.empty_like(rank)
    for z in np.unique(slices):
        mine = slices == z
        inside = np.flatnonzero(labels[z] == label)
        before = last[z] - inside.size
        voxels[mine] = z * rows * columns + inside[rank[mine] - before]
    return voxels
