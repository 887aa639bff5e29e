"""Models compared on the same items: every task's difference to the baseline, its interval, and a verdict in words.

In: folders of evaluations (`items.parquet` and `evaluation.json`). Out: one plain dict, the content of
`comparison.json`; `rows` makes a table of it. Nothing is paired that was not asked the same: tasks must have one
fingerprint, items one set, likelihoods one count of bytes; win rates need one judge and one other side, and answers
that nobody judged are shown without a score. Settings and sandbox levels that differ are allowed, and said.

A model that was trained with several seeds is a folder of evaluations, or several folders named NAME-SEED. Its items
have the mean over seeds; the interval over seeds stands beside that over items, and the larger of the two decides.
p-values are adjusted over all differences in the table (Holm), except those of a primary task named beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ..strict import ConfigError, nearest, unknown
from .evaluations import Model, check_settings, read_models
from .measures import Measure, item_values, mean_of_seeds, measure_of, usual_metric
from .paired import REPLICATES, Paired, Single, benjamini_hochberg, holm, paired, single
from .relative import left_out, relative_improvement
from .verdicts import SeedSpread, amount_text, interval_text, judge, p_text, seed_spread

SCHEMA = 1

MAX_UNSCORED = 0.05
"""Share of answers without a score (harness errors, verdicts that cannot be parsed) above which it is said louder."""

CORRECTIONS: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
    "none": list,
}


@dataclass(frozen=True)
class _Side:
    """One model on one task: what it was asked, items with the mean over seeds, and the metric of each seed.

    Attributes:
        estimate: None if no answer has a score.
        judged: (judge, answers of the other side) of each seed, where answers were compared.
    """

    model: str
    asked: pl.DataFrame
    values: pl.DataFrame
    by_seed: tuple[float, ...]
    estimate: Single | None
    judged: frozenset[tuple[str, str]]
    outcomes: dict[str, int]
    unscored: int


@dataclass(frozen=True)
class _Difference:
    """A model against the baseline on a task, before the correction over all of them."""

    side: _Side
    found: Paired
    seeds: SeedSpread | None
    values: pl.DataFrame

    @property
    def p(self) -> float:
        return max(self.found.p, self.seeds.p if self.seeds else 0.0)


def compare(
    folders: Sequence[Path],
    baseline: Path | str | None = None,
    *,
    metrics: Mapping[str, str] | None = None,
    primary: str | None = None,
    correction: str = "holm",
    confidence: float = 0.95,
    by_seed: bool = False,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> dict[str, Any]:
    """Compare every model with the baseline.

    Args:
        folders: evaluations; a folder that holds several is a model with so many seeds. One alone is described.
        baseline: folder or name of the model to compare with; default: the first.
        metrics: task → metric other than its usual one (`pass_at_10`, `accuracy_characters`, …).
        primary: task that was chosen beforehand to decide; it is not corrected for the others.
        correction: of p-values: "holm", "benjamini-hochberg" or "none".
        confidence: of the intervals; 1 − it is the level of the tests.
        by_seed: folders named NAME-SEED are seeds of the model NAME.
        seed: of bootstrap and random sign patterns.
        replicates: of both.

    Raises:
        ConfigError: if a name is not known, or a folder holds no evaluation.
        ValueError: if the models were not asked the same.
    """
    if correction not in CORRECTIONS:
        raise ConfigError(unknown("correction", correction, CORRECTIONS))
    models = read_models(folders, by_seed)
    first = _baseline(models, folders, baseline)
    ordered = [first, *(model for model in models if model is not first)]
    parts, warnings = _common_parts(ordered)
    _check_names(metrics, primary, [task for task, _ in parts])
    warnings += check_settings(ordered, [task for task, _ in parts])
    tasks = []
    others: dict[tuple[str, str], list[_Side]] = {}
    for task, stream in parts:
        facts = first.evaluations[0].facts["tasks"][task]
        name = (metrics or {}).get(task) or usual_metric(facts["kind"], facts)
        measure = measure_of(name, facts["kind"], stream)
        sides = [_side(model, task, stream, measure, confidence, seed, replicates) for model in ordered]
        warnings += _unscored(task, sides)
        for side in sides[1:]:
            _check_asked(task, sides[0].asked, side.asked, sides[0].model, side.model)
            _check_sizes(task, sides[0].values, side.values, sides[0].model, side.model)
        why_not = {side.model: _why_not(sides[0], side) for side in sides[1:]}
        others[task, stream] = [side for side in sides[1:] if why_not[side.model] is None]
        warnings += [f"{task}: {name} is not compared with {first.name}: {why}" for name, why in why_not.items() if why]
        tasks.append((task, stream, facts, measure, sides))
    read = sum(len(sides) for (task, _), sides in others.items() if task != primary)
    comparisons = {
        task: sum(len(sides) for (name, _), sides in others.items() if name == primary) if task == primary else read
        for task, *_ in tasks
    }
    differences = {
        (task, stream): [
            _difference(sides, side, measure, confidence, comparisons[task], seed, replicates)
            for side in others[task, stream]
        ]
        for task, stream, _, measure, sides in tasks
    }
    relative = relative_improvement(ordered)
    adjusted = _adjust(differences, primary, CORRECTIONS[correction])
    return {
        "schema": SCHEMA,
        "baseline": first.name,
        "confidence": confidence,
        "correction": correction,
        "primary": primary,
        "comparisons": read if read else sum(comparisons.values()),
        "models": [_model(model) for model in ordered],
        "tasks": [
            {
                "task": task,
                "stream": stream,
                "kind": facts["kind"],
                "metric": measure.name,
                "higher_is_better": measure.higher_is_better,
                "unit": measure.unit,
                "items": sides[0].values.height or sides[0].asked["item"].n_unique(),
                "clusters": sides[0].values["cluster"].n_unique() or sides[0].asked["cluster"].n_unique(),
                "estimates": [_estimate(side) for side in sides],
                "differences": [
                    _described(each, first.name, p, measure, confidence, comparisons[task])
                    for each, p in zip(differences[task, stream], adjusted[task, stream], strict=True)
                ],
            }
            for task, stream, facts, measure, sides in tasks
        ],
        "relative": relative,
        "warnings": warnings + left_out(relative),
    }


def rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each task and model, as text."""
    found = []
    for task in comparison["tasks"]:
        measure = Measure(task["metric"], task["higher_is_better"], task["unit"])
        against = {each["model"]: each for each in task["differences"]}
        for estimate in task["estimates"]:
            row = {
                "task": task_label(task),
                "model": estimate["model"],
                "metric": task["metric"],
                "score": estimate_text(estimate, task["unit"]),
                "difference": "",
                "p": "",
                "detectable": "",
                "verdict": "baseline" if task["differences"] else "",
            }
            if each := against.get(estimate["model"]):
                least = each["smallest_detectable"]
                row |= {
                    "difference": difference_text(each, task["unit"]),
                    "p": p_text(each["p_adjusted"]),
                    "detectable": "–" if least is None else amount_text(least, measure),
                    "verdict": each["verdict"]["word"],
                }
            found.append(row)
    return found


