"""The judge: decides whether a program passes its tests, without ever showing it one.

Calls and the tests in a process of their own (`relay.py`) see plain values that the candidate's functions return, one
call at a time. So an object that claims to equal everything, an early exit or a look into frames wins nothing: there
is no test, no expected value and no verdict in the candidate's process. Programs are judged by what they print
(`programs.py`). A trial that is `weak` runs with its tests in one process and says so in its outcome.

Equal trials are run once, and a timeout is run again alone before it counts. With warm processes a trial takes some
milliseconds and the CPU time of the program. An error or an interrupt ends all trials that run at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from . import containment, endings, programs, values
from .endings import Ended, Transcript
from .languages import PYTHON, toolchain
from .limits import Limits
from .process import Contained, Plan, Start, contained
from .relay import Examiner, TestsDied
from .run import KEPT_OUTPUT_BYTES, Outcome
from .server import ServerDied, Servers
from .talk import Interrupt
from .trials import (
    AssertTests,
    CallTests,
    CheckTests,
    Exchange,
    ProgramTests,
    StdioTests,
    Test,
    Tests,
    Trial,
    parse_exchanges,
    parse_tests,
)

__all__ = [
    "AssertTests", "CallTests", "CheckTests", "Exchange", "ProgramTests", "StdioTests", "Test", "Tests", "Trial",
    "judge", "judge_all", "parse_exchanges", "parse_tests",
]  # fmt: skip


@dataclass(frozen=True)
class Processes:
    """Where contained processes come from; those of candidates and of tests share no ancestor that saw either."""

    plan: Plan
    candidate: Start
    examiner: Examiner


def judge(trial: Trial, required_level: int = 1, level: int | None = None) -> Outcome:
    """The outcome of one trial; the first test that fails decides.

    Args:
        required_level: an error if this host gives less.
        level: exactly this one instead of the best, to compare or to test.

    Raises:
        ValueError: if the tests are of no form for the trial's language.
        SandboxError: if the sandbox or the judge's process failed; never because of what the program does.
    """
    plan = containment.best(required_level) if level is None else containment.plan_of_level(level)

    with Examiner(plan) as examiner:
        return _judge_or_again(trial, _fresh(plan, examiner))


def judge_all(
    trials: Sequence[Trial],
    workers: int = 1,
    required_level: int = 1,
    done: Callable[[int, Outcome], None] | None = None,
    rerun_timeouts: bool = True,
    level: int | None = None,
) -> list[Outcome]:
    """Outcomes in the order of `trials`, whatever the number of workers.

    Args:
        workers: trials at a time.
        done: called in this thread with the position of a trial and its outcome, as they come.
        rerun_timeouts: a timeout is judged again when nothing else runs, and the second outcome counts.

    Raises:
        ValueError, SandboxError: as `judge`; the other trials are given up.
    """
    positions: dict[str, list[int]] = {}
    for position, trial in enumerate(trials):
        positions.setdefault(trial.key, []).append(position)
    outcomes: dict[int, Outcome] = {}

    def known(key: str, outcome: Outcome) -> None:
        for position in positions[key]:
            outcomes[position] = outcome
            if done is not None:
                done(position, outcome)

    if not positions:
        return []
    again: list[str] = []
    todo = {key: trials[each[0]] for key, each in positions.items()}
    with contextlib.closing(_judged(todo, workers, required_level, level)) as judged:
        for key, outcome in judged:
            if outcome.status == "timeout" and rerun_timeouts:
                again.append(key)
            else:
                known(key, outcome)
    for key in sorted(again, key=lambda each: positions[each][0]):
        known(key, judge(todo[key], required_level, level))
    return [outcomes[position] for position in range(len(trials))]


def is_empty(source: str) -> bool:
    """Whether there is nothing but blank lines and comments."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in source.splitlines())


def _fresh(plan: Plan, examiner: Examiner) -> Processes:
    def start(limits: Limits, stdin: bytes = b"") -> AbstractContextManager[Contained]:
        return contained(plan, limits, stdin)

    return Processes(plan, start, examiner)


def _judged(
    trials: dict[str, Trial], workers: int, required_level: int, level: int | None
) -> Generator[tuple[str, Outcome], None, None]:
    """Keys and outcomes as they come, from threads that each have processes and a core of their own.

    A trial is a conversation between three processes, one of which works at a time: on one core they hand over in
    microseconds, from core to core it takes a wake-up (measured: 12 ms a trial against 19).
    """
    waiting, found = iter(trials.items()), queue.SimpleQueue[tuple[str, Outcome] | BaseException | None]()
    lock, interrupt = threading.Lock(), Interrupt()

    def take() -> tuple[str, Trial] | None:
        with lock:
            return None if interrupt.is_set else next(waiting, None)

    def work(core: int) -> None:
        try:
            os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
            interrupt.covers_this_thread()
            with Servers(1, required_level, level) as servers, Examiner(servers.plan) as examiner:
                processes = Processes(servers.plan, servers.contained, examiner)
                while (each := take()) is not None:
                    found.put((each[0], _judge_or_again(each[1], processes)))
        except BaseException as error:
            found.put(error)
        found.put(None)

    cores = sorted(os.sched_getaffinity(0))
    count = max(1, min(workers, len(trials)))
    # Not always from the first core on: others may do as we do.
    threads = [
        threading.Thread(target=work, args=(cores[(os.getpid() + n) % len(cores)],), daemon=True) for n in range(count)
    ]
    for each in threads:
        each.start()
    try:
        working = count
        while working:
            result = found.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                working -= 1
            else:
                yield result
    finally:
        interrupt.set()  # an error in a thread, or Ctrl-C in this one; in the end nothing runs any more
        for each in threads:
            each.join()


