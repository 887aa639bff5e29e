"""What a model learns on one piece of a document: plain prediction, prefix-LM, span corruption, infilling.

`transform` turns the token ids of a piece into an `Item`: ids with sentinels, which of them count when predicted, and
how many at the start see each other both ways. It is a pure function of the ids and a 64-bit key. `restore` is its
inverse. Layouts, with D the document, P, S and M its prefix, suffix and middle, and <eot> its end-of-text token, which
is put in where the piece ends before the document does, so that the model learns to stop:

    causal, prefix_lm             D<eot>
    span_corruption (CodeGen2)    D with every span i as <mask_i>, <eot><sep>, then <mask_i> span_i <eom> for every i
    infill psm                    <pre>P<suf>S<mid>M<eot>
    infill spm (variant 2)        <pre><suf>S<mid>PM<eot>
    infill spm_separate           <suf>S<pre>P<mid>M<eot>

`reserve` says before an item is built how many positions beyond its raw tokens it may take, so that rows can be
planned by arithmetic. It never lacks; what an item leaves over, its row pads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .config import CausalObjective, InfillObjective, Objective, PrefixObjective, SpanObjective
from .hashing import draw, uniform
from .infill import SPARE, CharacterSplit, split_tokens

if TYPE_CHECKING:
    from .sentinels import Sentinels

SMALLEST = 2
"""Raw tokens that a piece needs for an objective other than causal."""

_FIRST, _SECOND = 1, 2
"""Draws of a window's key; number 0 chooses its objective."""
_SPANS = np.arange(16, 16 + 2048, dtype=np.uint64)
"""Lengths and places of spans by turns, for up to 1,024 of them."""


@dataclass(frozen=True)
class Item:
    """A piece as it stands in a row.

    tokens: ids, sentinels included. is_target: whether a token counts when it is predicted. prefix: how many tokens
    from the start see each other both ways; 0: causal.
    """

    tokens: np.ndarray
    is_target: np.ndarray
    prefix: int


def objective_name(objective: Objective) -> str:
    """`causal`, `prefix_lm`, `span_corruption_X`, `infill_psm` …: what losses are told apart by."""
    mode = getattr(objective, "mode", None)
    order = objective.order if isinstance(objective, InfillObjective) else None
    return "_".join(part for part in (objective.type, order, mode) if part)


def check_sentinels(objectives: Iterable[Objective], sentinels: Sentinels) -> None:
    """Raise ValueError with the names of the tokens that an objective needs and the tokenizer lacks."""
    for objective in objectives:
        missing = []
        if isinstance(objective, InfillObjective):
            names = ("fim_prefix", "fim_suffix", "fim_middle")
            missing = [name for name in names if getattr(sentinels, name) is None]
        if isinstance(objective, SpanObjective):
            missing = [name for name in ("separator", "end_of_mask") if getattr(sentinels, name) is None]
            missing += [] if sentinels.masks else ["masks"]
        mode = getattr(objective, "mode", None)
        if mode is not None and mode not in sentinels.modes:
            missing.append(f"mode {mode}")
        if missing:
            raise ValueError(
                f"objective {objective_name(objective)}: the tokenizer has no token for {', '.join(missing)}; "
                "take another objective, or a tokenizer trained here, which reserves them all"
            )


def reserve(objective: Objective, lengths_W: np.ndarray, keys_W: np.ndarray, masks: int) -> np.ndarray:
    """Positions that windows may need beyond their raw tokens.

    Args:
        lengths_W: raw tokens, end-of-text included where the window reaches it; at least 2. keys_W: uint64.
        masks: how many mask tokens there are.

    Returns:
        int64; enough for every part of a window too, since more raw tokens never need less.
    """
    if isinstance(objective, SpanObjective):
        return 3 * _span_counts(objective, lengths_W, keys_W, masks) + 2 + (objective.mode is not None)
    if isinstance(objective, InfillObjective):
        return np.full(len(lengths_W), 4 + (SPARE if objective.split == "character" else 0))
    return np.full(len(lengths_W), int(isinstance(objective, PrefixObjective) and objective.mode is not None))


def goes_on(objective: Objective) -> bool:
    """Whether an item ends with its last raw token, so that the document's next token is a target there."""
    return isinstance(objective, CausalObjective | PrefixObjective)