def task_label(task: Mapping[str, Any]) -> str:
    """The task, with the stream where it holds held-out documents of several."""
    return (
        f"{task['task']}/{task['stream']}"
        if task["kind"] == "bits_per_byte" and task["stream"] != "gold"
        else str(task["task"])
    )


def estimate_text(estimate: Mapping[str, Any], unit: str) -> str:
    """`20.1 % [15.0, 26.3]`, or bits per byte with four decimals."""
    if estimate["value"] is None:
        return "no score"
    scale, pattern, suffix = (100, "{:.1f}", " %") if unit == "points" else (1, "{:.4f}", "")
    shown = pattern.format(scale * estimate["value"]) + suffix
    if estimate["low"] is None:
        return shown
    return f"{shown} [{pattern.format(scale * estimate['low'])}, {pattern.format(scale * estimate['high'])}]"


def difference_text(difference: Mapping[str, Any], unit: str) -> str:
    """`+3.1 [+1.0, +5.2]` in points or bits per byte."""
    scale, pattern = (100, "{:+.1f}") if unit == "points" else (1, "{:+.4f}")
    shown = pattern.format(scale * difference["difference"])
    if difference["low"] is None:
        return f"{shown} [no interval]"
    return f"{shown} [{pattern.format(scale * difference['low'])}, {pattern.format(scale * difference['high'])}]"


def _baseline(models: Sequence[Model], folders: Sequence[Path], baseline: Path | str | None) -> Model:
    if baseline is None:
        return models[0]
    for model in models:
        if str(baseline) == model.name or Path(baseline) in model.folders:
            return model
    raise ConfigError(unknown("baseline", str(baseline), [model.name for model in models]))


