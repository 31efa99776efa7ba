"""Which number type convolutions run in, in training and at inference."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from algorithm.bundle import read_bundle
from algorithm.network import UNet3D
from algorithm.precision import has_bfloat16, keep_wrong_in_float32
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle
from tests.trainer.runs import arguments
from trainer.cli import main
from trainer.patches import PatchFile
from trainer.precision import bfloat16_agrees, choose_precision

CPU = torch.device("cpu")
needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(CPU), reason="this processor does not compute in bfloat16"
)


class Wrong(torch.nn.Conv3d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * 2 if y.dtype == torch.bfloat16 else y


class Net(torch.nn.Sequential):
    arguments: ClassVar = {"in_channels": 1}


def right_and_wrong() -> Net:
    return Net(torch.nn.Conv3d(1, 4, 3, padding=1, bias=False), Wrong(4, 2, 3, padding=1, bias=False))


def dtypes(net: Net) -> list[torch.dtype]:
    found = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.randn(1, 1, 8, 8, 8)
        for layer in net:
            x = layer(x)
            found.append(x.dtype)
    return found


def test_convolutions_that_are_wrong_in_bfloat16_stay_in_float32() -> None:
    net, shape = right_and_wrong(), (1, 1, 8, 8, 8)
    assert choose_precision("float32", net, shape, CPU) == torch.float32  # type: ignore[arg-type]
    assert choose_precision("bfloat16", net, shape, CPU) == torch.bfloat16  # type: ignore[arg-type]
    assert dtypes(net) == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("gradients", [False, True])
def test_wrong_convolutions_are_found_without_gradients_too(gradients: bool) -> None:
    net = right_and_wrong()
    assert keep_wrong_in_float32(net, (1, 1, 8, 8, 8), gradients=gradients) == (1, 2)  # type: ignore[arg-type]
    assert dtypes(net) == [torch.bfloat16, torch.float32]


def test_labels_are_compared_class_by_class() -> None:
    class Rounds(torch.nn.Module):
        """Say "cancer" where the image is above 1.001, which bfloat16 cannot tell from 1."""

        arguments: ClassVar = {"num_classes": 3}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_autocast_enabled("cpu"):
                x = x.bfloat16()
            zeros = torch.zeros_like(x)
            return torch.cat((zeros + 0.5, x, (x - 1.001) * 1e4), dim=1)

    images = torch.zeros(2, 1, 8, 16, 16)
    images[:, :, :, :8] = 1.0
    assert bfloat16_agrees(Rounds(), images)  # type: ignore[arg-type]
    images[1, :, :4, :4, :4] = 1.003
    assert not bfloat16_agrees(Rounds(), images)  # type: ignore[arg-type]


@needs_bfloat16
def test_a_training_finds_out_whether_labels_stay_the_same(work: Path, tmp_path: Path) -> None:
    assert main(arguments(work, tmp_path / "run", epochs=1)) == 0
    bundle = read_bundle(tmp_path / "run" / "bundle")
    file = PatchFile(work / "val.h5")
    images = torch.from_numpy(file.read(range(len(file)))[0]).float()
    normalised = (images - file.meta.mean[0]) / file.meta.std[0]
    assert bundle.description.bfloat16 == bfloat16_agrees(bundle.network, normalised)


@needs_bfloat16
@pytest.mark.parametrize(("says", "precision"), [(False, torch.float32), (True, torch.bfloat16)])
def test_inference_is_in_bfloat16_where_the_bundle_says_so(
    says: bool, precision: torch.dtype, tmp_path: Path
) -> None:
    bundle = read_bundle(write_random_bundle(tmp_path / "bundle", bfloat16=says))
    segmenter = Segmenter(bundle, device=CPU)
    assert segmenter.precision == precision
    assert Segmenter(bundle, device=CPU, precision="float32").precision == torch.float32
    assert Segmenter([bundle, random_bundle()], device=CPU).precision == torch.float32


@needs_bfloat16
def test_labels_in_bfloat16_are_those_in_float32_but_for_voxels_on_the_edge() -> None:
    torch.manual_seed(0)
    network = UNet3D(in_channels=1, num_classes=3, base_filters=8, dropout=0.0).eval()
    bundle = random_bundle()
    object.__setattr__(bundle, "network", network)
    prepared = np.random.default_rng(0).normal(0, 1, (1, 24, 40, 40)).astype(np.float32)
    labels, maps = [], []
    for kind in ("float32", "bfloat16"):
        segmenter = Segmenter(bundle, device=CPU, precision=kind)  # type: ignore[arg-type]
        planes = segmenter.class_maps((24, 40, 40), lambda begin, end: prepared[:, begin:end].copy())
        maps.append(np.concatenate([part.copy() for part in planes], axis=1))
        labels.append(maps[-1].argmax(axis=0))
    assert np.abs(maps[0] - maps[1]).mean() < 0.02
    first, second = np.sort(maps[0], axis=0)[-1], np.sort(maps[0], axis=0)[-2]
    clear = first - second > 0.1
    assert clear.mean() > 0.3
    assert (labels[0] == labels[1])[clear].mean() > 0.999
