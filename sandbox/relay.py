"""Tests that are code: a judge's process runs them, the candidate's process answers, and this one carries the words.

Both are contained, and neither sees the other: the judge gets plain values and the names of exceptions, the candidate
gets arguments one call at a time. What either sends is handed on as text trees and never made into objects here;
equality is decided in the judge. A judge's process never becomes a candidate's, nor the other way round. It keeps the
tests of an item for the next answer to it (`examiner.py`).

Tests that end their own process once an answer has come are tried again in a fresh one, with the candidate in a fresh
one too. If they do so again, the answer drove them there: that is its outcome, and other answers are judged.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import marshal
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeGuard

from .endings import End, Ended, SandboxError, printable
from .examiner import FLOOD, OUT_OF_TIME
from .limits import Limits
from .process import Contained, Plan, contained
from .trials import AssertTests, CheckTests

TESTS_CPU_SECONDS = 10
"""Of the tests of one trial, without the candidate. References show that they need far less."""

MOST_TRIALS = 500
"""After so many a judge's process is replaced, for what tests of so many items may have left in memory."""

_LONG = 7 * 24 * 3600.0
_LIMITS = Limits(cpu_seconds=_LONG, wall_seconds=_LONG, output_bytes=1 << 40)
"""Of a judge's process; the trials in it have limits of their own."""

_MODULES = ("plain", "objects", "examiner")

_BOOT = """
import gc, marshal, sys, types
import collections, copy, functools, hashlib, heapq, itertools, math, random, re, string, typing  # as tests do
def boot(names, codes):
    modules = {name: types.ModuleType(f"judging.{name}") for name in names}
    sys.modules.update({module.__name__: module for module in modules.values()})
    for module, code in zip(modules.values(), codes):
        module.__package__ = "judging"
        exec(marshal.loads(code), vars(module))
    for module in modules.values():
        del sys.modules[module.__name__]  # they are none of the tests'
    def serve():
        plain, objects, examiner = modules.values()
        examiner.serve(plain.encode, plain.decode, objects.Objects)
    globals().update(serve=serve)
    gc.collect()
    gc.freeze()  # so that a collection in a child does not touch, and copy, all pages
"""

_DRIVEN = {OUT_OF_TIME: "timeout", FLOOD: "output_flood"}
"""Exit status of a judge's process → outcome, if answers had come before."""

_DRIVEN_BY = "driven there by its answers"

_DONE = frozenset({"passed", "wrong", "exception", "memory", "violation", "raised"})


class TestsDied(SandboxError):
    """The tests ended their process after an answer had come: because of it, or not."""

    __test__ = False  # not one of pytest's


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

    def examine(self, tests: CheckTests | AssertTests, candidate: Contained, has_died: bool = False) -> tuple[str, str]:
        """(status, detail): what the tests found, or what the candidate ended by. It must be loaded already.

        Args:
            has_died: the tests have ended their process with this program once already.

        Raises:
            TestsDied: if they do it for the first time, after this program or one before has answered.
            SandboxError: if the judge's process fails, or the tests do before the candidate has answered anything.
                Later, their limits are reached because of the answers: with those of the reference they were not.
        """
        if self._trials >= MOST_TRIALS:
            self.close()
        if self._tests is not None and self._tests != tests:
            self._leave()
        are_kept = self._tests is not None  # from an earlier answer
        process = self._process or self._started()
        self._trials += 1
        answers = 0
        detail = ""  # of what the candidate raised last
        try:
            event = _event(process, "again") if are_kept else _event(process, "tests", *_settings(tests))
            self._tests = tests
            while "call" in event:
                reply = _reply(candidate, event)
                answers += 1
                detail = printable(reply.get("detail", ""))
                event = _event(process, "resume", reply)
        except _CandidateEnded as ended:
            self._leave()
            return ended.status, ended.detail
        except (Ended, _Garbled) as error:
            word = _end_word(process.finish().end) if isinstance(error, Ended) else ""
            self.close()
            if answers and word:
                return word, f"in the tests, {_DRIVEN_BY}"
            if answers and has_died:
                return "exception", f"the tests ended their process, {_DRIVEN_BY}"
            if answers or are_kept:
                raise TestsDied(f"the tests ended without a verdict, after an answer had come: {error}") from error
            raise SandboxError(f"the tests ended without a verdict: {word or error}") from error
        except BaseException:
            self.close()
            raise
        if event["done"] == "raised":
            return "exception", detail
        return event["done"], event["detail"]

    def _started(self) -> Contained:
        try:
            process = self._stack.enter_context(contained(self._plan, _LIMITS))
            process.ask({"module": "judge", "source": _BOOT})
            process.ask({"entry_point": "boot", "args": [list(_MODULES), _codes()], "kwargs": {}})
            process.ask({"entry_point": "serve", "hands_over": True})
        except BaseException as error:
            self.close()
            if isinstance(error, Ended):
                raise SandboxError(f"the judge's process did not start: {error.detail}") from error
            raise
        self._process = process
        return process

    def _leave(self) -> None:
        """End the tests that are there, wherever they are."""
        self._tests = None
        try:
            if self._process is not None:
                _ask(self._process, "leave")
        except Ended:  # they have already, and their process with them
            self.close()


