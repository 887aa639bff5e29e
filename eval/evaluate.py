"""One model, measured: `items.parquet` with every scored item, and `evaluation.json` with the metrics.

In: a model folder, task names, held-out documents (id, text, stream, language, family). Metrics are pure functions of
the items, so another one needs no model. Times and versions stand apart in `evaluation.json`; the rest, and the whole
of `items.parquet`, is the same for the same model and tasks on the same kind of machine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..config import EvalConfig
from ..files import write_json
from ..provenance import versions
from ..strict import fingerprint
from .statistics import bits_per_byte, wilson
from .store import ITEMS, write_items
from .tasks import WHOLE_STREAMS, BitsPerByteTask, CodeTask, Task, load_tasks

if TYPE_CHECKING:
    from .backends import Backend

EVALUATION_FILE = "evaluation.json"

SCHEMA = 1

Progress = Callable[[float], None]


def evaluate(
    model_folder: Path,
    tasks: Sequence[str],
    documents: pl.DataFrame | None,
    config: EvalConfig,
    output: Path,
    progress: Progress | None = None,
    workers: int = 1,
    threads: int = 1,
) -> dict[str, Any]:
    """Measure the model on all tasks and write both files to `output`; returns what `evaluation.json` holds.

    Args:
        model_folder: in transformers' layout.
        tasks: names in `configs/tasks`, or paths.
        documents: held-out documents; None if no task needs them.
        config: how many documents, how long the answers.
        output: folder of the two files; other files in it stay.
        progress: called with the fraction done.
        workers: processes that execute answers.
        threads: of the model on a CPU; another number changes the last bits of the likelihoods.

    Raises:
        ConfigError: if a task is wrong.
        ValueError: if there is nothing to score, or the model gives no finite likelihood.
    """
    loaded = load_tasks(tasks)
    if documents is None and (needing := [t.name for t in loaded if isinstance(t.config, BitsPerByteTask)]):
        raise ValueError(f"task {needing[0]} scores held-out documents: give them, or choose other tasks")
    from ..train.device import reproducible
    from .backends import CheckpointBackend

    began = time.monotonic()
    backend = CheckpointBackend(model_folder)
    times, facts, frames = {"load": time.monotonic() - began}, {}, []
    with reproducible(backend.device, threads):
        for position, task in enumerate(loaded):
            began = time.monotonic()
            part = _part(progress, position, len(loaded))
            items, fact = _run(task, backend, documents, config, part, workers)
            times[task.name] = time.monotonic() - began
            frames.append(items)
            facts[task.name] = {"fingerprint": task.fingerprint, "kind": task.config.kind, **fact}
    items = pl.concat(frames)
    evaluation = {
        "schema": SCHEMA,
        "model": model_fingerprint(model_folder),
        "config": config.model_dump(mode="json"),
        "documents": None if documents is None else fingerprint(sorted(documents["id"])),
        "tasks": facts,
        "metrics": metrics(items),
        "environment": {**versions(), "dtype": "float32", "device": backend.device.type},
        "times": {name: round(seconds, 3) for name, seconds in times.items()},
    }
    write_items(output, items)
    write_json(output / EVALUATION_FILE, evaluation)
    return evaluation


def metrics(items: pl.DataFrame) -> dict[str, Any]:
    """Task → stream → metric, of one model's items."""
    found: dict[str, Any] = {}
    for (task, stream), part in sorted(items.partition_by("task", "stream", as_dict=True).items()):
        is_likelihood = part["outcome"][0] == "scored"
        found.setdefault(str(task), {})[str(stream)] = _likelihood(part) if is_likelihood else _pass_at_1(part)
    return found


def model_fingerprint(folder: Path) -> str:
    """Hash of config, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]):
        with path.open("rb") as handle:
            digest.update(f"{path.name}\0{hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def _run(
    task: Task,
    backend: Backend,
    documents: pl.DataFrame | None,
    config: EvalConfig,
    progress: Progress | None,
    workers: int,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    if isinstance(task.config, BitsPerByteTask):
        assert documents is not None
        return _score_documents(task.config, backend, documents, config, progress)
    return _solve_problems(task, task.config, backend, config, progress, workers)


def _score_documents(
    task: BitsPerByteTask, backend: Backend, documents: pl.DataFrame, config: EvalConfig, progress: Progress | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    from .likelihood import choose, score

    chosen, left_out = choose(documents, task, config.documents_per_stream, config.min_families)
    return score(backend, chosen, task, progress), {"left_out": left_out}


def _solve_problems(
    task: Task, config: CodeTask, backend: Backend, limits: EvalConfig, progress: Progress | None, workers: int
) -> tuple[pl.DataFrame, dict[str, Any]]:
    from ..sandbox.containment import best
    from .code import check_references, judge_all
    from .generation import answers, program

    problems = task.problems
    # First the references: an expensive generation that cannot be judged would be lost.
    reference_pass_rate = check_references(problems, config.min_reference_pass_rate, workers)
    texts = answers(backend, problems, config, limits.max_new_tokens, progress)
    programs = [program(problem, text) for problem, text in zip(problems, texts, strict=True)]
    outcomes = judge_all(problems, programs, workers)
    items = pl.DataFrame(
        {
            "task": [config.name] * len(problems),
            "item": [problem.name for problem in problems],
            "cluster": [problem.name for problem in problems],
            "stream": ["problems"] * len(problems),
            "language": [config.language] * len(problems),
            "nats": [None] * len(problems),
            "bytes": [None] * len(problems),
            "outcome": [outcome.status for outcome in outcomes],
            "answer": texts,
            # Level 0 means that nothing was run, which says nothing about the sandbox.
            "sandbox_level": [outcome.level or None for outcome in outcomes],
        },
        schema=ITEMS,
    )
    return items, {"reference_pass_rate": reference_pass_rate, "sandbox_level": best().level}


def _likelihood(items: pl.DataFrame) -> dict[str, Any]:
    languages = {
        str(key[0]): _bits_per_byte(part) for key, part in sorted(items.partition_by("language", as_dict=True).items())
    }
    mean = sum(each["bits_per_byte"] for each in languages.values()) / len(languages)
    whole = items["stream"][0] in WHOLE_STREAMS
    micro = _bits_per_byte(items)
    # What decides: languages count the same in code, a stream of text is one.
    return {**micro, "micro": micro["bits_per_byte"], "mean_of_languages": mean, "languages": languages} | {
        "bits_per_byte": micro["bits_per_byte"] if whole else mean
    }


def _bits_per_byte(items: pl.DataFrame) -> dict[str, Any]:
    size_bytes = int(items["bytes"].sum())
    return {
        "bits_per_byte": bits_per_byte(float(items["nats"].sum()), size_bytes),
        "documents": items.height,
        "families": items["cluster"].n_unique(),
        "bytes": size_bytes,
    }


def _pass_at_1(items: pl.DataFrame) -> dict[str, Any]:
    passed = items.filter(pl.col("outcome") == "passed").height
    low, high = wilson(passed, items.height)
    outcomes = items.group_by("outcome").len().sort("outcome")
    return {
        "pass_at_1": passed / items.height,
        "low": low,
        "high": high,
        "passed": passed,
        "problems": items.height,
        "outcomes": dict(outcomes.iter_rows()),
        "sandbox_level": items["sandbox_level"].min(),
    }


def _part(progress: Progress | None, position: int, count: int) -> Progress | None:
    if progress is None:
        return None
    return lambda fraction: progress((position + fraction) / count)
