"""One scan through this project, MONAI and nnU-Net with the same weights: python -m benchmarks.inference.

From int16 HU in memory to labels in memory on the scan's grid, each in a process of its own, one after the other. All
see the same number of patches, overlapping by half, through the same network in the same number type. Memory is what
the process took beyond scan, network and libraries; beside it stands what one patch through the network takes of it.
Writes benchmarks/inference.json and its part of docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algorithm.bundle import Bundle, Description, Stitching
from algorithm.engines import EngineName
from algorithm.geometry import Geometry
from algorithm.network import UNet3D, to_channels_last
from algorithm.precision import keep_wrong_in_float32
from algorithm.segmenter import Segmenter
from algorithm.stages import Stages
from benchmarks.export_memory import forget_peak, resident
from benchmarks.machine import describe_machine
from benchmarks.page import keep
from benchmarks.volumes import NETWORK_SPACING_ZYX_MM, Shape, ct

PACKAGES = ("torch", "openvino", "monai", "nnunetv2")
SPACING_ZYX_MM = (2.5, 0.7, 0.7)
WINDOW_HU, MEAN, STD = (-100.0, 200.0), 20.0, 90.0
PATCH: Shape = (64, 128, 128)
SMALL_PATCH: Shape = (16, 32, 32)

Labels = NDArray[np.uint8]
Run = Callable[[NDArray[np.int16], Stages], Labels]
System = Callable[[Bundle, torch.dtype], Run]


@dataclass(frozen=True)
class Result:
    """What one system did with the scan.

    Attributes:
        name: of the system.
        precision: of the convolutions.
        seconds: from the scan in memory to labels in memory.
        load_seconds: to make the network ready, before any scan.
        stages: seconds by stage.
        memory_mib: the most that it held at a time, beyond scan, network and libraries.
        network_mib: what one patch through the network takes of that, in PyTorch.
        foreground: share of the labels that are not background.

    """

    name: str
    precision: str
    seconds: float
    load_seconds: float
    stages: dict[str, float]
    memory_mib: float
    network_mib: float
    foreground: float


def bundle_of(patch: Shape, blend: Any, base_filters: int) -> Bundle:
    torch.manual_seed(0)
    network = UNet3D(in_channels=1, num_classes=3, base_filters=base_filters, dropout=0.6)
    description = Description(
        network=network.arguments,
        labels=("background", "pancreas", "tumour"),
        channels=("CT",),
        spacing_zyx_mm=NETWORK_SPACING_ZYX_MM,
        window_hu=WINDOW_HU,
        mean=(MEAN,),
        std=(STD,),
        patch_shape_zyx=patch,
        stitching=Stitching(blend, (patch[0] // 2, patch[1] // 2, patch[2] // 2)),
    )
    return Bundle(network.eval(), description)


def ours(bundle: Bundle, precision: torch.dtype, engine: EngineName = "torch") -> Run:
    kind: Any = str(precision).removeprefix("torch.")
    segmenter = Segmenter(bundle, device=torch.device("cpu"), precision=kind, engine=engine)

    def run(volume: NDArray[np.int16], stages: Stages) -> Labels:
        geometry = Geometry(volume.shape, SPACING_ZYX_MM, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
        return segmenter.labels(volume, geometry, stages)

    return run


def ours_in_openvino(bundle: Bundle, precision: torch.dtype) -> Run:
    return ours(bundle, precision, "openvino")


class Predictor(torch.nn.Module):
    """The network as peers call it, whose time is counted."""

    def __init__(self, bundle: Bundle, precision: torch.dtype) -> None:
        super().__init__()
        self.network = to_channels_last(bundle.network)
        self.precision, self.stages = precision, Stages()
        if precision == torch.bfloat16:
            keep_wrong_in_float32(self.network, (1, 1, *bundle.description.patch_shape_zyx), gradients=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        enabled = self.precision != torch.float32
        with self.stages("network"), torch.autocast("cpu", dtype=self.precision, enabled=enabled):
            logits: torch.Tensor = self.network(x).float()
        return logits


def monai(bundle: Bundle, precision: torch.dtype) -> Run:
    from monai.data import MetaTensor
    from monai.inferers import sliding_window_inference
    from monai.transforms import ScaleIntensityRange, Spacing

    affine = torch.diag(torch.tensor([*SPACING_ZYX_MM, 1.0], dtype=torch.float64))
    spacing = Spacing(bundle.description.spacing_zyx_mm)
    low, high = WINDOW_HU
    scale = ScaleIntensityRange(low, high, (low - MEAN) / STD, (high - MEAN) / STD, clip=True)
    patch, predictor = bundle.description.patch_shape_zyx, Predictor(bundle, precision)

    @torch.inference_mode()
    def run(volume: NDArray[np.int16], stages: Stages) -> Labels:
        predictor.stages = stages
        with stages("prepare"):
            image = scale(spacing(MetaTensor(torch.from_numpy(volume)[None].float(), affine=affine)))
        logits = sliding_window_inference(image[None], patch, 1, predictor, overlap=0.5, mode="gaussian")
        with stages("export"):
            maps = MetaTensor(
                logits[0].as_tensor(), meta=image.meta, applied_operations=image.applied_operations
            )
            return spacing.inverse(maps).argmax(dim=0).to(torch.uint8).as_tensor().numpy()

    return run


def nnunet(bundle: Bundle, precision: torch.dtype) -> Run:
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape,
    )
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    from benchmarks.nnunet import DATASET, plans

    planned = plans(bundle.description.patch_shape_zyx, WINDOW_HU, MEAN, STD)
    configuration = planned.get_configuration("3d_fullres")
    names = planned.get_label_manager(DATASET)
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    network = Predictor(bundle, precision)
    predictor.manual_initialization(
        network, planned, configuration, [network.state_dict()], DATASET, "", None
    )

    def run(volume: NDArray[np.int16], stages: Stages) -> Labels:
        network.stages = stages
        with stages("prepare"):
            data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
                volume[None], None, {"spacing": list(SPACING_ZYX_MM)}, planned, configuration, DATASET
            )
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        with stages("export"):
            labels: Labels = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, planned, configuration, names, properties, num_threads_torch=torch.get_num_threads()
            )
        return labels

    return run


SYSTEMS: dict[str, tuple[System, str]] = {
    "ours with OpenVINO, centre": (ours_in_openvino, "centre"),
    "ours with OpenVINO, gaussian": (ours_in_openvino, "gaussian"),
    "ours, centre": (ours, "centre"),
    "ours, gaussian": (ours, "gaussian"),
    "MONAI, gaussian": (monai, "gaussian"),
    "nnU-Net, gaussian": (nnunet, "gaussian"),
}


def measure(name: str, precision: torch.dtype, shape: Shape, patch: Shape, base_filters: int) -> Result:
    """Segment one scan, and say what it took."""
    system, blend = SYSTEMS[name]
    volume = ct(shape, "int16")
    started = time.perf_counter()
    run = system(bundle_of(patch, blend, base_filters), precision)
    load_seconds = time.perf_counter() - started
    # A scan of one patch loads libraries and fills memory pools; then the network alone.
    run(np.ascontiguousarray(volume[: patch[0], : patch[1], : patch[2]]), Stages())
    network = Predictor(bundle_of(patch, blend, base_filters), precision)
    forget_peak()
    before = resident("VmRSS")
    with torch.inference_mode():
        network(torch.zeros(1, 1, *patch))
    network_mib = (resident("VmHWM") - before) / 2**20
    del network
    forget_peak()
    before = resident("VmRSS")
    stages, started = Stages(), time.perf_counter()
    labels = run(volume, stages)
    seconds = time.perf_counter() - started
    memory_mib = (resident("VmHWM") - before) / 2**20
    assert labels.shape == volume.shape
    foreground = float(np.count_nonzero(labels) / labels.size)
    kind = str(precision).removeprefix("torch.")
    return Result(name, kind, seconds, load_seconds, stages.seconds, memory_mib, network_mib, foreground)


def table(results: list[Result], about: str) -> str:
    """Return the part of the page."""
    lines = [
        about,
        "",
        "| system | number type | s | of which network | all else | memory | of which one patch | once, to load |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        network = result.stages["network"]
        rest = result.seconds - network
        lines.append(
            f"| {result.name} | {result.precision} | {result.seconds:.1f} | {network:.1f} | "
            f"{rest:.2f} ({rest / result.seconds:.1%}) | {result.memory_mib:.0f} MiB | {result.network_mib:.0f} MiB | "
            f"{result.load_seconds:.1f} s |"
        )
    stages = list(dict.fromkeys(stage for result in results for stage in result.stages))
    lines += [
        "",
        "Stage by stage, in seconds:",
        "",
        f"| system | number type | {' | '.join(stages)} |",
        "|---" * (2 + len(stages)) + "|",
    ]
    for result in results:
        seconds = (f"{result.stages[stage]:.2f}" if stage in result.stages else "" for stage in stages)
        lines.append(f"| {result.name} | {result.precision} | {' | '.join(seconds)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--smoke", action="store_true", help="a small scan and network; nothing is written")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    shape: Shape = (24, 96, 96) if args.smoke else tuple(args.shape)
    patch, base_filters = (SMALL_PATCH, 2) if args.smoke else (PATCH, 8)
    if args.only:
        warnings.simplefilter("ignore")  # what peers say of their own
        name, precision = args.only
        result = measure(name, getattr(torch, precision), shape, patch, base_filters)
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        return
    results = []
    for precision in args.precision:
        for name in args.systems:
            command = [sys.executable, "-m", "benchmarks.inference", "--only", name, precision]
            command += ["--shape", *map(str, shape), *(["--smoke"] if args.smoke else [])]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results.append(Result(**json.loads(said.splitlines()[-1])))
            sys.stdout.write(f"{results[-1]}\n")
    about = (
        f"{describe_machine(torch.device('cpu'), PACKAGES)}; a scan of {'x'.join(map(str, shape))} voxels, "
        f"{base_filters} base filters, patches of {'x'.join(map(str, patch))} that overlap by half."
    )
    text = table(results, about)
    sys.stdout.write(text + "\n")
    if not args.smoke:
        keep("inference", {"about": about, "systems": [asdict(result) for result in results]}, text)


if __name__ == "__main__":
    main()