def begins_raw(objective: Objective) -> bool:
    """Whether an item begins with its first raw token, which nothing inside the item predicts."""
    return isinstance(objective, CausalObjective) or (isinstance(objective, PrefixObjective) and objective.mode is None)


def transform(
    objective: Objective,
    ids: np.ndarray,
    ends_document: bool,
    key: int,
    sentinels: Sentinels,
    split: CharacterSplit | None = None,
) -> Item:
    """The item of a piece.

    Args:
        ids: raw tokens, at least 2 but for causal; the last is end-of-text if `ends_document`.
        key: of the window, 64 bits.
        split: cuts between characters; needed by infilling that asks for it.
    """
    if isinstance(objective, SpanObjective):
        return _corrupt(objective, ids, ends_document, key, sentinels)
    if isinstance(objective, InfillObjective):
        return _infill(objective, ids[: len(ids) - ends_document], key, sentinels, split)
    is_target = np.ones(len(ids), dtype=bool)
    prefix = 0
    if isinstance(objective, PrefixObjective):
        prefix = 1 + int(draw(key, _FIRST) * (len(ids) - 1))
        if objective.mode is not None:
            ids, prefix = np.concatenate(([sentinels.modes[objective.mode]], ids)), prefix + 1
            is_target = np.ones(len(ids), dtype=bool)
        if objective.loss == "suffix":
            is_target[:prefix] = False
    is_target[:1] = False
    return Item(ids, is_target, prefix)


def restore(objective: Objective, tokens: np.ndarray, sentinels: Sentinels) -> np.ndarray:
    """The document's own tokens of an item, in their order, without end-of-text.

    Infilling between characters gives other ids than it was given where it cut; their bytes are the same.
    """
    if getattr(objective, "mode", None) is not None:
        tokens = tokens[1:]
    tokens = np.trim_zeros(tokens - sentinels.end_of_text, "b") + sentinels.end_of_text
    if isinstance(objective, SpanObjective):
        (separator_at,), ends = (np.flatnonzero(tokens == t) for t in (sentinels.separator, sentinels.end_of_mask))
        spans = np.split(tokens, ends + 1)[:-1]
        spans[0] = spans[0][separator_at + 1 :]
        by_mask = {int(span[0]): span[1:-1] for span in spans}
        return np.concatenate([by_mask.get(token, [token]) for token in tokens[: separator_at - 1].tolist()])
    if not isinstance(objective, InfillObjective):
        return tokens
    (suffix_at,), (middle_at,) = (
        np.flatnonzero(tokens == token) for token in (sentinels.fim_suffix, sentinels.fim_middle)
    )
    (prefix_at,) = np.flatnonzero(tokens == sentinels.fim_prefix)
    behind = tokens[middle_at + 1 :]
    if objective.order == "psm":
        return np.concatenate([tokens[1:suffix_at], behind, tokens[suffix_at + 1 : middle_at]])
    if objective.order == "spm":
        return np.concatenate([behind, tokens[suffix_at + 1 : middle_at]])
    return np.concatenate([tokens[prefix_at + 1 : middle_at], behind, tokens[1:prefix_at]])


def _masked_tokens(objective: SpanObjective, lengths_W: np.ndarray, keys_W: np.ndarray) -> np.ndarray:
    """How many tokens are masked: the ratio that is drawn, rounded; at least one, and never all."""
    lowest, highest = objective.mask_ratio
    ratios = lowest + uniform(keys_W, np.uint64(_FIRST)) * (highest - lowest)
    masked: np.ndarray = np.clip(np.floor(ratios * lengths_W + 0.5).astype(np.int64), 1, lengths_W - 1)
    return masked


