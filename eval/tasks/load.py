"""What trained models are measured on: a task is a YAML file, and for code problems a JSONL beside it.

`bits_per_byte` scores the held-out documents of a run: the chosen streams, balanced by language and by family, a
piece of each document. `code` has a model complete problems, which are then judged by execution. A task's
fingerprint covers the YAML and the bytes of its data, so that two results can tell whether they answer the same
question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from ..strict import Config, ConfigError, Fraction, Name, fingerprint, nearest, parse, read_yaml, resolve

HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a completed function ends: Chen et al. 2021, section 2.1."""

WHOLE_STREAMS = ("text",)
"""Streams that are sampled and averaged as one; in all others every language counts the same."""


class BitsPerByteTask(Config):
    """Likelihood of held-out documents."""

    kind: Literal["bits_per_byte"]
    name: Name
    version: int = Field(1, ge=1)
    description: str = ""
    streams: tuple[str, ...] = Field(("code", "text"), min_length=1)
    documents: int | None = Field(
        None, gt=0, description="a language of code, or a stream of text; default: the eval config's"
    )
    part: Literal["beginning", "anywhere"] = Field(
        "beginning", description="of each document; anywhere: from a line that the hash of its id draws"
    )
    max_bytes: int | None = Field(
        None, ge=8, description="of each document: the same text for models with different tokenizers"
    )
    max_tokens: int | None = Field(None, ge=8, description="of that text; depends on the tokenizer")
    min_families: int = Field(1, ge=1, description="a language (or stream) of fewer held-out families is left out")
    seed: int = 0

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.max_bytes is None and self.max_tokens is None:
            raise ValueError("give max_bytes or max_tokens: a few long files would decide everything")
        if self.part == "anywhere" and self.max_bytes is None:
            raise ValueError('part "anywhere" needs max_bytes: the place must not depend on the tokenizer')
        return self


class CodeTask(Config):
    """Problems that are completed by the model and judged by running their tests."""

    kind: Literal["code"]
    name: Name
    version: int = Field(1, ge=1)
    description: str = ""
    license: str = ""
    language: str = "python"
    problems: str = Field(description="JSONL beside the YAML: name, prompt, entry_point, tests, reference, difficulty")
    stop: tuple[str, ...] = Field(HUMANEVAL_STOP, description="generation of one answer ends before the first of these")
    min_reference_pass_rate: Fraction = Field(1.0, description="refuse to score where the references do worse")


KINDS: dict[str, type[BitsPerByteTask] | type[CodeTask]] = {"bits_per_byte": BitsPerByteTask, "code": CodeTask}


class Problem(BaseModel, extra="forbid", frozen=True):
    """One line of a problem file."""

    name: str
    prompt: str
    entry_point: str
    tests: list[dict[str, Any]]
    reference: str
    difficulty: str = ""


@dataclass(frozen=True)
class Task:
    """A task as loaded: its config, its problems (code only) and the hash of both."""

    config: BitsPerByteTask | CodeTask
    problems: tuple[Problem, ...]
    fingerprint: str

    @property
    def name(self) -> str:
        return self.config.name


def load_tasks(names_or_paths: Sequence[str]) -> list[Task]:
    """All tasks of an evaluation.

    Raises:
        ConfigError: if two tasks share a name, or one of them is wrong.
    """
    tasks = [load_task(each) for each in names_or_paths]
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"tasks: names must differ; twice: {', '.join(twice)}")
    return tasks


def load_task(name_or_path: str) -> Task:
    """The task of that name in `configs/tasks`, or the YAML file at that path."""
    path = resolve(name_or_path, "tasks")
    data = read_yaml(path)
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(f'{path}: unknown task kind "{kind}"{nearest(str(kind), KINDS)}; known: {known}')
    config = parse(KINDS[kind], data, where=str(path))
    if isinstance(config, BitsPerByteTask):
        return Task(config, (), fingerprint(config))
    data_path = path.parent / config.problems
    raw = _read(data_path, path)
    return Task(config, _parse_problems(raw, data_path), fingerprint(config, hashlib.sha256(raw).hexdigest()))


def _read(path: Path, task: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{task}: problems: {path}: {error.strerror}") from error


def _parse_problems(raw: bytes, path: Path) -> tuple[Problem, ...]:
    problems: dict[str, Problem] = {}
    for number, line in enumerate(raw.decode("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            problem = Problem.model_validate(json.loads(line))
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first(error)}") from error
        except ValueError as error:
            raise ConfigError(f"{where}: not valid JSON: {error}") from error
        if problem.name in problems:
            raise ConfigError(f'{where}: a problem named "{problem.name}" came before')
        problems[problem.name] = problem
    if not problems:
        raise ConfigError(f"{path}: no problems")
    return tuple(problems.values())


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f'unknown key "{key}"{nearest(key, Problem.model_fields)}; known: {", ".join(Problem.model_fields)}'
    return f"{key}: {problem['msg']}"
