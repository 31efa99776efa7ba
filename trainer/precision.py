"""Which number type the convolutions of a training run in."""

from __future__ import annotations

import logging
import time
from typing import Literal

import torch

from algorithm.network import UNet3D

log = logging.getLogger(__name__)
AGREEMENT = 0.05


def choose_precision(
    asked: Literal["float32", "bfloat16", "auto"], network: UNet3D, patch_shape_zyx: tuple[int, int, int], device: torch.device
) -> torch.dtype:
    """Return the type for autocast: what was asked, or for "auto" bfloat16 where it is right and pays.

    PyTorch's bfloat16 convolutions on the CPU were wrong for some strided shapes (pytorch#169688), so "auto"
    compares one forward pass of this network on this patch with float32 before it trusts them.
    """
    if asked != "auto":
        return torch.float32 if asked == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    generator = torch.Generator().manual_seed(0)
    patch = torch.randn((1, network.arguments["in_channels"], *patch_shape_zyx), generator=generator)
    was_training = network.training
    network.eval()
    exact, exact_seconds = _timed_forward(network, patch, torch.float32)
    rounded, rounded_seconds = _timed_forward(network, patch, torch.bfloat16)
    network.train(was_training)
    difference = float((rounded - exact).norm() / exact.norm())
    trusted = difference < AGREEMENT and rounded_seconds < exact_seconds
    log.info(
        "bfloat16 differs from float32 by %.3f and takes %.2f of its time: training in %s",
        difference,
        rounded_seconds / exact_seconds,
        "bfloat16" if trusted else "float32",
    )
    return torch.bfloat16 if trusted else torch.float32


@torch.inference_mode()
def _timed_forward(network: UNet3D, patch: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, float]:
    seconds = []
    for _ in range(2):  # the first pass also sets up the convolutions
        started = time.monotonic()
        with torch.autocast(patch.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = network(patch).float()
        seconds.append(time.monotonic() - started)
    return logits, seconds[-1]
