"""The deepest scans of Task07 fit into 2.5 GB, input and output included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.bundle import Stitching
from algorithm.images import read_geometry
from tests.bundles import write_random_bundle

DEEP_XYZ = (512, 512, 683)
LIMIT_BYTES = 2_500_000_000
PREDICT = """
import sys
from pathlib import Path
from trainer.cli import main
status = main(sys.argv[1:])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
sys.exit(status)
"""


def write_deep_scan(path: Path, pixel_type: int, *, lost: bool) -> Path:
    """Write a scan of one repeated slab, uncompressed; with `lost`, a corner of each plane is NaN."""
    slab = np.random.default_rng(0).integers(-900, 400, (32, 64, 64)).astype(np.float32)
    slab = np.kron(slab, np.ones((1, 8, 8), np.float32))
    if lost:
        slab[:, :100, :100] = np.nan
    image = sitk.Image(DEEP_XYZ, pixel_type)
    piece = sitk.Cast(sitk.GetImageFromArray(slab), pixel_type)
    for first in range(0, DEEP_XYZ[2], 32):
        count = min(32, DEEP_XYZ[2] - first)
        image[:, :, first : first + count] = piece[:, :, :count]
    image.SetSpacing((0.7, 0.7, 1.0))
    sitk.WriteImage(image, path)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(
    ("name", "pixel_type", "lost", "options"),
    [("a.mha", sitk.sitkInt16, False, ["--probabilities"]), ("a.nii", sitk.sitkFloat32, True, [])],
)
def test_the_deepest_scan_fits(
    tmp_path: Path, name: str, pixel_type: int, lost: bool, options: list[str]
) -> None:
    scan = write_deep_scan(tmp_path / name, pixel_type, lost=lost)
    # The paper's patches on a coarse grid: the slab of class maps is whole, and a small network is soon done.
    model = write_random_bundle(
        tmp_path / "model",
        patch_shape_zyx=(64, 128, 128),
        spacing_zyx_mm=(2.5, 0.8, 0.8),
        stitching=Stitching("gaussian", (8, 16, 16)),
    )
    command = ["predict", str(scan), "--model", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *command, *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=500,
    )
    peak = int(done.stdout.split()[-1])
    assert 500_000_000 < peak < LIMIT_BYTES, f"{peak / 2**20:.0f} MiB"
    assert read_geometry(tmp_path / "out" / name).shape_zyx == DEEP_XYZ[::-1]
