"""Runs untrusted Python: whole programs, or calls of one function, each in a contained process of its own.

`run_program` gives a program its standard input and returns what it printed; `run_script` does as Python does with a
file, and returns its standard error too. `call` loads a source, calls a function of it with plain values and returns
plain values. All return how it went and the level of containment; none raises for anything that the code does. A run
costs about two starts of the interpreter, a script three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import containment, endings, values
from .endings import SandboxError, Transcript
from .limits import DEFAULT_LIMITS, Limits
from .process import Command, Plan, contained, converse, python_command
from .server import Servers

__all__ = [
    "OUTCOMES", "Called", "Limits", "Outcome", "Ran", "SandboxError", "call", "describe", "run_command", "run_program",
    "run_script",
]  # fmt: skip

OUTCOMES = (
    "passed", "wrong", "exception", "timeout", "memory", "output_flood", "violation", "syntax_error", "empty", "ok",
)  # fmt: skip
"""`passed` and `wrong` come from a judge with tests; `ok` is a program or calls that ran to their end."""

KEPT_OUTPUT_BYTES = 64 * 2**10
"""Of what functions print; of programs all is kept, up to the limit."""


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
        judge: `apart` from the program, or `weak`: in its own process, where the program could forge the verdict.
    """

    status: str
    detail: str
    stdout: str
    cpu_seconds: float
    wall_seconds: float
    level: int
    judge: str = "apart"


@dataclass(frozen=True)
class Called:
    """What calls returned: trees in the form of `values.py`, one for each call until the first that failed.

    Compare them by `values.canonical`; `values.decode` makes Python values of them.
    """

    outcome: Outcome
    returned: tuple[Any, ...]


@dataclass(frozen=True)
class Ran:
    """What a command did.

    Attributes:
        outcome: `ok` if it exited with status 0, `exception` if with another.
        exit_status: as the shell counts: 128 and the signal, if it was ended by one.
        stdout: bytes, up to the limit.
        stderr: beginning and end, for people.
        files: contents by name, of the files in its work folder that were to be kept.
    """

    outcome: Outcome
    exit_status: int
    stdout: bytes
    stderr: str
    files: dict[str, bytes]


def run_command(
    argv: Sequence[str],
    files: Mapping[str, bytes],
    stdin: bytes,
    limits: Limits,
    readable: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    required_level: int = 1,
    level: int | None = None,
    starts_processes: bool = False,
) -> Ran:
    """Run any program, contained as Python is: a compiler, what it made, another interpreter.

    Args:
        argv: the first is the path of an executable, absolute or from the work folder on (`./program`).
        files: put into the work folder first, executable; names may have folders in them.
        limits: with `memory_counts="data"` for programs that reserve much more memory than they use.
        readable: files and folders of the host that it may read and execute, beside the system's libraries.
        environment: beside HOME and TMPDIR (the work folder) and LANG; nothing is inherited.
        keep: names or patterns (`*.class`) of files directly in the work folder, handed out if they are plain files
            and together no larger than `file_bytes`.
        starts_processes: it has to, as compilers do; not all levels allow that on all hosts.

    Raises:
        SandboxError: if the sandbox failed, the executable is not there, or it could not start processes.
    """
    plan = _plan(required_level, level)
    if starts_processes and plan.no_processes:
        raise SandboxError(f"{argv[0]} starts processes, which sandbox level {plan.level} forbids on this host")
    return _run_command(plan, Command(list(argv), dict(environment or {}), list(keep)), files, stdin, limits, readable)


def run_script(
    source: bytes,
    stdin: bytes = b"",
    limits: Limits = DEFAULT_LIMITS,
    required_level: int = 2,
    name: str = "program.py",
) -> Ran:
    """Run a file as `python program.py` does: tracebacks on standard error, encoding as it declares, exit status.

    Args:
        name: under which tracebacks show it.

    Raises:
        SandboxError: if the sandbox failed, or this host gives less than `required_level`.
    """
    plan = containment.best(required_level)
    command, readable = python_command(name)
    ran = _run_command(plan, command, {name: source}, stdin, limits, readable)
    last = next((line for line in reversed(ran.stderr.splitlines()) if line.strip()), "")
    kinds = {"MemoryError": "memory", "SyntaxError": "syntax_error", "IndentationError": "syntax_error"}
    if ran.outcome.status == "exception" and ran.exit_status == 1 and last:
        status = kinds.get(last.partition(":")[0], "exception")
        return replace(ran, outcome=replace(ran.outcome, status=status, detail=last))
    return ran


