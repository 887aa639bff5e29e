"""What came out of a contained process, and the word for how it ended.

`status` turns a transcript into one of the outcomes of `run.OUTCOMES` (less the judge's own `passed` and `wrong` by
comparison). What a candidate says of itself only ever speaks against it: an end in order is reported by its supervisor.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from .limits import Limits

_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
_NEAR_THE_LIMIT = 0.9


class SandboxError(RuntimeError):
    """The sandbox itself failed, or this host cannot give the level that is required. Never a verdict."""


class Ended(Exception):
    """A request was not answered by a value.

    Attributes:
        status: one of `run.OUTCOMES`.
        detail: why, for people; may quote the candidate.
        alive: the process answered (by an exception, a value that is not plain, ..) and can be asked again.
    """

    def __init__(self, status: str, detail: str, alive: bool = False):
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.alive = alive


@dataclass(frozen=True)
class End:
    """How a contained process ended: by exit or signal, or because of cpu, wall, stopped, asked, memory."""

    how: str
    code: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0
    processes_left: int = 0


@dataclass(frozen=True)
class Transcript:
    """What came out of one contained process.

    Attributes:
        values: parsed trees (see `values.py`), one for each request that was answered with a value, unless that request
            said that it is not to be kept.
        error: (status, detail) of the latest answer, if that was not a value.
        trouble: (status, detail) where the judge ended it: output_flood or violation.
        stdout: what it printed.
        stderr: of a command, the beginning and the end of what it wrote there; of Python nothing is kept.
        end: how it ended.
        answered: requests that were answered with a value.
        is_program: the first request was a program, which may end its process whenever it wants.
    """

    values: tuple[Any, ...]
    error: tuple[str, str] | None
    trouble: tuple[str, str] | None
    stdout: bytes
    stderr: bytes
    end: End
    answered: int
    is_program: bool


def status(limits: Limits, transcript: Transcript, expected: int) -> tuple[str, str]:
    """(status, detail) of a process from which `expected` answers with a value were asked.

    One answer of a program: then its exit status counts, as with programs in other languages.
    """
    end, answered = transcript.end, transcript.answered
    if transcript.trouble:
        return transcript.trouble
    if transcript.error:
        return transcript.error
    if end.how == "cpu":
        return "timeout", f"used more than {limits.cpu_seconds:g} s of CPU time"
    if end.how == "wall":
        return "timeout", f"did not end within {limits.wall:g} s"
    if end.how == "memory":
        return "memory", f"its processes together took more than {limits.memory_bytes} bytes"
    if end.how == "stopped":
        return "violation", "stopped itself"
    if end.how == "signal":
        return _signalled(limits, end.code, end.peak_bytes)
    if end.how != "exit":
        return "violation", "ended its supervisor"
    if transcript.is_program and expected == 1:
        if end.code:
            return "exception", f"exit status {end.code}"
    elif answered < expected:
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


def printable(text: str) -> str:
    """Text of a candidate's, for people: short, and on one line."""
    return "".join(each if each.isprintable() else " " for each in text[:500])
