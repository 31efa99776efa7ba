"""A tiny training through the command line, and what it left."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import safetensors.torch
import torch

TINY = {"base_filters": 2, "epochs": 2, "dropout": 0.2, "learning_rate": 0.01, "batch_size": 2}


def arguments(work: Path, run: Path, **changes: object) -> list[str]:
    settings = [f"{name}={json.dumps(value)}" for name, value in {**TINY, **changes}.items()]
    return ["train", str(work), "--preset", "paper", "--out", str(run), "--device", "cpu", "--set", *settings]


def weights(run: Path, bundle: str = "bundle-last") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / bundle / "model.safetensors")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))
