"""The items of an evaluation page: what each model was asked and said, cut to a size that a page can hold.

Everything here is untrusted: prompts come from files, answers from models. Texts are made visible (control characters
and bidirectional overrides become symbols) and stay plain text; the template escapes them. Of a large task some items
are taken, in turn from every combination of change and outcome, so that rare ones are among them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..eval.comparison import task_label
from ..eval.evaluations import Model
from .excerpts import visible

MAX_ITEMS = 100
MAX_CHARACTERS = 4000
MAX_ANSWERS = 4
"""Items a task, characters a text, and answers an item and model on the page."""

CHANGES = {"better": "better", "worse": "worse", "mixed": "better and worse", "same": "unchanged"}


@dataclass(frozen=True)
class Answer:
    """One answer; `detail` are lines of (name, text)."""

    sample: int
    outcome: str
    score: str
    text: str | None
    detail: list[tuple[str, str]]


@dataclass(frozen=True)
class ItemView:
    """An item with the answers of each model: (model, shown ones, how many there are)."""

    name: str
    language: str
    prompt: str | None
    models: list[tuple[str, list[Answer], int]]
    outcomes: tuple[str, ...]
    change: str | None


@dataclass(frozen=True)
class TaskItems:
    """The items of a task that are shown, of how many."""

    label: str
    items: list[ItemView]
    count: int
    by_change: dict[str, int]


def task_items(models: Sequence[Model], task: Mapping[str, Any], most: int = MAX_ITEMS) -> TaskItems:
    """The items of one task of a comparison; of a model with several seeds those of the first."""
    better = {item for each in task["differences"] for item in each["better"]}
    worse = {item for each in task["differences"] for item in each["worse"]}
    frames = [
        model.evaluations[0].items.filter((pl.col("task") == task["task"]) & (pl.col("stream") == task["stream"]))
        for model in models
    ]
    outcomes: dict[str, set[str]] = {}
    for frame in frames:
        for item, outcome in frame.select("item", "outcome").iter_rows():
            outcomes.setdefault(item, set()).add(str(outcome))
    changes = {item: _change(item in better, item in worse) for item in outcomes} if task["differences"] else {}
    chosen = _spread({item: (changes.get(item), tuple(sorted(words))) for item, words in outcomes.items()}, most)
    answers = [_by_item(frame.filter(pl.col("item").is_in(chosen))) for frame in frames]
    views = []
    for item in sorted(chosen):
        rows = [(model.name, each.get(item, [])) for model, each in zip(models, answers, strict=True)]
        first = next(found[0] for _, found in rows if found)
        views.append(
            ItemView(
                name=visible(item),
                language=visible(first["language"]),
                prompt=None if first["prompt"] is None else shown(first["prompt"]),
                models=[(name, _answers(found), len(found)) for name, found in rows],
                outcomes=tuple(sorted(outcomes[item])),
                change=changes.get(item),
            )
        )
    by_change = {name: list(changes.values()).count(name) for name in CHANGES} if changes else {}
    return TaskItems(task_label(task), views, len(outcomes), by_change)


def shown(text: str) -> str:
    """`text` with what cannot be seen as symbols, lines kept; of a long one the beginning and the end."""
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
    return "\n".join(visible(line) for line in text.split("\n"))


def _change(is_better: bool, is_worse: bool) -> str:
    if is_better and is_worse:
        return "mixed"
    return "better" if is_better else "worse" if is_worse else "same"


def _spread(sorts: Mapping[str, Any], most: int) -> list[str]:
    """At most so many items, one of each sort in turn, in the order of their names."""
    groups: dict[Any, list[str]] = {}
    for item in sorted(sorts):
        groups.setdefault(sorts[item], []).append(item)
    ordered = [groups[key] for key in sorted(groups, key=repr)]
    taken: list[str] = []
    for turn in range(max(map(len, ordered))):
        taken += [group[turn] for group in ordered if turn < len(group)]
        if len(taken) >= most:
            break
    return taken[:most]


def _by_item(frame: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in frame.sort("item", "sample").iter_rows(named=True):
        found.setdefault(row["item"], []).append(row)
    return found


def _answers(rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Some of the answers: the first of each outcome, then the others."""
    firsts = {row["outcome"]: row for row in reversed(rows)}.values()
    others = [row for row in rows if not any(row is first for first in firsts)]
    chosen = sorted([*firsts, *others][:MAX_ANSWERS], key=lambda row: int(row["sample"]))
    return [
        Answer(
            sample=row["sample"],
            outcome=visible(str(row["outcome"])),
            score=_score(row),
            text=None if row["answer"] is None else shown(row["answer"]),
            detail=_detail(row),
        )
        for row in chosen
    ]


def _score(row: Mapping[str, Any]) -> str:
    if row["nats"] is not None and row["bytes"]:
        return f"{row['nats'] / math.log(2) / row['bytes']:.4f} bits/byte"
    return "" if row["score"] in (None, 0.0, 1.0) else f"score {row['score']:.3g}"


def _detail(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("judge", "weak: in the candidate's own process")] if row["judge"] == "weak" else []
    if row["detail"] is None:
        return lines
    try:
        found = json.loads(row["detail"])
    except ValueError:
        return [*lines, ("detail", shown(row["detail"]))]
    if not isinstance(found, dict):
        found = {"detail": found}
    return [*lines, *((visible(str(name)), _plain(value)) for name, value in found.items() if value is not None)]


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, list) and all(isinstance(each, int | float) for each in value):
        return ", ".join(f"{each:g}" if isinstance(each, int) else f"{each:.4g}" for each in value)
    return shown(json.dumps(value, ensure_ascii=False))
