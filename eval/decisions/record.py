"""The decision record: question, rule, arms, estimates with intervals, verdicts, noise, cost, and what would undo it.

In: the decision's config, the scored items of every arm and seed, the arms, and the context of the run. Out: a plain
dict, written as JSON for machines and as Markdown for people; it is a function of its inputs, so but for `times` the
same run gives the same bytes. All intervals on the deciding stream are simultaneous; guardrails (other streams, single
languages) can only speak against an arm, so theirs are read one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import polars as pl

from ...config import DecideConfig, EvalConfig, TrainConfig, fingerprint, nearest
from ...files import write_atomic, write_json
from ..statistics import Estimate, paired_difference, wilson
from ..tasks import WHOLE_STREAMS
from .arms import Arm
from .markdown import render
from .verdict import Guardrail, Verdict, judge

SCHEMA = 1

METRICS = ("bits_per_byte",)

EPOCH_RATIO = 1.5
"""Arms that repeat their documents this much more or less than the baseline ask another question; research default."""

KEEP_TOLERANCE = 0.05
"""Relative difference in kept bytes up to which a random drop counts as matched: drops are made of whole documents."""


class Context(TypedDict, total=False):
    """What a record says about the run around the decision; every key is optional."""

    train: TrainConfig
    evaluation: EvalConfig
    parameters: int
    input_fingerprint: str
    depends_on: dict[str, str]  # what else the result hangs on: name -> hash (classifier, rule set, tasks)
    planned_rule: str  # hash of the rule as it was written down before training
    environment: dict[str, str]
    times: dict[str, float]


def rule(config: DecideConfig) -> dict[str, str]:
    """Hypothesis and rule in words, and their hash; to be written down before the first model is trained."""
    margin, confidence = f"{100 * config.margin_fraction:g} %", f"{100 * config.confidence:g} %"
    control = " and below 0 against a random drop matched to the arm" if config.control else ""
    text = (
        f"Measure: {config.metric} on held-out documents of the stream {config.stream}, lower is better. "
        f"Difference: arm minus {config.baseline}, paired by seed and document. Intervals: {confidence}, simultaneous "
        f"over all comparisons with the baseline and the random drops. Margin: {margin} of the baseline's mean. "
        f"Adopt: the interval lies below -margin{control}, and no other stream or single language is significantly "
        "worse by more than its own margin. Reject: the interval lies above +margin, or above 0 against the random "
        "drop. Equivalent: the interval lies inside the margin. Undecided: everything else; the baseline is kept."
    )
    hypothesis = f"At least one arm lowers {config.metric} on {config.stream} by more than {margin}{control}."
    return {"hypothesis": hypothesis, "text": text, "hash": fingerprint(config, hypothesis, text)}


def decide(config: DecideConfig, items: pl.DataFrame, arms: Sequence[Arm], context: Context) -> dict[str, Any]:
    """The record of a decision.

    Args:
        config: what is compared and what counts as a difference.
        items: of every arm and seed, as `store.collect` gives them.
        arms: all of the run, in the order in which they are shown.
        context: what surrounds the decision.

    Raises:
        ValueError: if an arm, the stream or the metric does not exist, or the arms were not scored on the same items.
    """
    named = {arm.name: arm for arm in arms}
    _check(config, items, named, context)
    roles = _roles(config, arms)
    scored = items.filter(pl.col("outcome") == "scored")
    candidates = [name for name, role in roles.items() if role == "candidate"]
    drops = [name for name, role in roles.items() if role == "control"]
    controls = {name: _control_for(named[name], config, named) for name in candidates}
    comparisons = len(candidates) + len(drops) + sum(control is not None for control in controls.values())
    deciding = scored.filter(pl.col("stream") == config.stream)

    def compare(frame: pl.DataFrame, arm: str, other: str, stream: str, count: int) -> Estimate:
        return paired_difference(
            frame,
            arm,
            other,
            confidence=config.confidence,
            comparisons=count,
            languages_equal=stream not in WHOLE_STREAMS,
        )

    against = {
        name: compare(deciding, name, config.baseline, config.stream, comparisons) for name in (*candidates, *drops)
    }
    against_control = {
        name: compare(deciding, name, control, config.stream, comparisons) if control else None
        for name, control in controls.items()
    }
    guardrails = {
        name: _guardrails(config, scored, name, compare) for name in (*candidates, *drops)
    }
    verdicts = {
        name: judge(
            against[name],
            against_control[name],
            config.margin_fraction * against[name].baseline_mean,
            guardrails[name],
            _unmatched(named[name], named.get(controls[name] or "")),
        )
        for name in candidates
    }
    shown = [name for name, role in roles.items() if role != "unused"]
    means = {name: each.arm_mean for name, each in against.items()}
    first = next(iter(against.values()))
    means[config.baseline] = first.baseline_mean
    entries = []
    for name in shown:
        arm, verdict = named[name], verdicts.get(name) or _role_verdict(roles[name], config)
        entries.append(
            {
                **dataclasses.asdict(arm),
                "role": roles[name],
                "bits_per_byte": means[name],
                "seed_sd": against[name].arm_sd if name in against else first.baseline_sd,
                "against_baseline": _plain(against.get(name)),
                "against_control": _plain(against_control.get(name)),
                "guardrails": [_guardrail_entry(each) for each in guardrails.get(name, [])],
                "pass_at_1": _pass_at_1(items, name),
                "verdict": dataclasses.asdict(verdict),
                "caveats": _caveats(arm, named[config.baseline], named.get(controls.get(name) or "")),
            }
        )
    winner = _winner(verdicts, against)
    seeds = sorted(items["seed"].unique().to_list())
    return {
        "schema": SCHEMA,
        "name": config.name,
        "question": config.question,
        "rule": _rule_entry(config, context),
        "metric": {"name": config.metric, "stream": config.stream, "unit": "bits per byte", "average": _average(config)},
        "margin": {"fraction": config.margin_fraction, "bits_per_byte": config.margin_fraction * first.baseline_mean},
        "confidence": config.confidence,
        "comparisons": comparisons,
        "baseline": config.baseline,
        "arms": entries,
        "winner": winner,
        "keep": winner or config.baseline,
        "conclusion": _conclusion(config, verdicts, winner),
        "evidence": {
            "seeds": seeds,
            "documents": first.documents,
            "families": first.clusters,
            "effective_families": first.effective_clusters,
            "languages": list(first.languages),
        },
        "noise": _noise(against, first),
        "proxy": _proxy(context),
        "cost": _cost(context, len(shown), len(seeds)),
        "invalidated_if": _invalidation(config, context),
        "depends_on": context.get("depends_on", {}),
        "input_fingerprint": context.get("input_fingerprint"),
        "environment": context.get("environment", {}),
        "times": context.get("times", {}),
    }
