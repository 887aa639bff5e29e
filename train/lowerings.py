"""The ways to compute attention on a GPU. Each takes queries q_BHTK, keys and values [B, G, T, K] and gives o_BTHK.

* `dense`: rows of one document: `scaled_dot_product_attention`, cuDNN first (on Hopper 1.7 to 2.3 times as fast as the
  FlashAttention 2 that torch would take);
* `varlen`: causal documents, the batch as one sequence of tokens with offsets, FlashAttention inside;
* `flex`: any intervals: FlexAttention over tiles of 128 x 128 that are known beforehand, because the keys that a tile
  of queries sees are an interval too.

Shapes that a compiled graph sees do not change from step to step: offsets are padded, tile lists have full width.
One graph serves all masks of a lowering (checked with fresh masks and a counter of compilations).
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .prefetch import to_device

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

TILE = 128
"""Queries and keys in a tile of FlexAttention: its own default."""

PRIORITY = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class Offsets(NamedTuple):
    """Where documents begin in the flattened batch, int32, padded with its length; and how long they may be."""

    documents: Tensor
    longest: int


Varlen = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""(q_NHK, k_NGK, v_NGK, offsets, longest) -> o_NHK, causal"""


@functools.lru_cache
def announce(lowering: str, why: str) -> None:
    """Say which way attention goes, once."""
    logging.getLogger(__name__).info("attention: %s (%s)", lowering, why)


def dense(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
    """Plain causal attention over whole rows."""
    with sdpa_kernel(PRIORITY, set_priority=True):
        out_BHTK = scaled_dot_product_attention(
            q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=k_BGTK.shape[1] != q_BHTK.shape[1]
        )
    return out_BHTK.transpose(1, 2)


@functools.lru_cache
def has_varlen() -> bool:
    """Whether this torch has `varlen_attn` (2.10 and later)."""
    try:
        import torch.nn.attention.varlen  # noqa: F401
    except ImportError:
        return False
    return True


def _torch_varlen(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    options = _varlen_options(q.shape[1] != k.shape[1])
    return varlen_attn(q, k, v, offsets, offsets, longest, longest, **options)  # type: ignore[return-value]


@functools.lru_cache
def _varlen_options(is_grouped: bool) -> dict[str, Any]:
    """The keywords of the installed `varlen_attn`: 2.10 has `is_causal`, later ones `window_size` and `enable_gqa`."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    return {**options, "enable_gqa": True} if is_grouped and "enable_gqa" in known else options


def offsets(documents: Sequence[tuple[int, int]], rows: int, time: int, device: torch.device) -> Offsets:
    """Offsets of documents (row, begin) on `device`."""
    starts = to_device(_padded([row * time + begin for row, begin in documents], rows, time), device)
    # Even a doubling needs no other compiled graph.
    torch._dynamo.maybe_mark_dynamic(starts, 0)
    return Offsets(starts, time)


def _padded(starts: Sequence[int], rows: int, time: int) -> Tensor:
    """Starts and the end, repeated up to a length that seldom changes: 8 a row, doubled until they fit."""
    size = 8 * rows
    while size < len(starts):
        size *= 2
    padded = torch.full((size + 1,), rows * time, dtype=torch.int32)
    padded[: len(starts)] = torch.tensor(starts, dtype=torch.int32)
    return padded


def varlen(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, offsets: Offsets, kernel: Varlen | None = None) -> Tensor:
    """Causal attention inside documents."""
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTK, k_BGTK, v_BGTK))
    out = (kernel or _torch_varlen)(q, k, v, offsets.documents, offsets.longest)
    return out.view(q_BHTK.shape[0], q_BHTK.shape[2], *q.shape[1:])


def block_mask(begins: np.ndarray, ends: np.ndarray, begins_BT: Tensor, ends_BT: Tensor) -> BlockMask:
    """Tiles of the intervals: `begins`, `ends` on the CPU, `begins_BT`, `ends_BT` the same where attention runs."""
    from torch.nn.attention.flex_attention import BlockMask

    def is_visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (begins_BT[b, q] <= kv) & (kv < ends_BT[b, q])

    time = begins.shape[1]
    numbers, indices, full_numbers, full_indices = (torch.from_numpy(x[:, None]) for x in tiles(begins, ends))
    blocks = BlockMask.from_kv_blocks(
        numbers, indices, full_numbers, full_indices, TILE, mask_mod=is_visible, seq_lengths=(time, time)
    )
    for name, value in list(vars(blocks).items()):
        if isinstance(value, Tensor):
            setattr(blocks, name, to_device(value, begins_BT.device))
    return blocks


def tiles(begins: np.ndarray, ends: np.ndarray, size: int = TILE) -> tuple[np.ndarray, ...]:
    """Tiles of keys for every tile of queries, with Q = ceil(T / size): those that are seen in part and in full.

    Returns:
        Their number [B, Q] and indices [B, Q, Q], partial ones; then the same for full ones. All int32.
    """
    rows, time = begins.shape
    count = -(-time // size)
    spare = ((0, 0), (0, count * size - time))
    # Queries behind the row's end see nothing: no part in the hull, and no tile is full for them.
    first, last = np.pad(begins, spare, constant_values=time), np.pad(ends, spare)
    first, last = first.reshape(rows, count, size), last.reshape(rows, count, size)
    from_tile, to_tile = first.min(2) // size, -(-last.max(2) // size)
    full_from = np.clip(-(-first.max(2) // size), from_tile, to_tile)
    full_to = np.clip(last.min(2) // size, full_from, to_tile)
    order = np.arange(count)
    before = full_from - from_tile
    partial = np.where(
        order < before[:, :, None], from_tile[:, :, None] + order, (full_to - before)[:, :, None] + order
    )
    full = full_from[:, :, None] + order
    lists = (before + to_tile - full_to, partial.clip(0, count - 1), full_to - full_from, full.clip(0, count - 1))
    return tuple(array.astype(np.int32) for array in lists)


def flex(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, blocks: BlockMask) -> Tensor:
    """Attention over the tiles; on a CPU without gradients only (torch has none for it there)."""
    from torch.nn.attention.flex_attention import flex_attention

    function: Callable[..., Any] = flex_attention
    if q_BHTK.is_cuda and not torch.compiler.is_compiling():
        function = _compiled_flex()
    out_BHTK: Tensor = function(
        q_BHTK, k_BGTK, v_BGTK, block_mask=blocks, enable_gqa=k_BGTK.shape[1] != q_BHTK.shape[1]
    )
    return out_BHTK.transpose(1, 2)


@functools.lru_cache
def _compiled_flex() -> Callable[..., Any]:
    """Uncompiled, FlexAttention computes every score."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