def _judge_or_again(trial: Trial, processes: Processes) -> Outcome:
    """A warm server that died says nothing of the trial: that is judged in processes of its own then. Tests whose
    process died may have been driven there by the program, which a second time in a fresh one tells.
    """
    try:
        return _judge(trial, processes)
    except ServerDied:
        return _judge_or_again(trial, _fresh(processes.plan, processes.examiner))
    except TestsDied:
        return _judge(trial, processes, has_died=True)


def _judge(trial: Trial, processes: Processes, has_died: bool = False) -> Outcome:
    tests = trial.tests
    if not trial.source.strip() or (trial.language == "python" and is_empty(trial.source)):
        return Outcome("empty", "no code", "", 0.0, 0.0, 0)
    name = toolchain(trial.language).name
    if isinstance(tests, StdioTests) or (isinstance(tests, ProgramTests) and name != PYTHON):
        return programs.judge_program(trial, processes.plan, processes.candidate)
    if name != PYTHON:
        raise ValueError(f"tests in the form of {type(tests).__name__} are Python's (got {trial.language})")
    if trial.weak or isinstance(tests, ProgramTests):
        return _in_one_process(trial, processes)
    with processes.candidate(trial.limits) as candidate:
        try:
            candidate.ask({"module": "solution", "source": trial.source})
            if isinstance(tests, CallTests):
                status, detail = _by_calls(tests, candidate)
            else:
                status, detail = processes.examiner.examine(tests, candidate, has_died)
        except Ended as ended:
            status, detail = ended.status, ended.detail
        return outcome(trial.limits, processes.plan, candidate.finish(), status, detail)


def outcome(
    limits: Limits, plan: Plan, transcript: Transcript, status: str, detail: str, judge: str = "apart"
) -> Outcome:
    """The outcome of a run that the tests found `status`: how it ended speaks against it, and never for it."""
    ended, why = endings.status(limits, replace(transcript, error=None), transcript.answered)
    if ended in {"output_flood", "violation"} or (status == "passed" and ended != "ok"):
        status, detail = ended, why
    end = transcript.end
    stdout = transcript.stdout[:KEPT_OUTPUT_BYTES].decode("utf-8", "replace")
    return Outcome(status, detail, stdout, end.cpu_seconds, end.wall_seconds, plan.level, judge)


def _by_calls(tests: CallTests, candidate: Contained) -> tuple[str, str]:
    for number, test in enumerate(tests.calls):
        call = {"entry_point": tests.entry_point, "args": list(test.args), "kwargs": dict(test.kwargs), "trees": True}
        returned = candidate.ask({**call, "kept": False})
        if not _same(test.expected, returned):
            return "wrong", f"test {number}: expected {values.show(test.expected)}, got {values.show(returned)}"
    return "passed", ""


def _same(expected: Any, returned: Any) -> bool:
    try:
        return values.canonical(returned) == values.canonical(expected)
    except (ValueError, OverflowError):
        return False  # not in the form of values.py: the candidate wrote it past the worker


def _in_one_process(trial: Trial, processes: Processes) -> Outcome:
    """Program and tests together. Passed if behind the last test a function of a random name gives back a token."""
    name, token = f"end_{secrets.token_hex(8)}", secrets.token_hex(16)
    tests = trial.tests
    if isinstance(tests, CheckTests):
        parts = [trial.source, tests.source, f"check({tests.entry_point})"]
    elif isinstance(tests, ProgramTests):
        parts = [trial.source, tests.source]
    elif isinstance(tests, AssertTests):
        parts = [trial.source, tests.setup, *tests.statements]
    else:
        raise ValueError("calls are never judged weakly")
    source = "\n".join([*parts, f"def {name}(token): return token", ""])
    with processes.candidate(trial.limits) as process:
        try:
            process.ask({"module": "__main__", "source": source})
            returned = process.ask({"entry_point": name, "args": [token], "kwargs": {}})
            status, detail = ("passed", "") if returned == token else ("violation", "ended before the last test")
        except Ended as ended:
            status, detail = ended.status, ended.detail
            if status == "ok":  # a program may end its process, but these tests have not all been run
                status, detail = "violation", "ended its process before the last test"
            elif status == "exception" and detail.startswith("AssertionError"):
                status = "wrong"
            elif name in detail:
                status, detail = "violation", "left before the last test"
        return outcome(trial.limits, processes.plan, process.finish(), status, detail, "weak")
