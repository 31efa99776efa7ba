"""Which number type the convolutions of a training run in."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from algorithm.network import UNet3D

log = logging.getLogger(__name__)
Shape = tuple[int, ...]

# A bfloat16 convolution with its gradients lies 0.003 from float32 by rounding; a wrong one lies 1 or further away.
AGREEMENT = 0.05


def choose_precision(
    asked: Literal["float32", "bfloat16", "float16", "auto"],
    network: UNet3D,
    batch_shape: tuple[int, int, int, int, int],
    device: torch.device,
) -> torch.dtype:
    """Return the type for autocast: what was asked, or for "auto" bfloat16 where the processor computes in it.

    PyTorch's bfloat16 convolutions on the CPU are wrong for some shapes: pytorch#169688, and weight gradients over
    two planes of z, which the lowest level of a patch of 32 planes has. Each convolution is therefore compared with
    float32 on the shape (n, c, z, y, x) that it will meet, and stays in float32 where it disagrees.
    """
    if asked == "float32" or (asked == "auto" and not _has_bfloat16(device)):
        return torch.float32
    if asked == "float16":
        return torch.float16
    if device.type == "cpu":
        shapes = _input_shapes(network, batch_shape)
        wrong = [layer for layer, shape in shapes.items() if not _agrees(layer, shape)]
        for layer in wrong:
            _keep_in_float32(layer)
        if wrong:
            log.info(
                "%d of %d convolutions are wrong in bfloat16 here and stay in float32",
                len(wrong),
                len(shapes),
            )
    return torch.bfloat16


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _input_shapes(network: UNet3D, batch_shape: Shape) -> dict[nn.Conv3d, Shape]:
    shapes: dict[nn.Conv3d, Shape] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(layer, nn.Conv3d):
            shapes[layer] = tuple(inputs[0].shape)

    handles = [
        layer.register_forward_pre_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv3d)
    ]
    with torch.no_grad():
        network(torch.zeros(batch_shape))
    for handle in handles:
        handle.remove()
    return shapes


def _agrees(layer: nn.Conv3d, shape: Shape) -> bool:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last_3d)

    def step(dtype: torch.dtype) -> tuple[Tensor, ...]:
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            y = layer(x).float()
        direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        return y.detach(), *torch.autograd.grad(y, (x, layer.weight), direction)

    pairs = zip(step(torch.bfloat16), step(torch.float32), strict=True)
    # Written so that a NaN disagrees.
    return all(float((rounded - exact).norm()) < AGREEMENT * float(exact.norm()) for rounded, exact in pairs)


def _keep_in_float32(layer: nn.Conv3d) -> None:
    forward = layer.forward

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    layer.forward = exact  # type: ignore[method-assign,assignment]
