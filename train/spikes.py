"""Which steps to skip: a loss or gradient norm that is not finite, or lies far above what the last steps had.

"Far above" is `sigma` deviations above the mean of the last 128 accepted values, as in OLMo-core's skip-step optimiser.
Nothing finite is a spike before there are 128. After 10 skipped steps in a row the level itself has changed (a join of
stages, another mixture): the next step is accepted and the memory starts anew, where keeping it would skip dozens more.
What is not finite is never accepted, so after 10 such steps in a row the run should end: a skipped step changes no
weight, and if ten batches of different rows all fail it is the weights that do, and will with every other batch.
The state is numbers that JSON writes exactly, so a resumed run decides as the uninterrupted one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

MOST_IN_A_ROW = 10
"""Skipped steps: finite ones before a new level is accepted, others before `is_hopeless`."""


class SpikeGuard:
    """Asked before every update with `is_spike`, told of every accepted one with `add`."""

    def __init__(self, sigma: float | None, window: int = 128) -> None:
        """`sigma` None: only what is not finite is a spike."""
        self._sigma, self._window = sigma, window
        self._losses: deque[float] = deque(maxlen=window)
        self._norms: deque[float] = deque(maxlen=window)
        self._skipped = self._not_finite = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether the last ten steps were not finite."""
        return self._not_finite >= MOST_IN_A_ROW

    def is_spike(self, loss: float, grad_norm: float) -> bool:
        """Whether the step must change nothing. Finite spikes in a row are counted, and those that are not finite."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self._not_finite += 1
            return True
        self._not_finite = 0
        if self._sigma is None or not (self._is_far(self._losses, loss) or self._is_far(self._norms, grad_norm)):
            return False
        if self._skipped >= MOST_IN_A_ROW:
            self.forget()
            return False
        self._skipped += 1
        return True

    def add(self, loss: float, grad_norm: float) -> None:
        """Remember the values of an accepted step."""
        self._skipped = 0
        self._losses.append(loss)
        self._norms.append(grad_norm)

    def forget(self) -> None:
        """Start anew, as at the join of two stages with different data."""
        self._skipped = 0
        self._losses.clear()
        self._norms.clear()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs; floats survive JSON exactly."""
        return {
            "losses": list(self._losses),
            "grad_norms": list(self._norms),
            "skipped": self._skipped,
            "not_finite": self._not_finite,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as the guard was whose `state()` this is."""
        self._losses = deque(state["losses"], maxlen=self._window)
        self._norms = deque(state["grad_norms"], maxlen=self._window)
        self._skipped = int(state["skipped"])
        self._not_finite = int(state.get("not_finite", 0))  # older checkpoints do not have it

    def _is_far(self, values: Sequence[float], value: float) -> bool:
        if len(values) < self._window or self._sigma is None:
            return False
        # fsum is exact, so the order of the values and the platform make no difference.
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in values) / len(values))
        return value > mean + self._sigma * deviation
