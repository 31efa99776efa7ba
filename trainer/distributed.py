"""One training over several processes, on one machine or many: torchrun starts them, PyTorch joins them.

    torchrun --standalone --nproc-per-node 4 --no-python decathlon train WORK --preset paper --out RUN

`batch_size` is that of each process: n processes take the steps of one with n times the batch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from algorithm.network import UNet3D

LONGEST_WAIT = timedelta(
    hours=6
)  # the first process writes while the others wait, and may have to wait for a disk


@dataclass(frozen=True)
class World:
    """The processes of a training: how many, and which this one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of the tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def agree(self, device: torch.device, *, on: bool) -> bool:
        """Return whether all processes say so."""
        return int(self.sum(torch.tensor(int(on), device=device))) == self.size

    def same(self, device: torch.device, *values: int) -> bool:
        """Return whether all processes have the same whole numbers."""
        mine = torch.tensor(values, dtype=torch.int64, device=device)
        return self.agree(device, on=bool((self.sum(mine) == self.size * mine).all()))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the processes that torchrun started for the time of a with block; alone without it.

    `device` is the name of what they compute on; None for GPUs where there are any.
    """
    if "WORLD_SIZE" not in os.environ or not distributed.is_available():
        yield World()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    on_gpus = torch.cuda.is_available() if device is None else device.startswith("cuda")
    backend = "nccl" if on_gpus else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        world = World(distributed.get_rank(), distributed.get_world_size(), local_rank)
        if not world.is_first:
            logging.getLogger().setLevel(logging.ERROR)
        yield world
        world.wait()  # one that leaves while another still talks to it may take that one along
    finally:
        distributed.destroy_process_group()


class EveryScale(nn.Module):
    """The network as a module whose forward gives all scales, as DistributedDataParallel needs it."""

    def __init__(self, network: UNet3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return `UNet3D.scales` of images (n, c, z, y, x)."""
        return self.network.scales(images)


def shared(network: UNet3D, world: World, device: torch.device) -> nn.Module:
    """Return a module that gives all scales of the network, and whose gradients are the mean over all processes."""
    module = EveryScale(network)
    if world.size == 1:
        return module
    return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)
