"""139 scans' scores by this project and by MONAI's metrics: python -m benchmarks.evaluation.

Both read the same pairs of label maps from .nii.gz and give Dice, surface Dice at 5 mm and the 95 % Hausdorff distance
of each label and of their union; ours also counts lesions, precision and volumes, and keeps each finished case. They
run one after the other, each in a process of its own with its children. MONAI's metrics are called as its
documentation does, on one-hot masks of whole scans, scan after scan in one process with PyTorch's threads. Memory is
the most that all its processes held at a time, pages that they share counted once. Writes benchmarks/evaluation.json
and its part of docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.geometry import Geometry
from algorithm.images import read_labels, write_labels
from benchmarks.machine import describe_machine
from benchmarks.page import keep
from trainer.evaluate import NSD_TOLERANCE_MM, evaluate, pair_cases
from trainer.processes import in_processes

PACKAGES = ("surface-distance", "scipy", "monai", "torch")
LABELS = ("background", "pancreas", "cancer")
STRUCTURES = {"pancreas": (1,), "cancer": (2,), "pancreas+cancer": (1, 2)}
SPACING_ZYX_MM = (2.5, 0.75, 0.75)
SHAPE, SMALL_SHAPE = (96, 512, 512), (24, 96, 96)
CASES, SMALL_CASES = 139, 3
SYSTEMS = ("ours", "MONAI")
KEYS = ("dice", "nsd", "hd95_mm")
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def masks(seed: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a reference and a prediction: a bent organ with a tumour in it, and both with errors.

    Full size, the organ has about 330 ml, four times a pancreas, so that its surface is no easier than a real one.
    """
    rng = np.random.default_rng(seed)
    scale = min(1.0, shape[1] / SHAPE[1] * 2)
    box = tuple(min(n, round(m * scale)) for n, m in zip(shape, (56, 180, 240), strict=True))
    rough = ndimage.zoom(
        rng.standard_normal((2, 8, 10, 12)),
        (1, *(n / m for n, m in zip(box, (8, 10, 12), strict=True))),
        order=1,
    )
    z, y, x = (np.linspace(-1, 1, n) for n in box)
    bend = y[:, None] - 0.5 * x**2 + 0.1 * rng.standard_normal()
    distance = (z[:, None, None] / 0.8) ** 2 + (bend / 0.28)[None] ** 2 + (x / 0.9) ** 2
    at = rng.uniform(-0.5, 0.5)
    tumour = (z[:, None, None] / 0.35) ** 2 + (bend / 0.18)[None] ** 2 + ((x - at) / 0.15) ** 2
    found = []
    for error in (0.0, 1.0):
        organ = distance + 0.25 * rough[0] + 0.12 * error * rough[1] < 1
        lesion = organ & (tumour + 0.2 * rough[1] + 0.3 * error * rough[0] < 1)
        labels = np.zeros(shape, np.uint8)
        inside = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(shape, box, strict=True))
        labels[inside] = organ.astype(np.uint8) + lesion
        found.append(labels)
    return found[0], found[1]


def write_pair(job: tuple[Path, int, tuple[int, int, int]]) -> None:
    folder, seed, shape = job
    geometry = Geometry(shape, SPACING_ZYX_MM, (0.0, 0.0, 0.0), IDENTITY)
    for side, labels in zip(("reference", "prediction"), masks(seed, shape), strict=True):
        write_labels(folder / side / f"case_{seed:03d}.nii.gz", labels, geometry)


def ours(folder: Path) -> dict[str, dict[str, list[float | None]]]:
    pairs = pair_cases(folder / "reference", folder / "prediction")
    scores = evaluate(pairs, folder / "scores", labels=LABELS)
    return {name: {key: list(scores.values(name, key).values()) for key in KEYS} for name in STRUCTURES}


