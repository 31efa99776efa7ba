"""Augmentation of whole batches on the device they are on, as a function of (seed, epoch, index of the patch).

What is drawn for a patch is counter-based and the same on every device; the noise fields come from a generator of the
device that is seeded by the same three numbers. The transforms and their customary ranges are those of nnU-Net
(Isensee et al., Nature Methods 18, 2021, supplementary note 4); geometry is in millimetres, so that an anisotropic
patch is turned and not sheared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum, auto

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import voxelcore
from trainer.implants import Lesion, implant

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentSettings:
    """How often each transform is applied to a patch, and within which bounds; without settings, none is.

    Attributes:
        implant_share: share of patches that are to get a lesion of any training case, where their organ has room for it
            (`trainer.implants`).
        implant_contrast: factor of the lesion's mean difference to its organ.
        implant_inverted_share: of these lesions, dark ones that are made bright by as much and bright ones dark.
        mirror_zyx: share of patches that are mirrored along each axis.
        rotate_share: share of patches that are turned; likewise the other shares.
        rotate_deg_zyx: largest angle about each axis, either way.
        scale_share, scale: factor of size; logarithmically uniform, the same on all axes.
        elastic_share: of patches that are bent.
        elastic_mm: standard deviation of the displacement of a control point.
        elastic_grid_mm: distance of control points.
        noise_share, noise_std: standard deviation of white noise, in standard deviations of the training data.
        blur_share, blur_voxels: standard deviation of a Gaussian.
        brightness_share, brightness: factor of the normalised values.
        contrast_share, contrast: factor of the distance to the patch's mean; its range is kept.
        gamma_share, gamma: exponent over the patch's range.
        low_resolution_share, low_resolution: size that a patch is reduced to and enlarged from again.

    """

    implant_share: float = 0.0
    implant_contrast: Range = (1.0, 1.0)
    implant_inverted_share: float = 0.0
    mirror_zyx: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotate_share: float = 0.0
    rotate_deg_zyx: tuple[float, float, float] = (30.0, 30.0, 30.0)
    scale_share: float = 0.0
    scale: Range = (0.7, 1.4)
    elastic_share: float = 0.0
    elastic_mm: float = 4.0
    elastic_grid_mm: float = 32.0
    noise_share: float = 0.0
    noise_std: Range = (0.0, 0.3)
    blur_share: float = 0.0
    blur_voxels: Range = (0.5, 1.0)
    brightness_share: float = 0.0
    brightness: Range = (0.75, 1.25)
    contrast_share: float = 0.0
    contrast: Range = (0.75, 1.25)
    gamma_share: float = 0.0
    gamma: Range = (0.7, 1.5)
    low_resolution_share: float = 0.0
    low_resolution: Range = (0.5, 1.0)

    def faults(self) -> list[tuple[str, str]]:
        """Return what is out of range: name and what it must be."""
        found = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                found.append((field.name, "in [0, 1]"))
            elif field.name == "mirror_zyx" and not all(0 <= share <= 1 for share in value):
                found.append((field.name, "shares in [0, 1]"))
            elif field.name == "rotate_deg_zyx" and not all(0 <= angle <= 180 for angle in value):
                found.append((field.name, "angles in [0, 180]"))
            elif field.name.endswith("_mm") and not 0 < value < math.inf:
                found.append((field.name, "> 0"))
            elif isinstance(value, tuple) and len(value) == 2 and not 0 <= value[0] <= value[1] < math.inf:
                found.append((field.name, "LOW <= HIGH, neither negative"))
        found += [
            (name, "above 0") for name in ("scale", "low_resolution", "gamma") if getattr(self, name)[0] <= 0
        ]
        if self.low_resolution[1] > 1:
            found.append(("low_resolution", "at most 1"))
        return found

    @property
    def any(self) -> bool:
        """Whether anything is ever changed."""
        shares = [getattr(self, field.name) for field in fields(self) if field.name.endswith("_share")]
        return any(share > 0 for share in (*shares, *self.mirror_zyx))


class Stream(IntEnum):
    """One stream of random numbers for each thing that is drawn; new ones go to the end, so that old draws stay."""

    MIRROR_Z = 64
    MIRROR_Y = auto()
    MIRROR_X = auto()
    ROTATE = auto()
    ANGLE_Z = auto()
    ANGLE_Y = auto()
    ANGLE_X = auto()
    SCALE = auto()
    FACTOR = auto()
    ELASTIC = auto()
    NOISE = auto()
    NOISE_STD = auto()
    BLUR = auto()
    BLUR_WIDTH = auto()
    BRIGHTNESS = auto()
    BRIGHTNESS_FACTOR = auto()
    CONTRAST = auto()
    CONTRAST_FACTOR = auto()
    GAMMA = auto()
    EXPONENT = auto()
    LOW_RESOLUTION = auto()
    REDUCTION = auto()
    FIELD = auto()  # seeds the generators of noise and displacements
    IMPLANT = auto()
    LESION = auto()
    LESION_MIRRORED = auto()
    SPOT = auto()
    IMPLANT_CONTRAST = auto()
    IMPLANT_INVERTED = auto()


class Augmenter:
    """Applies the transforms of some settings to batches.

    Args:
        settings: what is done, how often and how much.
        spacing_zyx_mm: of the patches.
        seed: of the training.
        lesions: that are implanted, on the device of the batches.

    """

    def __init__(
        self,
        settings: AugmentSettings,
        spacing_zyx_mm: Sequence[float],
        *,
        seed: int,
        lesions: Sequence[Lesion] = (),
    ) -> None:
        self.settings = settings
        self.lesions = tuple(lesions)
        # In this order; the stream of the amount follows that of the choice. White noise is no function of an image.
        self._changes: list[tuple[Stream, float, Range, Callable[[Tensor, float], Tensor] | None]] = [
            (Stream.NOISE, settings.noise_share, settings.noise_std, None),
            (Stream.BLUR, settings.blur_share, settings.blur_voxels, blurred),
            (Stream.BRIGHTNESS, settings.brightness_share, settings.brightness, brightened),
            (Stream.CONTRAST, settings.contrast_share, settings.contrast, contrasted),
            (Stream.LOW_RESOLUTION, settings.low_resolution_share, settings.low_resolution, coarsened),
            (Stream.GAMMA, settings.gamma_share, settings.gamma, gamma_corrected),
        ]
        self.spacing_zyx_mm = tuple(spacing_zyx_mm)
        self.seed = seed

    def __call__(
        self, images: Tensor, labels: Tensor, indices: NDArray[np.int64], *, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Return augmented images (n, c, z, y, x), float, and labels (n, z, y, x), integer, of the same shapes.

        Args:
            images: normalised; left as they are.
            labels: left as they are.
            indices: int64 (n,), of the patches within the epoch; what happens to each follows from its index.
            epoch: from 0.

        """
        if not self.settings.any:
            return images, labels
        draw = Draws(self.seed, epoch, indices)
        images, labels = self._implanted(images, labels, draw)
        images, labels = self._mirrored(images, labels, draw)
        images, labels = self._deformed(images, labels, draw)
        return self._shaded(images, draw), labels

    def _implanted(self, images: Tensor, labels: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
        """Put a lesion into the chosen patches that have a place for it; turns and shades come after, to it too."""
        if not self.lesions:
            return images, labels
        which, mirrors, spots = (
            draw(stream) for stream in (Stream.LESION, Stream.LESION_MIRRORED, Stream.SPOT)
        )
        contrasts = draw.uniform(Stream.IMPLANT_CONTRAST, self.settings.implant_contrast)
        contrasts[draw.chosen(Stream.IMPLANT_INVERTED, self.settings.implant_inverted_share)] *= -1
        changed = images
        for i in np.flatnonzero(draw.chosen(Stream.IMPLANT, self.settings.implant_share)):
            bits = int(8 * mirrors[i])
            lesion = self.lesions[int(which[i] * len(self.lesions))].with_contrast(float(contrasts[i]))
            lesion = lesion.mirrored([axis for axis in range(3) if bits >> axis & 1])
            made = implant(images[i], labels[i], lesion, float(spots[i]))
            if made is None:
                continue
            if changed is images:
                changed, labels = images.clone(), labels.clone()
            changed[i], labels[i] = made
        return changed, labels

    def _mirrored(self, images: Tensor, labels: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
        streams = (Stream.MIRROR_Z, Stream.MIRROR_Y, Stream.MIRROR_X)
        for axis, (stream, share) in enumerate(zip(streams, self.settings.mirror_zyx, strict=True)):
            chosen = draw.chosen(stream, share)
            if chosen.any():
                where = torch.from_numpy(chosen).to(images.device)
                images = torch.where(where.view(-1, 1, 1, 1, 1), images.flip(2 + axis), images)
                labels = torch.where(where.view(-1, 1, 1, 1), labels.flip(1 + axis), labels)
        return images, labels

    def _deformed(self, images: Tensor, labels: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
        """Turn, scale and bend in one interpolation, so that nothing is blurred twice."""
        settings = self.settings
        turned = draw.chosen(Stream.ROTATE, settings.rotate_share)
        scaled = draw.chosen(Stream.SCALE, settings.scale_share)
        bent = draw.chosen(Stream.ELASTIC, settings.elastic_share)
        which = np.flatnonzero(turned | scaled | bent)
        if not len(which):
            return images, labels
        limits = np.radians(settings.rotate_deg_zyx)
        angles_zyx = np.stack(
            [
                limit * (2 * draw(stream) - 1) * turned
                for limit, stream in zip(
                    limits, (Stream.ANGLE_Z, Stream.ANGLE_Y, Stream.ANGLE_X), strict=True
                )
            ],
            axis=1,
        )
        factors = np.where(scaled, draw.log_uniform(Stream.FACTOR, settings.scale), 1.0)
        shape = images.shape[2:]
        half_xyz = np.array([0.5 * n * s for n, s in zip(shape, self.spacing_zyx_mm, strict=True)])[::-1]
        matrices = [
            (rotation_xyz(angles_zyx[i]) / factors[i]) * half_xyz / half_xyz[:, np.newaxis] for i in which
        ]
        theta = np.concatenate([np.stack(matrices), np.zeros((len(which), 3, 1))], axis=2)
        grid = functional.affine_grid(
            torch.from_numpy(theta).to(images), [len(which), 1, *shape], align_corners=False
        )
        for place, i in enumerate(which):
            if bent[i]:
                shift = self._displacement(draw.generator(int(i), images.device), shape, images)
                grid[place] += shift / torch.from_numpy(half_xyz.copy()).to(shift)
        images, labels = images.clone(), labels.clone()
        at = torch.from_numpy(which).to(images.device)
        images[at] = functional.grid_sample(
            images[at], grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        moved = functional.grid_sample(
            labels[at].unsqueeze(1).to(images.dtype),
            grid,
            mode="nearest",
            padding_mode="border",
            align_corners=False,
        )
        labels[at] = moved.squeeze(1).to(labels.dtype)
        return images, labels

    def _displacement(self, generator: torch.Generator, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return displacements in mm (z, y, x, 3), last axis x, y, z, linear between random control points."""
        extent = [n * s for n, s in zip(shape, self.spacing_zyx_mm, strict=True)]
        points = [max(2, 1 + round(mm / self.settings.elastic_grid_mm)) for mm in extent]
        control = torch.randn((1, 3, *points), generator=generator, device=like.device, dtype=torch.float32)
        field = functional.interpolate(
            control * self.settings.elastic_mm, size=list(shape), mode="trilinear", align_corners=True
        )
        return field[0].movedim(0, -1).to(like.dtype)

    def _shaded(self, images: Tensor, draw: Draws) -> Tensor:
        """Change intensities patch by patch."""
        changed = images
        for stream, share, bounds, change in self._changes:
            amounts = draw.uniform(Stream(stream + 1), bounds)
            for i in np.flatnonzero(draw.chosen(stream, share)):
                if changed is images:
                    changed = images.clone()
                if change is None:
                    generator = draw.generator(int(i), images.device, field=1)
                    noise = torch.randn(changed[i].shape, generator=generator, device=images.device)
                    changed[i] += amounts[i] * noise.to(changed.dtype)
                else:
                    changed[i] = change(changed[i], float(amounts[i]))
        return changed


@dataclass(frozen=True)
class Draws:
    """Random numbers of the patches of a batch."""

    seed: int
    epoch: int
    indices: NDArray[np.int64]

    def __call__(self, stream: Stream) -> NDArray[np.float64]:
        """Return one number in [0, 1) for each patch."""
        return voxelcore.uniform(self.indices, seed=self.seed, epoch=self.epoch, stream=int(stream))

    def chosen(self, stream: Stream, share: float) -> NDArray[np.bool_]:
        """Return for each patch whether it is among the share."""
        return self(stream) < share

    def uniform(self, stream: Stream, bounds: Range) -> NDArray[np.float64]:
        """Return a number within bounds for each patch."""
        return bounds[0] + (bounds[1] - bounds[0]) * self(stream)

    def log_uniform(self, stream: Stream, bounds: Range) -> NDArray[np.float64]:
        """Return a number within positive bounds, whose logarithm is uniform, for each patch."""
        low, high = math.log(bounds[0]), math.log(bounds[1])
        numbers: NDArray[np.float64] = np.exp(low + (high - low) * self(stream))
        return numbers

    def generator(self, place: int, device: torch.device, *, field: int = 0) -> torch.Generator:
        """Return a generator for a field of random numbers over the patch at `place` of the batch."""
        counter = 2 * self.indices[place : place + 1] + field
        number = voxelcore.uniform(counter, seed=self.seed, epoch=self.epoch, stream=int(Stream.FIELD))
        return torch.Generator(device).manual_seed(int(number[0] * 2**53))


def rotation_xyz(angles_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix, on (x, y, z), of turns by the three angles in radians: about x first, then y, then z."""
    z, y, x = angles_zyx
    about_x = np.array([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    about_y = np.array([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]])
    about_z = np.array([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    matrix: NDArray[np.float64] = about_z @ about_y @ about_x
    return matrix


def blurred(image: Tensor, width: float) -> Tensor:
    """Return an image (c, z, y, x) under a Gaussian of standard deviation `width` voxels, its edges repeated."""
    if width == 0:
        return image
    radius = max(1, round(3 * width))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    result = image.unsqueeze(1)
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(kernel)
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = radius
        padded = functional.pad(result, pad, mode="replicate")
        result = functional.conv3d(padded, kernel.view(shape))
    return result.squeeze(1)


def brightened(image: Tensor, factor: float) -> Tensor:
    """Return the image times a factor."""
    return image * factor


def contrasted(image: Tensor, factor: float) -> Tensor:
    """Return each channel with distances to its mean scaled, within the range it had."""
    mean, low, high = image.mean((1, 2, 3), keepdim=True), *extremes(image)
    return torch.clamp((image - mean) * factor + mean, low, high)


def gamma_corrected(image: Tensor, exponent: float) -> Tensor:
    """Return each channel with x ** exponent over its range, brought back to the mean and deviation it had."""
    low, high = extremes(image)
    span = torch.clamp(high - low, min=1e-6)
    changed = ((image - low) / span) ** exponent
    axes = (1, 2, 3)
    wanted = (image.mean(axes, keepdim=True), image.std(axes, keepdim=True))
    mean, deviation = changed.mean(axes, keepdim=True), changed.std(axes, keepdim=True)
    return (changed - mean) / torch.clamp(deviation, min=1e-6) * wanted[1] + wanted[0]


def coarsened(image: Tensor, share: float) -> Tensor:
    """Return the image as if it had been scanned with `share` of its voxels along each axis."""
    shape = list(image.shape[1:])
    small = [max(1, round(share * n)) for n in shape]
    reduced = functional.interpolate(image.unsqueeze(0), size=small, mode="nearest-exact")
    return functional.interpolate(reduced, size=shape, mode="trilinear", align_corners=False).squeeze(0)


def extremes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value of each channel (c, 1, 1, 1)."""
    return image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
