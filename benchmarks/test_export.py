"""Class maps on the network's grid into labels on the grid of the scan: 3 classes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import voxelcore
from benchmarks.agreement import assert_same_argmax, nearest_planes
from benchmarks.compare import Peer
from benchmarks.volumes import CLASSES, Size, class_maps

SLAB = 16  # planes
TIE = 1e-3  # of scores of up to 1000 in float32
REPOSITORY = Path(__file__).resolve().parent.parent


def torch_argmax(maps: NDArray[Any], size: Size) -> Peer:
    def make() -> Callable[[], Any]:
        import torch

        tensor = torch.from_numpy(maps)[None]

        def run() -> Any:
            full = torch.nn.functional.interpolate(
                tensor, size=size.shape_zyx, mode="trilinear", align_corners=False
            )
            return full[0].argmax(0).to(torch.uint8)

        return run

    return Peer(
        "torch",
        "torch",
        "`interpolate`, `argmax`: float32 maps of all classes on the grid of the scan, and 64-bit labels",
        make,
        lambda ours, theirs: assert_same_argmax(ours, theirs.numpy(), maps, tie=TIE),
        threaded=True,
    )


def nnunet(maps: NDArray[Any], size: Size, threads: int) -> Peer:
    def make() -> Callable[[], Any]:
        import torch
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape,
        )

        from benchmarks.nnunet import DATASET, plans

        planned = plans(size.patch_shape_zyx, (-100, 200), 0, 1)
        configuration = planned.get_configuration("3d_fullres")
        names = planned.get_label_manager(DATASET)
        properties = {
            "spacing": list(size.spacing_zyx_mm),
            "shape_before_cropping": size.shape_zyx,
            "shape_after_cropping_and_before_resampling": size.shape_zyx,
            "bbox_used_for_cropping": [[0, n] for n in size.shape_zyx],
        }
        logits = torch.from_numpy(maps)
        assert configuration.resampling_fn_probabilities is not None  # found now and not while timed
        return lambda: convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, planned, configuration, names, properties, num_threads_torch=threads
        )

    def check(_ours: Any, theirs: Any) -> None:
        depth, *plane = size.shape_zyx
        chosen = nearest_planes(maps.shape[1], depth)
        nearest = np.ascontiguousarray(maps[:, chosen])
        flat = voxelcore.class_maps_to_labels(nearest, (depth, *plane))
        assert_same_argmax(flat, theirs, nearest, tie=TIE)

    return Peer(
        "nnU-Net",
        "nnunetv2",
        "`convert_predicted_logits_to_segmentation_with_correct_shape`, its export before the file is written, with "
        "its default plans, which for such spacings means: linear within each plane, and the nearest plane along z; "
        "float64 maps of all classes",
        make,
        check,
        threaded=True,
    )


@pytest.mark.parametrize("way", ["slab by slab", "whole"])
def test_export(compare: Callable[..., Any], size: Size, way: str, threads: int) -> None:
    maps = class_maps(size.network_shape_zyx, "float32")
    out = np.ones(size.shape_zyx, np.uint8)

    def slab_by_slab() -> NDArray[np.uint8]:
        exporter = voxelcore.LabelExporter(maps.shape[1:], out, threads=threads)
        for first in range(0, maps.shape[1], SLAB):
            exporter.add(maps[:, first : first + SLAB])
        assert exporter.done == len(out)
        return out

    def whole() -> NDArray[np.uint8]:
        return voxelcore.class_maps_to_labels(maps, size.shape_zyx, out=out, threads=threads)

    labels = compare(
        kernel="export",
        case=f"{size.name}, {CLASSES} classes, {way}",
        threads=threads,
        ours=slab_by_slab if way == "slab by slab" else whole,
        copied_bytes=(maps.nbytes + out.nbytes) // 2,
        peers=[torch_argmax(maps, size), nnunet(maps, size, threads)],
    )
    assert set(np.unique(labels)) == {0, 1, 2}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_export_memory(benchmark: Any, notes: dict[str, str]) -> None:
    """Peak memory of the export of a long scan, in a process of its own; its time includes making the class maps."""
    grids = (
        ((683, 448, 448), (683, 512, 512), 32) if benchmark.enabled else ((64, 112, 112), (64, 128, 128), 8)
    )
    command = [sys.executable, "-m", "benchmarks.export_memory", json.dumps(grids)]

    def measure() -> dict[str, int]:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        return dict(json.loads(done.stdout))

    found = benchmark.pedantic(measure, rounds=1)
    notes["export memory"] = (
        f"Peak memory of the export of {'x'.join(map(str, grids[1]))} from {CLASSES} float32 class maps of "
        f"{'x'.join(map(str, grids[0]))}: {found['above'] / 2**20:.1f} MiB above the label map of "
        f"{found['labels'] / 2**20:.1f} MiB. The slab of {grids[2]} planes that is given is "
        f"{found['slab'] / 2**20:.1f} MiB of that; the rest is {100 * (found['above'] / found['slab'] - 1):.0f} % "
        "of a slab (goal: at most one slab)."
    )
    assert found["above"] >= found["slab"]
    assert found["above"] <= found["slab"] + 2 * found["slab"] // grids[2] + 2**23  # two planes, and threads
