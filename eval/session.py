"""One evaluation in progress: a model, its records, and the three questions with resume put around them.

A kind of task (`eval/kinds/`) asks through the session, never the backend itself: what the records hold is not asked
again, what is new is recorded batch by batch. Requests are sorted by item id before they are batched, so the order of
a data file changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import polars as pl

from ..config import EvalConfig
from ..sandbox.run import Outcome
from ..strict import fingerprint
from .backends.protocol import Backend, Continuation, Generated, Generation, Likelihood, Progress, Sampling, Scored
from .records import Records
from .tasks.items import Item
from .tasks.task import Task

R = TypeVar("R")


@dataclass
class Session:
    """What a kind of task works with.

    Attributes:
        documents: held-out documents; None if there are none.
        workers: contained processes at a time.
        judge: the model that compares answers; None if no task needs one.
        baseline: (task, item id) → answer, for tasks that compare two models' answers.
    """

    backend: Backend
    records: Records
    config: EvalConfig
    documents: pl.DataFrame | None = None
    workers: int = 1
    judge: Backend | None = None
    baseline: Mapping[tuple[str, str], str] = field(default_factory=dict)
    _progress: Progress | None = None
    _shares: tuple[float, ...] = (1.0,)
    _asked: int = 0

    def begin(self, progress: Progress | None, shares: Sequence[float] = (1.0,)) -> None:
        """Begin a task: what is told its fraction, and the share of its time that each question takes."""
        self._progress, self._shares, self._asked = progress, tuple(shares), 0

    def loglikelihood(
        self, task: Task, requests: Sequence[Continuation], names: Sequence[str], backend: Backend | None = None
    ) -> list[Scored]:
        """Likelihoods; `names` tell the requests of the task apart and are unique."""
        backend = backend or self.backend
        keys = [
            self._key(task, backend, "loglikelihood", name, asdict(each))
            for name, each in zip(names, requests, strict=True)
        ]
        return self._ask(keys, names, requests, backend.loglikelihood, Scored)

    def rolling(
        self, task: Task, texts: Sequence[str], names: Sequence[str], max_tokens: int | None = None
    ) -> list[Likelihood]:
        """Likelihoods of whole texts."""
        keys = [
            self._key(task, self.backend, "rolling", name, [text, max_tokens])
            for name, text in zip(names, texts, strict=True)
        ]

        def ask(some: Sequence[str], done: Any, known: Any) -> list[Likelihood | None]:
            return self.backend.rolling(some, max_tokens, done, known)

        return self._ask(keys, names, texts, ask, Likelihood)

    def room(self, asked: int, share: int = 2, backend: Backend | None = None) -> int:
        """Tokens that an answer may have: as asked, but at most one `share`-th of the model's window.

        So a task for large models asks a small one for shorter answers, and its prompts keep their room.
        """
        window = (backend or self.backend).facts.get("context_tokens")
        return asked if window is None else min(asked, max(1, window // share))

    def generate(
        self, task: Task, requests: Sequence[Generation], sampling: Sampling, backend: Backend | None = None
    ) -> list[Generated]:
        """Answers; a request's key and sample tell it apart. At most half of the model's window is for the answer."""
        backend = backend or self.backend
        sampling = replace(sampling, max_new_tokens=self.room(sampling.max_new_tokens, backend=backend))
        names = [f"{each.key}\0{each.sample:06d}" for each in requests]
        keys = [
            self._key(task, backend, "generate", name, [asdict(each), asdict(sampling)])
            for name, each in zip(names, requests, strict=True)
        ]

        def ask(some: Sequence[Generation], done: Any, known: Any) -> list[Generated | None]:
            return backend.generate(some, sampling, done, known)

        return self._ask(keys, names, requests, ask, Generated)

    def outcomes(
        self,
        task: Task,
        judge: Callable[[Sequence[int], Callable[[int, Outcome], None]], object],
        trials: Sequence[Any],
    ) -> list[Outcome]:
        """Outcomes of programs. `trials`: all that decides each, as plain values; equal ones are judged once.

        Args:
            judge: gets the positions that are not known yet, and a function that takes each outcome as it comes.
        """
        keys = [fingerprint("outcome", task.fingerprint, trial) for trial in trials]
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        todo = sorted(position for key, position in first.items() if self.records.get(key) is None)
        tell, finished = self._next(), len(first) - len(todo)

        def done(position: int, outcome: Outcome) -> None:
            nonlocal finished
            self.records.put([keys[position]], [asdict(outcome)])
            finished += 1
            tell(finished / len(first))

        if todo:
            judge(todo, done)
        return [Outcome(**self.records.get(key)) for key in keys]  # type: ignore[arg-type]

    def chosen(self, items: Sequence[Item]) -> list[Item]:
        """The items to ask; see `chosen_items`."""
        return chosen_items(items, self.config)

    def _next(self) -> Progress:
        """Takes the fraction of the next question that is done."""
        progress, begin = self._progress, sum(self._shares[: self._asked])
        share = self._shares[self._asked] if self._asked < len(self._shares) else 0.0
        self._asked += 1
        if progress is None:
            return lambda fraction: None
        return lambda fraction: progress(min(1.0, begin + share * fraction))

    def _key(self, task: Task, backend: Backend, what: str, name: str, request: Any) -> str:
        return fingerprint(what, backend.identity, task.fingerprint, name, request)

    def _ask(
        self,
        keys: Sequence[str],
        names: Sequence[str],
        requests: Sequence[Any],
        ask: Callable[[Sequence[Any], Any, Any], list[R | None]],
        result: type[R],
    ) -> list[R]:
        order = sorted(range(len(names)), key=names.__getitem__)
        known = {place for place, position in enumerate(order) if self.records.get(keys[position]) is not None}
        tell, finished = self._next(), len(known)

        def done(places: Sequence[int], results: Sequence[R]) -> None:
            nonlocal finished
            self.records.put([keys[order[place]] for place in places], [asdict(each) for each in results])  # type: ignore[call-overload]
            finished += sum(place not in known for place in places)
            tell(finished / len(order))

        if len(known) < len(order):
            ask([requests[position] for position in order], done, known)
        return [result(**self.records.get(key)) for key in keys]  # type: ignore[arg-type]


def chosen_items(items: Sequence[Item], config: EvalConfig) -> list[Item]:
    """All items, or the first `max_items` by a hash of their ids; sorted by id.

    Raises:
        ValueError: if there are none.
    """
    if not items:
        raise ValueError("the task has no items")
    if config.max_items is not None:
        items = sorted(items, key=lambda item: fingerprint(config.seed, item.id))[: config.max_items]
    return sorted(items, key=lambda item: item.id)
