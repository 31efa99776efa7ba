"""Loaders of MONAI, TorchIO and this project feed the same network: python -m benchmarks.loaders.

Each runs in a process of its own, so that memory is its own, one after the other: first alone, then in front of the
paper's network, whose steps are timed. All read the volumes that `decathlon prepare` wrote and draw patches of the same
shape with the same classes in mind. Writes benchmarks/loaders.json and its part of docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algorithm.network import UNet3D, to_channels_last
from benchmarks.machine import describe_machine
from benchmarks.page import keep
from benchmarks.scans import LABEL_SHARES, make_work
from trainer.losses import WeightedCrossEntropy
from trainer.patches import Batches, PatchFile, PatchMeta
from trainer.precision import choose_precision
from trainer.train import choose_device
from trainer.volume_batches import DeviceVolumeBatches, VolumeBatches, open_volumes

PACKAGES = ("torch", "monai", "torchio")
BATCH_SIZE = 2
WORKERS = 2
WARM_UP = 24  # batches: two epochs of TorchIO's queue of eight patches a volume
MANY = 10**6  # patches: more than are ever asked for
SECONDS_BETWEEN_LOOKS = 0.2

Batch = tuple[Any, Any]  # images (n, c, z, y, x) and labels (n, z, y, x), arrays or tensors
Feed = Callable[[Path, PatchMeta, torch.device], Iterator[Batch]]


@dataclass(frozen=True)
class Result:
    """What one loader did.

    Attributes:
        name: of the loader.
        alone: patches a second with nothing behind it.
        memory_mib: that it took meanwhile, its worker processes included; pages of memory-mapped files, which the
            system can take back, do not count.
        patches: a second through the network's training step.
        waited: share of that time in which the loop waited for a batch.
        held: for each label the share of patches that held it.

    """

    name: str
    alone: float
    memory_mib: float
    patches: float
    waited: float
    held: tuple[float, ...]


def ours_volumes(work: Path, meta: PatchMeta, device: torch.device) -> Iterator[Batch]:
    return _drawn(work, meta, device).batches(0)


def ours_device(work: Path, meta: PatchMeta, device: torch.device) -> Iterator[Batch]:
    volumes = open_volumes(work, meta.training_cases)
    return DeviceVolumeBatches(_drawn(work, meta, device), volumes, device).batches(0)


def _drawn(work: Path, meta: PatchMeta, device: torch.device) -> VolumeBatches:
    return VolumeBatches(
        open_volumes(work, meta.training_cases),
        meta.patch_shape_zyx,
        BATCH_SIZE,
        patches=MANY,
        label_shares=LABEL_SHARES,
        seed=0,
        threads=WORKERS,
        pinned=device.type == "cuda",
    )


def ours_patches(work: Path, _meta: PatchMeta, _device: torch.device) -> Iterator[Batch]:
    batches = Batches(PatchFile(work / "train.h5"), BATCH_SIZE, seed=0, threads=WORKERS)
    return itertools.chain.from_iterable(batches.batches(epoch) for epoch in range(MANY))


def monai(work: Path, meta: PatchMeta, *, threads: bool) -> Iterator[Batch]:
    from monai.data import CacheDataset, DataLoader, ThreadDataLoader, list_data_collate
    from monai.transforms import ClassesToIndicesd, Compose, Lambdad, RandCropByLabelClassesd

    keys = ("image", "label")
    paths = [work / "volumes" / case for case in meta.training_cases]
    crop = RandCropByLabelClassesd(
        keys,
        "label",
        meta.patch_shape_zyx,
        ratios=[1, 1, 1],
        num_classes=len(meta.labels),
        indices_key="label_cls_indices",
    )
    transform = Compose(
        [
            Lambdad("image", np.load),
            Lambdad("label", lambda path: np.load(path)[np.newaxis]),
            ClassesToIndicesd(
                "label", num_classes=len(meta.labels)
            ),  # kept for all volumes, eight bytes a voxel
            crop,
        ]
    )
    items = [{key: str(path / f"{key}.npy") for key in keys} for path in paths]
    dataset = CacheDataset(items, transform, num_workers=WORKERS, progress=False)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=MANY)
    # Two threads would share the random state of one crop, and now and then cut a patch of another shape.
    kind, how = (ThreadDataLoader, {"use_thread_workers": True}) if threads else (DataLoader, {})
    loader = kind(
        dataset,
        batch_size=BATCH_SIZE,
        sampler=sampler,
        num_workers=1 if threads else WORKERS,
        collate_fn=list_data_collate,
        **how,
    )
    for batch in loader:
        yield batch["image"].as_tensor(), batch["label"][:, 0].as_tensor()


def torchio(work: Path, meta: PatchMeta, *, workers: int) -> Iterator[Batch]:
    import torchio as tio

    volumes = open_volumes(work, meta.training_cases)
    subjects = [
        tio.Subject(
            image=tio.ScalarImage(tensor=torch.from_numpy(np.array(image))),
            label=tio.LabelMap(tensor=torch.from_numpy(np.array(label))[None]),
        )
        for image, label in volumes
    ]
    sampler = tio.LabelSampler(meta.patch_shape_zyx, "label", {0: 1, 1: 1, 2: 1})
    queue = tio.Queue(
        tio.SubjectsDataset(subjects),
        max_length=32,
        samples_per_volume=8,
        sampler=sampler,
        num_workers=workers,
    )
    for _ in range(MANY):
        for batch in tio.SubjectsLoader(queue, batch_size=BATCH_SIZE, num_workers=0):
            yield batch["image"][tio.DATA], batch["label"][tio.DATA][:, 0]


FEEDS: dict[str, Feed] = {
    "ours, `source = volumes`": ours_volumes,
    "ours, `source = patches`": ours_patches,
    "ours, `source = device`": ours_device,
    "MONAI, 2 worker processes": lambda work, meta, _: monai(work, meta, threads=False),
    "MONAI, 1 thread": lambda work, meta, _: monai(work, meta, threads=True),
    "TorchIO, 2 worker processes": lambda work, meta, _: torchio(work, meta, workers=WORKERS),
    "TorchIO, none": lambda work, meta, _: torchio(work, meta, workers=0),
}


def measure(name: str, work: Path, *, batches: int, steps: int, device: torch.device) -> Result:
    """Time one loader, alone and in front of the network."""
    torch.manual_seed(0)
    meta = PatchFile(work / "train.h5").meta
    with Memory() as memory:
        source = FEEDS[name](work, meta, device)
        for _ in itertools.islice(source, WARM_UP):
            pass
        started = time.perf_counter()
        for _ in itertools.islice(source, batches):
            pass
        if device.type == "cuda":
            torch.cuda.synchronize()
        alone = BATCH_SIZE * batches / (time.perf_counter() - started)
    held = np.zeros(len(meta.labels))
    for images, labels in itertools.islice(source, batches):
        assert tuple(images.shape) == (BATCH_SIZE, 1, *meta.patch_shape_zyx)
        flat = torch.as_tensor(labels).cpu().numpy().reshape(BATCH_SIZE, -1)
        held += [(flat == value).any(axis=1).sum() for value in range(len(meta.labels))]
    step = training_step(meta, device)
    step(*next(source))
    waited, started = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        images, labels = next(source)
        waited += time.perf_counter() - asked
        step(images, labels)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    del source  # its threads and processes end
    shares = tuple(float(count) / (BATCH_SIZE * batches) for count in held)
    return Result(name, alone, memory.peak_mib, BATCH_SIZE * steps / seconds, waited / seconds, shares)


def training_step(meta: PatchMeta, device: torch.device) -> Callable[[Any, Any], None]:
    """Return forward, backward and optimiser of the paper's network."""
    network = UNet3D(in_channels=1, num_classes=len(meta.labels), base_filters=8, dropout=0.6).to(device)
    if device.type == "cpu":
        to_channels_last(network)
    shape = (BATCH_SIZE, 1, *meta.patch_shape_zyx)
    precision = choose_precision("auto", network, shape, device)
    loss = WeightedCrossEntropy((1.0, 10.0, 50.0)).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.001)

    def step(images: Any, labels: Any) -> None:
        x = (torch.as_tensor(images).to(device, non_blocking=True).float() - meta.mean[0]) / meta.std[0]
        target = torch.as_tensor(labels).to(device, non_blocking=True).long()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            logits = network(x)
        loss(logits.float(), target).backward()
        optimiser.step()

    return step


