"""Model bundles with fixed random weights, for tests of everything around the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from algorithm.bundle import Bundle, Description, Stitching, write_bundle
from algorithm.locate import CoarseToFine
from algorithm.network import UNet3D


def random_bundle(coarse: Bundle | None = None, **changes: Any) -> Bundle:
    """Return a tiny network whose labels vary over a CT; `changes` replace fields of the description."""
    torch.manual_seed(7)
    network = UNet3D(in_channels=1, num_classes=3, base_filters=2, dropout=0.0, depth=3)
    values: dict[str, Any] = {
        "network": network.arguments,
        "labels": ("background", "pancreas", "cancer"),
        "channels": ("CT",),
        "spacing_zyx_mm": (5.0, 2.0, 2.0),
        "window_hu": (-100.0, 200.0),
        "mean": (30.0,),
        "std": (80.0,),
        "patch_shape_zyx": (16, 32, 32),
        "stitching": Stitching("centre", (4, 8, 8)),
        "provenance": {"data_set": {"name": "random weights", "hash": ""}},
    }
    values.update(changes)
    return Bundle(network.eval(), Description(**values), coarse)


class Threshold(torch.nn.Module):
    """In place of a network: a voxel above 0.5 is of class 2, one above 0.2 of class 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 3, z, y, x) of (n, 1, z, y, x)."""
        return torch.cat((0.2 - x, torch.zeros_like(x), x - 0.5), dim=1) * 100


def coarse_to_fine_bundle(**changes: Any) -> Bundle:
    """Return a random bundle with a random coarse pass of twice its voxel size."""
    settings = {"coarse_to_fine": CoarseToFine(margin_mm=6.0, smallest_ml=0.5), **changes}
    return random_bundle(random_bundle(spacing_zyx_mm=(10.0, 4.0, 4.0)), **settings)


def write_random_bundle(folder: Path, **changes: Any) -> Path:
    """Write `random_bundle` to a folder and return it."""
    write_bundle(folder, random_bundle(**changes))
    return folder
