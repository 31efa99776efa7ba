"""The 3D U-Net of Isensee et al., BraTS 2017, as the paper uses it (section 4.1).

Source: Isensee, Kickingereder, Wick, Bendszus, Maier-Hein, "Brain tumor segmentation and radiomics survival
prediction", 2018. Parameter counts agree with the public PyTorch re-implementation that the paper names; the
differences between that, the authors' own code and the published text are arguments here, not hidden choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["leaky_relu", "relu"]
LEAKY_SLOPE = 0.01
DEPTH = 5
MOST_BLOCKS = 16  # of a level
DEEPEST = 12  # of which a patch halved on each level would have 2048 voxels a side


def _activation(name: Activation) -> nn.Module:
    # Never in place: the residual of the first level aliases its input, and the skip would be silently wrong.
    return nn.LeakyReLU(LEAKY_SLOPE) if name == "leaky_relu" else nn.ReLU()


def _conv3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _conv1(in_channels: int, out_channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, 1, bias=False)


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm that leaves channels-last order as it is, where that is faster.

    PyTorch's own puts the channels first, and the next convolution has to put them last again. On a CPU in bfloat16,
    where that takes a fifth of a training step, its batch norm of one sample is the same function and does not; it
    sums less exactly, which is lost in the rounding to bfloat16, and float32 keeps PyTorch's own. On a GPU a compiler
    fuses plain moments in float32 with what surrounds them (docs/BENCHMARKS.md); uncompiled they are slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (x - mean) / std of each sample and channel of (n, c, z, y, x)."""
        if x.device.type == "cuda" and torch.compiler.is_compiling():
            return self.by_moments(x)
        last = torch.channels_last_3d
        if x.device.type != "cpu" or x.dtype != torch.bfloat16 or not x.is_contiguous(memory_format=last):
            return super().forward(x)
        # Weights in float32 keep mean and deviation in it, too.
        one, zero = x.new_ones(x.shape[1], dtype=torch.float32), x.new_zeros(x.shape[1], dtype=torch.float32)
        samples = [
            functional.batch_norm(sample, None, None, one, zero, training=True, eps=self.eps)
            for sample in torch.split(x, 1)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)

    def by_moments(self, x: Tensor) -> Tensor:
        """Return the same in elementary operations, of whichever memory order and type `x` is."""
        wide = x.float()
        variance, mean = torch.var_mean(wide, dim=(2, 3, 4), keepdim=True, correction=0)
        return ((wide - mean) * torch.rsqrt(variance + self.eps)).to(x.dtype)


def _norm_act(channels: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(InstanceNorm(channels), _activation(activation))


def _pre_activation_conv(channels: int, activation: Activation, *, normalise: bool) -> nn.Sequential:
    before = _norm_act(channels, activation) if normalise else _activation(activation)
    return nn.Sequential(before, _conv3(channels, channels))


class ResidualBlock(nn.Module):
    """A pre-activation residual of two 3x3x3 convolutions with dropout between, of one width and size."""

    def __init__(self, channels: int, *, normalise: bool, dropout: float, activation: Activation) -> None:
        super().__init__()
        self.first = _pre_activation_conv(channels, activation, normalise=normalise)
        self.dropout = nn.Dropout3d(dropout)
        self.second = _pre_activation_conv(channels, activation, normalise=normalise)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, z, y, x) to the same."""
        residual: Tensor = self.second(self.dropout(self.first(x)))
        return residual + x


class ContextBlock(nn.Module):
    """An entry convolution, then a pre-activation residual of two 3x3x3 convolutions with dropout between.

    The identity branch starts after the entry convolution, so that no projection is needed. The first level
    (`normalise=False`) has no norm before its convolutions. `tie` applies one norm-activation-convolution
    module twice, as the re-implementation that the paper names does on every level but the first. Where `blocks` is
    more than one, as many less one of `ResidualBlock` follow.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        normalise: bool,
        tie: bool,
        dropout: float,
        activation: Activation,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.entry = _conv3(in_channels, out_channels, stride)
        self.first = _pre_activation_conv(out_channels, activation, normalise=normalise)
        self.dropout = nn.Dropout3d(dropout)
        self.second = (
            self.first if tie else _pre_activation_conv(out_channels, activation, normalise=normalise)
        )
        self.more = nn.Sequential(
            *(
                ResidualBlock(out_channels, normalise=normalise, dropout=dropout, activation=activation)
                for _ in range(blocks - 1)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, in, z, y, x) to (n, out, z/stride, y/stride, x/stride)."""
        x = self.entry(x)
        residual: Tensor = self.second(self.dropout(self.first(x)))
        deepened: Tensor = self.more(residual + x)
        return deepened


class UpBlock(nn.Sequential):
    """Repeat each voxel twice along every axis, then halve the feature maps with a 3x3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, activation: Activation) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            _conv3(in_channels, out_channels),
            _norm_act(out_channels, activation),
        )