class Memory:
    """The most memory that this process and its children had, beyond what they had before; looked at on a thread."""

    def __enter__(self) -> Memory:
        self._before, self._most = _memory_mib(), 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._most = max(self._most, _memory_mib())  # a fast loader is done before it was looked at twice
        self._ended.set()
        self._thread.join()

    @property
    def peak_mib(self) -> float:
        return self._most - self._before

    def _look(self) -> None:
        while True:
            self._most = max(self._most, _memory_mib())
            if self._ended.wait(SECONDS_BETWEEN_LOOKS):
                return


def _memory_mib() -> float:
    """Return what this process and all below it hold and the system cannot take back; shared memory counts once."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    family = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for process in family:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1024


def table(results: list[Result], about: str) -> str:
    """Return the part of the page."""
    lines = [
        about,
        "",
        "| loader | patches/s, network | waiting | patches/s, alone | memory | with pancreas / tumour |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        held = " / ".join(f"{share:.0%}" for share in result.held[1:])
        lines.append(
            f"| {result.name} | {result.patches:.3g} | {result.waited:.1%} | {result.alone:.3g} | "
            f"{result.memory_mib:.0f} MiB | {held} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loaders", description=__doc__)
    parser.add_argument("--work", type=Path, help="what benchmarks.scans made before (default: made anew)")
    parser.add_argument("--steps", type=int, default=10, help="training steps of each loader (10)")
    parser.add_argument("--batches", type=int, default=72, help="batches of each loader alone (72)")
    parser.add_argument("--device", help="default: the GPU, else the CPU")
    parser.add_argument("--out", type=Path, help="write JSON and table here, and not into the repository")
    parser.add_argument("--smoke", action="store_true", help="small scans, two steps; nothing is written")
    parser.add_argument("--only", choices=FEEDS, help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    device = choose_device(args.device)
    if args.only:
        warnings.simplefilter("ignore")  # what peers say of their own
        result = measure(args.only, args.work, batches=args.batches, steps=args.steps, device=device)
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or make_work(Path(folder), small=args.smoke)
        steps, batches = (2, 3) if args.smoke else (args.steps, args.batches)
        words = [
            "--work",
            str(work),
            "--steps",
            str(steps),
            "--batches",
            str(batches),
            "--device",
            str(device),
        ]
        results = []
        for name in FEEDS:
            command = [sys.executable, "-m", "benchmarks.loaders", "--only", name, *words]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(said.splitlines()[-1])
            results.append(Result(**{**result, "held": tuple(result["held"])}))
            sys.stdout.write(f"{results[-1]}\n")
        shape = "x".join(map(str, PatchFile(work / "train.h5").meta.patch_shape_zyx))
        about = f"{describe_machine(device, PACKAGES)}; batches of {BATCH_SIZE} patches of {shape} voxels."
    text = table(results, about)
    sys.stdout.write(text + "\n")
    if args.smoke:
        return
    keep("loaders", {"about": about, "loaders": [asdict(each) for each in results]}, text, args.out)


if __name__ == "__main__":
    main()
