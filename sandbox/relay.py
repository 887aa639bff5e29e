"""Tests that are code: a judge's process runs them, the candidate's process answers, and this one carries the words.

Both are contained, and neither sees the other: the judge gets plain values and the names of built-in exceptions, the
candidate gets arguments one call at a time. What the candidate sends is handed on as text trees, never as objects of
its own; equality is decided in the judge. A judge's process never becomes a candidate's, nor the other way round. It
serves many trials, each in a child (`examiner.py`): 2 ms a trial, and about 0.3 ms a call.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import marshal
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import values
from .endings import Ended, SandboxError
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
    def start(cpu_seconds, *settings):
        return examiner["start"](cpu_seconds, values["encode"], values["decode"], *settings)
    globals().update(start=start, resume=examiner["resume"])
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and copy, all pages
"""
_RAISED = re.compile(r"(\w+): (.*?)(?: \(line \d+\))?", re.DOTALL)


class Examiners:
    """Judges' processes, for use by several threads; to be closed, or used in a `with` statement."""

    def __init__(self, plan: Plan, ready: int = 0):
        """`ready` of them are started now, the others when they are needed."""
        # Each trial is a child, so that starting processes cannot be forbidden here. The tests are not the adversary.
        self._plan = replace(plan, no_processes=False)
        self._lock = threading.Lock()
        self._idle: list[_Examiner] = []
        try:
            for _ in range(ready):
                self._idle.append(_Examiner(self._plan))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End those that are idle; those in use end with their trial."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()

    def examine(self, tests: CheckTests | AssertTests, candidate: Contained) -> tuple[str, str]:
        """(status, detail): passed, wrong or exception, or what the candidate ended by. It must be loaded already.

        Raises:
            SandboxError: if the judge's process fails, or the tests do before the candidate has answered anything.
                Later, their limits are reached because of the answers: with those of the reference they were not.
        """
        examiner = self._one()
        try:
            found = examiner.examine(tests, candidate)
        except BaseException:
            examiner.close()
            raise
        if examiner.trials >= MOST_TRIALS:
            examiner.close()
        else:
            with self._lock:
                self._idle.append(examiner)
        return found

    def _one(self) -> _Examiner:
        while True:
            with self._lock:
                examiner = self._idle.pop() if self._idle else None
            if examiner is None:
                return _Examiner(self._plan)
            if examiner.thread.is_alive():
                return examiner
            examiner.close()


class _Examiner:
    """One judge's process. It ends with the thread that started it: so it is set to end with us if we are killed."""

    def __init__(self, plan: Plan):
        self.thread = threading.current_thread()
        self.trials = 0
        self._stack = contextlib.ExitStack()
        try:
            self._process = self._stack.enter_context(contained(plan, _LIMITS))
            self._process.ask({"module": "judge", "source": _BOOT})
            self._process.ask({"entry_point": "boot", "args": [_codes()], "kwargs": {}})
        except BaseException as error:
            self._stack.close()
            if isinstance(error, Ended):
                raise SandboxError(f"the judge's process did not start: {error.detail}") from error
            raise

    def close(self) -> None:
        self._stack.close()

    def examine(self, tests: CheckTests | AssertTests, candidate: Contained) -> tuple[str, str]:
        self.trials += 1
        answers = 0
        reply: list[Any] = []
        try:
            event = self._ask("start", TESTS_CPU_SECONDS, *_settings(tests))
            while "call" in event:
                reply = _reply(candidate, event)
                answers += 1
                event = self._ask("resume", reply[:3])
        except _CandidateEnded as ended:
            return ended.status, ended.detail
        except Ended as ended:
            raise SandboxError(f"the judge's process failed: {ended.status}: {ended.detail}") from ended
        if event.get("done") == "raised":
            return "exception", reply[3]
        if "done" in event:
            return str(event["done"]), str(event["detail"])
        if answers and event["died"] in {"timeout", "output_flood"}:
            return str(event["died"]), "in the tests, driven there by its answers"
        raise SandboxError(f"the tests ended without a verdict: {event['died']}")

    def _ask(self, entry_point: str, *args: Any) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(
            self._process.ask({"entry_point": entry_point, "args": list(args), "kwargs": {}})
        )
        return event


class _CandidateEnded(Exception):
    """The candidate will not answer again, or must not pass."""

    def __init__(self, status: str, detail: str):
        super().__init__(status, detail)
        self.status, self.detail = status, detail


def _reply(candidate: Contained, event: dict[str, Any]) -> list[Any]:
    """The candidate's answer to a call, for `examiner.resume`; behind an error also its words with the line."""
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
    """The arguments of `examiner.Examination` after the first two."""
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
