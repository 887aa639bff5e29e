"""The judge: decides on a solution by what its function returns for arguments that it sees one at a time.

Tests are data (arguments and the expected value, in the form of `values.py`); they stay in this process, and the
candidate runs in another. Equality is decided here on plain values, so an object that claims to equal everything
cannot pass: it is no plain value. A solution passes if every answer is right and its process ended in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from . import values
from .limits import DEFAULT_LIMITS, Limits
from .run import Outcome, call


@dataclass(frozen=True)
class Test:
    """One call. All three in the form of `values.py`: plain JSON, with `{"$tuple": [..]}` and the like."""

    __test__ = False  # not one of pytest's

    args: Sequence[Any]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A solution and the tests that it must pass."""

    source: str
    entry_point: str
    tests: Sequence[Test]


def parse_tests(data: object, where: str) -> tuple[Test, ...]:
    """Tests from parsed JSON: a list of `{"args": [..], "kwargs"?: {..}, "expected": ..}`.

    Raises:
        ValueError: that names `where`, the test and the field.
    """
    if not isinstance(data, list) or not data:
        raise ValueError(f"{where}: tests: expected a list with at least one test (got {values.show(data)})")
    return tuple(_parse_test(item, f"{where}: tests: {number}") for number, item in enumerate(data))


def judge(trial: Trial, limits: Limits = DEFAULT_LIMITS, required_level: int = 1, level: int | None = None) -> Outcome:
    """Run all tests in one contained process; the first that fails decides.

    Raises:
        SandboxError: if the sandbox failed; never because of what the solution does.
    """
    if is_empty(trial.source):
        return Outcome("empty", "no code", "", 0.0, 0.0, 0)
    calls = [(_decoded(test.args), _decoded(test.kwargs)) for test in trial.tests]
    called = call(trial.source, trial.entry_point, calls, limits, required_level, level)
    if called.outcome.status in {"output_flood", "violation"}:
        return called.outcome
    for number, (test, returned) in enumerate(zip(trial.tests, called.returned, strict=False)):
        if not _same(test.expected, returned):
            detail = f"test {number}: expected {values.show(test.expected)}, got {values.show(returned)}"
            return replace(called.outcome, status="wrong", detail=detail)
    return replace(called.outcome, status="passed") if called.outcome.status == "ok" else called.outcome


def judge_all(
    trials: Sequence[Trial],
    limits: Limits = DEFAULT_LIMITS,
    workers: int = 1,
    required_level: int = 1,
    rerun_timeouts: bool = True,
    progress: Callable[[float], None] | None = None,
) -> list[Outcome]:
    """Outcomes in the order of `trials`, whatever the number of workers.

    Args:
        workers: contained processes at a time.
        rerun_timeouts: a timeout is judged again when nothing else runs, and the second outcome counts.
        progress: called with the fraction done.
    """

    def one(trial: Trial) -> Outcome:
        return judge(trial, limits, required_level)

    outcomes = []
    for outcome in _in_order(one, trials, workers):
        outcomes.append(outcome)
        if progress is not None:
            progress(len(outcomes) / len(trials))
    if rerun_timeouts:
        for number, outcome in enumerate(outcomes):
            if outcome.status == "timeout":
                outcomes[number] = one(trials[number])
    return outcomes


def is_empty(source: str) -> bool:
    """Whether there is nothing but blank lines and comments."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())


def _in_order(one: Callable[[Trial], Outcome], trials: Sequence[Trial], workers: int) -> Iterable[Outcome]:
    if workers <= 1:
        yield from map(one, trials)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(one, trials)
    finally:
        pool.shutdown(cancel_futures=True)


def _same(expected: Any, returned: Any) -> bool:
    try:
        return values.canonical(returned) == values.canonical(expected)
    except (ValueError, OverflowError):
        return False  # not in the form of values.py: the candidate wrote it past the worker


def _decoded(tree: Any) -> Any:
    return values.decode(tree)


def _parse_test(item: object, where: str) -> Test:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected an object (got {values.show(item)})")
    unknown = sorted(item.keys() - {"args", "kwargs", "expected"})
    if unknown:
        raise ValueError(f'{where}: unknown field "{unknown[0]}"; known: args, kwargs, expected')
    for name in ("args", "expected"):
        if name not in item:
            raise ValueError(f'{where}: field "{name}" is missing')
    args, kwargs = item["args"], item.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError(f"{where}: args must be a list and kwargs an object")
    for name, tree in (("args", args), ("kwargs", kwargs), ("expected", item["expected"])):
        try:
            values.decode(tree)
            values.canonical(tree)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{where}: {name}: {error}") from error
    return Test(args, item["expected"], kwargs)
