"""What tasks that are judged by execution share: programs, trials, and the references that come first.

References pass through the same judge before a model is asked anything: a task that refuses its own answers measures
something else. They also set the limits. An item's CPU limit is `FACTOR` times what its reference took here, at least
`FLOOR_SECONDS` (evalplus scored 0.40 or 0.23 by the machine until it did so), at most `CAP_SECONDS`. Verdicts are
recorded by program and tests, not by limits, so that a resumed run keeps what it found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...sandbox import containment
from ...sandbox.judge import judge_all
from ...sandbox.languages import toolchain
from ...sandbox.limits import DEFAULT_LIMITS, Limits
from ...sandbox.run import Outcome
from ...sandbox.trials import (
    AssertTests,
    CallTests,
    CheckTests,
    ProgramTests,
    StdioTests,
    Tests,
    Trial,
    parse_exchanges,
    parse_tests,
)
from ...strict import ConfigError
from ..tasks.schema import CodeTask, InfillTask
from ..tasks.templates import fill
from .answers import has_code

if TYPE_CHECKING:
    from ..session import Session
    from ..tasks.items import Item
    from ..tasks.task import Task

FLOOR_SECONDS, CAP_SECONDS = DEFAULT_LIMITS.cpu_seconds, 60.0
FACTOR = 4.0
"""As evalplus. Both reference and answers run on this machine, so its speed drops out."""

EMPTY_SAMPLE = 200
"""Items on which the share that an empty middle passes is estimated."""

_KEPT_OUTPUT = 1000
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_UNSTEADY = ("timeout", "memory")

JudgeOnce = Callable[[Sequence[Trial], Sequence[Any]], list[Outcome]]
"""Outcomes of trials; the second argument names what each is, for records."""


class ReferencesFail(RuntimeError):
    """Too few references pass: the tests, the sandbox or this interpreter are not what the task was made for."""


@dataclass(frozen=True)
class Calibration:
    """What the references showed.

    Attributes:
        rate: of the references that pass; None if the task has none.
        failed: `id: outcome: why` of those that do not.
        limits: item id → limits of its answers.
    """

    rate: float | None
    failed: tuple[str, ...]
    limits: Mapping[str, Limits]


def execution_config(task: Task) -> CodeTask | InfillTask:
    """The task's config.

    Raises:
        ConfigError: if it is not judged by execution.
    """
    if not isinstance(task.config, CodeTask | InfillTask):
        raise ConfigError(f"task {task.name} is not judged by execution (kind {task.config.kind})")
    return task.config


def check_toolchains(task: Task, items: Sequence[Item]) -> None:
    """Raises ConfigError if a language of the items cannot be run here, before anything is generated."""
    config = execution_config(task)
    for name in sorted({language(config, item) for item in items}):
        toolchain(name)


def language(config: CodeTask | InfillTask, item: Item) -> str:
    """The programming language of an item."""
    return str(item.fields.get("language", config.language))


def program_of(task: Task, item: Item, answer: str, stripped: bool = False) -> str:
    """The whole program.

    Args:
        answer: after extraction.
        stripped: white space at the end of the prompt was left to the model.
    """
    config = execution_config(task)
    fields = {**item.fields, "answer": answer}
    if stripped and isinstance(fields.get("prompt"), str):
        fields["prompt"] = fields["prompt"].rstrip()
    return fill(config.program, fields)


def reference_of(task: Task, item: Item) -> str:
    """The whole program with the reference answer."""
    return fill(execution_config(task).reference_program, item.fields)


def trial_of(task: Task, item: Item, program: str, limits: Limits = DEFAULT_LIMITS) -> Trial:
    """`program` with the item's tests.

    Raises:
        ConfigError: if the tests are not in the form that the task declares.
    """
    config = execution_config(task)
    try:
        tests = _tests(task, item)
    except (KeyError, ValueError) as error:
        why = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"task {task.name}, item {item.id}: {why}") from error
    name = toolchain(language(config, item)).name
    return Trial(program, tests, name, limits, weak=item.id in config.tests.weak)


def calibrate(
    task: Task, items: Sequence[Item], workers: int = 1, required_level: int = 1, judged: JudgeOnce | None = None
) -> Calibration:
    """Run the references.

    Args:
        judged: runs trials, with records; default: `judge_all` with the other two arguments.

    Raises:
        ConfigError: if a language has no toolchain here.
        SandboxError: if the sandbox's level is below the required one, or forbids what programs in a language do.
        ReferencesFail: if fewer pass than the task declares; the message names every one that fails, and how.
    """
    check_toolchains(task, items)
    for name in {language(execution_config(task), item) for item in items}:
        toolchain(name).check_processes(containment.best(required_level))
    judged = judged or (lambda trials, _: judge_all(trials, workers, required_level))
    generous = replace(DEFAULT_LIMITS, cpu_seconds=CAP_SECONDS)
    known = [item for item in items if _has_reference(task, item)]
    trials = [trial_of(task, item, reference_of(task, item), generous) for item in known]
    outcomes = judged(trials, [["reference", item.id, trial.source] for item, trial in zip(known, trials, strict=True)])
    found = {item.id: outcome for item, outcome in zip(known, outcomes, strict=True)}
    failed = tuple(f"{name}: {each.status}: {each.detail}" for name, each in found.items() if each.status != "passed")
    rate = 1.0 - len(failed) / len(known) if known else None
    required = execution_config(task).min_reference_pass_rate
    if (rate or 0.0) < required:
        shown = "\n  ".join(failed) or "there are none"
        raise ReferencesFail(
            f"task {task.name}: {rate or 0:.1%} of the references pass, {required:.1%} are required:\n  {shown}"
        )
    seconds = {name: each.cpu_seconds for name, each in found.items() if each.status == "passed"}
    return Calibration(rate, failed, {item.id: limits_for(seconds.get(item.id, 0.0)) for item in items})


def limits_for(reference_seconds: float) -> Limits:
    """Limits of answers to an item whose reference took so much CPU time."""
    seconds = min(max(FLOOR_SECONDS, FACTOR * reference_seconds), CAP_SECONDS)
    return replace(DEFAULT_LIMITS, cpu_seconds=seconds)


def empty_rate(task: Task, items: Sequence[Item], judged: JudgeOnce) -> float:
    """The share of items that an empty answer passes: the floor of the task. Of `EMPTY_SAMPLE` items, by hash."""
    chosen = sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:EMPTY_SAMPLE]
    hasty = replace(DEFAULT_LIMITS, cpu_seconds=1.0)
    trials = [trial_of(task, item, program_of(task, item, ""), hasty) for item in chosen]
    outcomes = judged(trials, [["empty", item.id, trial.source] for item, trial in zip(chosen, trials, strict=True)])
    return sum(outcome.status == "passed" for outcome in outcomes) / len(chosen)


def judged_by(task: Task, session: Session, rerun_timeouts: bool = True) -> JudgeOnce:
    """Judges through the session's records. The level that is reached is part of what is recorded."""
    required = session.config.sandbox_level
    level = containment.best(required).level

    def judged(trials: Sequence[Trial], names: Sequence[Any]) -> list[Outcome]:
        def run(positions: Sequence[int], done: Callable[[int, Outcome], None]) -> None:
            def known(place: int, outcome: Outcome) -> None:
                done(positions[place], replace(outcome, stdout=outcome.stdout[:_KEPT_OUTPUT]))

            judge_all([trials[each] for each in positions], session.workers, required, known, rerun_timeouts)

        return session.outcomes(task, run, [[level, *name] for name in names])

    return judged