def _span_counts(objective: SpanObjective, lengths_W: np.ndarray, keys_W: np.ndarray, masks: int) -> np.ndarray:
    """Spans of every window: as many as reach the tokens to be masked, but each has a mask token and a gap before it.

    Never fewer for more tokens: what is to be masked grows with them, and so does what is left.
    """
    shortest, longest = objective.span_tokens
    masked = _masked_tokens(objective, lengths_W, keys_W)
    most = np.minimum(min(masks, len(_SPANS) // 2), lengths_W - masked)
    counts, totals = np.zeros_like(masked), np.zeros_like(masked)
    active = np.arange(len(masked))
    for number in _SPANS[::2]:
        totals[active] += shortest + (uniform(keys_W[active], number) * (longest - shortest + 1)).astype(np.int64)
        counts[active] += 1
        active = active[(totals[active] < masked[active]) & (counts[active] < most[active])]
        if not len(active):
            break
    return counts


def _corrupt(objective: SpanObjective, ids: np.ndarray, ends_document: bool, key: int, sentinels: Sentinels) -> Item:
    """Span corruption: lengths are drawn until they sum to the masked tokens (the last is cut to fit), and places.

    The draws and their arithmetic are those of `_span_counts`.
    """
    assert sentinels.separator is not None
    assert sentinels.end_of_mask is not None
    length, content = len(ids), len(ids) - ends_document
    (lowest, highest), (shortest, longest) = objective.mask_ratio, objective.span_tokens
    masked = min(max(int((lowest + draw(key, _FIRST) * (highest - lowest)) * length + 0.5), 1), length - 1)
    most = min(len(sentinels.masks), len(_SPANS) // 2, length - masked)
    draws = uniform(np.uint64(key), _SPANS[: 2 * min(most, masked // shortest + 1)]).tolist()
    spans: list[int] = []
    while masked > 0 and len(spans) < most:
        size = shortest + int(draws[2 * len(spans)] * (longest - shortest + 1))
        spans.append(min(size, masked))
        masked -= spans[-1]
    # Every span but the first has one unmasked token before it; the others fall where the draws say.
    unmasked = content - sum(spans)
    free = unmasked - len(spans) + 1
    places = (int(where * (free + 1)) for where in draws[1 : 2 * len(spans) : 2])

    mode = [] if objective.mode is None else [sentinels.modes[objective.mode]]
    behind = len(mode) + unmasked + len(spans) + 2  # where the first span goes on, behind <eot> and <sep>
    tokens = np.empty(content + len(mode) + 3 * len(spans) + 2, dtype=np.int64)
    tokens[: len(mode)] = mode
    before, read, write, tail = 0, 0, len(mode), behind
    for number, (place, size) in enumerate(sorted(zip(places, spans, strict=True))):
        gap = place + number - before
        tokens[write : write + gap] = ids[read : read + gap]
        before, read, write = before + gap, read + gap, write + gap + 1
        tokens[write - 1] = tokens[tail] = sentinels.masks[number]
        tokens[tail + 1 : tail + 1 + size] = ids[read : read + size]
        read, tail = read + size, tail + size + 2
        tokens[tail - 1] = sentinels.end_of_mask
    tokens[write : behind - 2] = ids[read:content]
    tokens[behind - 2 : behind] = sentinels.end_of_text, sentinels.separator
    is_target = np.ones(len(tokens), dtype=bool)
    is_target[: behind if objective.loss == "targets" else 1] = False
    return Item(tokens, is_target, behind if objective.bidirectional else 0)


def _infill(
    objective: InfillObjective, content: np.ndarray, key: int, sentinels: Sentinels, split: CharacterSplit | None
) -> Item:
    """Fill in the middle: two cuts, uniform over characters or tokens, parts may be empty."""
    draws = np.array(sorted((draw(key, _FIRST), draw(key, _SECOND))))
    if objective.split == "token":
        prefix, middle, suffix = split_tokens(content, draws)
    else:
        if split is None:
            raise ValueError("infill with split: character needs a tokenizer; give one, or split: token")
        prefix, middle, suffix = split(content, draws)
    pre, suf, mid = [sentinels.fim_prefix], [sentinels.fim_suffix], [sentinels.fim_middle]
    parts = {
        "psm": (pre, prefix, suf, suffix, mid, middle),
        "spm": (pre, suf, suffix, mid, prefix, middle),
        "spm_separate": (suf, suffix, pre, prefix, mid, middle),
    }[objective.order]
    tokens = np.concatenate([*parts, [sentinels.end_of_text]]).astype(np.int64)
    is_target = np.ones(len(tokens), dtype=bool)
    is_target[: len(tokens) - len(middle) - 1 if objective.loss == "middle" else 1] = False
    return Item(tokens, is_target, 0)
