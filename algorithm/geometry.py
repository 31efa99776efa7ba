"""Where the voxels of a volume are in the patient, and how a volume is brought to one axis order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import SimpleITK as sitk

Triple = tuple[float, float, float]

# A direction matrix D is taken as a rotation (or a reflection) when no entry of DᵀD is further than this from
# the identity: the axes are then less than 0.06° from perpendicular, half a pixel over 400 mm.
ORTHONORMAL_TOLERANCE = 1e-3

# Two grids of equal size within these put their voxels within about a tenth of a voxel of each other in a CT
# of 512 slices. They are wide enough for headers rounded to float32 or to six printed digits.
SAME_ORIGIN_VOXELS = 0.01
SAME_SPACING_RELATIVE = 1e-4
SAME_DIRECTION = 1e-4

# Two assignments of axes that score within this are a tie: header rounding must not choose between them.
ORIENTATION_TIE = 1e-4


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume in ITK's physical space (LPS, mm).

    `shape_zyx` and `spacing_zyx_mm` are in array order; `origin_xyz_mm` is the centre of voxel (0, 0, 0);
    `direction` is row-major as in SimpleITK's GetDirection(): columns are the unit vectors of index axes x,
    y, z. A left-handed direction (determinant -1) is allowed.

    Raises ValueError, with a clause for a message, when the values are no grid: a size below 1, a spacing
    that is not positive and finite, an origin that is not finite, axes that are not perpendicular unit
    vectors.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: Triple
    origin_xyz_mm: Triple
    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise ValueError(f"size must be three numbers >= 1, got {self.shape_zyx} (z, y, x)")
        if len(self.spacing_zyx_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in self.spacing_zyx_mm):
            raise ValueError(
                f"spacing must be finite and > 0, got {numbers(self.spacing_zyx_mm)} mm (z, y, x)"
            )
        if len(self.origin_xyz_mm) != 3 or not all(map(math.isfinite, self.origin_xyz_mm)):
            raise ValueError(f"origin must be finite, got {numbers(self.origin_xyz_mm)} mm (x, y, z)")
        if len(self.direction) != 9 or not all(map(math.isfinite, self.direction)):
            raise ValueError(f"direction must be nine finite numbers, got {numbers(self.direction)}")
        if self.skew > ORTHONORMAL_TOLERANCE:
            raise ValueError(
                f"axes must be perpendicular unit vectors (no shear), got direction {numbers(self.direction)}"
            )

    @classmethod
    def of(cls, image: Any) -> Self:
        """Return the grid of the first three axes of a SimpleITK image, or of a reader that has read a header."""
        dimensions = image.GetDimension()
        matrix = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
        (nx, ny, nz), (sx, sy, sz), (x, y, z) = (
            values[:3] for values in (image.GetSize(), image.GetSpacing(), image.GetOrigin())
        )
        return cls((nz, ny, nx), (sz, sy, sx), (x, y, z), tuple(matrix.ravel().tolist()))

    def set_on(self, image: sitk.Image) -> None:
        """Give a SimpleITK image of this size this spacing, origin and direction."""
        if tuple(image.GetSize()) != self.shape_zyx[::-1]:
            raise ValueError(f"image size must be {self.shape_zyx[::-1]} (x, y, z), got {image.GetSize()}")
        image.SetSpacing(self.spacing_zyx_mm[::-1])
        image.SetOrigin(self.origin_xyz_mm)
        image.SetDirection(self.direction)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The direction as a float64 (3, 3) matrix: rows are physical x, y, z, columns index x, y, z."""
        return np.array(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def skew(self) -> float:
        """How far the axes are from perpendicular unit vectors: the largest entry of |DᵀD - I|."""
        return float(np.abs(self.matrix.T @ self.matrix - np.eye(3)).max())

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres."""
        return math.prod(self.spacing_zyx_mm) / 1000.0

    def point_mm(self, index_zyx: Sequence[float]) -> Triple:
        """Return the physical point (x, y, z) in mm of a voxel index (z, y, x), which may be fractional."""
        step_xyz = np.multiply(index_zyx, self.spacing_zyx_mm)[::-1]
        x, y, z = (np.array(self.origin_xyz_mm) + self.matrix @ step_xyz).tolist()
        return x, y, z

    def index_zyx(self, point_mm: Sequence[float]) -> Triple:
        """Return the fractional voxel index (z, y, x) of a physical point (x, y, z) in mm."""
        step_xyz = np.linalg.solve(self.matrix, np.subtract(point_mm, self.origin_xyz_mm))
        z, y, x = (step_xyz[::-1] / np.array(self.spacing_zyx_mm)).tolist()
        return z, y, x

    def resampled(self, shape_zyx: Sequence[int]) -> Geometry:
        """Return the grid of `shape_zyx` voxels over the same field of view, edge to edge.

        The spacing becomes n · s / n'; the centre of the first voxel moves by half the change of spacing.
        """
        nz, ny, nx = (int(n) for n in shape_zyx)
        old = np.array(self.spacing_zyx_mm)
        new = old * self.shape_zyx / np.maximum((nz, ny, nx), 1)
        x, y, z = (np.array(self.origin_xyz_mm) + self.matrix @ ((new - old)[::-1] / 2)).tolist()
        sz, sy, sx = new.tolist()
        return Geometry((nz, ny, nx), (sz, sy, sx), (x, y, z), self.direction)

    def cropped(self, box_zyx: Sequence[slice]) -> Geometry:
        """Return the grid of a box of this one's voxels: slices (z, y, x) with start and stop within the grid."""
        nz, ny, nx = (side.stop - side.start for side in box_zyx)
        origin = self.point_mm([side.start for side in box_zyx])
        return Geometry((nz, ny, nx), self.spacing_zyx_mm, origin, self.direction)

    def describe(self) -> str:
        """Return size, spacing, origin and direction in one line, for messages."""
        return (
            f"size {self.shape_zyx}, spacing {numbers(self.spacing_zyx_mm)} mm (z, y, x), "
            f"origin {numbers(self.origin_xyz_mm)} mm (x, y, z), direction {numbers(self.direction)}"
        )


def numbers(values: Sequence[float], digits: int = 6) -> str:
    """Return "(2.5, 0.8, 0.8)": at most `digits` significant digits, no negative zeros."""
    return "(" + ", ".join(f"{value + 0.0:.{digits}g}" for value in values) + ")"


def difference(
    a: Geometry, b: Geometry, *, origin_mm: float, spacing_relative: float, direction: float
) -> str | None:
    """Return None when two grids agree within the tolerances, else a clause that says what differs."""
    if a.shape_zyx != b.shape_zyx:
        return f"size {a.shape_zyx} against {b.shape_zyx} voxels (z, y, x)"
    pairs = zip(a.spacing_zyx_mm, b.spacing_zyx_mm, strict=True)
    if any(abs(p - q) > spacing_relative * max(p, q) for p, q in pairs):
        return f"spacing {_apart(a.spacing_zyx_mm, b.spacing_zyx_mm)} mm (z, y, x)"
    if _distance(a.direction, b.direction) > direction:
        return f"direction {_apart(a.direction, b.direction)}"
    if _distance(a.origin_xyz_mm, b.origin_xyz_mm) > origin_mm:
        return f"origin {_apart(a.origin_xyz_mm, b.origin_xyz_mm)} mm (x, y, z)"
    return None


def same_grid(a: Geometry, b: Geometry) -> str | None:
    """Return None when two volumes have one grid, else a clause that says what differs.

    The size must be equal. The origin may differ by 0.01 of the smallest spacing, the spacing by 1e-4 of
    itself, an entry of the direction by 1e-4: about a tenth of a voxel at the far corner of a CT, and more
    than rounding to float32 or to six digits makes.
    """
    return difference(
        a,
        b,
        origin_mm=SAME_ORIGIN_VOXELS * min(*a.spacing_zyx_mm, *b.spacing_zyx_mm),
        spacing_relative=SAME_SPACING_RELATIVE,
        direction=SAME_DIRECTION,
    )


def _distance(p: Sequence[float], q: Sequence[float]) -> float:
    return max(abs(u - v) for u, v in zip(p, q, strict=True))


def _apart(p: Sequence[float], q: Sequence[float]) -> str:
    """Return "p against q" with as many digits as it takes to see the difference."""
    digits = next((d for d in range(6, 17) if numbers(p, d) != numbers(q, d)), 17)
    return f"{numbers(p, digits)} against {numbers(q, digits)}"


@dataclass(frozen=True)
class Orientation:
    """The permutation and flips between a volume as stored and its canonical axis order.

    Canonical array axis i is stored axis `axes_zyx[i]`, reversed where `flips_zyx[i]`.
    """

    axes_zyx: tuple[int, int, int]
    flips_zyx: tuple[bool, bool, bool]

    def __post_init__(self) -> None:
        if sorted(self.axes_zyx) != [0, 1, 2] or len(self.flips_zyx) != 3:
            raise ValueError(f"need a permutation of (0, 1, 2) and three flips, got {self}")

    def view(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return (…, z, y, x) as stored in canonical order, without a copy."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.axes_zyx))
        return np.flip(moved, self._flipped(lead))

    def to_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return (…, z, y, x) as stored in canonical order, C-contiguous; copied only where needed."""
        return np.ascontiguousarray(self.view(array))

    def from_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return (…, z, y, x) in canonical order as it was stored: the inverse of `to_canonical`."""
        lead = array.ndim - 3
        back = (self.axes_zyx.index(axis) for axis in range(3))
        flipped = np.flip(array, self._flipped(lead))
        return np.ascontiguousarray(flipped.transpose(*range(lead), *(lead + axis for axis in back)))

    def canonical(self, geometry: Geometry) -> Geometry:
        """Return the grid of a volume after `to_canonical`; every voxel stays where it is in the patient."""
        stored_zyx = [0, 0, 0]
        for axis, flip in zip(self.axes_zyx, self.flips_zyx, strict=True):
            stored_zyx[axis] = geometry.shape_zyx[axis] - 1 if flip else 0
        columns = [2 - axis for axis in self.axes_zyx[::-1]]
        signs = np.where(self.flips_zyx[::-1], -1.0, 1.0)
        z, y, x = self.axes_zyx
        shape, spacing = geometry.shape_zyx, geometry.spacing_zyx_mm
        return Geometry(
            (shape[z], shape[y], shape[x]),
            (spacing[z], spacing[y], spacing[x]),
            geometry.point_mm(stored_zyx),
            tuple((geometry.matrix[:, columns] * signs).ravel().tolist()),
        )

    def _flipped(self, lead: int) -> tuple[int, ...]:
        return tuple(lead + axis for axis, flip in enumerate(self.flips_zyx) if flip)


def canonical_orientation(geometry: Geometry) -> Orientation:
    """Return the permutation and flips that bring the axes nearest to x → left, y → posterior, z → superior.

    Nearest maximises the sum of the cosines between the new axes and the patient's. The choice depends on
    where the axes point and not on the order in which they are stored, so that one scan in any of its 48
    storage orders has one canonical volume; at a tie (45°) the lexicographically greatest direction matrix
    wins.
    """
    best: list[tuple[float, tuple[float, ...], Orientation]] = []
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            columns = [2 - axis for axis in axes[::-1]]
            matrix = geometry.matrix[:, columns] * np.where(flips[::-1], -1.0, 1.0)
            orientation = Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
            best.append((float(np.trace(matrix)), tuple(np.round(matrix, 3).ravel().tolist()), orientation))
    top = max(score for score, _, _ in best)
    return max((b for b in best if b[0] > top - ORIENTATION_TIE), key=lambda b: b[1])[2]
