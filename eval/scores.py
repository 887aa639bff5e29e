"""An evaluation as the table that a person reads first: a row for what was measured, and what to know beside it.

In: what `evaluation.json` holds. Out: rows of plain values. The first metric of a task stands for it; of code every
pass@k that was computed has a row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .notes import data_notes, part_of, run_notes
from .tasks.suites import scored_items

HEADLINES = ("pass_at_1", "accuracy", "exact_match", "f1", "win_rate", "bits_per_byte", "answered")
"""The first of these that a task has stands for it."""

PASS_AT = re.compile(r"pass_at_(\d+)")

Row = dict[str, Any]


def score_rows(evaluation: Mapping[str, Any]) -> list[Row]:
    """A row a task, stream and pass@k: metric, score, interval, chance, items and notes."""
    rows: list[Row] = []
    for task, streams in evaluation["metrics"].items():
        facts = evaluation["tasks"].get(task, {})
        for stream, found in streams.items():
            for number, name in enumerate(_names(found)):
                row = {"task": task, "": stream, "metric": name, "score": _score(found[name])}
                rows.append({**row, **(_beside(name, facts, found) if number == 0 else {})})
    return rows


def suite_rows(suite: Mapping[str, Any]) -> list[Row]:
    """A row a group and average: the mean if it may be called so, else what there is, and why."""
    rows: list[Row] = []
    for group in suite["groups"].values():
        why = [f"{task}: {'; '.join(each['why'])}" for task, each in group["tasks"].items() if each["why"]]
        if group["missing"]:
            why.append(f"not measured: {', '.join(group['missing'])}")
        of_available = None if group["complete"] else group["mean_of_available"]
        rows.append(
            {
                "group": group["title"],
                "mean": _number(group["mean"]),
                "of what is there": _number(of_available),
                "not the paper's, because": "; ".join(why),
            }
        )
    return rows + [{"group": f"average: {name}", "mean": _number(value)} for name, value in suite["averages"].items()]


def notes_of(facts: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """All that a reader must know beside the scores of a task; `found` are its metrics."""
    return [*data_notes(facts, scored_items(found)), *run_notes(facts, found)]


def _names(found: Mapping[str, Any]) -> list[str]:
    first = next((name for name in HEADLINES if name in found), None)
    if first is None:
        return []
    more = sorted(int(match[1]) for name in found if (match := PASS_AT.fullmatch(name)) and name != first)
    return [first, *(f"pass_at_{k}" for k in more)]


def _beside(name: str, facts: Mapping[str, Any], found: Mapping[str, Any]) -> Row:
    low, high, items = found.get(f"{name}_low"), found.get(f"{name}_high"), scored_items(found)
    notes = notes_of(facts, found)
    if part := part_of(facts, items):
        notes.remove(part)  # it has a column of its own
    if found.get("samples", items) != items:
        notes.insert(0, f"{found['samples']:,} answers")
    return {
        "95 %": "" if low is None else f"{low:.4f} to {high:.4f}",
        "chance": "" if found.get("chance") is None else f"{found['chance']:.3f}",
        "items": items if part is None else part.removesuffix(" items"),
        "notes": ", ".join(notes),
    }


def _score(value: float | None) -> str:
    """A share or bits per byte; a count as it is; void where too many verdicts could not be read."""
    if value is None:
        return "void"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
