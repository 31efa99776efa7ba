"""Model bundles with fixed random weights, for tests of everything around the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from algorithm.bundle import Bundle, Description, Stitching, write_bundle
from algorithm.network import UNet3D


def random_bundle(**changes: Any) -> Bundle:
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
    return Bundle(network.eval(), Description(**values))


def write_random_bundle(folder: Path, **changes: Any) -> Path:
    """Write `random_bundle` to a folder and return it."""
    write_bundle(folder, random_bundle(**changes))
    return folder
