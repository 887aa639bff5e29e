"""What the commands of `codesieve eval` do: find tasks and data, open models, and hand over to the room."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from .config import EvalConfig
from .strict import ConfigError, override, parse

if TYPE_CHECKING:
    from .eval.power import Plan

BENCHMARKS = "CODESIEVE_BENCHMARKS"
"""Environment variable: a folder of task data that is always looked in."""

Progress = Callable[[float], None]

SAMPLING_TEMPERATURE = 0.8
"""Of several samples where none is given: Chen et al. 2021 find it best for pass@100, section 3.3."""


def data_paths(given: Sequence[Path]) -> list[Path]:
    """Where task data is looked for.

    Raises:
        ConfigError: if a given path does not exist.
    """
    for path in given:
        if not path.exists():
            raise ConfigError(f"--data {path}: no such file or folder")
    always = os.environ.get(BENCHMARKS)
    return [*given, *([Path(always)] if always and Path(always).is_dir() else [])]


def eval_config(
    tasks: Sequence[str], data: Sequence[Path], samples: int, temperature: float | None, overrides: Sequence[str]
) -> EvalConfig:
    """The config of an evaluation from the command line.

    Raises:
        ConfigError: if no task is named, or a value is wrong.
    """
    if not tasks:
        raise ConfigError("--tasks: name at least one task or suite; `codesieve eval tasks` lists them")
    if temperature is None:
        temperature = 0.0 if samples == 1 else SAMPLING_TEMPERATURE
    fields = {
        "tasks": list(tasks),
        "data": [str(path) for path in data_paths(data)],
        "samples": samples,
        "pass_at": [k for k in (1, 10, 100) if k <= samples],
        "temperature": temperature,
    }
    return parse(EvalConfig, override(fields, overrides), where="eval")


def measure(
    model: str,
    config: EvalConfig,
    documents: Path | None,
    out: Path,
    progress: Progress | None = None,
    workers: int = 0,
    judge: str | None = None,
    against: Path | None = None,
    say: Callable[[str], None] = warnings.warn,
) -> dict[str, Any]:
    """Measure one model; see `eval/evaluate.py`. What no model is needed for is checked before one is loaded.

    Raises:
        ConfigError: if something is missing, or given and not used.
    """
    from .eval.backends.open import open_backend
    from .eval.evaluate import check, evaluate, gather

    tasks, _ = gather(config)
    if (judge or against) and not any(task.config.kind == "judge" for task in tasks):
        given = " and ".join(name for name, value in (("--judge", judge), ("--against", against)) if value)
        names = ", ".join(task.name for task in tasks)
        raise ConfigError(f"{given}: none of the tasks has its answers compared (kind judge): {names}")
    if against and not judge:
        raise ConfigError(f"--against {against}: answers are compared by a model; give one with --judge")
    heldout = _documents(documents, config)
    baseline = {} if against is None else _answers(against)
    check(tasks, config, heldout, judge is not None, baseline)
    return evaluate(
        open_backend(model, config),
        heldout,
        config,
        out,
        progress,
        workers or os.cpu_count() or 1,
        open_backend(judge, config) if judge else None,
        baseline,
        threads=os.cpu_count() or 1,
        say=say,
    )


def _documents(path: Path | None, config: EvalConfig) -> pl.DataFrame | None:
    """The held-out documents that `heldout_where` leaves."""
    from .curation.corpus import predicate

    where = config.heldout_where
    is_all = where == EvalConfig.model_fields["heldout_where"].default
    if path is None:
        if not is_all:
            raise ConfigError(f"--set heldout_where={where}: give the documents that it chooses from with --documents")
        return None
    try:
        found = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"--documents {path}: not a Parquet file that can be read: {why}") from error
    if is_all:
        return found
    chosen = found.filter(predicate(where, found.columns, place=f"--set heldout_where, columns of {path}"))
    if chosen.is_empty():
        raise ConfigError(f"--set heldout_where={where}: leaves none of the {found.height} documents of {path}")
    return chosen


def _answers(folder: Path) -> dict[tuple[str, str], str]:
    """(task, item) → answer, of another model's evaluation."""
    from .eval.store import read_items

    answers = read_items(folder).filter(pl.col("stream") == "judge").select("task", "item", "answer")
    if answers.is_empty():
        raise ConfigError(f"--against {folder}: no answers there to a task of kind judge")
    return {(task, item): answer for task, item, answer in answers.iter_rows()}


