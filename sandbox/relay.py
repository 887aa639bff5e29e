"""Tests that are code: a judge's process runs them, the candidate's process answers, and this one carries the words.

Both are contained, and neither sees the other: the judge gets plain values and the names of built-in exceptions, the
candidate gets arguments one call at a time. What the candidate sends is handed on as text trees, never as objects of
its own; equality is decided in the judge. A judge's process never becomes a candidate's, nor the other way round. It
keeps the tests of an item for the next answer to it (`examiner.py`).
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import marshal
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import values
from .endings import Ended, SandboxError
from .examiner import FLOOD, OUT_OF_TIME
from .limits import Limits
from .process import Contained, Plan, contained
from .trials import AssertTests, CheckTests

TESTS_CPU_SECONDS = 10
"""Of the tests of one trial, without the candidate. References show that they need far less."""

MOST_TRIALS = 500
"""After so many a judge's process is replaced: we keep what it answered, see `talk.py`."""

_LONG = 7 * 24 * 3600.0
_LIMITS = Limits(cpu_seconds=_LONG, wall_seconds=_LONG, output_bytes=1 << 40)
"""Of a judge's process; the trials in it have limits of their own."""

_BOOT = """
import gc, marshal
import collections, copy, functools, hashlib, heapq, itertools, math, random, re, string, typing  # as tests do
def boot(codes):
    values, examiner = ({"__name__": name} for name in ("values", "examiner"))
    exec(marshal.loads(codes[0]), values)
    exec(marshal.loads(codes[1]), examiner)
    def serve():
        examiner["serve"](values["encode"], values["decode"])
    globals().update(serve=serve)
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and copy, all pages
"""
_RAISED = re.compile(r"(\w+): (.*?)(?: \(line \d+\))?", re.DOTALL)


_DRIVEN = {OUT_OF_TIME: "timeout", FLOOD: "output_flood"}
"""Exit status of a judge's process → outcome, if answers had come before."""


class Examiner:
    """A judge's process, started when it is first needed; to be closed, or used in a `with` statement.

    Not to be shared by threads: the process is set to end with the thread that started it.
    """

    def __init__(self, plan: Plan):
        # The tests of an item are a child, so that starting processes cannot be forbidden: they are not the adversary.
        self._plan = replace(plan, no_processes=False)
        self._stack = contextlib.ExitStack()
        self._process: Contained | None = None
        self._trials = 0
        self._tests: CheckTests | AssertTests | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next examination starts another."""
        self._process = self._tests = None
        self._trials = 0
        self._stack.close()

    def examine(self, tests: CheckTests | AssertTests, candidate: Contained) -> tuple[str, str]:
        """(status, detail): passed, wrong or exception, or what the candidate ended by. It must be loaded already.

        Raises:
            SandboxError: if the judge's process fails, or the tests do before the candidate has answered anything.
                Later, their limits are reached because of the answers: with those of the reference they were not.
        """
        if self._trials >= MOST_TRIALS:
            self.close()
        process = self._process or self._started()
        self._trials += 1
        answers = 0
        reply: list[Any] = []
        try:
            event = self._begin(process, tests)
            while "call" in event:
                reply = _reply(candidate, event)
                answers += 1
                event = _ask(process, "resume", reply[:3])
        except _CandidateEnded as ended:
            self._leave(process)
            return ended.status, ended.detail
        except Ended as ended:
            word = _DRIVEN.get(process.finish().end.code)
            self.close()
            if answers and word:
                return word, "in the tests, driven there by its answers"
            raise SandboxError(f"the tests ended without a verdict: {word or ended.detail}") from ended
        except BaseException:
            self.close()
            raise
        if event["done"] == "raised":
            return "exception", reply[3]
        return str(event["done"]), str(event["detail"])

    def _started(self) -> Contained:
        try:
            process = self._stack.enter_context(contained(self._plan, _LIMITS))
            process.ask({"module": "judge", "source": _BOOT})
            process.ask({"entry_point": "boot", "args": [_codes()], "kwargs": {}})
            process.ask({"entry_point": "serve", "hands_over": True})
        except BaseException as error:
            self.close()
            if isinstance(error, Ended):
                raise SandboxError(f"the judge's process did not start: {error.detail}") from error
            raise
        self._process = process
        return process

    def _begin(self, process: Contained, tests: CheckTests | AssertTests) -> Any:
        """To the first event; tests that are there already are kept."""
        if tests == self._tests:
            return _ask(process, "again")
        if self._tests is not None:
            self._leave(process)
        event = _ask(process, "tests", TESTS_CPU_SECONDS, *_settings(tests))
        self._tests = tests
        return event

    def _leave(self, process: Contained) -> None:
        """End the tests that are there, wherever they are."""
        self._tests = None
        _ask(process, "leave")


def _ask(process: Contained, entry_point: str, *args: Any) -> Any:
    return process.ask({"entry_point": entry_point, "args": list(args)})


class _CandidateEnded(Exception):
    """The candidate will not answer again, or must not pass."""

    def __init__(self, status: str, detail: str):
        super().__init__(status, detail)
        self.status, self.detail = status, detail


def _reply(candidate: Contained, event: dict[str, Any]) -> list[Any]:
    """The candidate's answer to a call, as `resume` brings it; behind an error also its words with the line."""
    call = {
        "entry_point": event["call"],
        "args": values.decode(event["args"]),
        "kwargs": values.decode(event["kwargs"]),
    }
    try:
        return ["value", candidate.ask(call)]
    except Ended as ended:
        raised = _RAISED.fullmatch(ended.detail) if ended.alive and ended.status == "exception" else None
        if raised is None:
            raise _CandidateEnded(ended.status, ended.detail) from None
        return ["error", raised[1], raised[2], ended.detail]


def _settings(tests: CheckTests | AssertTests) -> list[Any]:
    """The arguments of `examiner.Examination` from the fourth on."""
    if isinstance(tests, CheckTests):
        return [tests.setup, [tests.source], [tests.entry_point], [], tests.entry_point]
    functions, modules = free_names(tests)
    return [tests.setup, list(tests.statements), functions, modules, ""]


def free_names(tests: AssertTests) -> tuple[list[str], list[str]]:
    """(functions, modules) that statements use and nobody defines; modules are the standard library's."""
    trees = [tree for part in (tests.setup, *tests.statements) if (tree := _parse(part)) is not None]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {*dir(builtins), *_defined(nodes)}
    bases = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    free = {node.id for node in nodes if isinstance(node, ast.Name)} - defined
    modules = free & bases & sys.stdlib_module_names
    return sorted({*(free - modules), *tests.functions}), sorted(modules)


def _defined(nodes: Iterable[ast.AST]) -> Iterable[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _parse(source: str) -> ast.AST | None:
    """None for what cannot be parsed: the judge's process will say so."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


@cache
def _codes() -> list[bytes]:
    """`values.py` and `examiner.py`, compiled: the contained process cannot read our files."""
    folder = Path(__file__).parent
    return [
        marshal.dumps(compile((folder / name).read_text(encoding="utf-8"), f"<{name}>", "exec", dont_inherit=True))
        for name in ("values.py", "examiner.py")
    ]
