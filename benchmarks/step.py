"""The bare training step of the network on a GPU, by memory order and compilation: python -m benchmarks.step.

Forward in mixed precision, weighted cross entropy, backward and Adam, on one batch on the device. What the loop adds is
in `benchmarks.training`.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time

import torch

from algorithm.network import UNet3D, to_channels_last
from benchmarks.machine import describe_machine
from trainer.losses import WeightedCrossEntropy
from trainer.train import choose_device

WEIGHTS = (1.0, 10.0, 50.0)


def rate(
    device: torch.device,
    *,
    channels_last: bool,
    compiled: bool,
    base_filters: int,
    shape: tuple[int, ...],
    steps: int,
) -> tuple[float, float]:
    """Return Mvoxel/s and the GiB that PyTorch held on a GPU, for a batch of `shape` (n, z, y, x)."""
    torch.manual_seed(0)
    network = UNet3D(in_channels=1, num_classes=len(WEIGHTS), base_filters=base_filters, dropout=0.2).to(
        device
    )
    if channels_last:
        to_channels_last(network)
    images = torch.randn(shape, device=device)[:, None]
    target = torch.randint(0, len(WEIGHTS), shape, device=device)
    loss = WeightedCrossEntropy(WEIGHTS).to(device)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    logits_of = torch.compile(network) if compiled else network

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = logits_of(images)
        loss(logits.float(), target).backward()
        optimiser.step()

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(min(3, steps)):  # compile, and choose algorithms
        step()
    finish()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    finish()
    seconds = (time.perf_counter() - began) / steps
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return target.numel() / seconds / 1e6, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", help="default: the GPU, else the CPU")
    parser.add_argument("--base-filters", type=int, default=16, help="feature maps at full resolution (16)")
    parser.add_argument("--batch-size", type=int, default=8, help="patches of a batch (8)")
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed (12)")
    parser.add_argument("--smoke", action="store_true", help="one step of small patches, uncompiled")
    args = parser.parse_args()
    device = choose_device(args.device)
    torch.backends.cudnn.benchmark = True
    patch, filters, steps = (
        ((16, 32, 32), 2, 1) if args.smoke else ((64, 128, 128), args.base_filters, args.steps)
    )
    size = "x".join(map(str, patch))
    sys.stdout.write(
        f"{describe_machine(device)}; {filters} base filters, batches of {args.batch_size} patches of {size}, "
        "bfloat16\n\n"
        "| order of memory | compiled | Mvoxel/s | GPU memory |\n|---|---|---|---|\n"
    )
    for compiled in (False,) if args.smoke else (False, True):
        for channels_last in (False, True):
            voxels, memory = rate(
                device,
                channels_last=channels_last,
                compiled=compiled,
                base_filters=filters,
                shape=(args.batch_size, *patch),
                steps=steps,
            )
            order, yes = "channels last" if channels_last else "channels first", "yes" if compiled else "no"
            sys.stdout.write(f"| {order} | {yes} | {voxels:.3g} | {memory:.1f} GiB |\n")
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
