"""The rows of a step as a process computes them: cut into parts, each with its attention mask, on its device.

A part is one row where gradients must be exact (`accumulate.py`), else a micro-batch. Nothing here needs the model, so
it runs in the prefetching thread: also counting which positions have a target, which a GPU would have to be asked for.
With the shipped `prefix-lm` and `ul2` about half of the positions have none, in micro-batches of 32 k tokens and more
always between three and five eighths; the head is 27 to 33 % of the operations of models of 5 to 124 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from .attention import Mask
from .prefetch import to_device
from .rows import IGNORED, Batch

HEAD_LENGTHS = 8
"""How many numbers of positions may reach the head. Each is a graph of its own; fewer would waste more of the head."""


@dataclass(frozen=True)
class Part:
    """Tensors of some rows, and what they may see. kept_K: which positions reach the head; None: all."""

    tokens_BT: Tensor
    targets_BT: Tensor
    positions_BT: Tensor
    mask: Mask
    kept_K: Tensor | None = None


@dataclass(frozen=True)
class Prepared:
    """This rank's rows of one step. targets: how many of them have a loss."""

    batch: Batch
    parts: tuple[Part, ...]
    targets: int

    @classmethod
    def of(cls, batch: Batch, rows_per_part: int, device: torch.device) -> Self:
        """Cut `batch`, describe the masks, and copy to `device`."""
        parts = []
        for first in range(0, len(batch.streams), rows_per_part):
            cut = slice(first, first + rows_per_part)
            tokens, targets, positions = (
                to_device(torch.from_numpy(array[cut]), device)
                for array in (batch.tokens_BT, batch.targets_BT, batch.positions_BT)
            )
            mask = Mask.of(batch.begins_BT[cut], batch.ends_BT[cut]).to(device)
            # A CPU counts for itself: its parts are single rows, whose counts differ too much for few graphs.
            kept = None if device.type == "cpu" else kept_positions(batch.targets_BT[cut])
            kept_K = None if kept is None else to_device(torch.from_numpy(kept), device)
            parts.append(Part(tokens, targets, positions, mask, kept_K))
        return cls(batch, tuple(parts), int((batch.targets_BT != IGNORED).sum()))


def kept_positions(targets_BT: np.ndarray) -> np.ndarray | None:
    """Positions of the flattened rows for the head: those with a target, and others up to full eighths of all.

    Returns:
        int64, [K]; None where that is all of them.
    """
    is_valid_N = targets_BT.ravel() != IGNORED
    size = len(is_valid_N)
    valid = np.flatnonzero(is_valid_N)
    eighths = max(1, -(-len(valid) * HEAD_LENGTHS // size))
    if eighths == HEAD_LENGTHS:
        return None
    others = np.flatnonzero(~is_valid_N)
    return np.concatenate((valid, others[: -(-size * eighths // HEAD_LENGTHS) - len(valid)]))
