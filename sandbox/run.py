"""Runs untrusted Python: whole programs, or calls of one function, each in a contained process of its own.

`run_program` gives a program its standard input and returns what it printed. `call` loads a source, calls a function
of it with plain values and returns plain values. Both return how it went and the level of containment; neither raises
for anything that the code does. A run costs about two starts of the interpreter.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import containment, values
from .limits import DEFAULT_LIMITS, Limits
from .process import Plan, converse
from .talk import SandboxError, Transcript

__all__ = ["OUTCOMES", "Called", "Limits", "Outcome", "SandboxError", "call", "describe", "run_program"]

OUTCOMES = (
    "passed", "wrong", "exception", "timeout", "memory", "output_flood", "violation", "syntax_error", "empty", "ok",
)  # fmt: skip
"""`passed` and `wrong` come from a judge with tests; `ok` is a program or calls that ran to their end."""

KEPT_OUTPUT_BYTES = 64 * 2**10
"""Of what functions print; of programs all is kept, up to the limit."""

_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_NEAR_THE_LIMIT = 0.9


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        status: one of `OUTCOMES`.
        detail: why, for people; may quote the candidate.
        stdout: what it printed, undecodable bytes replaced.
        cpu_seconds: of the program and of its children that have ended.
        wall_seconds: from its start to its end.
        level: of containment, see `containment.py`; 0 if nothing was run.
    """

    status: str
    detail: str
    stdout: str
    cpu_seconds: float
    wall_seconds: float
    level: int


@dataclass(frozen=True)
class Called:
    """What calls returned: trees in the form of `values.py`, one for each call until the first that failed.

    Compare them by `values.canonical`; `values.decode` makes Python values of them.
    """

    outcome: Outcome
    returned: tuple[Any, ...]


def run_program(
    source: str, stdin: str = "", limits: Limits = DEFAULT_LIMITS, required_level: int = 1, level: int | None = None
) -> Outcome:
    """Run `source` as a program: `ok` if it ran to its end or left by `sys.exit(0)`.

    Args:
        required_level: an error if this host gives less.
        level: exactly this one instead of the best, to compare or to test.

    Raises:
        SandboxError: if the sandbox failed; never because of what the program does.
    """
    plan = _plan(required_level, level)
    request = {"module": "__main__", "source": source}
    transcript = converse(plan, limits, [request], stdin.encode("utf-8", "surrogatepass"))
    return _outcome(plan, limits, transcript, 1, limits.output_bytes)


def call(
    source: str,
    entry_point: str,
    calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]],
    limits: Limits = DEFAULT_LIMITS,
    required_level: int = 1,
    level: int | None = None,
) -> Called:
    """Load `source` and call `entry_point` with each (positional, keyword) arguments, one after the other.

    All calls share one process and its limits. Arguments are copied by value, and so are the results. For the other
    arguments and errors see `run_program`.

    Raises:
        ValueError: if an argument is not plain data.
        SandboxError: if the sandbox failed.
    """
    plan = _plan(required_level, level)
    requests: list[dict[str, Any]] = [{"module": "solution", "source": source}]
    for args, kwargs in calls:
        plain = [values.decode(json.loads(values.encode(each))) for each in (list(args), dict(kwargs))]
        requests.append({"entry_point": entry_point, "args": plain[0], "kwargs": plain[1]})
    transcript = converse(plan, limits, requests)
    return Called(
        _outcome(plan, limits, transcript, len(requests), KEPT_OUTPUT_BYTES), transcript.values[1 : len(requests)]
    )


def describe() -> dict[str, Any]:
    """What this host can enforce; see `containment.describe`."""
    return containment.describe()


def _plan(required_level: int, level: int | None) -> Plan:
    return containment.best(required_level) if level is None else containment.plan_of_level(level)


def _outcome(plan: Plan, limits: Limits, transcript: Transcript, expected: int, kept_bytes: int) -> Outcome:
    status, detail = _status(limits, transcript, expected)
    stdout = transcript.stdout[:kept_bytes].decode("utf-8", "replace")
    return Outcome(status, detail, stdout, transcript.end.cpu_seconds, transcript.end.wall_seconds, plan.level)


def _status(limits: Limits, transcript: Transcript, expected: int) -> tuple[str, str]:
    """(status, detail). What the candidate says of itself only ever speaks against it."""
    end = transcript.end
    answered = len(transcript.values)
    if transcript.trouble:
        return transcript.trouble
    if transcript.error:
        return transcript.error
    if end.how == "cpu":
        return "timeout", f"used more than {limits.cpu_seconds:g} s of CPU time"
    if end.how == "wall":
        return "timeout", f"did not end within {limits.wall:g} s"
    if end.how == "stopped":
        return "violation", "stopped itself"
    if end.how == "signal":
        return _signalled(limits, end.code, end.peak_bytes)
    if end.how != "exit":
        return "violation", "ended its supervisor"
    if answered < expected:
        when = "while it was loaded" if answered == 0 else f"in call {answered}"
        return "violation", f"ended its process {when} (exit status {end.code})"
    if end.processes_left:
        return "violation", "left processes behind"
    return "ok", ""


def _signalled(limits: Limits, number: int, peak_bytes: int) -> tuple[str, str]:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    if number == signal.SIGXCPU:
        return "timeout", f"used more than {limits.cpu_seconds:g} s of CPU time"
    if number in {signal.SIGKILL, *_CRASHES} and peak_bytes > _NEAR_THE_LIMIT * limits.memory_bytes:
        return "memory", f"ended by {name} at {peak_bytes} bytes"
    if number in _CRASHES:
        return "exception", f"crashed: {name}"
    return "violation", f"ended by {name}"
