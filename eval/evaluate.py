"""One model, measured: `items.parquet` with every scored item, `evaluation.json` with the metrics, and the records.

In: a backend, task and suite names, held-out documents (id, text, stream, language, family). Answers are recorded
batch by batch, so an interrupted evaluation goes on where it was and ends with the same bytes. Metrics are pure
functions of the items, so another one needs no model. Times and versions stand apart in `evaluation.json`; the rest,
and the whole of `items.parquet`, is the same for the same model and tasks on the same kind of machine. A folder holds
one evaluation: another one, of other tasks or settings, takes its place, which is said, and keeps its records.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..config import EvalConfig
from ..files import write_json
from ..provenance import versions
from ..strict import ConfigError, fingerprint
from .backends.protocol import Backend
from .evaluations import replaced
from .infilling import resolve_format
from .kinds import choice, code, documents, gold, infill, match, pairwise
from .kinds.execution import check_toolchains
from .metrics import metrics
from .records import ASIDE_FILE, Records
from .scores import notes_of
from .session import Session
from .store import EVALUATION_FILE, write_items
from .tasks.load import load_suite, load_task
from .tasks.schema import (
    ChoiceTask,
    CodeTask,
    GoldTask,
    HeldoutPairsTask,
    HeldoutTask,
    InfillTask,
    JudgeTask,
    MatchTask,
    SuiteConfig,
)
from .tasks.suites import available, summary
from .tasks.task import Task

SCHEMA = 3

Run = Callable[[Task, Session], tuple[pl.DataFrame, dict[str, Any]]]
Progress = Callable[[float], None]
Say = Callable[[str], None]

RUN: dict[type, Run] = {
    HeldoutTask: documents.run,
    HeldoutPairsTask: choice.run,
    GoldTask: gold.run,
    ChoiceTask: choice.run,
    MatchTask: match.run,
    CodeTask: code.run,
    InfillTask: infill.run,
    JudgeTask: pairwise.run,
}


SHARES: dict[type, tuple[float, ...]] = {
    CodeTask: (0.1, 0.6, 0.3),  # references, answers, judgement
    InfillTask: (0.1, 0.1, 0.5, 0.3),  # references, empty middles, answers, judgement
    JudgeTask: (0.5, 0.5),
}
"""For the progress bar: what part of a task's time each of its questions takes, roughly."""


