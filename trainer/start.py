"""Weights that a training begins with instead of random ones: those of a bundle, as for fine-tuning."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from algorithm.bundle import read_bundle
from algorithm.errors import InputError
from algorithm.network import UNet3D
from trainer.patches import PatchMeta

log = logging.getLogger(__name__)
OF_NO_WEIGHT = ("dropout",)  # arguments of a network that another value may have
# What the weights have got used to, and what the patches may differ in.
HABITS = ("labels", "channels", "normalisation", "spacing_zyx_mm", "window_hu")


@dataclass(frozen=True)
class Start:
    """The weights of a bundle.

    Attributes:
        path: the bundle.
        arguments: of its `UNet3D`.
        state: its tensors by name, on the CPU.
        sha256: of the names and values, in hexadecimal.

    """

    path: Path
    arguments: dict[str, object]
    state: dict[str, Tensor]
    sha256: str

    def load_into(self, network: UNet3D) -> None:
        """Set the weights of `network`.

        Raises:
            InputError: the bundle's network has other arguments, dropout aside.

        """
        for name, wanted in network.arguments.items():
            found = self.arguments[name]
            if name not in OF_NO_WEIGHT and found != wanted:
                raise InputError(
                    f"--weights needs a bundle of this training's network, with {name} {wanted}, but {self.path} has "
                    f"{name} {found}; choose another bundle, or set the network as that one's"
                )
        network.load_state_dict(self.state)


def read_start(bundle_path: Path, meta: PatchMeta) -> Start:
    """Read the weights of a bundle, and say where it was trained on something else than these patches.

    Raises:
        InputError: as `read_bundle`.

    """
    bundle = read_bundle(bundle_path)
    for name in HABITS:
        theirs, ours = getattr(bundle.description, name), getattr(meta, name)
        if theirs != ours:
            log.warning(
                "%s was trained with %s %s, and these patches have %s", bundle_path, name, theirs, ours
            )
    state = bundle.network.state_dict()
    content = safetensors.torch.save({name: tensor.clone() for name, tensor in sorted(state.items())})
    return Start(bundle_path, bundle.network.arguments, state, hashlib.sha256(content).hexdigest())
