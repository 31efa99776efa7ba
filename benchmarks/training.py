"""How fast the training loop is, and where its time goes: python -m benchmarks.training.

Three parts, all through `trainer.loop.Trainer` as `decathlon train` runs it:

1. Steps on one batch repeated for ever, by batch size, `compile` and `precision`: Mvoxel/s and memory.
2. The profiler's table of one of these.
3. The loop on each source of patches beside the repeated batch: what loading costs.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import describe_machine
from benchmarks.page import keep
from benchmarks.scans import LABEL_SHARES, make_work
from trainer.loop import Trainer
from trainer.patches import Batches, PatchFile
from trainer.settings import TrainSettings
from trainer.tally import Tally
from trainer.train import choose_device

ROWS_OF_PROFILE = 15


@dataclass(frozen=True)
class Rate:
    """What one way to train did.

    Attributes:
        what: the settings that differ.
        mvoxel_s: training voxels a second, in millions.
        waited: share of the time in which the loop waited for a batch.
        memory_gib: most that PyTorch held on the GPU; 0 on a CPU.

    """

    what: str
    mvoxel_s: float
    waited: float
    memory_gib: float


class Repeated:
    """A source that gives one batch, already on the device, for ever."""

    def __init__(self, batch: tuple[Any, Any], device: torch.device, batches: int) -> None:
        self._batch = tuple(torch.as_tensor(part).to(device) for part in batch)
        self._batches = batches

    def __len__(self) -> int:
        return self._batches

    def batches(self, _epoch: int, first_batch: int = 0) -> Iterator[tuple[Any, Any]]:
        for _ in range(first_batch, self._batches):
            yield self._batch[0], self._batch[1]


class Bench:
    """Makes trainers on one WORK folder.

    Args:
        work: from `benchmarks.scans`.
        device: to train on.
        steps: that are timed.
        base_filters: of the network.

    """

    def __init__(self, work: Path, device: torch.device, *, steps: int, base_filters: int) -> None:
        self.work, self.device, self.steps, self.base_filters = work, device, steps, base_filters

    def trainer(self, run: Path, **changes: Any) -> Trainer:
        """Return a trainer whose epoch has the steps to be timed."""
        batch_size = changes.get("batch_size", 2)
        table = {
            "base_filters": self.base_filters,
            "precision": "auto",
            "label_shares": list(LABEL_SHARES),
            "epoch_patches": self.steps * batch_size,
            "most_skipped": 10**6,
            "checkpoint_minutes": 10**6,
            **changes,
        }
        files = [PatchFile(self.work / f"{part}.h5") for part in ("train", "val")]
        trainer = Trainer(TrainSettings.read(table, "benchmark"), *files, run, self.device)
        if isinstance(trainer.batches, Batches):
            trainer.batches.patches = min(trainer.batches.patches, self.steps * batch_size)
        return trainer

    def repeat(self, trainer: Trainer) -> None:
        """Let the trainer have its first batch for ever."""
        batch = next(iter(trainer.batches.batches(0)))
        trainer.batches = Repeated(batch, self.device, self.steps)

    def rate(self, what: str, trainer: Trainer) -> Rate:
        """Time an epoch after a first one that compiles and chooses algorithms."""
        on_gpu = self.device.type == "cuda"
        warm_up = Repeated(next(iter(trainer.batches.batches(0))), self.device, 3)
        timed, trainer.batches = trainer.batches, warm_up
        trainer._train_epoch(0)
        trainer.batches, trainer.tally = timed, Tally()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        trainer._train_epoch(1)
        voxels_s, waited = trainer.tally.voxels_per_s(), trainer.tally.waited_s / trainer.tally.spent_s
        memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
        return Rate(what, voxels_s / 1e6, waited, memory)


def steps(bench: Bench, folder: Path, *, batch_sizes: list[int], both: bool) -> list[Rate]:
    """Time the step itself, uncompiled and, if `both`, compiled."""
    rates = []
    for batch_size in batch_sizes:
        for compiled in (False, True) if both else (False,):
            what = f"batch of {batch_size}{', compiled' if compiled else ''}"
            try:
                trainer = bench.trainer(folder / "run", batch_size=batch_size, compile=compiled)
                bench.repeat(trainer)
                rates.append(bench.rate(what, trainer))
            except torch.cuda.OutOfMemoryError:
                sys.stdout.write(f"{what}: does not fit the GPU\n")
                continue
            finally:
                trainer = None  # type: ignore[assignment]
                gc.collect()
                if bench.device.type == "cuda":
                    torch.cuda.empty_cache()
            sys.stdout.write(f"{rates[-1]}\n")
    return rates


def where_time_goes(bench: Bench, folder: Path, *, batch_size: int) -> str:
    """Return the profiler's table of three steps."""
    bench = Bench(bench.work, bench.device, steps=3, base_filters=bench.base_filters)
    trainer = bench.trainer(folder / "run", batch_size=batch_size)
    bench.repeat(trainer)
    trainer._train_epoch(0)
    trainer.tally = Tally()
    on_gpu = bench.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        trainer._train_epoch(1)
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    averages = profiler.key_averages()
    return str(averages.table(sort_by=order, row_limit=ROWS_OF_PROFILE, max_name_column_width=60))


