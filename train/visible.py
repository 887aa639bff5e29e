"""What every query may see: an interval of keys of its own row. One description of every attention mask here.

`begins_BT[b, t] <= key < ends_BT[b, t]`, both columns. Causal inside a segment [s, e): s and t + 1; where the first p
tokens of the segment see each other both ways (prefix-LM): s and max(t + 1, s + p). `Mask.of` reads the facts that
decide how attention is computed (one document a row? any prefix?) from CPU arrays, and `Mask.to` copies to a GPU what
the chosen way needs without waiting for the device: once a step, for all layers. Price, on one core: 0.2 ms for 4 rows
of 512 tokens, 2.3 for 32 of 2048; 4 ms more where FlexAttention needs its tiles; 8 bytes a token to copy.

Shapes: B rows, T tokens; `pieces` are (row, begin, end, prefix) of each segment in order.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor

from . import lowerings
from .prefetch import to_device

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Lowering = Literal["blocked", "dense", "varlen", "flex", "sdpa-mask"]
Piece = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Mask:
    """Visible keys of every query of one batch, and what the chosen lowering needs.

    `pieces` is None where the intervals are not segments with prefixes; `lowering` None means: `attend` chooses.
    """

    begins_BT: Tensor
    ends_BT: Tensor
    is_plain_causal: bool
    has_prefix: bool
    pieces: tuple[Piece, ...] | None
    lowering: Lowering | None = None
    offsets: lowerings.Offsets | None = None
    blocks: BlockMask | None = None

    @classmethod
    def of(cls, begins_BT: Tensor | np.ndarray, ends_BT: Tensor | np.ndarray) -> Self:
        """The mask of these intervals; give CPU arrays (a GPU tensor would have to be waited for).

        Raises:
            ValueError: if shapes differ, or an interval is empty or leaves its row.
        """
        begins, ends = _array(begins_BT), _array(ends_BT)
        if begins.ndim != 2 or begins.shape != ends.shape:
            raise ValueError(f"begins {begins.shape} and ends {ends.shape}: expected one shape [rows, tokens]")
        rows, time = begins.shape
        wrong = np.argwhere((begins < 0) | (begins >= ends) | (ends > time))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"row {row}, token {column}: sees keys {begins[row, column]} to {ends[row, column]} of {time}; "
                "an interval must lie in its row and hold at least one key"
            )
        pieces = _pieces(begins, ends)
        has_prefix = pieces is None or any(piece[3] for piece in pieces)
        is_plain_causal = pieces is not None and not has_prefix and len(pieces) == rows
        return cls(torch.from_numpy(begins), torch.from_numpy(ends), is_plain_causal, has_prefix, pieces)

    @classmethod
    def causal(cls, rows: int, time: int, device: torch.device | str | None = None) -> Self:
        """Every row one document. Can be made inside a compiled function."""
        ends_BT = torch.arange(1, time + 1, dtype=torch.int32, device=device).expand(rows, time)
        pieces = tuple((row, 0, time, 0) for row in range(rows))
        lowering: Lowering | None = None if ends_BT.device.type == "cpu" else "dense"
        return cls(torch.zeros_like(ends_BT), ends_BT, True, False, pieces, lowering)

    @classmethod
    def from_segments(cls, segments_BT: Tensor | np.ndarray, prefixes_BT: Tensor | np.ndarray | None = None) -> Self:
        """Segments are runs of equal numbers in a row; `prefixes_BT` gives at each token the prefix of its segment.

        Raises:
            ValueError: if a prefix is negative, longer than its segment or not the same all over it.
        """
        segments = _array(segments_BT)
        rows, time = segments.shape
        columns = np.arange(time, dtype=np.int32)
        is_start = np.ones((rows, time), bool)
        is_start[:, 1:] = segments[:, 1:] != segments[:, :-1]
        begins = np.maximum.accumulate(np.where(is_start, columns, 0), axis=1)
        if prefixes_BT is None:
            return cls.of(begins, np.broadcast_to(columns + 1, segments.shape))
        prefixes = _array(prefixes_BT)
        size = _ends_of_segments(begins) - begins
        wrong = np.argwhere(
            (prefixes < 0) | (prefixes > size) | (prefixes != np.take_along_axis(prefixes, begins.astype(np.int64), 1))
        )
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f"row {row}, token {column}: prefix {prefixes[row, column]} of a segment of {size[row, column]} "
                "tokens; expected one number from 0 to that, the same at all tokens of the segment"
            )
        return cls.of(begins, np.maximum(columns + 1, begins + prefixes))

    def dense(self) -> Tensor:
        """The boolean mask [B, 1, T, T], true where a query may look."""
        keys_T = torch.arange(self.begins_BT.shape[1], dtype=torch.int32, device=self.begins_BT.device)
        return ((keys_T >= self.begins_BT[:, :, None]) & (keys_T < self.ends_BT[:, :, None]))[:, None]

    def to(self, device: torch.device | str, lowering: Lowering | None = None) -> Mask:
        """The mask on `device` with what its lowering needs; `lowering` overrides the choice (for benchmarks).

        Raises:
            ValueError: if the lowering asked for cannot express this mask.
        """
        device = torch.device(device)
        if lowering is None and device.type == "cpu":
            return self
        if lowering is None:
            lowering, why = self._choice()
            lowerings.announce(lowering, why)
        if lowering == "dense" and not self.is_plain_causal:
            raise ValueError('lowering "dense" is plain causal attention, but these rows hold several segments')
        if lowering == "blocked" and self.pieces is None:
            raise ValueError('lowering "blocked" needs segments with prefixes, not any intervals; use "flex"')
        if lowering == "varlen" and self.has_prefix:
            raise ValueError('lowering "varlen" is causal attention inside segments, without prefixes; use "flex"')
        begins_BT, ends_BT = to_device(self.begins_BT, device), to_device(self.ends_BT, device)
        offsets = blocks = None
        if lowering == "varlen" and self.pieces is not None:
            rows, time = self.begins_BT.shape
            offsets = lowerings.offsets([piece[:2] for piece in self.pieces], rows, time, device)
        elif lowering == "flex":
            blocks = lowerings.block_mask(_array(self.begins_BT), _array(self.ends_BT), begins_BT, ends_BT)
        return dataclasses.replace(
            self, begins_BT=begins_BT, ends_BT=ends_BT, lowering=lowering, offsets=offsets, blocks=blocks
        )

    def _choice(self) -> tuple[Lowering, str]:
        if self.is_plain_causal:
            return "dense", "every row is one document"
        if self.has_prefix:
            return "flex", "documents with bidirectional prefixes"
        if lowerings.has_varlen():
            return "varlen", "documents without prefixes"
        return "flex", "documents, and this torch has no varlen_attn"


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    """A copy: the caller may fill its arrays again while a step is under way."""
    return np.array(values.cpu().numpy() if isinstance(values, Tensor) else values, dtype=np.int32, order="C")


def _ends_of_segments(begins: np.ndarray) -> np.ndarray:
    """One past the last column of each token's segment: the next start, found from the right."""
    time = begins.shape[1]
    is_last = np.ones(begins.shape, bool)
    is_last[:, :-1] = begins[:, 1:] != begins[:, :-1]
    ends = np.where(is_last, np.arange(1, time + 1, dtype=np.int32), time)
    return np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


def _pieces(begins: np.ndarray, ends: np.ndarray) -> tuple[Piece, ...] | None:
    """The segments with their prefixes, or None if the intervals have another form."""
    columns = np.arange(begins.shape[1], dtype=np.int32)
    is_start = begins == columns
    if not np.array_equal(begins, np.maximum.accumulate(np.where(is_start, columns, 0), axis=1)):
        return None
    reach = np.take_along_axis(ends, begins.astype(np.int64), axis=1)
    limits = _ends_of_segments(begins)
    if not np.array_equal(ends, np.maximum(columns + 1, reach)) or (ends > limits).any():
        return None
    row, begin = is_start.nonzero()
    end, prefix = limits[row, begin], ends[row, begin] - begin
    prefix[prefix == 1] = 0  # a token that sees itself is causal
    return tuple(zip(row.tolist(), begin.tolist(), end.tolist(), prefix.tolist(), strict=True))