def monai(folder: Path) -> dict[str, dict[str, list[float | None]]]:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    found: dict[str, dict[str, list[float | None]]] = {name: {key: [] for key in KEYS} for name in STRUCTURES}
    for reference_file in sorted((folder / "reference").iterdir()):
        both = []
        for file in (reference_file, folder / "prediction" / reference_file.name):
            labels, geometry = read_labels(file)
            both.append(
                torch.from_numpy(np.stack([np.isin(labels, values) for values in STRUCTURES.values()]))[None]
            )
        reference, prediction = both
        spacing = list(geometry.spacing_zyx_mm)
        scores = {
            "dice": compute_dice(prediction, reference, include_background=True),
            "nsd": compute_surface_dice(
                prediction,
                reference,
                class_thresholds=[NSD_TOLERANCE_MM] * len(STRUCTURES),
                include_background=True,
                spacing=spacing,
                use_subvoxels=True,
            ),
            "hd95_mm": compute_hausdorff_distance(
                prediction, reference, include_background=True, percentile=95, spacing=spacing
            ),
        }
        for key, values in scores.items():
            for name, value in zip(STRUCTURES, values[0].tolist(), strict=True):
                found[name][key].append(value)
    return found


def held(process: int) -> int:
    """Return the bytes that a process and its children hold, shared pages divided among those that share them."""
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        for thread in Path(f"/proc/{process}/task").iterdir():
            total += sum(held(int(child)) for child in (thread / "children").read_text().split())
    except (OSError, ValueError):
        pass  # it ended meanwhile
    return total


def measure(system: str, folder: Path) -> dict[str, Any]:
    """Run one system in a process of its own."""
    out = folder / f"{system}.json"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.evaluation", "--system", system, "--folder", str(folder)]
    )
    most = 0
    while True:
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        most = max(most, held(process.pid))
        time.sleep(0.2)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{system} failed")
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "name": system,
        "seconds": seconds,
        "memory_mib": most / 2**20,
        "scores": json.loads(out.read_text()),
    }


def differences(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the largest difference of Dice, and the mean absolute ones of what is defined in two ways."""
    first, second = (result["scores"] for result in results)
    apart = {
        key: np.abs(
            np.array([first[name][key] for name in STRUCTURES], float)
            - np.array([second[name][key] for name in STRUCTURES], float)
        )
        for key in KEYS
    }
    if apart["dice"].max() > 1e-6:
        raise AssertionError(f"Dice differs by {apart['dice'].max()}")
    return {"dice": float(apart["dice"].max()), **{key: float(apart[key].mean()) for key in KEYS[1:]}}


def text_of(content: dict[str, Any]) -> str:
    shape = " x ".join(map(str, content["shape"]))
    lines = [
        f"{content['machine']}; {content['cases']} scans of {shape} voxels.",
        "",
        "| system | wall time, s | s a scan | processor time, s a scan | memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for result in content["results"]:
        seconds = result["seconds"]
        lines.append(
            f"| {result['name']} | {seconds:.0f} | {seconds / content['cases']:.2f} | "
            f"{result['cpu_seconds'] / content['cases']:.2f} | {result['memory_mib']:.0f} |"
        )
    apart = content["differences"]
    sentence = (
        f"Dice is the same (largest difference {apart['dice']:.1g}); NSD differs by {apart['nsd']:.4f} and HD95 by "
        f"{apart['hd95_mm']:.3f} mm in the mean."
    )
    return "\n".join([*lines, "", sentence])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="three small scans; nothing is written")
    parser.add_argument(
        "--cases", type=int, default=CASES, help="scans (default: 139, the test cases of Task07)"
    )
    parser.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.system:
        scores = {"ours": ours, "MONAI": monai}[args.system](args.folder)
        (args.folder / f"{args.system}.json").write_text(json.dumps(scores))
        return
    shape, cases = (SMALL_SHAPE, SMALL_CASES) if args.smoke else (SHAPE, args.cases)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [(folder, seed, shape) for seed in range(cases)]
        for _ in in_processes(write_pair, jobs, 1 if args.smoke else len(os.sched_getaffinity(0))):
            pass
        results = [measure(system, folder) for system in SYSTEMS]
    content: dict[str, Any] = {
        "machine": describe_machine(torch.device("cpu"), PACKAGES),
        "cases": cases,
        "shape": shape,
        "differences": differences(results),
        "results": [{key: value for key, value in result.items() if key != "scores"} for result in results],
    }
    text = text_of(content)
    sys.stdout.write(text + "\n")
    if not args.smoke:
        keep("evaluation", content, text)


if __name__ == "__main__":
    main()
