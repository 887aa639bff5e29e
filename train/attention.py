"""Causal attention inside documents: one description of the mask, and the ways to compute it.

A row is packed from segments; a token sees the tokens of its own segment up to itself. `Mask.of` finds the segments
once a step and every layer uses it. Ways, chosen by `attend`:

* training on a CPU: block by block inside each segment, so that nothing outside is ever computed. Block sizes keep one
  block's scores in the cache. Measured at head dimension 32 on one core, forward and backward: 1.6 ms for a segment of
  256 tokens where the fused kernel of PyTorch takes 2.6, and 5.7 against 9.3 for 512. It stores the probabilities,
  4 bytes x heads x length^2 / 2 a segment and layer, hence only for rows up to `LONGEST_BLOCKED`;
* otherwise `scaled_dot_product_attention`, with `is_causal` where every row is one segment, else a boolean mask.

Shapes: B rows, T tokens, H query heads, G key heads (H a multiple of G), K head dimension.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

BLOCK = 128
"""Queries in a block. Measured on segments of 64 to 512 tokens: 96 and 128 are equal, 64 and 256 up to 20 % slower."""

LONGEST_BLOCKED = 1024


@dataclass(frozen=True)
class Mask:
    """Segments of the rows of one batch: (row, begin, end) of each, and per token whose it is.

    `segments_BT` is None where every row is one segment.
    """

    pieces: tuple[tuple[int, int, int], ...]
    segments_BT: Tensor | None

    @classmethod
    def of(cls, tokens_BT: Tensor, segments_BT: Tensor | None) -> Mask:
        """The mask of a batch; without `segments_BT` every row is one segment."""
        rows, time = tokens_BT.shape
        if segments_BT is None:
            return cls(tuple((row, 0, time) for row in range(rows)), None)
        starts = torch.ones_like(segments_BT, dtype=torch.bool)
        starts[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
        flat = [*starts.flatten().nonzero().flatten().tolist(), rows * time]
        pieces = tuple(
            (begin // time, begin % time, begin % time + end - begin) for begin, end in itertools.pairwise(flat)
        )
        return cls(pieces, segments_BT if len(pieces) > rows else None)

    def dense(self) -> Tensor | None:
        """The boolean mask [B, 1, T, T], true where a query may look; None for plain causal."""
        if self.segments_BT is None:
            return None
        time = self.segments_BT.shape[1]
        same = self.segments_BT[:, :, None] == self.segments_BT[:, None, :]
        return (same & torch.ones(time, time, dtype=torch.bool, device=same.device).tril())[:, None]


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Mask) -> Tensor:
    """Attention output o_BTHK, in the dtype of the queries."""
    on_cpu = q_BHTK.device.type == "cpu"
    if on_cpu and torch.is_grad_enabled() and q_BHTK.shape[2] <= LONGEST_BLOCKED:
        return _Blocked.apply(q_BHTK, k_BGTK, v_BGTK, mask.pieces)  # type: ignore[no-any-return, no-untyped-call]
    dense = mask.dense()
    out_BHTK = scaled_dot_product_attention(
        q_BHTK, k_BGTK, v_BGTK, attn_mask=dense, is_causal=dense is None, enable_gqa=k_BGTK.shape[1] != q_BHTK.shape[1]
    )
    return out_BHTK.transpose(1, 2)


def attend_reference(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Mask) -> Tensor:
    """The definition, written out: every score computed, forbidden ones set to -inf. For tests."""
    time, group = q_BHTK.shape[2], q_BHTK.shape[1] // k_BGTK.shape[1]
    k_BHTK, v_BHTK = k_BGTK.repeat_interleave(group, dim=1), v_BGTK.repeat_interleave(group, dim=1)
    allowed = torch.zeros(q_BHTK.shape[0], 1, time, time, dtype=torch.bool)
    for row, begin, end in mask.pieces:
        allowed[row, 0, begin:end, begin:end] = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
    scores = q_BHTK @ k_BHTK.transpose(2, 3) / math.sqrt(q_BHTK.shape[3])
    return (scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v_BHTK).transpose(1, 2)


class _Blocked(torch.autograd.Function):
    """Softmax attention over blocks of queries of each segment; keys from the segment's begin to the block's end.

    Query heads that share a key head are stacked along the query dimension, so that one batched product serves them.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pieces: tuple[tuple[int, int, int], ...]) -> Tensor:
        rows, heads, time, size = q.shape
        key_heads, scale = k.shape[1], 1 / math.sqrt(size)
        hidden_TT = _hidden(time, q.dtype)
        out = q.new_empty(rows, time, heads, size)
        probabilities = []
        for row, begin, end in pieces:
            q_part, k_part, v_part, out_part = (*_cut(row, begin, end, q, k, v), out[row, begin:end])
            for first, last in _blocks(end - begin):
                bias = hidden_TT[first:last, :last]
                if heads != key_heads:
                    bias = bias.repeat(heads // key_heads, 1)
                block = _stacked(q_part[:, first:last], key_heads)
                scores = torch.baddbmm(bias, block, k_part[:, :last].transpose(1, 2), alpha=scale)
                probability = torch.softmax(scores, dim=-1)
                result = torch.bmm(probability, v_part[:, :last]).view(heads, last - first, size)
                out_part[first:last] = result.transpose(0, 1)
                probabilities.append(probability)
        ctx.pieces = pieces
        ctx.save_for_backward(q, k, v, *probabilities)
        return out

    @staticmethod
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *saved = ctx.saved_tensors
        heads, key_heads, size = q.shape[1], k.shape[1], q.shape[3]
        probabilities = iter(saved)
        to_q, to_k, to_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for row, begin, end in ctx.pieces:
            q_part, k_part, v_part = _cut(row, begin, end, q, k, v)
            to_q_part, to_k_part, to_v_part = _cut(row, begin, end, to_q, to_k, to_v)
            to_out_part = to_out[row, begin:end].transpose(0, 1)
            for first, last in _blocks(end - begin):
                probability = next(probabilities)
                to_result = _stacked(to_out_part[:, first:last], key_heads)
                to_v_part[:, :last] += torch.bmm(probability.transpose(1, 2), to_result)
                to_probability = torch.bmm(to_result, v_part[:, :last].transpose(1, 2))
                to_scores = torch._softmax_backward_data(to_probability, probability, -1, probability.dtype)
                block = _stacked(q_part[:, first:last], key_heads)
                to_k_part[:, :last] += torch.bmm(to_scores.transpose(1, 2), block)
                to_q_part[:, first:last] = torch.bmm(to_scores, k_part[:, :last]).view(heads, last - first, size)
        scale = 1 / math.sqrt(size)
        return to_q.mul_(scale), to_k.mul_(scale), to_v, None


@functools.lru_cache(maxsize=2)
def _hidden(length: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores: -inf where the key comes after the query."""
    return torch.full((length, length), -math.inf, dtype=dtype).triu_(1)


def _cut(row: int, begin: int, end: int, *tensors: Tensor) -> list[Tensor]:
    return [tensor[row, :, begin:end] for tensor in tensors]


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(first, min(first + BLOCK, length)) for first in range(0, length, BLOCK)]


def _stacked(x_HNK: Tensor, key_heads: int) -> Tensor:
    """Heads that share a key head, one below the other: [G, H / G * N, K]."""
    heads, count, size = x_HNK.shape
    return x_HNK if heads == key_heads else x_HNK.reshape(key_heads, heads // key_heads * count, size)
