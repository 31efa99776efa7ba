"""What computes a network's class probabilities: PyTorch, or on a CPU OpenVINO, which takes less time."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from algorithm.bundle import Description
from algorithm.errors import InputError
from algorithm.network import UNet3D
from algorithm.precision import Shape

log = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "openvino"]
Engine = Callable[[Tensor], Tensor]

# Voxels through the network from which converting it, which takes some seconds, is made good by what it saves.
WORTH_CONVERTING = 16 << 20
# How far two ways to compute the same probabilities may lie apart: the root mean square of what their logarithms
# differ by, of the worst class. Rounding makes 0.0003 in float32 and 0.04 in bfloat16; one lost filter makes 0.3.
AGREEMENT = {torch.float32: 0.005, torch.bfloat16: 0.15}
IMPROBABLE = 1e-6


class Member(nn.Module):
    """A network of an ensemble: class probabilities of patches that were normalised for the first member.

    Args:
        network: in evaluation mode.
        ours: description of the bundle that patches are normalised for.
        theirs: that of the network.

    """

    def __init__(self, network: UNet3D, ours: Description, theirs: Description) -> None:
        super().__init__()
        mean, std, its_mean, its_std = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1, 1)
            for values in (ours.mean, ours.std, theirs.mean, theirs.std)
        )
        self.network = network
        self.scale = nn.Buffer((std / its_std).float())
        self.shift = nn.Buffer(((mean - its_mean) / its_std).float())

    def forward(self, patches: Tensor) -> Tensor:
        """Return float32 probabilities (n, K, z, y, x) of float32 patches (n, c, z, y, x)."""
        logits: Tensor = self.network(patches * self.scale + self.shift)
        return torch.softmax(logits.float(), dim=1)


def with_torch(member: Member, device: torch.device, precision: torch.dtype) -> Engine:
    """Return an engine that runs a member in PyTorch, with its convolutions in `precision`."""

    def run(patches: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            probabilities: Tensor = member(patches)
        return probabilities

    return run


def openvino_installed() -> bool:
    """Return whether the extra `openvino` is there."""
    return importlib.util.find_spec("openvino") is not None


def with_openvino(member: Member, batch_shape: Shape, precision: torch.dtype, reference: Engine) -> Engine:
    """Return an engine that runs a member in OpenVINO on the CPU, or `reference` where the two disagree.

    Args:
        member: what is to be run.
        batch_shape: (n, c, z, y, x) of a whole batch; a smaller one is filled up.
        precision: of its convolutions.
        reference: the same member in PyTorch.

    Raises:
        InputError: OpenVINO is not installed.

    """
    openvino = _import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(_converted(member, batch_shape), "CPU", settings)

    def run(patches: Tensor) -> Tensor:
        missing = batch_shape[0] - len(patches)
        whole = torch.cat((patches, patches.new_zeros(missing, *batch_shape[1:]))) if missing else patches
        out: Tensor = torch.from_numpy(compiled(whole.contiguous().numpy(), share_inputs=True)[0])
        return out[: len(patches)]

    noise = torch.randn(batch_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = reference(noise), run(noise)
    if difference(found, expected) < AGREEMENT[precision]:  # a NaN disagrees
        return run
    log.warning(
        "OpenVINO disagrees with PyTorch about this network, so PyTorch computes it, which takes longer"
    )
    return reference


def difference(one: Tensor, other: Tensor) -> float:
    """Return how far probabilities (n, K, z, y, x) lie apart, as `AGREEMENT` has it."""
    logs = one.clamp_min(IMPROBABLE).log() - other.clamp_min(IMPROBABLE).log()
    return float(logs.square().mean(dim=(0, 2, 3, 4)).sqrt().max())


def _import_openvino() -> Any:
    if not openvino_installed():
        raise InputError(
            "OpenVINO is not installed; pip install 'decathlon-unet[openvino]', or take --engine torch"
        )
    # OpenVINO reports its use to its makers when it is imported. Nothing leaves a hospital: without this package it
    # cannot, and works as well.
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def _converted(member: Member, batch_shape: Shape) -> Any:
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    smallest = 2 ** member.network.arguments["depth"]
    example = torch.zeros(*batch_shape[:2], smallest, smallest, smallest)
    with warnings.catch_warnings():
        # PyTorch's tracing is deprecated, and leaves out the network's own check of the shape.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(member, example, check_trace=False)  # type: ignore[no-untyped-call]
    decoder = TorchScriptPythonDecoder(traced)
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape(list(batch_shape))
    return model
