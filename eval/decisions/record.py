"""The decision record: question, rule, arms, estimates with intervals, verdicts, noise, cost, and what would undo it.

In: the decision's config, the scored items of every arm and seed, the arms, and the context of the run. Out: a plain
dict, written as JSON for machines and as Markdown for people. It is a function of its inputs: but for `times`, the
same run gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import polars as pl

from ...config import KINDS as STREAMS
from ...config import DecideConfig, EvalConfig
from ...files import write_atomic, write_json
from ...strict import fingerprint, nearest
from ...train.config import TrainConfig
from ..statistics import Estimate, wilson
from .arms import Arm
from .compare import Comparisons, compare, unmatched
from .markdown import render
from .verdict import Guardrail

SCHEMA = 2

UNITS = {"bits_per_byte": "bits per byte", "error_rate": "share of wrong answers"}
"""Of the metrics that can decide."""

AVERAGES = {
    "bits_per_byte": "nats over bytes within a language, then the mean of the languages, then of the seeds",
    "error_rate": "wrong answers over answers of an item, then of the items of a language, then as above",
}

EPOCH_RATIO = 1.5
"""An arm that repeats its documents this much more than the baseline asks a question about repetition as well."""


class Context(TypedDict, total=False):
    """What a record says about the run around the decision; every key is optional."""

    train: TrainConfig
    evaluation: EvalConfig
    parameters: int
    input_fingerprint: str
    depends_on: dict[str, str]  # what else the result hangs on, name -> hash: classifier, rule set, tasks
    planned_rule: str  # hash of the rule as it was written down before training
    environment: dict[str, str]
    times: dict[str, float]


def rule(config: DecideConfig) -> dict[str, str]:
    """Hypothesis and rule in words, and their hash; to be written down before the first model is trained."""
    margin, confidence = f"{100 * config.margin_fraction:g} %", f"{100 * config.confidence:g} %"
    control = " and it beats a random drop matched to it" if config.control else ""
    hypothesis = f"At least one arm lowers {config.metric} on {config.stream} by more than {margin}{control}."
    text = (
        f"Measure: {config.metric} on {_where(config)}; lower is better. "
        f"Difference: arm minus {config.baseline}, paired by seed and item. Intervals: {confidence}, simultaneous "
        f"over all comparisons with the baseline and the random drops. Margin: {margin} of the baseline's mean. "
        f"Adopt: the interval lies below -margin{', that against a matched random drop below 0' if control else ''}, "
        "and no other stream or single language is significantly worse by more than its own margin. Reject: the "
        "interval lies above +margin, or that against the random drop above 0. Equivalent: the interval lies inside "
        "the margin. Undecided: everything else; the baseline is kept."
    )
    return {"hypothesis": hypothesis, "text": text, "hash": fingerprint(config, hypothesis, text)}


def _where(config: DecideConfig) -> str:
    if config.metric == "bits_per_byte" and config.stream in STREAMS:
        return f"held-out documents of the stream {config.stream}"
    return f"the task {config.stream}"


def decide(config: DecideConfig, items: pl.DataFrame, arms: Sequence[Arm], context: Context) -> dict[str, Any]:
    """The record of a decision.

    Args:
        config: what is compared, and what counts as a difference.
        items: of every arm and seed, as `store.collect` gives them.
        arms: of the run, in the order in which they are shown.
        context: what surrounds the decision.

    Raises:
        ValueError: if an arm, the stream or the metric does not exist, or the arms were not scored on the same items.
    """
    _check(config, context)
    found = compare(config, items, arms)
    named = {arm.name: arm for arm in arms}
    first = next(iter(found.against_baseline.values()))
    return {
        "schema": SCHEMA,
        "name": config.name,
        "question": config.question,
        "rule": _rule(config, context),
        "metric": {
            "name": config.metric,
            "stream": config.stream,
            "unit": UNITS[config.metric],
            "average": AVERAGES[config.metric],
            "languages": list(first.languages),
        },
        "margin": {"fraction": config.margin_fraction, "value": config.margin_fraction * first.baseline_mean},
        "confidence": config.confidence,
        "comparisons": found.comparisons,
        "baseline": config.baseline,
        "arms": [_arm(named[name], items, found, named) for name in found.roles],
        "winner": found.winner,
        "keep": found.winner or config.baseline,
        "conclusion": _conclusion(config, found),
        "evidence": {
            "seeds": items["seed"].unique().sort().to_list(),
            "documents": first.documents,
            "families": first.clusters,
            "effective_families": first.effective_clusters,
        },
        "noise": _noise(found),
        "proxy": _proxy(context),
        "cost": _cost(context, len(found.roles), items["seed"].n_unique()),
        "invalidated_if": _invalidation(config, context),
        "depends_on": context.get("depends_on", {}),
        "input_fingerprint": context.get("input_fingerprint"),
        "environment": context.get("environment", {}),
        "times": context.get("times", {}),
    }


def write_record(record: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write `<name>.json` and `<name>.md`; returns both paths."""
    json_path, markdown_path = folder / f"{record['name']}.json", folder / f"{record['name']}.md"
    write_json(json_path, record)
    write_atomic(markdown_path, render(record))
    return json_path, markdown_path