def _run_command(
    plan: Plan,
    command: Command,
    files: Mapping[str, bytes],
    stdin: bytes,
    limits: Limits,
    readable: Sequence[str],
) -> Ran:
    with contained(plan, limits, stdin, command, readable) as process:
        process.start(files)
        transcript = process.finish()
        kept = process.files()
    outcome = _outcome(plan, limits, transcript, 0, limits.output_bytes)
    end = transcript.end
    exit_status = 128 + end.code if end.how == "signal" else end.code
    stderr = transcript.stderr.decode("utf-8", "replace")
    if outcome.status == "ok" and end.code:
        outcome = replace(outcome, status="exception", detail=f"exit status {end.code}")
    return Ran(outcome, exit_status, transcript.stdout, stderr, kept)


def run_program(
    source: str,
    stdin: str = "",
    limits: Limits = DEFAULT_LIMITS,
    required_level: int = 1,
    level: int | None = None,
    servers: Servers | None = None,
) -> Outcome:
    """Run `source` as a program: `ok` if it ran to its end or left by `sys.exit(0)`.

    Args:
        required_level: an error if this host gives less.
        level: exactly this one instead of the best, to compare or to test.
        servers: start it by one of these, at their level: the same for a few milliseconds.

    Raises:
        SandboxError: if the sandbox failed; never because of what the program does.
    """
    request = {"module": "__main__", "source": source}
    plan, transcript = _converse(
        limits, [request], stdin.encode("utf-8", "surrogatepass"), required_level, level, servers
    )
    return _outcome(plan, limits, transcript, 1, limits.output_bytes)


def call(
    source: str,
    entry_point: str,
    calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]],
    limits: Limits = DEFAULT_LIMITS,
    required_level: int = 1,
    level: int | None = None,
    servers: Servers | None = None,
) -> Called:
    """Load `source` and call `entry_point` with each (positional, keyword) arguments, one after the other.

    All calls share one process and its limits. Arguments are copied by value, and so are the results. For the other
    arguments and errors see `run_program`.

    Raises:
        ValueError: if an argument is not plain data.
        SandboxError: if the sandbox failed.
    """
    requests: list[dict[str, Any]] = [{"module": "solution", "source": source}]
    for args, kwargs in calls:
        plain = [values.decode(json.loads(values.encode(each))) for each in (list(args), dict(kwargs))]
        requests.append({"entry_point": entry_point, "args": plain[0], "kwargs": plain[1]})
    plan, transcript = _converse(limits, requests, b"", required_level, level, servers)
    return Called(
        _outcome(plan, limits, transcript, len(requests), KEPT_OUTPUT_BYTES), transcript.values[1 : len(requests)]
    )


def describe() -> dict[str, Any]:
    """What this host can enforce; see `containment.describe`."""
    return containment.describe()


def _converse(
    limits: Limits,
    requests: Sequence[Mapping[str, Any]],
    stdin: bytes,
    required_level: int,
    level: int | None,
    servers: Servers | None,
) -> tuple[Plan, Transcript]:
    if servers is not None:
        return servers.plan, servers.converse(limits, requests, stdin)
    plan = _plan(required_level, level)
    return plan, converse(plan, limits, requests, stdin)


def _plan(required_level: int, level: int | None) -> Plan:
    return containment.best(required_level) if level is None else containment.plan_of_level(level)


def _outcome(plan: Plan, limits: Limits, transcript: Transcript, expected: int, kept_bytes: int) -> Outcome:
    status, detail = endings.status(limits, transcript, expected)
    stdout = transcript.stdout[:kept_bytes].decode("utf-8", "replace")
    return Outcome(status, detail, stdout, transcript.end.cpu_seconds, transcript.end.wall_seconds, plan.level)
