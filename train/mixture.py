"""How streams share the rows of a stage, and how much of a stream a simulated run may use.

`place` gives row r its stream such that after any number of rows every stream is within two rows of its exact share:
arithmetic again, no state. `simulated` keeps so many of a stream's documents that a short run repeats them as often as
the long run that it stands for would repeat all of them; what a smaller budget keeps, a larger one keeps too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ..strict import nearest
from .hashing import keyed


def place(row: int, shares: Mapping[str, int]) -> tuple[str, int]:
    """Stream of row number `row`, and how many rows that stream has had before.

    The heaviest stream takes its rounded share of the first n rows for every n, the next one its rounded share of what
    is left, and so on: each is a low-discrepancy sequence, computed without looking at other rows.

    Args:
        shares: integer weight per stream, from `integer_shares`.
    """
    before, total = row, sum(shares.values())
    name = ""
    for name in _heaviest_first(shares):
        taken = _rounded(before, shares[name], total)
        if _rounded(before + 1, shares[name], total) > taken:
            return name, taken
        before, total = before - taken, total - shares[name]
    raise AssertionError(f"the last stream, {name}, takes every row that is left")


def placed(rows: int, shares: Mapping[str, int]) -> dict[str, int]:
    """How many of the first `rows` rows each stream gets."""
    counts = {}
    before, total = rows, sum(shares.values())
    for name in _heaviest_first(shares):
        counts[name] = _rounded(before, shares[name], total)
        before, total = before - counts[name], total - shares[name]
    return counts


def integer_shares(weights: Mapping[str, float]) -> dict[str, int]:
    """`weights` (positive, any sum) as integers near 2**32, so that shares are exact and the same everywhere."""
    total = sum(weights.values())
    return {name: max(1, round(weight / total * 2**32)) for name, weight in weights.items()}


def check_weights(weights: Mapping[str, float], present: Collection[str], known: Collection[str], stage: str) -> None:
    """Raise ValueError for a weight that cannot be met.

    Args:
        present: streams with documents that have tokens in this stage. known: all streams of the store.
    """
    for name, weight in weights.items():
        if name not in known:
            raise ValueError(
                f'stage "{stage}": weights: unknown stream "{name}"{nearest(name, known)}; the store has '
                f"{', '.join(sorted(known))}"
            )
        if not 0 <= weight < float("inf"):
            raise ValueError(
                f'stage "{stage}": weights: stream "{name}" has weight {weight}; expected a number from 0 up'
            )
        if weight > 0 and name not in present:
            raise ValueError(
                f'stage "{stage}": weights: stream "{name}" has weight {weight:g}, but the selection has no documents '
                "in it; drop the weight or widen the selection"
            )
    if not present or (weights and not any(weights.values())):
        raise ValueError(f'stage "{stage}": nothing to train on: no selected document has tokens, or every weight is 0')


def simulated(hashes: np.ndarray, sizes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which documents of a stream to keep: the first in an order of their own until they have `share` of the tokens.

    Args:
        hashes: from `document_hashes`. sizes: tokens of each document in an epoch.

    Returns:
        Positions in ascending order; at least one.
    """
    order = np.argsort(keyed(hashes, "simulate", seed), kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    return np.sort(order[before < share * sizes.sum()])


def _heaviest_first(shares: Mapping[str, int]) -> list[str]:
    return sorted(shares, key=lambda name: (-shares[name], name))


def _rounded(count: int, share: int, total: int) -> int:
    return (2 * count * share + total) // (2 * total)