def sources(bench: Bench, folder: Path, *, batch_size: int) -> list[Rate]:
    """Time the loop on each source of patches, between two timings of the repeated batch."""
    rates = []
    for source in ("repeated", "patches", "volumes", "device", "repeated again"):
        repeats = source.startswith("repeated")
        settings = {"source": "volumes" if repeats else source, "batch_size": batch_size}
        trainer = bench.trainer(folder / "run", **settings)
        if repeats:
            bench.repeat(trainer)
        rates.append(bench.rate(source, trainer))
        sys.stdout.write(f"{rates[-1]}\n")
    return rates


def tables(of_steps: list[Rate], of_sources: list[Rate], about: str) -> str:
    """Return the part of the page."""
    lines = [about, "", "| step, one batch repeated | Mvoxel/s | GPU memory |", "|---|---|---|"]
    for rate in of_steps:
        memory = f"{rate.memory_gib:.1f} GiB" if rate.memory_gib else "not measured"
        lines.append(f"| {rate.what} | {rate.mvoxel_s:.3g} | {memory} |")
    repeated = [rate.mvoxel_s for rate in of_sources if rate.what.startswith("repeated")]
    best = max(repeated)
    lines += ["", "| loop on `source` | Mvoxel/s | of one repeated batch | waiting |", "|---|---|---|---|"]
    for rate in of_sources:
        lines.append(
            f"| {rate.what} | {rate.mvoxel_s:.3g} | {rate.mvoxel_s / best:.1%} | {rate.waited:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, help="what benchmarks.scans made before (default: made anew)")
    parser.add_argument("--device", help="default: the GPU, else the CPU")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed (20)")
    parser.add_argument("--base-filters", type=int, default=8, help="feature maps at full resolution (8)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2], help="of part 1 (2)")
    parser.add_argument("--batch-size", type=int, default=2, help="of parts 2 and 3 (2)")
    parser.add_argument("--compile", action="store_true", help="part 1 also with torch.compile")
    parser.add_argument(
        "--out", type=Path, help="write JSON and the profile here, and not into the repository"
    )
    parser.add_argument("--smoke", action="store_true", help="small scans, two steps; nothing is written")
    args = parser.parse_args()
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = args.work or make_work(folder, small=args.smoke, patches=args.steps * args.batch_size)
        filters, count = (2, 2) if args.smoke else (args.base_filters, args.steps)
        bench = Bench(work, device, steps=count, base_filters=filters)
        of_steps = steps(bench, folder, batch_sizes=args.batch_sizes, both=args.compile)
        profiled = where_time_goes(bench, folder, batch_size=args.batch_size)
        sys.stdout.write(profiled + "\n")
        of_sources = sources(bench, folder, batch_size=args.batch_size)
        shape = "x".join(map(str, PatchFile(work / "train.h5").meta.patch_shape_zyx))
    about = f"{describe_machine(device)}; {filters} base filters, patches of {shape}, batch {args.batch_size} below."
    text = tables(of_steps, of_sources, about)
    sys.stdout.write(text + "\n")
    if args.smoke:
        return
    content = {
        "about": about,
        "steps": [asdict(rate) for rate in of_steps],
        "sources": [asdict(rate) for rate in of_sources],
    }
    keep("training", content, text, args.out)
    if args.out is not None:
        (args.out / "profile.txt").write_text(profiled + "\n")


if __name__ == "__main__":
    main()
