"""Finished evaluations read back: which folders are seeds of one model, what they are called, whether settings agree.

A folder with `items.parquet` is an evaluation; a folder whose sub-folders are evaluations is one model with so many
seeds. Names are the part of the paths that tells them apart: `models/a/eval` and `models/b/eval` are `a` and `b`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..config import EvalConfig
from ..files import read_json
from ..strict import ConfigError
from .store import EVALUATION_FILE, ITEMS_FILE, read_items

SETTINGS = (
    "temperature", "top_p", "top_k", "samples", "max_new_tokens", "seed", "attention", "infill", "max_items",
    "documents_per_stream", "heldout_where", "min_families",
)  # fmt: skip
"""Keys of the eval config that change a score."""

BACKEND = ("dtype", "attention", "context_tokens")
"""Facts of a backend that change a score."""


@dataclass(frozen=True)
class Evaluation:
    """One folder: what `evaluation.json` says, and the items."""

    folder: Path
    facts: dict[str, Any]
    items: pl.DataFrame

    @property
    def parts(self) -> list[tuple[str, str]]:
        """(task, stream), in a fixed order."""
        return sorted(self.items.select("task", "stream").unique().iter_rows())

    def items_of(self, task: str) -> frozenset[str]:
        """Ids of the items that the task was measured on."""
        return frozenset(self.items.filter(pl.col("task") == task)["item"].unique())


@dataclass(frozen=True)
class Model:
    """A model, by an evaluation of each of its seeds."""

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def folders(self) -> list[Path]:
        return [evaluation.folder for evaluation in self.evaluations]


def read_models(folders: Sequence[Path], by_seed: bool = False) -> list[Model]:
    """The models of the folders, in their order.

    Args:
        folders: evaluations, or folders of them.
        by_seed: folders named NAME-SEED are one model NAME.

    Raises:
        ConfigError: if a folder holds no evaluation, or two models would be the same.
    """
    if not folders:
        raise ConfigError("give at least one evaluation: a folder with items.parquet")
    groups: list[tuple[Path, list[Path]]] = []
    for folder in folders:
        found = _evaluations_in(folder)
        stem = re.fullmatch(r"(.+)-\d+", folder.name) if by_seed and found == [folder] else None
        key = folder.with_name(stem[1]) if stem else folder
        known = next((each for name, each in groups if name == key), None)
        if known is None:
            groups.append((key, found))
        elif stem:
            known.extend(found)
        else:
            raise ConfigError(f"{folder} is given twice")
    listed = [path.resolve() for _, paths in groups for path in paths]
    twice = [path for path in listed if listed.count(path) > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice")
    names = short_names([key for key, _ in groups])
    return [Model(name, tuple(_read(path) for path in paths)) for name, (_, paths) in zip(names, groups, strict=True)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells the paths apart: their last part that differs, with those before it where that is not enough."""
    parts = [path.resolve().parts for path in paths]
    if len(paths) == 1:
        # A model's evaluation is the folder `eval` beside it.
        return [parts[0][-2] if parts[0][-1] == "eval" and len(parts[0]) > 1 else parts[0][-1]]
    while len({each[-1:] for each in parts}) == 1 and all(len(each) > 1 for each in parts):
        parts = [each[:-1] for each in parts]
    length = 1
    while len({each[-length:] for each in parts}) < len(parts) and length < max(map(len, parts)):
        length += 1
    return ["/".join(each[-length:]) for each in parts]


def check_settings(models: Sequence[Model], tasks: Sequence[str]) -> list[str]:
    """What differs between the evaluations, those of one model's seeds among them, and may explain a difference."""
    every = [(model, evaluation) for model in models for evaluation in model.evaluations]
    warnings = []
    for section, keys in (("config", SETTINGS), ("backend", BACKEND)):
        for key in keys:
            if differs := _differing(models, lambda each, s=section, k=key: each.facts.get(s, {}).get(k, _ABSENT)):  # type: ignore[misc]
                warnings.append(f"{key} differs: {differs}")
    for task in tasks:
        for column, what in (("sandbox_level", "the sandbox level"), ("judge", "the judge")):
            if differs := _differing(models, lambda each, t=task, c=column: _levels(each, t, c) or "none"):  # type: ignore[misc]
                warnings.append(f"{task}: {what} differs: {differs}")
    prints: dict[str, str] = {}
    for model, evaluation in every:
        identity = str(evaluation.facts.get("model"))
        if prints.setdefault(identity, model.name) != model.name:
            warnings.append(f"{prints[identity]} and {model.name} are the same model")
    return warnings


def replaced(folder: Path, config: EvalConfig, model: str, tasks: Sequence[str]) -> str | None:
    """What another evaluation would replace in `folder`; None if there is none, or one of the same.

    Args:
        model: its identity.
    """
    path = folder / EVALUATION_FILE
    if not path.is_file():
        return None
    old = read_json(path)
    new = config.model_dump(mode="json", exclude={"data", "tasks"})
    differs = [f"{key} {value}" for key, value in old.get("config", {}).items() if key in new and new[key] != value]
    if old.get("model") != model:
        differs.append("another model")
    if lost := sorted(set(old.get("tasks", {})) - set(tasks)):
        differs.append(f"tasks {', '.join(lost)}")
    if not differs:
        return None
    return (
        f"{folder}: an evaluation is there ({'; '.join(differs)}) and is replaced; --out keeps it. Its answers stay in "
        "records.jsonl"
    )


_ABSENT = object()


def _differing(models: Sequence[Model], value: Callable[[Evaluation], Any]) -> str | None:
    """`a 0.0, b 0.8`; None if all evaluations that have a value have the same.

    Seeds of a model that agree are named together, and each by its folder where they do not.
    """
    found: list[tuple[str, str]] = []
    for model in models:
        own = [(each, value(each)) for each in model.evaluations]
        texts = [(f"{model.name}/{each.folder.name}", str(text)) for each, text in own if text is not _ABSENT]
        agree = len({text for _, text in texts}) == 1
        found += [(model.name, texts[0][1])] if agree else texts
    if len({text for _, text in found}) < 2:
        return None
    return ", ".join(f"{name} {text}" for name, text in found)


def _levels(evaluation: Evaluation, task: str, column: str) -> str:
    found = evaluation.items.filter(pl.col("task") == task)[column].drop_nulls()
    if column == "sandbox_level":
        return ", ".join(str(each) for each in found.unique().sort())
    items = evaluation.items.filter((pl.col("task") == task) & (pl.col("judge") == "weak"))["item"].n_unique()
    return "" if found.is_empty() else f"weak for {items} of the items" if items else "apart"


def _evaluations_in(folder: Path) -> list[Path]:
    if (folder / ITEMS_FILE).is_file():
        return [folder]
    within = sorted(path.parent for path in folder.glob(f"*/{ITEMS_FILE}"))
    if not within and (folder / "eval" / ITEMS_FILE).is_file():
        return [folder / "eval"]
    if not within:
        raise ConfigError(f"{folder}: no {ITEMS_FILE} here, nor in a folder in it; evaluate a model first")
    return within


def _read(folder: Path) -> Evaluation:
    path = folder / EVALUATION_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; the evaluation is not complete")
    facts = read_json(path)
    items = read_items(folder)
    missing = sorted(set(items["task"].unique()) - set(facts["tasks"]))
    if missing:
        raise ValueError(f'{path} does not know the task "{missing[0]}" of {ITEMS_FILE}; evaluate again')
    return Evaluation(folder, facts, items)
