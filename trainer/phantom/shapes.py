"""Signed distances of the shapes that organs are made of: negative inside, in mm, float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.phantom.fields import Floats
from trainer.phantom.grid import Box, Points

FAR_MM = np.float32(40.0)


class Shape(Protocol):
    """Anything with a surface."""

    def box(self) -> Box:
        """Return the box, in body coordinates, outside which the distance is not needed."""

    def distance(self, points: Points) -> Floats:
        """Return the signed distance (approximately, up to `FAR_MM`) at each point."""


def as_path(points: list[tuple[float, float, float]] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an (n, 3) float array."""
    return np.asarray(points, np.float64)


def smooth_path(controls: NDArray[np.float64], per_piece: int) -> NDArray[np.float64]:
    """Return a Catmull-Rom curve through `controls` (n, d): (per_piece * (n - 1) + 1, d)."""
    ends = np.concatenate([2 * controls[:1] - controls[1:2], controls, 2 * controls[-1:] - controls[-2:-1]])
    pieces = []
    for p0, p1, p2, p3 in zip(ends[:-3], ends[1:-2], ends[2:-1], ends[3:], strict=True):
        t = (np.arange(per_piece) / per_piece)[:, None]
        pieces.append(
            0.5
            * (
                2 * p1
                + (p2 - p0) * t
                + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
        )
    return np.concatenate([*pieces, controls[-1:]])


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; `axes` holds its unit axes as rows."""

    centre: NDArray[np.float64]
    radii: NDArray[np.float64]
    axes: NDArray[np.float64]
    margin_mm: float = 4.0

    @classmethod
    def at(
        cls,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
        margin_mm: float = 4.0,
    ) -> Ellipsoid:
        """Return an ellipsoid turned about x, then y, then z."""
        axes = np.eye(3)
        for angle, (i, j) in zip(np.deg2rad(turn_deg), ((1, 2), (0, 2), (0, 1)), strict=True):
            turn = np.eye(3)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            axes = axes @ turn.T
        return cls(np.array(centre, np.float64), np.array(radii, np.float64), axes, margin_mm)

    def box(self) -> Box:
        """Return the box of the ellipsoid and its margin."""
        half = np.sqrt(((self.axes * self.radii[:, None]) ** 2).sum(0)) + self.margin_mm
        return self.centre - half, self.centre + half

    def distance(self, points: Points) -> Floats:
        """Return k (k - 1) / |grad k²/2|, exact to first order at the surface."""
        dx = points.x - np.float32(self.centre[0])
        dy = points.y - np.float32(self.centre[1])
        dz = points.z - np.float32(self.centre[2])
        # the centre is k = 0 and has no gradient: start a thousandth of a radius away from it
        square = np.full(dx.shape, 1e-6, np.float32)
        gradient = np.full(dx.shape, 1e-6 / float(self.radii.max()) ** 2, np.float32)
        for axis, radius in zip(self.axes.astype(np.float32), self.radii, strict=True):
            along = axis[0] * dx
            along += axis[1] * dy
            along += axis[2] * dz
            along *= np.float32(1.0 / radius)
            along *= along
            square += along
            along *= np.float32(1.0 / radius**2)
            gradient += along
        root = np.sqrt(square)
        np.sqrt(gradient, out=gradient)
        root *= root - np.float32(1.0)
        root /= gradient
        return np.minimum(root, FAR_MM)


@dataclass(frozen=True)
class Tube:
    """Round cones along a path; `squash_z` < 1 makes the section taller along z by its inverse.

    `path` (n, 3) is (x, y, z) in mm and `radii` (n,) in mm.
    """

    path: NDArray[np.float64]
    radii: NDArray[np.float64]
    squash_z: float = 1.0
    margin_mm: float = 3.0

    def box(self) -> Box:
        """Return the box of the tube and its margin."""
        reach = (self.radii + self.margin_mm)[:, None] * np.array([1.0, 1.0, 1.0 / self.squash_z])
        return (self.path - reach).min(0), (self.path + reach).max(0)

    def distance(self, points: Points) -> Floats:
        """Return the distance to the nearest round cone, `FAR_MM` further away than the margin."""
        nearest = np.full(points.shape, FAR_MM, np.float32)
        q = np.float32(self.squash_z)
        stretch = np.array([1.0, 1.0, 1.0 / self.squash_z])
        for a, b, ra, rb in zip(self.path[:-1], self.path[1:], self.radii[:-1], self.radii[1:], strict=True):
            reach = (max(ra, rb) + self.margin_mm) * stretch
            cut = points.cut((np.minimum(a, b) - reach, np.maximum(a, b) + reach))
            if cut is None:
                continue
            step = (b - a) * np.array([1.0, 1.0, self.squash_z])
            length2 = max(float(step @ step), 1e-6)
            sx, sy, sz = step.astype(np.float32)
            dx = points.x[cut] - np.float32(a[0])
            dy = points.y[cut] - np.float32(a[1])
            dz = points.z[cut] - np.float32(a[2])
            if self.squash_z != 1.0:
                dz *= q
            along = dx * sx
            along += dy * sy
            along += dz * sz
            dx *= dx
            dy *= dy
            dz *= dz
            dx += dy
            dx += dz
            # |p - a - t s|² = |p - a|² - t (2 (p - a)·s - t |s|²), never below zero but for rounding
            t = np.clip(along * np.float32(1.0 / length2), 0.0, 1.0)
            along *= np.float32(2.0)
            along -= t * np.float32(length2)
            along *= t
            dx -= along
            np.sqrt(np.maximum(dx, 0.0, out=dx), out=dx)
            t *= np.float32(rb - ra)
            t += np.float32(ra)
            dx -= t
            np.minimum(nearest[cut], dx, out=nearest[cut])
        return nearest


@dataclass(frozen=True)
class Union:
    """The union of shapes; `blend_mm` rounds the crease where two meet."""

    shapes: tuple[Shape, ...]
    blend_mm: float = 0.0

    def box(self) -> Box:
        """Return the box around all; shapes to be blended need a margin as wide as the blend."""
        boxes = [shape.box() for shape in self.shapes]
        return np.min([low for low, _ in boxes], axis=0), np.max([high for _, high in boxes], axis=0)

    def distance(self, points: Points) -> Floats:
        """Return the polynomial smooth minimum of the distances."""
        total = np.full(points.shape, FAR_MM, np.float32)
        for shape in self.shapes:
            cut = points.cut(shape.box())
            if cut is None:
                continue
            new = shape.distance(points.part(cut))
            old = total[cut]
            if self.blend_mm > 0:
                k = np.float32(self.blend_mm)
                h = np.maximum(k - np.abs(old - new), 0)
                total[cut] = np.minimum(old, new) - h * h * np.float32(0.25) / k
            else:
                np.minimum(old, new, out=old)
        return total


def lateral(points: Points, centre_y: float, half_x: float, half_y: float) -> Floats:
    """Return the distance to an upright cylinder whose section is between an ellipse and a rounded box.

    k² is the mean of the 2-norm and the 4-norm squared; the distance is taken along the radius.
    """
    x = points.x
    y = points.y - np.float32(centre_y)
    u = x * np.float32(1.0 / half_x)
    u *= u
    v = y * np.float32(1.0 / half_y)
    v *= v
    mixed = u + v
    u *= u
    v *= v
    u += v
    mixed += np.sqrt(u, out=u)
    mixed *= np.float32(0.5)
    k = np.sqrt(mixed, out=mixed)
    np.maximum(k, np.float32(1e-3), out=k)
    radius = x * x
    y *= y
    radius += y
    np.sqrt(radius, out=radius)
    np.divide(np.float32(1.0), k, out=k)
    np.subtract(np.float32(1.0), k, out=k)
    radius *= k
    return radius