def verdict(outcome: Outcome) -> dict[str, Any]:
    """Columns of an item. The reason is left out where it holds figures of this machine."""
    why = "" if outcome.status in _UNSTEADY else _ADDRESS.sub("0x…", outcome.detail)
    return {
        "score": float(outcome.status == "passed"),
        "outcome": outcome.status,
        "detail": json.dumps({"why": why}) if why else None,
        "sandbox_level": outcome.level or None,  # nothing was run, which says nothing about the sandbox
        "judge": outcome.judge if outcome.level else None,
    }


def source_of(answer: str, program: str) -> str:
    """`program`, or nothing if there is no code in the answer: such an answer is `empty`, and not run."""
    return program if has_code(answer) else ""


def _has_reference(task: Task, item: Item) -> bool:
    """Whether there is one: some data sets have none. A middle of white space alone is one."""
    return isinstance(task.config, InfillTask) or bool(str(item.fields.get("reference") or "").strip())


def _tests(task: Task, item: Item) -> Tests:
    config = execution_config(task)
    fields, form = item.fields, config.tests.form
    if form == "calls":
        return CallTests(fields["entry_point"], parse_tests(fields["tests"], "field tests"))
    if form == "stdio":
        return StdioTests(parse_exchanges(fields["tests"], "field tests"))
    if form == "program":
        return ProgramTests(_text(fields["tests"]))
    if form == "check":
        return CheckTests(fields["entry_point"], _text(fields["tests"]), _setup(task, item))
    statements = fields["tests"]
    if not isinstance(statements, list | tuple) or not all(isinstance(each, str) for each in statements):
        raise ValueError("tests of the form asserts must be a list of statements")
    shadowed = shadowed_builtins(reference_of(task, item), statements)
    return AssertTests(tuple(statements), fields.get("setup") or "", shadowed)


def _setup(task: Task, item: Item) -> str:
    """A program with the helper functions that a check uses: the prompt, or the reference where a prompt is a part."""
    fields = item.fields
    for text in (fields.get("setup"), fields.get("prompt")):
        if isinstance(text, str) and text.strip() and _compiles(text):
            return text
    return reference_of(task, item)


def shadowed_builtins(reference: str, statements: Sequence[str]) -> tuple[str, ...]:
    """Functions of the reference that are named like one of Python's, and that the statements name."""
    import builtins

    defined = set(re.findall(r"^def[ \t]+(\w+)", reference, re.MULTILINE)) & set(dir(builtins))
    used = set(re.findall(r"\w+", "\n".join(statements)))
    return tuple(sorted(defined & used))


def _compiles(text: str) -> bool:
    try:
        compile(text, "<prompt>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"tests must be source text (got {type(value).__name__})")
    return value