def _ask(process: Contained, entry_point: str, *args: Any) -> Any:
    return process.ask({"entry_point": entry_point, "args": list(args), "kept": False})


def _event(process: Contained, entry_point: str, *args: Any) -> dict[str, Any]:
    """What the tests say next.

    Raises:
        Ended: if their process has.
    """
    event = _ask(process, entry_point, *args)
    if isinstance(event, dict):
        if event.keys() == {"call", "args", "kwargs"} and isinstance(event["call"], str):
            return event
        texts = [event.get("done"), event.get("detail")]
        if len(event) == 2 and all(isinstance(text, str) for text in texts) and event["done"] in _DONE:
            return event
    raise _Garbled("the tests said what they cannot say")


def _end_word(end: End) -> str:
    """The outcome that the limits of the judge's process stand for; "" if it ended otherwise."""
    if end.how == "memory":
        return "memory"
    return _DRIVEN.get(end.code, "") if end.how == "exit" else ""


class _Garbled(Exception):
    """Code of the tests evaluates what the candidate answered: their process is not ours any more."""


class _CandidateEnded(Exception):
    """The candidate will not answer again, or must not pass."""

    def __init__(self, status: str, detail: str):
        super().__init__(status, detail)
        self.status, self.detail = status, detail


def _reply(candidate: Contained, event: dict[str, Any]) -> dict[str, Any]:
    """The candidate's reply to a call, see `worker.py`; nothing in it is trusted but that it has this form."""
    call = {"entry_point": event["call"], "args": event["args"], "kwargs": event["kwargs"]}
    try:
        reply = candidate.ask({**call, "in_full": True, "kept": False})
    except Ended as ended:
        raise _CandidateEnded(ended.status, ended.detail) from None
    if not _is_reply(reply):
        raise _CandidateEnded("violation", "wrote to the channel of answers what is no reply")
    return reply


def _is_reply(reply: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(reply, dict):
        return False
    if reply.keys() == {"value", "changed"}:
        return True
    if reply.keys() != {"raised", "args", "text", "detail", "changed"}:
        return False
    names, texts = reply["raised"], [reply["text"], reply["detail"]]
    return isinstance(names, list) and bool(names) and all(isinstance(text, str) for text in [*names, *texts])


def _settings(tests: CheckTests | AssertTests) -> list[Any]:
    """The arguments of `examiner.Examination` from the fifth on."""
    if isinstance(tests, CheckTests):
        return [TESTS_CPU_SECONDS, tests.setup, [tests.source], [tests.entry_point], [], tests.entry_point]
    functions, modules = free_names(tests)
    return [TESTS_CPU_SECONDS, tests.setup, list(tests.statements), functions, modules, ""]


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
    """`_MODULES`, compiled: the contained process cannot read our files."""
    texts = {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    return [marshal.dumps(compile(text, f"<{name}.py>", "exec", dont_inherit=True)) for name, text in texts.items()]
