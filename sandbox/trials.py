"""What is judged: a program and its tests, as values. Five forms of tests, of which four keep the program apart.

`CallTests` hold arguments and expected values as data. `CheckTests` (HumanEval's `check(candidate)`) and `AssertTests`
(MBPP's statements) are Python that runs in a process of its own, where the names of the tested functions stand for
questions to the candidate. `StdioTests` compare what a program prints. `ProgramTests` (MultiPL-E) are put behind the
program and judged by how it ends, which a program can forge: that is weak, and said in every outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import values
from .limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class Test:
    """One call. All three in the form of `values.py`: plain JSON, with `{"$tuple": [..]}` and the like."""

    __test__ = False  # not one of pytest's

    args: Sequence[Any]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CallTests:
    """Calls of one function with the values that it has to return; see `parse_tests`."""

    entry_point: str
    calls: Sequence[Test]


@dataclass(frozen=True)
class CheckTests:
    """Source that defines `check(candidate)`.

    Attributes:
        setup: a program that is executed before it, for helper functions that the tests use; the entry point's name
            then stands for the candidate's function whatever the set-up defines.
    """

    entry_point: str
    source: str
    setup: str = ""


@dataclass(frozen=True)
class AssertTests:
    """Statements, executed one after the other behind `setup`.

    A function that they call and that neither Python nor the set-up nor they define is the candidate's.

    Attributes:
        functions: that are the candidate's although Python has one of that name.
    """

    statements: Sequence[str]
    setup: str = ""
    functions: Sequence[str] = ()


@dataclass(frozen=True)
class Exchange:
    """What a program gets on its standard input, and what it has to print."""

    stdin: str
    stdout: str


@dataclass(frozen=True)
class StdioTests:
    """One run of the program each.

    Attributes:
        tolerance: words that are numbers on both sides may differ by so much, absolutely or relatively; 0: as text.
    """

    exchanges: Sequence[Exchange]
    tolerance: float = 0.0


@dataclass(frozen=True)
class ProgramTests:
    """Source that is put behind the program; passed if that ends in order."""

    source: str


Tests = CallTests | CheckTests | AssertTests | StdioTests | ProgramTests


@dataclass(frozen=True)
class Trial:
    """A program and the tests that it must pass.

    Attributes:
        source: the whole program, prompt included.
        language: one of `configs/toolchains.yaml`, or an alias; other than python only for stdio and program tests.
        weak: check and assert tests run in the candidate's own process, which could forge the verdict. For tests that
            use more of the program than its functions and plain values.
    """

    source: str
    tests: Tests
    language: str = "python"
    limits: Limits = DEFAULT_LIMITS
    weak: bool = False

    @property
    def key(self) -> str:
        """Equal for equal trials."""
        return hashlib.sha256(repr(self).encode("utf-8", "surrogatepass")).hexdigest()


def parse_tests(data: object, where: str) -> tuple[Test, ...]:
    """Calls from parsed JSON: a list of `{"args": [..], "kwargs"?: {..}, "expected": ..}`.

    Raises:
        ValueError: that names `where`, the test and the field.
    """
    if not isinstance(data, list) or not data:
        raise ValueError(f"{where}: tests: expected a list with at least one test (got {values.show(data)})")
    return tuple(_parse_test(item, f"{where}: tests: {number}") for number, item in enumerate(data))


def parse_exchanges(data: object, where: str) -> tuple[Exchange, ...]:
    """Exchanges from parsed JSON: a list of `{"stdin"?: "..", "stdout": ".."}`.

    Raises:
        ValueError: that names `where`, the test and the field.
    """
    if not isinstance(data, list) or not data:
        raise ValueError(f"{where}: tests: expected a list with at least one test (got {values.show(data)})")
    found = []
    for number, item in enumerate(data):
        fields = _fields(item, f"{where}: tests: {number}", ("stdin", "stdout"), ("stdout",))
        texts = fields.get("stdin", ""), fields["stdout"]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{where}: tests: {number}: stdin and stdout must be text")
        found.append(Exchange(*texts))
    return tuple(found)


def _parse_test(item: object, where: str) -> Test:
    fields = _fields(item, where, ("args", "kwargs", "expected"), ("args", "expected"))
    args, kwargs = fields["args"], fields.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError(f"{where}: args must be a list and kwargs an object")
    for name, tree in (("args", args), ("kwargs", kwargs), ("expected", fields["expected"])):
        try:
            values.decode(tree)
            values.canonical(tree)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{where}: {name}: {error}") from error
    return Test(args, fields["expected"], kwargs)


def _fields(item: object, where: str, known: Sequence[str], required: Sequence[str]) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ValueError(f"{where}: expected an object (got {values.show(item)})")
    unknown = sorted(item.keys() - set(known))
    if unknown:
        raise ValueError(f'{where}: unknown field "{unknown[0]}"; known: {", ".join(known)}')
    for name in required:
        if name not in item:
            raise ValueError(f'{where}: field "{name}" is missing')
    return item
