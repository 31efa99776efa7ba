"""Which number type the convolutions of a training run in, and whether those of inference may run in bfloat16."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor

from algorithm.network import UNet3D
from algorithm.precision import has_bfloat16, keep_wrong_in_float32

log = logging.getLogger(__name__)

SAME_LABELS = 0.99  # the Dice between labels of two networks that count as one


def choose_precision(
    asked: Literal["float32", "bfloat16", "float16", "auto"],
    network: UNet3D,
    batch_shape: tuple[int, int, int, int, int],
    device: torch.device,
) -> torch.dtype:
    """Return the type for autocast: what was asked, or for "auto" bfloat16 where the processor computes in it.

    On a CPU, layers that are wrong in bfloat16 are kept in float32: see `keep_wrong_in_float32`.
    """
    if asked == "float32" or (asked == "auto" and not has_bfloat16(device)):
        return torch.float32
    if asked == "float16":
        return torch.float16
    if device.type == "cpu":
        wrong, layers = keep_wrong_in_float32(network, batch_shape, gradients=True)
        if wrong:
            log.info("%d of %d convolutions are wrong in bfloat16 here and stay in float32", wrong, layers)
    return torch.bfloat16


@torch.no_grad()
def bfloat16_agrees(network: UNet3D, images: Tensor) -> bool:
    """Return whether labels in bfloat16 are those in float32, by the Dice of every foreground label.

    Args:
        network: in evaluation mode.
        images: normalised patches (n, c, z, y, x) on the network's device.

    """
    exact, rounded = [], []
    for image in torch.split(images, 1):
        exact.append(network(image).argmax(dim=1))
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            rounded.append(network(image).float().argmax(dim=1))
    one, other = torch.cat(exact), torch.cat(rounded)
    for label in range(1, network.arguments["num_classes"]):
        both = int(((one == label) & (other == label)).sum())
        sizes = int((one == label).sum()) + int((other == label).sum())
        if 2 * both < SAME_LABELS * sizes:
            return False
    return True