def _common_parts(models: Sequence[Model]) -> tuple[list[tuple[str, str]], list[str]]:
    """(task, stream) that every model was measured on, in the first one's order; what is left out is said."""
    found = [set(evaluation.parts) for model in models for evaluation in model.evaluations]
    common = set.intersection(*found)
    warnings = [
        f"{task} ({stream}): left out, because it was not measured for "
        + ", ".join(
            model.name for model in models if any((task, stream) not in each.parts for each in model.evaluations)
        )
        for task, stream in sorted(set.union(*found) - common)
    ]
    if not common:
        raise ValueError(
            "the models have no task in common: "
            + "; ".join(
                f"{model.name}: {', '.join(sorted({task for task, _ in model.evaluations[0].parts}))}"
                for model in models
            )
        )
    for task in sorted({task for task, _ in common}):
        prints = {
            evaluation.facts["tasks"][task][
                "fingerprint"
            ]: f"{model.name} {str(evaluation.facts['tasks'][task]['fingerprint'])[:12]}"
            for model in models
            for evaluation in model.evaluations
        }
        if len(prints) > 1:
            raise ValueError(
                f'task "{task}" is not the same task ({", ".join(prints.values())}): its file, data or shots differ; '
                "evaluate the models again on one of them"
            )
    return [part for part in models[0].evaluations[0].parts if part in common], warnings


def _check_names(metrics: Mapping[str, str] | None, primary: str | None, tasks: Sequence[str]) -> None:
    for name in [*(metrics or {}), *([] if primary is None else [primary])]:
        if name not in tasks:
            raise ConfigError(f'no common task "{name}"{nearest(name, tasks)}; there are: {", ".join(tasks)}')


def _side(
    model: Model, task: str, stream: str, measure: Measure, confidence: float, seed: int, replicates: int
) -> _Side:
    of_task = [
        evaluation.items.filter((pl.col("task") == task) & (pl.col("stream") == stream))
        for evaluation in model.evaluations
    ]
    for items, evaluation in zip(of_task[1:], model.evaluations[1:], strict=True):
        _check_asked(task, of_task[0], items, str(model.folders[0]), str(evaluation.folder))
    each = [item_values(items, measure) for items in of_task]
    for values, evaluation in zip(each[1:], model.evaluations[1:], strict=True):
        _check_sizes(task, each[0], values, str(model.folders[0]), str(evaluation.folder))
    values = mean_of_seeds(_scored_in_all(each))
    arguments = {**_arguments(values, measure), "confidence": confidence, "seed": seed, "replicates": replicates}
    found = None if values.is_empty() else single(values["value"].to_numpy(), **arguments)
    scored = [] if values.is_empty() else each
    alone = [single(one["value"].to_numpy(), **_arguments(one, measure), replicates=2).value for one in scored]
    counted = pl.concat([items.select("outcome") for items in of_task])["outcome"].value_counts().sort("outcome")
    unscored = 0 if measure.unit == "bits/byte" else sum(items["score"].null_count() for items in of_task)
    facts = [evaluation.facts["tasks"][task] for evaluation in model.evaluations]
    judged = frozenset((str(fact.get("judge")), str(fact.get("against"))) for fact in facts)
    return _Side(model.name, of_task[0], values, tuple(alone), found, judged, dict(counted.iter_rows()), unscored)


def _why_not(first: _Side, second: _Side) -> str | None:
    """Why two models have no difference on a task."""
    unscored = [side.model for side in (first, second) if side.estimate is None]
    if unscored:
        return f"no answer of {' and '.join(unscored)} has a score; answers are judged with --judge"
    if first.judged != second.judged or len(first.judged) > 1:
        return "their answers were compared by different judges, or with different answers"
    return None


def _arguments(values: pl.DataFrame, measure: Measure) -> dict[str, Any]:
    return {
        "clusters": values["cluster"].to_numpy(),
        "sizes": values["size"].to_numpy() if measure.unit == "bits/byte" else None,
        "strata": values["language"].to_numpy() if measure.by_language else None,
    }


def _check_asked(task: str, first: pl.DataFrame, second: pl.DataFrame, first_name: str, second_name: str) -> None:
    for one, another, name in ((first, second, second_name), (second, first, first_name)):
        lonely = one.join(another, on="item", how="anti")["item"].unique().sort()
        if len(lonely):
            raise ValueError(
                f'task "{task}": item {lonely[0]} was not asked of {name} ({len(lonely)} such items); models are '
                "compared on the same items: evaluate them with the same data and max_items"
            )


def _check_sizes(task: str, first: pl.DataFrame, second: pl.DataFrame, first_name: str, second_name: str) -> None:
    unequal = first.join(second, on="item", suffix="_second").filter(pl.col("size") != pl.col("size_second"))
    if not unequal.is_empty():
        row = unequal.row(0, named=True)
        raise ValueError(
            f'task "{task}": item {row["item"]}: {row["size"]:g} bytes were scored for {first_name}, '
            f"{row['size_second']:g} for {second_name}; with different tokenizers cut documents by max_bytes, not by "
            "max_tokens"
        )


