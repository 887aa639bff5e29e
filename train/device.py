"""Where a run computes, in which precision, and how it is kept reproducible.

On a CPU two runs of the same configuration give bitwise equal models. On a GPU they agree closely, not bitwise: there
the deterministic kernels cost too much to be the default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch


def choose_device(local_rank: int = 0) -> torch.device:
    """The GPU of this rank where there is one."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def choose_dtype(name: Literal["auto", "bfloat16", "float32"], device: torch.device) -> torch.dtype:
    """Dtype of the matrix products. `auto` is bfloat16 only where the hardware multiplies it: emulated on a CPU
    without such instructions it is about ten times slower than fp32 (measured: 8 against 85 GFLOP/s on one core).
    """
    if name == "auto":
        return torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Set threads and, on a CPU, deterministic algorithms; put back what was there before."""
    threads_before = torch.get_num_threads()
    algorithms_before = torch.are_deterministic_algorithms_enabled()
    fill_before = torch._C._get_deterministic_fill_uninitialized_memory()
    torch.set_num_threads(threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Filling every new tensor would hide reads of uninitialised memory at the price of a pass over it.
        torch._C._set_deterministic_fill_uninitialized_memory(False)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(algorithms_before)
        torch._C._set_deterministic_fill_uninitialized_memory(fill_before)
