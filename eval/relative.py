"""Relative improvement as "To Code, or Not To Code" (Aryabumi et al. 2024) reports it: (variant − baseline) / baseline.

It is taken on the mean of a group of tasks, not as a mean of relative changes. It has no interval of its own: read the
differences of the tasks beside it, and be careful where the baseline is near 0 (12 times of 0.4 % is 4.8 %).
Two groups are one only if both models were asked the same tasks and items of it; else there is no number, and why is
said. A group of which tasks are missing for both is titled so, and is not the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .evaluations import Evaluation, Model

Asked = frozenset[tuple[str, str, str, frozenset[str]]]
"""What a mean is of: (task, its fingerprint, metric, ids of the items)."""


@dataclass(frozen=True)
class Mean:
    """Of a group or an average: over the model's seeds.

    Attributes:
        title: says what is missing.
        asked: None where the seeds were not asked the same.
    """

    title: str
    value: float | None
    asked: Asked | None


def relative_improvement(models: Sequence[Model]) -> dict[str, list[dict[str, Any]]]:
    """Suite → a row for each of its groups and averages and each model but the first, which is the baseline.

    A row: `group`, `title`, `model`, `baseline`, `value`, `relative`, and `left_out`: why there is no number.
    """
    baseline = suite_means(models[0])
    found: dict[str, list[dict[str, Any]]] = {}
    for model in models[1:]:
        others = suite_means(model)
        for suite in dict.fromkeys((*baseline, *others)):
            first, second = baseline.get(suite, {}), others.get(suite, {})
            for name in dict.fromkeys((*first, *second)):
                row = _row(name, first.get(name), second.get(name))
                found.setdefault(suite, []).append({"group": name, "model": model.name, **row})
    return found


def left_out(improvement: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What `relative_improvement` could not join, in words."""
    return [
        f"{suite}, {row['group']}: no relative improvement of {row['model']}: {row['left_out']}"
        for suite, rows in improvement.items()
        for row in rows
        if row["left_out"]
    ]


def relative(value: float | None, baseline: float | None) -> float | None:
    """(value − baseline) / baseline; None where it does not exist."""
    if value is None or baseline is None or baseline == 0:
        return None
    return (value - baseline) / baseline


def suite_means(model: Model) -> dict[str, dict[str, Mean]]:
    """Suite → group or average → mean over the model's seeds; no value if a seed has none.

    A group that is not complete has the mean of what is there.
    """
    found: dict[str, dict[str, Mean]] = {}
    for suite in dict.fromkeys(suite for each in model.evaluations for suite in each.facts.get("suites", {})):
        seeds = [_means(each, each.facts.get("suites", {}).get(suite, {})) for each in model.evaluations]
        for name in dict.fromkeys(name for means in seeds for name in means):
            each = [means.get(name, Mean(name, None, frozenset())) for means in seeds]
            values = [mean.value for mean in each if mean.value is not None]
            asked = {mean.asked for mean in each}
            value = sum(values) / len(values) if len(values) == len(each) else None
            found.setdefault(suite, {})[name] = Mean(each[0].title, value, asked.pop() if len(asked) == 1 else None)
    return found


def _row(name: str, first: Mean | None, second: Mean | None) -> dict[str, Any]:
    why = _why_not(first, second)
    base, value = first.value if first else None, second.value if second else None
    title = first.title if first else second.title if second else name
    shown = {"title": title, "baseline": base, "value": value}
    return {**shown, "relative": None if why else relative(value, base), "left_out": why}


def _why_not(first: Mean | None, second: Mean | None) -> str | None:
    """Why two means are not of the same; None also where there are none to be joined."""
    if first is None or second is None:
        return "only one of the models has the suite"
    if first.value is None or second.value is None:
        return None
    if first.asked is None or second.asked is None:
        return "the seeds of a model were not asked the same"
    if first.asked == second.asked:
        return None
    one, other = ({task: what for task, *what in mean.asked or ()} for mean in (first, second))
    if lonely := sorted(one.keys() ^ other.keys()):
        return f"{', '.join(lonely)} was measured for one of the models only"
    return f"{', '.join(sorted(task for task in one if one[task] != other[task]))}: other items, or another metric"


def _means(evaluation: Evaluation, suite: Mapping[str, Any]) -> dict[str, Mean]:
    groups = suite.get("groups", {})
    asked = {name: _asked(evaluation, group) for name, group in groups.items()}
    found = {
        name: Mean(
            str(group.get("title", name)),
            group["mean"] if group.get("mean") is not None else group.get("mean_of_available"),
            asked[name],
        )
        for name, group in groups.items()
    }
    for name, value in suite.get("averages", {}).items():
        members = suite.get("averages_of", {}).get(name, list(groups))
        found[name] = Mean(name, value, frozenset().union(*(asked[group] for group in members)))
    return found


def _asked(evaluation: Evaluation, group: Mapping[str, Any]) -> Asked:
    tasks = evaluation.facts["tasks"]
    return frozenset(
        (task, str(tasks[task]["fingerprint"]), str(found["metric"]), evaluation.items_of(task))
        for task, found in group.get("tasks", {}).items()
    )
