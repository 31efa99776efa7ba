"""Painting: Hounsfield units and label shares of one block of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trainer.phantom.fields import Floats
from trainer.phantom.grid import Points
from trainer.phantom.shapes import Shape

AIR_HU = -1000.0


def coverage(distance: Floats, width_mm: float) -> Floats:
    """Return the share of a voxel inside a surface: a linear ramp of `width_mm` centred on it."""
    share = distance * np.float32(-1.0 / width_mm)
    share += np.float32(0.5)
    np.clip(share, 0.0, 1.0, out=share)
    return share


@dataclass
class Patch:
    """The part of a canvas that one shape can touch.

    `hu`, `pancreas` and `tumour` are float32 views into the canvas; `distance` is the shape's.
    """

    points: Points
    hu: Floats
    pancreas: Floats | None
    tumour: Floats | None
    distance: Floats
    width_mm: float

    def fill(
        self,
        distance: Floats,
        value: float | Floats,
        *,
        width_mm: float | None = None,
        opacity: float | Floats = 1.0,
    ) -> None:
        """Blend `value` in where `distance` is negative; what was there, labels too, fades out."""
        share = coverage(distance, self.width_mm if width_mm is None else width_mm)
        if not isinstance(opacity, float) or opacity != 1.0:
            share *= np.float32(opacity) if isinstance(opacity, float) else opacity
        self.blend(share, value)
        if self.pancreas is not None and self.tumour is not None:
            np.subtract(np.float32(1.0), share, out=share)
            self.pancreas *= share
            self.tumour *= share

    def blend(self, share: Floats, value: float | Floats) -> None:
        """Move the Hounsfield units by `share` of the way to `value`; labels stay."""
        change = np.float32(value) - self.hu if isinstance(value, float) else value - self.hu
        change *= share
        self.hu += change


class Material(Protocol):
    """How the inside of a shape looks."""

    def paint(self, patch: Patch) -> None:
        """Paint the patch."""


@dataclass(frozen=True)
class Organ:
    """A shape and what fills it."""

    name: str
    shape: Shape
    material: Material


class Canvas:
    """Hounsfield units (z, y, x) of a block, and the shares of labels once the pancreas is in."""

    def __init__(self, points: Points, width_mm: float):
        self.points = points
        self.width_mm = width_mm
        self.hu: Floats = np.full(points.shape, AIR_HU, np.float32)
        self.pancreas: Floats | None = None
        self.tumour: Floats | None = None

    def start_labels(self) -> None:
        """From here on, keep the shares of the labels."""
        self.pancreas = np.zeros(self.points.shape, np.float32)
        self.tumour = np.zeros(self.points.shape, np.float32)

    def patch(self, shape: Shape) -> Patch | None:
        """Return the part of the canvas around a shape, None when the shape lies elsewhere."""
        cut = self.points.cut(shape.box())
        if cut is None:
            return None
        points = self.points.part(cut)
        distance = shape.distance(points)
        if float(distance.min()) > self.width_mm:
            return None
        return Patch(
            points,
            self.hu[cut],
            None if self.pancreas is None else self.pancreas[cut],
            None if self.tumour is None else self.tumour[cut],
            distance,
            self.width_mm,
        )

    def paint(self, organ: Organ) -> None:
        """Paint an organ where this block holds any of it."""
        patch = self.patch(organ.shape)
        if patch is not None:
            organ.material.paint(patch)
