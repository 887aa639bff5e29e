"""Finished evaluations read back: which folders are seeds of one model, what they are called, whether settings agree.

A folder with `items.parquet` is an evaluation; a folder whose sub-folders are evaluations is one model with so many
seeds. Names are the part of the paths that tells them apart: `models/a/eval` and `models/b/eval` are `a` and `b`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..files import read_json
from ..strict import ConfigError
from .store import ITEMS_FILE, read_items

EVALUATION_FILE = "evaluation.json"

SETTINGS = (
    "temperature", "top_p", "top_k", "samples", "max_new_tokens", "attention", "infill", "max_items",
    "documents_per_stream", "heldout_where", "min_families",
)  # fmt: skip
"""Keys of the eval config that change a score."""

BACKEND = ("dtype", "attention")
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
    """What differs between the evaluations and may explain a difference between the models.

    Raises:
        ValueError: if two models were compared with a third by different judges.
    """
    every = [(model, evaluation) for model in models for evaluation in model.evaluations]
    warnings = []
    for section, keys in (("config", SETTINGS), ("backend", BACKEND)):
        for key in keys:
            values = {
                model.name: evaluation.facts.get(section, {}).get(key)
                for model, evaluation in every
                if key in evaluation.facts.get(section, {})
            }
            if len({str(value) for value in values.values()}) > 1:
                warnings.append(f"{key} differs: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    for task in tasks:
        judges = {model.name: evaluation.facts["tasks"][task].get("judge") for model, evaluation in every}
        if len(set(judges.values())) > 1:
            raise ValueError(f'task "{task}" was judged by different models ({judges}); judge the answers with one')
        for column, what in (("sandbox_level", "the sandbox level"), ("judge", "the judge")):
            found = {model.name: _levels(evaluation, task, column) for model, evaluation in every}
            if len(set(found.values())) > 1:
                shown = ", ".join(f"{name} {value or 'none'}" for name, value in found.items())
                warnings.append(f"{task}: {what} differs: {shown}")
    prints: dict[str, str] = {}
    for model, evaluation in every:
        identity = str(evaluation.facts.get("model"))
        if prints.setdefault(identity, model.name) != model.name:
            warnings.append(f"{prints[identity]} and {model.name} are the same model")
    return warnings


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
