"""Whole programs in any language of `configs/toolchains.yaml`: compiled once, run once a test, judged by what they do.

Standard output is compared in this process, which alone knows what it has to be. Tests that stand behind the program
in one file (`ProgramTests`) can only be judged by the end of the process, and where the language allows it by a random
token that is printed behind them; that is weak, and said so.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
from dataclasses import replace

from . import endings
from .endings import Ended, SandboxError, Transcript
from .languages import PYTHON, Toolchain, toolchain
from .limits import Limits
from .process import Command, Plan, Start, contained
from .run import KEPT_OUTPUT_BYTES, Outcome
from .trials import Exchange, ProgramTests, StdioTests, Trial

_SHOWN = 300
_WHITE_SPACE = " \t\n\r\v\f"
_NOT_STARTED = (126, 127)
"""Exit status of a program that its loader or a shell could not start."""


def judge_program(trial: Trial, plan: Plan, start: Start) -> Outcome:
    """The outcome of a trial with `StdioTests` or `ProgramTests` (these not of Python, which `judge.py` runs).

    Raises:
        SandboxError: also if programs in this language start processes, which `plan` forbids.
    """
    tools = toolchain(trial.language)
    tools.check_processes(plan)
    if isinstance(trial.tests, ProgramTests):
        return _by_its_end(trial.source, trial.tests, trial.limits, plan, tools)
    assert isinstance(trial.tests, StdioTests)
    files: dict[str, bytes] = {}
    if tools.name != PYTHON:
        found = _compiled(trial.source, plan, tools)
        if isinstance(found, Outcome):
            return found
        files = found
    worst = Outcome("exception", "no tests", "", 0.0, 0.0, plan.level)
    cpu_seconds = wall_seconds = 0.0
    for number, exchange in enumerate(trial.tests.exchanges):
        if tools.name == PYTHON:
            outcome, printed = _run_python(trial.source, exchange, trial.limits, plan, start)
        else:
            outcome, printed = _run(trial.source, files, exchange.stdin, trial.limits, plan, tools)
        cpu_seconds += outcome.cpu_seconds
        wall_seconds += outcome.wall_seconds
        if outcome.status == "ok" and not same_output(exchange.stdout, printed, trial.tests.tolerance):
            why = f"expected {_show(exchange.stdout)}, printed {_show(printed)}"
            outcome = replace(outcome, status="wrong", detail=why)
        worst = replace(outcome, cpu_seconds=cpu_seconds, wall_seconds=wall_seconds)
        if outcome.status != "ok":
            return replace(worst, detail=f"test {number}: {worst.detail}")
    return replace(worst, status="passed", detail="") if worst.status == "ok" else worst


def same_output(expected: str, printed: str, tolerance: float = 0.0) -> bool:
    """Whether two outputs are equal but for white space at the ends of lines and of the whole.

    Lines end in \\n or \\r\\n, and white space is that of ASCII; what else Python counts as either is content.
    """
    one, other = _lines(expected), _lines(printed)
    if one == other:
        return True
    if not tolerance or len(one) != len(other):
        return False
    pairs = zip(one, other, strict=True)
    return all(_close(left.split(), right.split(), tolerance) for left, right in pairs)


def _close(one: list[str], other: list[str], tolerance: float) -> bool:
    return len(one) == len(other) and all(
        left == right or _near(left, right, tolerance) for left, right in zip(one, other, strict=True)
    )


def _near(left: str, right: str, tolerance: float) -> bool:
    try:
        return math.isclose(float(left), float(right), rel_tol=tolerance, abs_tol=tolerance)
    except ValueError:
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip(_WHITE_SPACE) for line in text.rstrip(_WHITE_SPACE).split("\n")]


def _by_its_end(source: str, tests: ProgramTests, limits: Limits, plan: Plan, tools: Toolchain) -> Outcome:
    token = secrets.token_hex(16)
    epilogue = tools.config.epilogue.replace("{token}", token)
    whole = "\n".join([source, tests.source, epilogue, ""])
    files = _compiled(whole, plan, tools)
    if isinstance(files, Outcome):
        return replace(files, judge="weak")
    outcome, printed = _run(whole, files, "", limits, plan, tools)
    if outcome.status == "ok":
        seen = not epilogue or token in printed.split()
        status, why = ("passed", "") if seen else ("violation", "ended before the last test")
        outcome = replace(outcome, status=status, detail=why)
    return replace(outcome, judge="weak", stdout=outcome.stdout.replace(token, ""))


def _compiled(source: str, plan: Plan, tools: Toolchain) -> dict[str, bytes] | Outcome:
    """The files for a run; or the outcome, where the compiler refuses the source."""
    name = tools.name_in(source)
    files = {tools.config.file.replace("{name}", name): source.encode("utf-8", "surrogatepass")}
    if not tools.config.compile:
        return files
    limits = tools.compile_limits()
    argv = tools.argv(tools.config.compile, name)
    command = Command(argv, tools.environment(), list(tools.config.keep))
    # Compilers start other programs. They read what is not trusted, but they do not run it.
    with contained(replace(plan, no_processes=False), limits, b"", command, tools.readable()) as process:
        process.start(files)
        transcript = process.finish()
        made = process.files()
    end = transcript.end
    status, why = endings.status(limits, transcript, 0)
    if status == "ok" and end.code == 0 and made:
        return made
    if end.how == "exit" and end.code in _NOT_STARTED:
        said = transcript.stderr.decode("utf-8", "replace").strip()
        raise SandboxError(f"the compiler of {tools.name} does not start in the sandbox: {_tidy(said)}")
    if status in {"ok", "exception"}:
        said = transcript.stderr.decode("utf-8", "replace").strip() or transcript.stdout.decode("utf-8", "replace")
        status, why = "syntax_error", _tidy(said) or why or f"the compiler left no program (exit status {end.code})"
    return Outcome(status, f"compiler: {why}", "", end.cpu_seconds, end.wall_seconds, plan.level)


def _run(
    source: str, files: dict[str, bytes], stdin: str, limits: Limits, plan: Plan, tools: Toolchain
) -> tuple[Outcome, str]:
    """(outcome, `ok` if it ended with status 0; all that it printed)."""
    limits = tools.run_limits(limits)
    command = Command(tools.argv(tools.config.run, tools.name_in(source)), tools.environment(), [])
    with contained(plan, limits, stdin.encode("utf-8", "surrogatepass"), command, tools.readable()) as process:
        process.start(files)
        transcript = process.finish()
    status, why = endings.status(limits, transcript, 0)
    said = transcript.stderr.decode("utf-8", "replace")
    if status == "ok" and transcript.end.code != 0:
        status, why = "exception", f"exit status {transcript.end.code}: {_tidy(said)}"
    out_of_memory = tools.config.out_of_memory
    if status in {"exception", "violation"} and out_of_memory and re.search(out_of_memory, said):
        status = "memory"
    return _outcome(status, why, transcript, plan)


def _run_python(source: str, exchange: Exchange, limits: Limits, plan: Plan, start: Start) -> tuple[Outcome, str]:
    with start(limits, exchange.stdin.encode("utf-8", "surrogatepass")) as process:
        with contextlib.suppress(Ended):
            process.ask({"module": "__main__", "source": source})
        transcript = process.finish()
    status, why = endings.status(limits, transcript, 1)
    return _outcome(status, why, transcript, plan)


def _outcome(status: str, why: str, transcript: Transcript, plan: Plan) -> tuple[Outcome, str]:
    end = transcript.end
    if transcript.trouble:
        status, why = transcript.trouble
    printed = transcript.stdout.decode("utf-8", "replace")
    kept = transcript.stdout[:KEPT_OUTPUT_BYTES].decode("utf-8", "replace")
    return Outcome(status, why, kept, end.cpu_seconds, end.wall_seconds, plan.level), printed


def _tidy(text: str) -> str:
    """The lines that say most, on one line: the first errors of a compiler or the end of a trace."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|exception|panicked|assert", line, re.IGNORECASE)]
    shown = " | ".join((telling or lines[-3:])[:3])
    return "".join(each if each.isprintable() else " " for each in shown)[:_SHOWN]


def _show(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