def measure_batching(model: str, config: EvalConfig) -> dict[str, Any]:
    """How much the likelihoods of 16 requests (a choice, or a reference answer) change with the size of the batch."""
    from .eval.backends.checkpoint import check_batching
    from .eval.backends.open import open_backend
    from .eval.evaluate import gather
    from .eval.requests import continuations

    tasks, _ = gather(config)
    requests = [request for task in tasks for request in continuations(task)]
    if not requests:
        raise ConfigError("--check-batching needs a task of choices or reference answers")
    return {
        "requests": min(16, len(requests)),
        "largest_difference_nats": check_batching(open_backend(model, config), requests),
    }


def task_rows(data: Sequence[Path]) -> list[dict[str, Any]]:
    """A row for each task and suite that comes with codesieve."""
    from .eval.notes import data_notes, part_of
    from .eval.tasks.load import MissingData, known_suites, known_tasks, load_suite, load_task

    where = data_paths(data)
    rows: list[dict[str, Any]] = []
    for name, config in known_tasks().items():
        row = {"task": name, "kind": config.kind}
        try:
            task = load_task(name, where)
            count = len(task.items)
            part = part_of(task.facts, count)
            row["items"] = part.removesuffix(" items") if part else f"{count:,}" if count else "held-out documents"
            row["notes"] = ", ".join(note for note in data_notes(task.facts, count) if note != part)
        except MissingData:
            row["items"] = "no data"
        rows.append({**row, "license": getattr(config, "license", ""), "description": config.description})
    suites = ((name, load_suite(name)) for name in known_suites())
    return rows + [{"task": name, "kind": "suite", "description": suite.description} for name, suite in suites if suite]


def shown(task: str, item: str, data: Sequence[Path], infill: str = "psm") -> dict[str, Any]:
    """One item as a model sees it."""
    from .eval.tasks.load import load_task
    from .eval.tasks.show import show

    return show(load_task(task, data_paths(data)), item, infill)


def fetch_all(names: Sequence[str], out: Path) -> tuple[list[Path], list[str]]:
    """Download the data of tasks and suites: the files, and the tasks of suites that the hub does not have."""
    from .eval.tasks.fetch import can_fetch, fetch
    from .eval.tasks.load import load_suite, task_config

    tasks: list[str] = []
    missing: list[str] = []
    for name in names:
        suite = load_suite(name)
        members = [name] if suite is None else suite.tasks
        absent = [] if suite is None else [each for each in members if not can_fetch(task_config(each))]
        tasks += [each for each in members if each not in absent]
        missing += absent
    return [path for task in dict.fromkeys(tasks) for path in fetch(task_config(task), out)], missing


def replay_samples(
    task: str,
    data: Sequence[Path],
    samples: Path,
    required_level: int,
    workers: int,
    progress: Progress | None,
    extract_fenced: bool = False,
) -> dict[str, Any]:
    """Judge samples from a file."""
    from .eval.kinds.replay import replay
    from .eval.samples import read_samples
    from .eval.tasks.load import load_task

    loaded = load_task(task, data_paths(data))
    if loaded.config.kind not in {"code", "infill"}:
        raise ConfigError(
            f'{task}: samples are judged by execution; a task of kind "{loaded.config.kind}" has no tests'
        )
    found = read_samples(samples)
    return replay(loaded, found, workers or os.cpu_count() or 1, required_level, progress, extract_fenced)


def compare_evaluations(
    folders: Sequence[Path], page: Path | None, metrics: Sequence[str], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The comparison, and a row for each task and model; `metrics` are TASK=METRIC, `options` those of `compare`."""
    from .eval.comparison import compare, rows

    if len(folders) < 2:
        raise ConfigError("compare needs at least two evaluations")
    chosen = {}
    for each in metrics:
        task, equals, metric = each.partition("=")
        if not equals:
            raise ConfigError(f"--metric {each}: expected TASK=METRIC, such as humaneval=pass_at_10")
        chosen[task] = metric
    result = compare(folders, metrics=chosen, **options)
    if page is not None:
        from .report.evaluation_page import write_evaluation_page

        write_evaluation_page(folders, page, metrics=chosen, **options)
    return result, rows(result)


def plan_of(detect: float, rate: float, items: int | None, samples: int | None, churn: float, scatter: float) -> Plan:
    """What `eval plan` prints."""
    from .eval.power import ITEMS, SAMPLES, make_plan

    return make_plan(
        detect,
        rate,
        items=ITEMS if items is None else (items,),
        samples=SAMPLES if samples is None else (samples,),
        churn=churn,
        scatter=scatter,
    )


def export_task(task: str, data: Sequence[Path], out: Path) -> list[Path]:
    """Write a task for lm-evaluation-harness."""
    from .eval.export import export_lm_eval
    from .eval.tasks.load import load_task

    return export_lm_eval(load_task(task, data_paths(data)), out)
