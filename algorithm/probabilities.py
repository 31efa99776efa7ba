"""Probability and uncertainty maps on the grid of the scan, made as class maps come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import voxelcore
from algorithm.images import WRITABLE, case_name, image_suffix

PROBABILITIES = "probabilities"  # the folder of the maps, beside the label maps
STEPS = 255  # of a stored value: 0 is 0, 255 is 1
TINY = np.float32(1e-12)


class ProbabilityExporter:
    """Turns class maps into uint8 maps on the grid of the scan, in 255ths: each label's probability, and uncertainty.

    Class maps are resampled as for labels, so where one label's probability is the largest, the scan's voxel has it,
    before postprocessing. `temperature` T makes p^(1/T), normalised, of them: Guo et al., "On calibration of modern
    neural networks", 2017, section 4.2. Uncertainty is the entropy as a share of that of K equal probabilities.
    Two planes of class maps on the scan's grid are held.

    Args:
        shape_zyx: of the class maps of the whole scan.
        out: uint8 (K, z, y, x), any view: labels 1 to K-1, then the uncertainty.
        temperature: chosen on validation data; 1 leaves the network's own probabilities.

    """

    def __init__(
        self, shape_zyx: tuple[int, int, int], out: NDArray[np.uint8], *, temperature: float = 1.0
    ) -> None:
        n_in, n_out = shape_zyx[0], out.shape[1]
        self._position = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        self._out, self._power = out, np.float32(1 / temperature)
        self._given, self._done = 0, 0
        self._previous: NDArray[np.float32] = np.empty(0, np.float32)

    def add(self, class_maps: NDArray[np.float32]) -> None:
        """Give the next planes of the class maps, (K, d, y, x); they may be changed after the call."""
        shape = (1, *self._out.shape[2:])
        for number in range(class_maps.shape[1]):
            plane = np.concatenate(
                [
                    voxelcore.resample_linear(np.ascontiguousarray(one[number : number + 1]), shape)
                    for one in class_maps
                ]
            )
            while self._done < len(self._position) and self._position[self._done] <= self._given:
                before = np.float32(self._given - self._position[self._done])
                self._write(
                    plane if before == 0 else self._previous * before + plane * np.float32(1 - before)
                )
                self._done += 1
            self._previous = plane
            self._given += 1

    def _write(self, maps: NDArray[Any]) -> None:
        """Fill the next plane of the result from class maps (K, y, x)."""
        if self._power != 1:
            maps = maps**self._power
        maps = maps / maps.sum(axis=0)
        entropy = -(maps * np.log(np.maximum(maps, TINY))).sum(axis=0) / np.float32(np.log(len(maps)))
        for out, values in zip(self._out[:, self._done], (*maps[1:], entropy), strict=True):
            out[:] = np.rint(np.clip(values, 0, 1) * STEPS)


def map_names(labels: Sequence[str]) -> list[str]:
    """Return the names of the maps in their files, labels 1 to K-1 and the uncertainty: each one once, none a path."""
    names = [re.sub(r"[^\w.+-]+", "_", name) for name in (*labels[1:], "uncertainty")]
    return [
        f"{name}_{value}" if names.count(name) > 1 and value < len(names) else name
        for value, name in enumerate(names, start=1)
    ]


def map_path(result: Path, name: str) -> Path:
    """Return the file of a map that belongs to the label map `result`."""
    suffix = image_suffix(result)
    file_name = f"{case_name(result)}_{name}{suffix if suffix in WRITABLE else '.nii.gz'}"
    return result.parent / PROBABILITIES / file_name
