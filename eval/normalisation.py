"""Which choice a model prefers: its log-likelihoods as they are, by length, or against an unconditional prompt.

In: the `detail` of an item of choices (`store.ITEMS`): for each choice the nats (−log p, so less is likelier), its
length in tokens, characters and bytes, its nats after the unconditional prompt (or null), and the right positions.
Out: the position of the preferred choice. Characters are what lm-evaluation-harness calls `acc_norm`, bytes its
`acc_bytes`, PMI its `acc_mutual_info`; as there, the first of several equally likely choices counts as preferred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..strict import nearest

NORMALISATIONS = ("raw", "tokens", "characters", "bytes", "pmi")
"""As `tasks.schema.NORMALISATIONS`; here so that reading results needs no task."""


def choice_correct(detail: Mapping[str, Any], normalisation: str) -> float:
    """1.0 if the preferred choice is a right one, else 0.0.

    Args:
        detail: of the item.
        normalisation: one of `NORMALISATIONS`.

    Raises:
        ValueError: if the likelihoods do not allow this normalisation.
    """
    return float(chosen(detail, normalisation) in detail["gold"])


def chosen(detail: Mapping[str, Any], normalisation: str) -> int:
    """Position of the preferred choice; of equal ones the first."""
    scores = choice_scores(detail, normalisation)
    return max(range(len(scores)), key=scores.__getitem__)


def choice_scores(detail: Mapping[str, Any], normalisation: str) -> list[float]:
    """What is compared: log-likelihood after normalisation, more is better."""
    nats: Sequence[float] = detail["nats"]
    broken = [position for position, each in enumerate(nats) if not math.isfinite(each)]
    if broken:
        raise ValueError(f"choice {broken[0]}: nats is {nats[broken[0]]}, not a number")
    if normalisation == "raw":
        return [-each for each in nats]
    if normalisation == "pmi":
        alone = detail["unconditional"]
        if alone is None:
            raise ValueError("no PMI: the task has no unconditional prompt (key `unconditional`)")
        return [before - each for each, before in zip(nats, alone, strict=True)]
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f'unknown normalisation "{normalisation}"{nearest(normalisation, NORMALISATIONS)}; '
            f"known: {', '.join(NORMALISATIONS)}"
        )
    lengths: Sequence[int] = detail[normalisation]
    if min(lengths) <= 0:
        raise ValueError(
            f"choice {lengths.index(min(lengths))} has no {normalisation}: it cannot be normalised by them"
        )
    return [-each / length for each, length in zip(nats, lengths, strict=True)]
