"""Lesions of other cases, put into the organ of a patch: more places and neighbours than a data set has for them.

Cutting lesions out and pasting them elsewhere is CarveMix (Zhang et al., MICCAI 2021) and TumorCP (Yang et al., MICCAI
2021). Here a lesion comes from any training case, keeps its difference to its own organ, and lies mostly within the
organ of the patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from algorithm.postprocessing import LESION, ORGAN, bounds, components

FEWEST_VOXELS = 4
LEAST_WITHIN = 0.5  # of a lesion's voxels that must lie in the organ it is put into
RIM_VOXELS = 0.7  # standard deviation of the blend at its edge


@dataclass(frozen=True)
class Lesion:
    """A lesion that was cut out of its case.

    Attributes:
        values: float32 (c, z, y, x), normalised, less the median of the organ around it.
        mask: bool (z, y, x), its voxels.
        weight: float32 (z, y, x), its part of the blend: 0 outside the mask, 1 where it is most itself.

    """

    values: Tensor
    mask: Tensor
    weight: Tensor

    def mirrored(self, axes: Sequence[int]) -> Lesion:
        """Return it mirrored along axes of (z, y, x)."""
        return Lesion(
            self.values.flip([1 + axis for axis in axes]),
            self.mask.flip(list(axes)),
            self.weight.flip(list(axes)),
        )

    def with_contrast(self, factor: float) -> Lesion:
        """Return it with another mean difference to the organ; a negative factor makes a dark one bright.

        Its texture and its noise stay as they are, so that a faint lesion is no smoother than its neighbours.
        """
        mean = self.values[:, self.mask].mean(dim=1).view(-1, 1, 1, 1)
        return replace(self, values=self.values + (factor - 1) * mean)


def cut_out(
    volumes: Iterable[tuple[NDArray[np.int16], NDArray[np.uint8]]],
    std: Sequence[float],
    largest_zyx: Sequence[int],
    device: torch.device,
) -> tuple[Lesion, ...]:
    """Return the lesions of all cases that have an organ around them.

    Args:
        volumes: image int16 (c, z, y, x), clipped, and label uint8 (z, y, x) of each case.
        std: of each channel, that the network's input is divided by.
        largest_zyx: a lesion with a larger box is left out.
        device: where they are kept.

    """
    channels = (slice(None), np.newaxis, np.newaxis, np.newaxis)
    scale = np.array(std, np.float32)[channels]
    found = []
    for whole, labels in volumes:
        if not (np.asarray(labels) == ORGAN).any():
            continue
        labelled = bounds(np.asarray(labels) > 0)
        image, label = np.asarray(whole[(slice(None), *labelled)]), np.asarray(labels[labelled])
        organ = label == ORGAN
        median = np.median(image[:, organ], axis=1).astype(np.float32)[channels]
        numbered, _ = components(label == LESION)
        for number, box in enumerate(ndimage.find_objects(numbered), start=1):
            mask = numbered[box] == number
            if mask.sum() < FEWEST_VOXELS or any(
                n > most for n, most in zip(mask.shape, largest_zyx, strict=True)
            ):
                continue
            values = (image[(slice(None), *box)] - median) / scale
            padded = np.pad(mask.astype(np.float32), 3)
            weight = ndimage.gaussian_filter(padded, RIM_VOXELS)[3:-3, 3:-3, 3:-3] * mask
            weight /= weight.max()  # the smallest keep their contrast, too
            found.append(
                Lesion(
                    *(torch.from_numpy(one).to(device) for one in (values.astype(np.float32), mask, weight))
                )
            )
    return tuple(found)


def implant(image: Tensor, label: Tensor, lesion: Lesion, spot: float) -> tuple[Tensor, Tensor] | None:
    """Return copies of a patch with the lesion in its organ, or None where there is no place for it.

    Args:
        image: normalised (c, z, y, x).
        label: (z, y, x), integer.
        lesion: what is put in.
        spot: in [0, 1), which of the organ's voxels its centre comes to lie on.

    """
    organ = label == ORGAN
    places = organ.nonzero()
    if not len(places):
        return None
    centre = places[int(spot * len(places))].tolist()
    box, part = [], []
    for at, size, within in zip(centre, lesion.mask.shape, label.shape, strict=True):
        start = at - size // 2
        box.append(slice(max(start, 0), min(start + size, within)))
        part.append(slice(max(-start, 0), min(within - start, size)))
    there, mask = tuple(box), lesion.mask[tuple(part)]
    if float((organ[there] & mask).sum()) < LEAST_WITHIN * float(lesion.mask.sum()):
        return None
    level = image[:, organ].median(dim=1).values.view(-1, 1, 1, 1)
    values = lesion.values[(slice(None), *part)].to(image.dtype) + level
    image, label = image.clone(), label.clone()
    image[(slice(None), *there)] = torch.lerp(
        image[(slice(None), *there)], values, lesion.weight[tuple(part)].to(image.dtype)
    )
    label[there] = torch.where(mask, torch.full_like(label[there], LESION), label[there])
    return image, label
