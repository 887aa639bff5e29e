"""Several processes as one run: who we are, and what is summed or collected between us.

`torchrun --nproc-per-node N -m codesieve train …` sets the environment that `world` reads. Ranks share the rows of a
step in order, so the data are the same whatever their number. On CPUs gradients are collected and added as the same
binary tree that one process uses (`accumulate.py`): bitwise equal for 1, 2, 4, … processes. On GPUs they are
all-reduced after the last pass of a step, without overlap with it, or sharded by FSDP2.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

LONGEST_WAIT = timedelta(days=7)
"""Of ranks for one another. The others wait while the first one tokenises the corpus (1.4 MB/s a core: a terabyte takes
four days on two), where PyTorch gives up after 10 to 30 minutes. A process that dies is torchrun's to notice."""


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def collect(self, rows: np.ndarray) -> np.ndarray:
        """The arrays of all ranks, one below the other, in the order of ranks; same shape and dtype on each."""
        if self.size == 1:
            return rows
        part = torch.from_numpy(np.ascontiguousarray(rows))
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part)
        return torch.cat(parts).numpy()

    def total(self, value: float) -> float:
        """Sum over the ranks, of values that are exact in float64."""
        return float(self.collect(np.array([value], dtype=np.float64)).sum())

    def all_gather(self, flat: Tensor) -> list[Tensor]:
        """`flat` of every rank."""
        parts = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(parts, flat)
        return parts

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


def world() -> World:
    """From torchrun's environment; alone where there is none."""
    environment = os.environ
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return World()
    return World(int(environment["RANK"]), int(environment["WORLD_SIZE"]), int(environment.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The process group for the time of the block; Gloo for CPU tensors, NCCL for those of a GPU."""
    here = world()
    if here.size == 1 or dist.is_initialized():
        yield here
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(here.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield here
    finally:
        dist.destroy_process_group()


def shard(model: nn.Module, device: torch.device, world: World) -> None:
    """FSDP2: each layer's parameters, and those outside the layers, split over the ranks.

    The layers are the `ModuleList` with the most parameters, whatever the architecture calls it (experts of a layer are
    in lists of their own). A model that has none is one unit: right, but whole in memory while it computes. FSDP2
    averages gradients over the ranks, so each rank must divide its losses by the mean of their targets, not the sum.
    """
    mesh = init_device_mesh(device.type, (world.size,))
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    for part in (*max(lists, key=_size, default=()), model):
        fully_shard(part, mesh=mesh)
    for method in ("loss", "hidden"):  # what is called besides `forward`; `ForeignModel` has only the first
        if hasattr(model, method):
            register_fsdp_forward_method(model, method)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
