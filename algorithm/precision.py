"""Where bfloat16 is fast, and where it is wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algorithm.network import UNet3D

Shape = tuple[int, ...]

# A bfloat16 convolution with its gradients lies 0.003 from float32 by rounding; a wrong one lies 1 or further away.
AGREEMENT = 0.05


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the processor computes in bfloat16, and does not emulate it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_wrong_in_float32(network: UNet3D, batch_shape: Shape, *, gradients: bool) -> tuple[int, int]:
    """Let convolutions that are wrong in bfloat16 on this CPU ignore autocast; return how many, and of how many.

    PyTorch's bfloat16 convolutions on the CPU are wrong for some shapes: pytorch#169688, and weight gradients over
    two planes of z, which the lowest level of a patch of 32 planes has. Each convolution is compared with float32 on
    the shape that it meets when the network sees a batch (n, c, z, y, x), with its gradients if they will be needed.
    """
    if gradients:
        shapes = _input_shapes(network, batch_shape)
        wrong = [layer for layer, shape in shapes.items() if not _steps_agree(layer, shape)]
    else:
        wrong = _wrong_forwards(network, batch_shape)
    for layer in wrong:
        _keep_in_float32(layer)
    return len(wrong), sum(isinstance(layer, nn.Conv3d) for layer in network.modules())


@torch.no_grad()
def _wrong_forwards(network: UNet3D, batch_shape: Shape) -> list[nn.Conv3d]:
    """Return the convolutions that disagree on what they get of noise: one pass through the network tells."""
    wrong: list[nn.Conv3d] = []

    def compare(layer: nn.Module, inputs: tuple[Tensor], exact: Tensor) -> None:
        if isinstance(layer, nn.Conv3d):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = layer.forward(inputs[0]).float()
            if not _near(rounded, exact):
                wrong.append(layer)

    handles = [layer.register_forward_hook(compare) for layer in network.modules()]
    network(torch.randn(batch_shape, generator=torch.Generator().manual_seed(0)))
    for handle in handles:
        handle.remove()
    return wrong


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


def _steps_agree(layer: nn.Conv3d, shape: Shape) -> bool:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last_3d)

    def step(dtype: torch.dtype) -> tuple[Tensor, ...]:
        x = image.clone().requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            y = layer(x).float()
        direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        return y.detach(), *torch.autograd.grad(y, (x, layer.weight), direction)

    return all(_near(*pair) for pair in zip(step(torch.bfloat16), step(torch.float32), strict=True))


def _near(rounded: Tensor, exact: Tensor) -> bool:
    # Written so that a NaN disagrees.
    return float((rounded - exact).norm()) < AGREEMENT * float(exact.norm())


def _keep_in_float32(layer: nn.Conv3d) -> None:
    forward = layer.forward

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    layer.forward = exact  # type: ignore[method-assign,assignment]
