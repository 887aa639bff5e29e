"""Which rows share a batch, and what happens where one does not fit the memory.

Batches are planned from the whole list, by length, so that little is padded and that a resumed run makes the same
ones; a batch all of whose requests are known is left out. Rows with the same inputs are one row: the choices of a
question that differ in their last token cost one pass together. A batch for which the memory does not suffice is
halved, as are all later ones of its size.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from .protocol import Backend, Continuation

T = TypeVar("T")
R = TypeVar("R")


Found = list[tuple[float, bool]]
"""Of every question of a row: nats, and whether each target is the most probable token."""


@dataclass(frozen=True)
class Question:
    """Part of what request number `position` asks: inputs `first` and on of a row are to predict `targets`."""

    position: int
    first: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """What goes through the model once.

    Attributes:
        prefix: so many inputs at the start see each other both ways; 0: causal.
    """

    inputs: tuple[int, ...]
    prefix: int = 0
    questions: list[Question] = field(default_factory=list)


def merged(rows: Sequence[Row]) -> list[Row]:
    """Rows of the same inputs and prefix as one with all their questions."""
    found: dict[tuple[tuple[int, ...], int], Row] = {}
    for row in rows:
        same = found.setdefault((row.inputs, row.prefix), Row(row.inputs, row.prefix))
        same.questions.extend(row.questions)
    return list(found.values())


def plan(rows: Sequence[T], width: Callable[[T], int], budget: int) -> list[list[T]]:
    """Batches of at most `budget` positions, padding included, or of one row; longest first.

    The longest first, so that what is too big for the memory shows at once. Equal widths keep their order.
    """
    batches: list[list[T]] = []
    for row in sorted(rows, key=width, reverse=True):
        if not batches or width(batches[-1][0]) * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


class Halving:
    """Computes batches, in parts where the memory does not suffice for the whole."""

    def __init__(self) -> None:
        self.most_positions: int | None = None
        """In a batch: half of what was too many; None: nothing was yet."""

    def run(self, batch: Sequence[T], width: Callable[[T], int], compute: Callable[[Sequence[T]], list[R]]) -> list[R]:
        """`compute(batch)`, or what it gives for the parts of the batch one after the other.

        Raises:
            RuntimeError: if not even one row fits.
        """
        results: list[R] = []
        begin = 0
        while begin < len(batch):
            widest, count = max(width(row) for row in batch[begin:]), len(batch) - begin
            if self.most_positions is not None:
                count = min(count, max(1, self.most_positions // widest))
            try:
                results += compute(batch[begin : begin + count])
            except torch.OutOfMemoryError as error:
                if count == 1:
                    raise RuntimeError(
                        f"one row of {widest} tokens does not fit the memory of the device: {error}"
                    ) from error
                self.most_positions = count * widest // 2
            else:
                begin += count
                continue
            # Not inside the handler: there the traceback still holds the tensors.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results


def unknown_batches(
    batches: Sequence[list[T]], positions: Callable[[T], Collection[int]], known: Collection[int]
) -> Iterator[list[T]]:
    """The batches that hold a request which is not known."""
    is_known = set(known)
    for batch in batches:
        if any(position not in is_known for row in batch for position in positions(row)):
            yield batch


def check_batching(backend: Backend, requests: Sequence[Continuation], count: int = 16) -> float:
    """The largest difference in nats that sharing a batch makes to `count` requests, spread over the list."""
    step = max(1, len(requests) // count)
    chosen = list(requests[::step][:count])
    together = backend.loglikelihood(chosen)
    alone = [backend.loglikelihood([each])[0] for each in chosen]
    found = [abs(one.nats - other.nats) for one, other in zip(together, alone, strict=True) if one and other]
    return max(found, default=0.0)
