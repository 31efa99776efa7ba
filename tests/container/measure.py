"""What the container takes on one scan with the paper's network: wall time and peak memory, under every restriction.

ENGINE=podman python -m tests.container.measure SCAN [IMAGE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk
import torch

from algorithm.bundle import Bundle, Description, Stitching, write_bundle
from algorithm.network import UNet3D
from tests.container.conftest import IMAGE, readable
from tests.container.engine import Engine
from tests.container.jobs import InImage, Job

PATCH_ZYX = (64, 128, 128)


def paper_bundle() -> Bundle:
    """Return the network of paper.toml with random weights: time and memory do not depend on them."""
    torch.manual_seed(0)
    network = UNet3D(in_channels=1, num_classes=3, base_filters=8, dropout=0.6)
    description = Description(
        network=network.arguments,
        labels=("background", "pancreas", "cancer"),
        channels=("CT",),
        spacing_zyx_mm=(2.5, 0.8, 0.8),
        window_hu=(-100.0, 200.0),
        mean=(50.0,),
        std=(90.0,),
        patch_shape_zyx=PATCH_ZYX,
        stitching=Stitching("centre", (PATCH_ZYX[0] // 2, PATCH_ZYX[1] // 2, PATCH_ZYX[2] // 2)),
        bfloat16=True,
    )
    return Bundle(network.eval(), description)


def main(scan: Path, image: str = IMAGE) -> None:
    """Run one job and print what it took."""
    engine = Engine.find()
    if engine is None:
        raise SystemExit("no container engine answers; start Docker or podman, or name one in ENGINE")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_bundle(folder / "model", paper_bundle())
        job = Job(folder / "job", readable(folder / "model"))
        job.add(sitk.ReadImage(str(scan)), "scan.mha")
        done = InImage(engine, image).run(job)
        sys.stderr.write(done.stderr)
        peak = f"{done.peak_mib:.0f} MiB" if done.peak_mib else "unknown"
        sys.stdout.write(f"exit {done.status}, {done.seconds:.1f} s, peak {peak}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