class UNet3D(nn.Module):
    """Context pathway down, localisation pathway up, segmentation heads of three scales summed.

    Args:
        in_channels: image channels, 1 for CT.
        num_classes: labels with background, K.
        base_filters: feature maps at full resolution, doubled at each level. 8 is the default of the
            re-implementation that the paper names; Isensee et al. trained 16.
        dropout: probability that a whole feature map is dropped in a context block (0.6 in the paper's best run).
        activation: "leaky_relu" (slope 0.01) or "relu"; the paper's search tried both.
        depth: levels; spatial sizes must be multiples of 2 ** (depth - 1).
        tie_context_convs: share the weights of the two convolutions of a context block from the second level
            down, as in the re-implementation that the paper names; the published text has them separate.
        context_blocks: residual blocks of each level of the context pathway, the last number for all that follow. The
            published network has one; more on the coarser levels make the residual encoder of Isensee et al., "nnU-Net
            revisited", MICCAI 2024, where (1, 3, 4, 6) is their medium one.

    Raises:
        ValueError: an argument is out of range.

    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        base_filters: int = 8,
        dropout: float,
        activation: Activation = "leaky_relu",
        depth: int = DEPTH,
        tie_context_convs: bool = False,
        context_blocks: Sequence[int] = (1,),
    ) -> None:
        super().__init__()
        _check_arguments(in_channels, num_classes, base_filters, dropout, activation, depth)
        blocks = _of_levels(context_blocks, depth)
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "base_filters": base_filters,
            "dropout": dropout,
            "activation": activation,
            "depth": depth,
            "tie_context_convs": tie_context_convs,
            "context_blocks": list(context_blocks),
        }
        widths = [base_filters * 2**level for level in range(depth)]
        self.context = nn.ModuleList(
            ContextBlock(
                in_channels if level == 0 else widths[level - 1],
                width,
                stride=1 if level == 0 else 2,
                normalise=level > 0,
                tie=tie_context_convs and level > 0,
                dropout=dropout,
                activation=activation,
                blocks=blocks[level],
            )
            for level, width in enumerate(widths)
        )
        self.context_out = nn.ModuleList(_norm_act(width, activation) for width in widths)
        self.skip_activation = _activation(activation)

        above = widths[-2::-1]  # widths of the localisation steps, coarse to fine
        self.up = nn.ModuleList(UpBlock(2 * width, width, activation) for width in above)
        # The lowest step has one more 1x1x1 convolution, in the authors' code as in the re-implementation.
        self.lowest = nn.Sequential(_conv1(above[0], above[0]), _norm_act(above[0], activation))
        self.localise = nn.ModuleList(
            nn.Sequential(_conv3(2 * width, 2 * width), _norm_act(2 * width, activation)) for width in above
        )
        self.halve = nn.ModuleList(
            nn.Sequential(_conv1(2 * width, width), _norm_act(width, activation)) for width in above[:-1]
        )
        self.head = _conv1(2 * base_filters, num_classes)
        # Deep supervision reads the localisation steps between the lowest and the full resolution.
        self.deep_heads = nn.ModuleList(_conv1(2 * width, num_classes) for width in above[1:-1])
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, K, z, y, x) for images (n, c, z, y, x); softmax is left to the caller.

        Raises:
            ValueError: a spatial size is not a multiple of 2 ** (depth - 1), or the lowest level would be one voxel.

        """
        return self.scales(x)[0]

    def scales(self, x: Tensor) -> list[Tensor]:
        """Return the logits of every scale that has a head, from full resolution downwards, each half as large.

        A coarse one is the sum that goes into the next finer one; training with a loss on each is deep supervision.
        Raises ValueError as `forward`.
        """
        self._check_shape(x)
        skips: list[Tensor] = []
        for level, (block, out) in enumerate(zip(self.context, self.context_out, strict=True)):
            x = block(x)
            main = out(x)
            # The skip of the first level is not normalised; Isensee et al. have it so.
            skips.append(self.skip_activation(x) if level == 0 else main)
            x = main

        skips.pop()
        coarse: list[Tensor] = []
        for step, (up, localise) in enumerate(zip(self.up, self.localise, strict=True)):
            x = up(x)
            if step == 0:
                x = self.lowest(x)
            x = localise(torch.cat((x, skips.pop()), dim=1))
            if 0 < step < len(self.up) - 1:
                deep = self.deep_heads[step - 1](x)
                coarse.append(deep + self.upsample(coarse[-1]) if coarse else deep)
            if step < len(self.halve):
                x = self.halve[step](x)
        logits: Tensor = self.head(x)
        if coarse:
            logits = logits + self.upsample(coarse[-1])
        return [logits, *reversed(coarse)]

    def _check_shape(self, x: Tensor) -> None:
        if x.ndim != 5:
            raise ValueError(f"input must be (n, c, z, y, x), got {tuple(x.shape)}")
        if required := unmet_by(tuple(x.shape[2:]), self.arguments["depth"]):
            raise ValueError(f"input must have {required}, got {tuple(x.shape[2:])}")