def _scored_in_all(values: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The items that all of them have a score for."""
    if len({each.height for each in values}) == 1 and all(each["item"].equals(values[0]["item"]) for each in values):
        return list(values)
    common = values[0].select("item")
    for each in values[1:]:
        common = common.join(each, on="item", how="semi")
    return [each.join(common, on="item", how="semi").sort("item") for each in values]


def _unscored(task: str, sides: Sequence[_Side]) -> list[str]:
    found = []
    for side in sides:
        if side.unscored and side.estimate is not None:
            share = side.unscored / sum(side.outcomes.values())
            far = "; so many that the others may be a chosen part" if share > MAX_UNSCORED else ""
            found.append(
                f"{task}: {side.unscored} answers of {side.model} have no score and are left out "
                f"({100 * share:.1f} %){far}"
            )
    return found


def _difference(
    sides: Sequence[_Side],
    side: _Side,
    measure: Measure,
    confidence: float,
    comparisons: int,
    seed: int,
    replicates: int,
) -> _Difference:
    base, ours = _scored_in_all([sides[0].values, side.values])
    variances = [each["variance"] for each in (base, ours)]
    known = all(each.null_count() == 0 for each in variances)
    sampling = sum(float(each.sum()) for each in variances) / ours.height**2 if known else None
    found = paired(
        base["value"].to_numpy(),
        ours["value"].to_numpy(),
        **_arguments(base, measure),
        sampling_variance=sampling,
        confidence=confidence,
        comparisons=comparisons,
        seed=seed,
        replicates=replicates,
    )
    spread = seed_spread(found.difference, side.by_seed, sides[0].by_seed, [each.by_seed for each in sides], confidence)
    moves = (ours["value"] - base["value"]) / ours["size"]
    values = ours.select("item", "samples").with_columns(moves.alias("move"))
    return _Difference(side, found, spread, values)


def _adjust(
    differences: Mapping[tuple[str, str], Sequence[_Difference]],
    primary: str | None,
    correct: Callable[[Sequence[float]], list[float]],
) -> dict[tuple[str, str], list[float]]:
    """Adjusted p by task: the primary one for itself, all the others together."""
    found: dict[tuple[str, str], list[float]] = {}
    for family in (
        [part for part in differences if part[0] == primary],
        [part for part in differences if part[0] != primary],
    ):
        flat = correct([each.p for part in family for each in differences[part]])
        for part in family:
            found[part], flat = flat[: len(differences[part])], flat[len(differences[part]) :]
    return found


def _model(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "folders": [str(folder) for folder in model.folders],
        "seeds": len(model.evaluations),
        "fingerprints": [evaluation.facts.get("model") for evaluation in model.evaluations],
    }


def _estimate(side: _Side) -> dict[str, Any]:
    return {
        "model": side.model,
        **(dict.fromkeys(("value", "low", "high", "interval")) if side.estimate is None else asdict(side.estimate)),
        "samples": int(side.values["samples"].max() or 1),  # type: ignore[arg-type]
        "by_seed": list(side.by_seed),
        "seed_sd": float(np.std(side.by_seed, ddof=1)) if len(side.by_seed) > 1 else None,
        "outcomes": side.outcomes,
        "unscored": side.unscored,
    }


def _described(
    each: _Difference, baseline: str, p_adjusted: float, measure: Measure, confidence: float, comparisons: int
) -> dict[str, Any]:
    samples = int(each.values["samples"].max() or 1)  # type: ignore[arg-type]
    verdict = judge(
        each.found, p_adjusted, measure, each.seeds, samples=samples, confidence=confidence, comparisons=comparisons
    )
    sign = 1 if measure.higher_is_better else -1
    moves = each.values.with_columns(pl.col("move") * sign)
    better = moves.filter(pl.col("move") > 0).sort("move", "item", descending=[True, False])["item"].to_list()
    worse = moves.filter(pl.col("move") < 0).sort("move", "item")["item"].to_list()
    return {
        "model": each.side.model,
        "baseline": baseline,
        **asdict(each.found),
        "text": interval_text(each.found, measure),
        "p_adjusted": p_adjusted,
        "comparisons": comparisons,
        "seeds": None if each.seeds is None else asdict(each.seeds),
        "verdict": asdict(verdict),
        # Lists of items, the largest change first; they replace the counts of the same name.
        "better": better,
        "worse": worse,
    }
