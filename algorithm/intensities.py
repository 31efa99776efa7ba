"""A scan's numbers as the int16 that all that follows works on: HU of a CT, z-scores of an MR scan.

MR has no unit: the same tissue has other numbers in each scan. Its channels are therefore brought to mean 0 and
standard deviation 1 scan by scan, as nnU-Net does (Isensee et al., Nature Methods 18, 2021), and where the background
was cut away, of what was left alone. They are kept in thousandths of a standard deviation, within ten of them, so that
a volume of z-scores is resampled, stored, clipped and cut into patches as one of HU is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from algorithm.errors import InputError

Normalisation = Literal["window", "zscore", "zscore_foreground"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
Planes = Mapping[int, NDArray[np.float16]]

STEPS = 1000  # stored values of a standard deviation
STORED_RANGE = (-10 * STEPS, 10 * STEPS)
# Sums are taken over whole numbers, 2 ** 20 levels of a channel's range, and are exact: a scan in another storage order
# gets the same mean and deviation to the last bit. Squares of a plane of 2048 x 2048 still fit into int64.
LEVELS = 2**20


@dataclass(frozen=True)
class Stored:
    """A scan as it was stored.

    Attributes:
        channels: (c, z, y, x) of any integer or floating type, in native byte order; any view.
        names: of the channels, for messages.
        lost: values to be put back where they are not finite, by plane, counted through all channels.
        owner: of the memory that `channels` looks at, where NumPy does not know it.

    """

    channels: NDArray[Any]
    names: Sequence[str] = ()
    lost: Planes = field(default_factory=dict)
    owner: object = None

    def planes(self, channel: int) -> Iterator[NDArray[Any]]:
        """Yield the planes (y, x) of a channel."""
        first = channel * self.channels.shape[1]
        for number, plane in enumerate(self.channels[channel], start=first):
            lost = self.lost.get(number)
            yield plane if lost is None else np.where(np.isfinite(lost), plane, lost)

    def slices(self) -> Iterator[list[NDArray[Any]]]:
        """Yield, slice by slice, the planes of all channels."""
        counted = range(len(self.channels))
        yield from map(list, zip(*(self.planes(channel) for channel in counted), strict=True))

    def name(self, channel: int) -> str:
        """Return what a message calls a channel."""
        return f"channel {channel} ({self.names[channel]})" if self.names else f"channel {channel}"


def rounded(stored: Stored) -> NDArray[np.int16]:
    """Return the voxels as int16 (c, z, y, x): rounded half to even, saturated.

    NaN and -inf become the darkest finite value of their channel, +inf the brightest int16.

    Raises:
        InputError: a channel without a finite value, since an empty label map would read as "no tumour".

    """
    low, high = _limits(stored.channels.dtype)
    floats = stored.channels.dtype.kind == "f"
    result = np.empty(stored.channels.shape, dtype=np.int16)
    for channel, volume in enumerate(result):
        darkest = range_of(stored.planes(channel))[0] if floats else 0.0
        for values, plane in zip(stored.planes(channel), volume, strict=True):
            if floats:
                values = np.rint(np.nan_to_num(values, nan=darkest, neginf=darkest, posinf=high))
            np.clip(values, low, high, out=plane, casting="unsafe")
    return result


def standardised(stored: Stored, *, foreground: bool) -> NDArray[np.int16]:
    """Return z-scores of each channel in thousandths, int16 (c, z, y, x), within `STORED_RANGE`.

    Mean and deviation (divisor n) are of the finite voxels; with `foreground`, without the background: voxels that have
    in every channel exactly the value that is commonest on the six faces of the scan. In a skull-stripped brain that is
    zero, and the result is that of nnU-Net's `use_mask_for_norm` up to holes within the brain, which are background
    here, and background keeps its own z-score. NaN and -inf become the darkest finite value of their channel, +inf the
    upper end of the range. The result is the same for a * x + b of a channel, with a > 0.

    Raises:
        InputError: a channel without a finite value, or of one value everywhere.

    """
    background = [_commonest_outside(channel) for channel in stored.channels] if foreground else None
    ranges = [range_of(stored.planes(channel)) for channel in range(len(stored.channels))]
    sums = [_Sums(low, high) for low, high in ranges]
    for planes in stored.slices():
        outside = np.zeros(planes[0].shape, np.bool_)
        if background is not None:
            outside = _is_background(planes, background)
        for plane, total in zip(planes, sums, strict=True):
            total.add(plane[~outside & np.isfinite(plane)])
    result = np.empty(stored.channels.shape, dtype=np.int16)
    for channel, (total, (low, _), volume) in enumerate(zip(sums, ranges, result, strict=True)):
        mean, deviation = total.moments()
        if not deviation > 0:
            raise InputError(
                f"{stored.name(channel)} of the scan has one value everywhere, {low:g}, so no z-score can be made "
                "of it; export it anew"
            )
        for values, plane in zip(stored.planes(channel), volume, strict=True):
            finite = np.nan_to_num(values.astype(np.float64), nan=low, neginf=low, posinf=np.inf)
            scores = (finite - mean) * (STEPS / deviation)
            np.clip(np.rint(scores), *STORED_RANGE, out=plane, casting="unsafe")
    return result


def background_share(stored: Stored) -> float:
    """Return the share of the voxels that `standardised` takes for background, from 0 to 1."""
    background = [_commonest_outside(channel) for channel in stored.channels]
    held = sum(int(_is_background(planes, background).sum()) for planes in stored.slices())
    return float(held / stored.channels[0].size)


def range_of(planes: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the smallest and the largest finite value; InputError where none is finite."""
    low, high = np.inf, -np.inf
    for plane in planes:
        there = plane if plane.dtype.kind != "f" else plane[np.isfinite(plane)]
        if there.size:
            low, high = min(low, float(there.min())), max(high, float(there.max()))
    if low > high:
        raise InputError(
            "no voxel of the scan is a finite number, so there is nothing to segment; export it anew"
        )
    return low, high


def _is_background(planes: Sequence[NDArray[Any]], background: Sequence[float]) -> NDArray[np.bool_]:
    """Return where every channel of a slice has its background value, bool (y, x)."""
    same = [plane == value for plane, value in zip(planes, background, strict=True)]
    return np.asarray(np.logical_and.reduce(same))


class _Sums:
    """Exact sums of a channel's levels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.step = low, (high - low) / LEVELS or 1.0
        self.count = self.total = self.squares = 0

    def add(self, values: NDArray[Any]) -> None:
        """Add voxels, (n,)."""
        levels = np.rint((values.astype(np.float64) - self.low) * (1 / self.step)).astype(np.int64)
        self.count += levels.size
        self.total += int(levels.sum())
        self.squares += int(np.square(levels).sum())

    def moments(self) -> tuple[float, float]:
        """Return mean and standard deviation; (0, 0) of nothing."""
        if self.count == 0:
            return 0.0, 0.0
        variance = self.count * self.squares - self.total**2  # times count ** 2, in whole numbers
        return self.low + self.step * (self.total / self.count), self.step * (variance**0.5 / self.count)


def _commonest_outside(channel: NDArray[Any]) -> float:
    """Return the value that most voxels of the six faces have; the smallest of those that tie."""
    faces = [np.take(channel, end, axis=axis).reshape(-1) for axis in range(3) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    return float(values[counts.argmax()])


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the smallest and the largest value that both int16 and an integer type hold."""
    low, high = int(np.iinfo(np.int16).min), int(np.iinfo(np.int16).max)
    if dtype.kind == "f":
        return low, high
    return max(low, int(np.iinfo(dtype).min)), min(high, int(np.iinfo(dtype).max))
