"""The next batches while the last one is used: made in a thread, copied to a GPU without waiting for it.

`row_spans` says which rows a process needs, `Prefetcher` makes their batches ahead and measures how long they were
waited for, `to_device` is the copy. A batch depends on its rows alone, so prefetching changes nothing but the time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

T_co = TypeVar("T_co", covariant=True)


def row_spans(
    first_step: int, steps: int, rows_per_step: int, rank: int = 0, world: int = 1
) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of one rank's part of each step: equal parts, in the order of the ranks.

    Raises:
        ValueError: if the rows of a step cannot be shared equally.
    """
    if rows_per_step % world:
        raise ValueError(
            f"{rows_per_step} rows a step cannot be shared equally by {world} processes; change step_tokens"
        )
    count = rows_per_step // world
    for step in range(first_step, steps):
        yield step * rows_per_step + rank * count, count


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` there. From pinned memory the copy is queued behind the running step instead of waiting for it."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Prefetcher(Generic[T_co]):
    """Batches in order, each made by a thread while those before it are used.

    `make(first, count)` is called for every span of rows, one after another, at most `ahead` before it is needed. It
    should do all that needs no model: build rows, describe masks, copy. Its exception is raised where its batch would
    have come.
    """

    def __init__(self, make: Callable[[int, int], T_co], spans: Iterable[tuple[int, int]], ahead: int = 2) -> None:
        self._make, self._spans = make, iter(spans)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._coming: deque[Future[T_co]] = deque()
        self.wait_seconds = 0.0
        """Of the consumer, since the start."""
        for _ in range(ahead):
            self._order()

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __next__(self) -> T_co:
        if not self._coming:
            raise StopIteration
        begun = time.perf_counter()
        try:
            batch = self._coming.popleft().result()
        except BaseException:
            self.close()
            raise
        self.wait_seconds += time.perf_counter() - begun
        self._order()
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what was made ahead, and wait for the thread to end."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    def _order(self) -> None:
        if (span := next(self._spans, None)) is not None:
            self._coming.append(self._thread.submit(self._make, *span))
