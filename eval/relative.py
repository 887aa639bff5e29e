"""Relative improvement as "To Code, or Not To Code" (Aryabumi et al. 2024) reports it: (variant − baseline) / baseline.

It is taken on the mean of a group of tasks, not as a mean of relative changes. It has no interval of its own: read the
differences of the tasks beside it, and be careful where the baseline is near 0 (12 times of 0.4 % is 4.8 %).
A group of which tasks are missing is named so, and is not the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .evaluations import Model


def relative_improvement(models: Sequence[Model]) -> dict[str, list[dict[str, Any]]]:
    """Suite → a row for each of its groups and averages and each model but the first, which is the baseline."""
    baseline = suite_means(models[0])
    found: dict[str, list[dict[str, Any]]] = {}
    for model in models[1:]:
        for suite, means in suite_means(model).items():
            for name, value in means.items():
                base = baseline.get(suite, {}).get(name)
                row = {"group": name, "model": model.name, "baseline": base, "value": value}
                found.setdefault(suite, []).append(row | {"relative": relative(value, base)})
    return found


def relative(value: float | None, baseline: float | None) -> float | None:
    """(value − baseline) / baseline; None where it does not exist."""
    if value is None or baseline is None or baseline == 0:
        return None
    return (value - baseline) / baseline


def suite_means(model: Model) -> dict[str, dict[str, float | None]]:
    """Suite → group or average → mean over the model's seeds; None if a seed has none.

    A group that is not complete has the name that says so ("reasoning (6 of 11)") and the mean of what is there.
    """
    found: dict[str, dict[str, float | None]] = {}
    for suite in model.evaluations[0].facts.get("suites", {}):
        each = [_means(evaluation.facts.get("suites", {}).get(suite, {})) for evaluation in model.evaluations]
        for name in each[0]:
            values = [means.get(name) for means in each]
            known = [value for value in values if value is not None]
            found.setdefault(suite, {})[name] = sum(known) / len(known) if len(known) == len(values) else None
    return found


def _means(suite: Mapping[str, Any]) -> dict[str, float | None]:
    groups = {
        str(group.get("title", name)): group["mean"]
        if group.get("mean") is not None
        else group.get("mean_of_available")
        for name, group in suite.get("groups", {}).items()
    }
    return {**groups, **suite.get("averages", {})}