def evaluate(
    backend: Backend,
    heldout: pl.DataFrame | None,
    config: EvalConfig,
    output: Path,
    progress: Progress | None = None,
    workers: int = 1,
    judge: Backend | None = None,
    baseline: Mapping[tuple[str, str], str] | None = None,
    threads: int = 1,
    say: Say = warnings.warn,
) -> dict[str, Any]:
    """Measure the model on all tasks of `config` and write to `output`; returns what `evaluation.json` holds.

    Args:
        backend: the model.
        heldout: held-out documents; None if no task needs them.
        config: which tasks, how many documents, how answers are generated.
        output: folder of the three files; other files in it stay. Records of the same model and tasks are used.
        progress: called with the fraction done.
        workers: processes that execute answers.
        judge: the model that compares answers.
        baseline: (task, item) → answer of the model to compare with, for tasks that compare.
        threads: of the model on a CPU; another number changes the last bits of the likelihoods.
        say: is told what a user should know at once: another evaluation that is replaced, records that are damaged.

    Raises:
        ConfigError: if a task is wrong, or its data is missing and it was named itself (not by a suite).
        ValueError: if there is nothing to score, or the model gives no finite likelihood.
    """
    import torch

    from ..train.device import reproducible

    tasks, suites = gather(config)
    check(tasks, config, heldout, judge is not None, baseline or {})
    times, facts, frames = {}, {}, []
    device = torch.device(backend.facts.get("device", "cpu"))
    if other := replaced(output, config, backend.identity, [task.name for task in tasks]):
        say(other)
    with Records(output) as records, reproducible(device, threads):
        if records.damaged:
            lines = ", ".join(map(str, records.damaged))
            say(f"{records.path}: line {lines}: no record; put into {ASIDE_FILE}, and asked again")
        session = Session(backend, records, config, heldout, workers, judge, baseline=baseline or {})
        for task in tasks:
            if isinstance(task.config, InfillTask):
                resolve_format(config.infill, backend)
        for position, task in enumerate(tasks):
            began = time.monotonic()
            session.begin(_part(progress, position, len(tasks)), _shares(task))
            items, found = RUN[type(task.config)](task, session)
            times[task.name] = time.monotonic() - began
            frames.append(items)
            facts[task.name] = {
                "fingerprint": task.fingerprint,
                "kind": task.config.kind,
                **task.facts,
                **({"file": Path(task.facts["file"]).name} if "file" in task.facts else {}),
                **found,
            }
    items = pl.concat(frames)
    measured = metrics(items, facts, config.pass_at)
    for name, streams in measured.items():
        facts[name]["notes"] = notes_of(facts[name], next(iter(streams.values())))
    settings = config.model_dump(mode="json", exclude={"data", "tasks"})
    evaluation = {
        "schema": SCHEMA,
        "model": backend.identity,
        "backend": dict(backend.facts),
        "config": settings,
        "documents": None if heldout is None else fingerprint(sorted(heldout["id"])),
        "tasks": facts,
        "suites": {suite.name: summary(suite, measured, facts, settings) for suite in suites},
        "metrics": measured,
        "environment": versions(),
        "times": {name: round(seconds, 3) for name, seconds in times.items()},
    }
    write_items(output, items)
    write_json(output / EVALUATION_FILE, evaluation)
    if progress:
        progress(1.0)
    return evaluation


def gather(config: EvalConfig) -> tuple[list[Task], list[SuiteConfig]]:
    """The tasks that `config` names, those of its suites with them; a suite's tasks without data are left out.

    Raises:
        ConfigError: if a task is wrong, two differ in all but their name, or none of a suite's tasks has its data.
    """
    data = [Path(path) for path in config.data]
    tasks: dict[str, Task] = {}
    suites = []
    for name in config.tasks:
        suite = load_suite(name)
        if suite is None:
            _add(tasks, load_task(name, data))
            continue
        suites.append(suite)
        found = available(suite, data)
        if not found.tasks:
            raise ConfigError("\n  ".join([f"{name}: no task of it has its data", *found.missing.values()]))
        for task in found.tasks:
            _add(tasks, task)
    return list(tasks.values()), suites


def check(
    tasks: Sequence[Task],
    config: EvalConfig,
    heldout: pl.DataFrame | None,
    has_judge: bool,
    baseline: Mapping[tuple[str, str], str],
) -> None:
    """Say what would stop the evaluation at a later task, as far as no model is needed to know it.

    Raises:
        ConfigError: if documents, a judge, another model's answers or a toolchain are missing.
    """
    for task in tasks:
        if isinstance(task.config, HeldoutTask | HeldoutPairsTask):
            documents.check(task, heldout)
        if isinstance(task.config, CodeTask | InfillTask):
            check_toolchains(task, task.items)
        if isinstance(task.config, JudgeTask):
            pairwise.check(task, config, has_judge, baseline)


def _add(tasks: dict[str, Task], task: Task) -> None:
    if task.name in tasks and tasks[task.name].fingerprint != task.fingerprint:
        raise ConfigError(f'tasks: two different tasks are named "{task.name}"; their names must differ')
    tasks[task.name] = task


def _shares(task: Task) -> tuple[float, ...]:
    shares = SHARES.get(type(task.config), (1.0,))
    return (0.0, *shares) if task.calibration else shares  # its own references come first, and are few


def _part(progress: Progress | None, position: int, count: int) -> Progress | None:
    if progress is None:
        return None
    return lambda fraction: progress((position + fraction) / count)