def table(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One row an arm: what a person compares first. Differences are in the metric's unit, negative is better."""
    rows = []
    for arm in record["arms"]:
        row: dict[str, Any] = {
            "arm": arm["name"],
            "keep_percent": 100 * arm["keep_rate"],
            "mean": arm["mean"],
        }
        for key in ("against_baseline", "against_control"):
            estimate = arm[key] or {}
            row[key] = estimate.get("difference")
            row[f"{key}_low"], row[f"{key}_high"] = estimate.get("low"), estimate.get("high")
        rows.append({**row, "verdict": arm["verdict"]["word"], "reason": arm["verdict"]["reason"]})
    return rows


def _check(config: DecideConfig, context: Context) -> None:
    if config.metric not in UNITS:
        raise ValueError(
            f'decision "{config.name}": unknown metric "{config.metric}"{nearest(config.metric, UNITS)}; '
            f"known: {', '.join(UNITS)}"
        )
    known = Context.__annotations__
    for key in context:
        if key not in known:
            raise ValueError(f'decision "{config.name}": unknown context "{key}"{nearest(key, known)}')


def _rule(config: DecideConfig, context: Context) -> dict[str, Any]:
    fixed = rule(config)
    planned = context.get("planned_rule")
    return {
        **fixed,
        "planned_hash": planned,
        "fixed_before_launch": None if planned is None else planned == fixed["hash"],
    }


def _arm(arm: Arm, items: pl.DataFrame, found: Comparisons, named: dict[str, Arm]) -> dict[str, Any]:
    name = arm.name
    first = next(iter(found.against_baseline.values()))
    own = found.against_baseline.get(name)
    baseline = next(named[each] for each, role in found.roles.items() if role == "baseline")
    control = found.controls.get(name)
    return {
        **dataclasses.asdict(arm),
        "role": found.roles[name],
        "mean": own.arm_mean if own else first.baseline_mean,
        "seed_sd": own.arm_sd if own else first.baseline_sd,
        "against_baseline": _estimate(own),
        "against_control": _estimate(found.against_control.get(name)),
        "guardrails": [_guardrail(each) for each in found.guardrails.get(name, [])],
        "pass_at_1": _pass_at_1(items.filter(pl.col("arm") == name)),
        "verdict": dataclasses.asdict(found.verdicts[name]),
        "caveats": [
            caveat
            for caveat in _caveats(arm, baseline, named[control] if control else None)
            if caveat not in found.verdicts[name].reason
        ],
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return {**dataclasses.asdict(estimate), "standard_error": estimate.standard_error} if estimate else None


def _guardrail(guardrail: Guardrail) -> dict[str, Any]:
    estimate = guardrail.estimate
    return {
        "name": guardrail.name,
        "margin": guardrail.margin,
        "is_breached": guardrail.is_breached,
        **{key: getattr(estimate, key) for key in ("difference", "low", "high", "arm_mean", "baseline_mean")},
        **{key: getattr(estimate, key) for key in ("documents", "clusters")},
    }


def _pass_at_1(items: pl.DataFrame) -> dict[str, Any] | None:
    """Over all seeds; the same problems come back with every seed, so the interval is a note and decides nothing."""
    answers = items.filter(pl.col("stream") == "problems")
    if answers.is_empty():
        return None
    passed = answers.filter(pl.col("outcome") == "passed").height
    low, high = wilson(passed, answers.height)
    levels = answers["sandbox_level"].drop_nulls()
    return {
        "passed": passed,
        "answers": answers.height,
        "rate": passed / answers.height,
        "low": low,
        "high": high,
        "sandbox_level": None if levels.is_empty() else levels.min(),
    }


def _caveats(arm: Arm, baseline: Arm, control: Arm | None) -> list[str]:
    caveats = []
    if control is not None and (why := unmatched(arm, control)):
        caveats.append(why)
    if arm.epochs and baseline.epochs and arm.epochs > EPOCH_RATIO * baseline.epochs:
        caveats.append(
            f"repeats its documents {arm.epochs:.1f} times, {baseline.name} {baseline.epochs:.1f} times: "
            "the difference is one of repetition as well"
        )
    return caveats


def _conclusion(config: DecideConfig, found: Comparisons) -> str:
    if found.winner is None:
        words = {name: found.verdicts[name].word for name, role in found.roles.items() if role == "candidate"}
        listed = ", ".join(f"{name}: {word}" for name, word in words.items())
        return f"Keep {config.baseline}. No arm is adopted ({listed})."
    others = [name for name, verdict in found.verdicts.items() if verdict.word == "adopt" and name != found.winner]
    more = f" Also adopted: {', '.join(others)}; the differences between adopted arms are not tested." if others else ""
    return f"Adopt {found.winner}: {found.verdicts[found.winner].reason}.{more}"


def _noise(found: Comparisons) -> dict[str, Any]:
    first = next(iter(found.against_baseline.values()))
    keys = ("seed_sd", "arm_sd", "pairing_correlation", "standard_error", "degrees_of_freedom", "smallest_detectable")
    arms = {name: {key: getattr(each, key) for key in keys} for name, each in found.against_baseline.items()}
    return {"baseline_seed_sd": first.baseline_sd, "against_baseline": arms}


def _proxy(context: Context) -> dict[str, Any] | None:
    train = context.get("train")
    if train is None:
        return None
    return {
        "parameters": context.get("parameters"),
        "tokens": train.tokens,
        "learning_rate": train.learning_rate,
        "seeds": list(train.seeds),
        "train": train.model_dump(mode="json"),
        "evaluation": context["evaluation"].model_dump(mode="json") if "evaluation" in context else None,
    }


def _cost(context: Context, arms: int, seeds: int) -> dict[str, Any]:
    train = context.get("train")
    return {"runs": arms * seeds, "training_tokens": arms * seeds * train.tokens if train else None}


def _invalidation(config: DecideConfig, context: Context) -> list[str]:
    """Changes after which the verdicts no longer hold; the hashes to compare with are in the record."""
    lines = ["the input documents change (input_fingerprint) or an arm's predicate does (the arms' hashes)"]
    train = context.get("train")
    if train is not None:
        lines.append(
            f"training is for more than {2 * train.tokens:,} or less than {train.tokens // 2:,} tokens, "
            "or the model is of another size: rankings of small proxies need not carry over"
        )
        lines.append(f"the learning rate is far from {train.learning_rate:g}: proxy rankings can flip with it")
    lines.append(f"the metric ({config.metric} on {config.stream}) or its tasks change")
    lines += [f"{name} changes from {value}" for name, value in sorted(context.get("depends_on", {}).items())]
    return lines