def unmet_by(shape_zyx: Sequence[int], depth: int = DEPTH) -> str | None:
    """Return what a patch shape must have for a network of `depth` levels, or None where it has it."""
    multiple = 2 ** (depth - 1)
    if any(size % multiple for size in shape_zyx):
        return f"sizes that {multiple} divides"
    if all(size == multiple for size in shape_zyx):
        return f"one size >= {2 * multiple}, since instance norm needs two voxels on the lowest level"
    return None


def to_channels_last(network: UNet3D) -> UNet3D:
    """Lay the weights out for channels-last convolutions; in place.

    They take two thirds of the time on a CPU, and on a GPU where the network is compiled.
    """
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def _check_arguments(
    in_channels: int, num_classes: int, base_filters: int, dropout: float, activation: str, depth: int
) -> None:
    if in_channels < 1:
        raise ValueError(f"in_channels must be >= 1, got {in_channels}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be >= 2 with background, got {num_classes}")
    if base_filters < 1:
        raise ValueError(f"base_filters must be >= 1, got {base_filters}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    if activation not in ("leaky_relu", "relu"):
        raise ValueError(f"activation must be 'leaky_relu' or 'relu', got {activation!r}")
    if not 2 <= depth <= DEEPEST:
        raise ValueError(f"depth must be from 2 to {DEEPEST}, got {depth}")


def _of_levels(context_blocks: Sequence[int], depth: int) -> list[int]:
    """Return how many residual blocks each level has."""
    if not 1 <= len(context_blocks) <= depth or not all(
        1 <= blocks <= MOST_BLOCKS for blocks in context_blocks
    ):
        raise ValueError(
            f"context_blocks must be 1 to {depth} numbers from 1 to {MOST_BLOCKS}, got {list(context_blocks)}"
        )
    return [context_blocks[min(level, len(context_blocks) - 1)] for level in range(depth)]
