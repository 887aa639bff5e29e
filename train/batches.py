"""The rows of a step as a process computes them: cut into parts, each with its attention mask, on its device.

A part is one row where gradients must be exact (`accumulate.py`), else a micro-batch. Nothing here needs the model, so
it runs in the prefetching thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .attention import Mask
from .rows import IGNORED, Batch


@dataclass(frozen=True)
class Part:
    """Tensors of some rows, and what they may see."""

    tokens_BT: Tensor
    targets_BT: Tensor
    positions_BT: Tensor
    mask: Mask


@dataclass(frozen=True)
class Prepared:
    """This rank's rows of one step. targets: how many of them have a loss."""

    batch: Batch
    parts: tuple[Part, ...]
    targets: int

    @classmethod
    def of(cls, batch: Batch, rows_per_part: int, device: torch.device) -> Self:
        """Cut `batch`, describe the masks, and copy to `device` (from pinned memory where that is a GPU)."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

        parts = []
        for first in range(0, len(batch.streams), rows_per_part):
            cut = slice(first, first + rows_per_part)
            tokens, targets, positions = (
                move(torch.from_numpy(array[cut])) for array in (batch.tokens_BT, batch.targets_BT, batch.positions_BT)
            )
            mask = Mask.of(batch.begins_BT[cut], batch.ends_BT[cut]).to(device)
            parts.append(Part(tokens, targets, positions, mask))
        return cls(batch, tuple(parts), int((batch.targets_BT != IGNORED).sum()))
