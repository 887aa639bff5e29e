"""A paper's tasks in its groups: what of them can be run here, and the means that may be printed.

A group's mean is the paper's only if every task of it is there with every published item, from a file that is not known
to be another, and was asked with the settings that the group names. Otherwise the group is titled "6 of 11", says why,
and has no mean, but `mean_of_available` under that name. Averages over groups follow the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..notes import part_of
from .load import MissingData, load_task
from .schema import GroupConfig, SuiteConfig
from .task import Task

Measured = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Task → stream → metric, as `eval/metrics.py` gives them."""

COUNTS = ("items", "problems", "documents")
"""Names under which a stream's metrics say how many items were scored."""


@dataclass(frozen=True)
class Available:
    """The tasks of a suite whose data is here, and why the others are not."""

    tasks: tuple[Task, ...]
    missing: Mapping[str, str]


def available(suite: SuiteConfig, data: Sequence[Path] = ()) -> Available:
    """Load every task of a suite whose data is found.

    Raises:
        ConfigError: if a task or its data is wrong; missing data is no error.
    """
    tasks, missing = [], {}
    for name in suite.tasks:
        try:
            tasks.append(load_task(name, data))
        except MissingData as error:
            missing[name] = str(error)
    return Available(tuple(tasks), missing)


def summary(
    suite: SuiteConfig,
    measured: Measured,
    facts: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The suite's scores: by task, group and average.

    Args:
        measured: of one model.
        facts: of each task; `of` is the published number of items, `verified` is False for a file known to be another.
        settings: the eval config, for groups that name the paper's.

    Returns:
        `{"title", "complete", "groups": {name: {"title", "complete", "tasks": {task: {"metric", "value", "items",
        "of", "complete", "why"}}, "missing", "mean", "mean_of_available"}}, "averages": {name: value or None},
        "averages_of": {name: groups}}`; `why` says what keeps a task from being complete. A mean that may not be given
        is None.
    """
    groups = {}
    for group in suite.groups:
        others = _other_settings(group, settings or {})
        tasks = {
            task: found
            for task in group.tasks
            if (found := _score(task, group.metrics.get(task, group.metric), measured, facts, others)) is not None
        }
        values = [found["value"] for found in tasks.values()]
        missing = [task for task in group.tasks if task not in tasks]
        whole = sum(found["complete"] for found in tasks.values())
        mean = sum(values) / len(values) if values else None
        complete = whole == len(group.tasks)
        groups[group.name] = {
            "title": group.name if complete else f"{group.name} ({whole} of {len(group.tasks)})",
            "complete": complete,
            "tasks": tasks,
            "missing": missing,
            "mean": mean if complete else None,
            "mean_of_available": mean,
        }
    count = sum(len(group.tasks) for group in suite.groups)
    whole = sum(found["complete"] for group in groups.values() for found in group["tasks"].values())
    averages = {
        name: sum(groups[each]["mean"] for each in members) / len(members)
        if all(groups[each]["complete"] for each in members)
        else None
        for name, members in suite.averages.items()
    }
    return {
        "title": suite.name if whole == count else f"{suite.name} ({whole} of {count} tasks)",
        "complete": whole == count,
        "groups": groups,
        "averages": averages,
        "averages_of": {name: list(members) for name, members in suite.averages.items()},
    }


def _score(
    task: str, metric: str, measured: Measured, facts: Mapping[str, Mapping[str, Any]], others: Sequence[str]
) -> dict[str, Any] | None:
    """The task's metric; None if it was not measured. `others`: settings that are not the paper's."""
    for values in measured.get(task, {}).values():
        if values.get(metric) is not None:
            items = scored_items(values)
            known = facts.get(task, {})
            published = known.get("of") or known.get("items")
            why = list(others)
            if items is None or published is None:
                why.append("how many items were published is not known")
            elif part := part_of(known, items):
                why.append(part)
            if known.get("verified") is False:
                why.append("not the published file")
            found = {"metric": metric, "value": values[metric], "items": items, "of": published}
            return {**found, "complete": not why, "why": why}
    return None


def scored_items(values: Mapping[str, Any]) -> int | None:
    """Items that a stream's metrics are of."""
    return next((int(values[name]) for name in COUNTS if name in values), None)


def _other_settings(group: GroupConfig, settings: Mapping[str, Any]) -> list[str]:
    """Settings that are not those which the group names, with the paper's."""
    found = []
    for key, paper in group.settings.items():
        own = settings.get(key)
        is_enough = key == "samples" and own is not None and own >= paper
        if own != paper and not is_enough:
            found.append(f"{key} {own}, the paper's {paper}")
    return found
