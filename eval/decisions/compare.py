"""Everything that a decision compares: which arm plays which role, every paired estimate, every verdict.

In: the decision's config, scored items and arms. Out: one value from which the record is written. All intervals on the
deciding stream (arm or random drop against the baseline, arm against its random drop) are simultaneous. Guardrails
(bits per byte of the other streams, and each language of the deciding one) can only speak against an arm, so they are
read one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from ...config import DecideConfig
from ...strict import nearest
from ..statistics import Estimate, paired_difference
from ..store import WHOLE_STREAMS
from .arms import Arm
from .verdict import Guardrail, Verdict, judge

Role = Literal["baseline", "candidate", "control"]

KEEP_TOLERANCE = 0.05
"""Relative difference in kept bytes up to which a random drop is a fair match: it is made of whole documents."""


@dataclass(frozen=True)
class Comparisons:
    """The estimates of one decision, by arm name.

    Attributes:
        roles: of every arm that takes part, in the order of the run.
        controls: candidate → its random drop, or None.
        comparisons: simultaneous intervals on the deciding stream.
    """

    roles: dict[str, Role]
    controls: dict[str, str | None]
    comparisons: int
    against_baseline: dict[str, Estimate]
    against_control: dict[str, Estimate]
    guardrails: dict[str, list[Guardrail]]
    verdicts: dict[str, Verdict]

    @property
    def winner(self) -> str | None:
        """The adopted arm with the lowest mean; between adopted arms the difference is not tested."""
        adopted = [name for name, verdict in self.verdicts.items() if verdict.word == "adopt"]
        return min(adopted, key=lambda name: (self.against_baseline[name].difference, name), default=None)


def compare(config: DecideConfig, items: pl.DataFrame, arms: Sequence[Arm]) -> Comparisons:
    """All estimates and verdicts.

    Raises:
        ValueError: if an arm or the stream does not exist, or the arms were not scored on the same items and seeds.
    """
    named = {arm.name: arm for arm in arms}
    roles = _roles(config, named)
    candidates = [name for name, role in roles.items() if role == "candidate"]
    drops = [name for name, role in roles.items() if role == "control"]
    controls = {name: _control_for(name, drops, config, named) for name in candidates}
    matched = {name: control for name, control in controls.items() if control is not None}
    count = len(candidates) + len(drops) + len(matched)
    scored = items.filter(pl.col("outcome") == "scored")
    deciding = _stream(wrong_answers(items) if config.metric == "error_rate" else scored, config.stream)

    def simultaneous(arm: str, other: str) -> Estimate:
        return _estimate(config, deciding, arm, other, count)

    against_baseline = {name: simultaneous(name, config.baseline) for name in (*candidates, *drops)}
    against_control = {name: simultaneous(name, control) for name, control in matched.items()}
    guardrails = {name: _guardrails(config, scored, name) for name in (*candidates, *drops)}
    verdicts = {
        name: judge(
            against_baseline[name],
            against_control.get(name),
            margin=config.margin_fraction * against_baseline[name].baseline_mean,
            guardrails=guardrails[name],
            unmatched=unmatched(named[name], named[matched[name]]) if name in matched else None,
        )
        for name in candidates
    }
    for name, role in roles.items():
        if role == "baseline":
            verdicts[name] = Verdict("baseline", "what the arms are compared with")
        elif role == "control":
            verdicts[name] = Verdict("control", "a random drop: it measures what dropping alone does")
    return Comparisons(roles, controls, count, against_baseline, against_control, guardrails, verdicts)


def unmatched(arm: Arm, control: Arm) -> str | None:
    """Why the random drop is not a fair one for the arm."""
    if control.control_of == arm.name and abs(control.bytes - arm.bytes) <= KEEP_TOLERANCE * arm.bytes:
        return None
    rates = f"it keeps {100 * control.keep_rate:.1f} % of the bytes, the arm {100 * arm.keep_rate:.1f} %"
    if control.control_of == arm.name:
        return f"its random drop {control.name} is not matched: {rates}"
    return (
        f'the random drop {control.name} is not matched to it ({rates}); add a selection with "control_of: {arm.name}"'
    )


def _roles(config: DecideConfig, named: Mapping[str, Arm]) -> dict[str, Role]:
    for name in (config.baseline, config.control, *config.arms):
        if name is not None and name not in named:
            raise ValueError(
                f'decision "{config.name}": no arm "{name}"{nearest(name, named)}; there are: {", ".join(named)}'
            )
    roles: dict[str, Role] = {}
    for name, arm in named.items():
        if name == config.baseline:
            roles[name] = "baseline"
        elif name == config.control or arm.is_control:
            # A drop that no judged arm is compared with would only cost power.
            if name == config.control or not config.arms or arm.control_of in config.arms:
                roles[name] = "control"
        elif not config.arms or name in config.arms:
            roles[name] = "candidate"
    if "candidate" not in roles.values():
        raise ValueError(
            f'decision "{config.name}": no arm to compare with {config.baseline}; arms: {", ".join(named)}'
        )
    return roles


def _control_for(name: str, drops: Sequence[str], config: DecideConfig, named: Mapping[str, Arm]) -> str | None:
    """The random drop made for this arm; else the decision's."""
    own = [drop for drop in drops if named[drop].control_of == name]
    return config.control if config.control in own or not own else own[0]


def wrong_answers(items: pl.DataFrame) -> pl.DataFrame:
    """Items with a score as likelihood items whose "bits per byte" is the share of wrong answers."""
    answers = items.filter(pl.col("score").is_not_null())
    keys = ("arm", "seed", "task", "item", "cluster", "stream", "language")
    wrong = (1 - pl.col("score")).mean() * math.log(2)
    return answers.group_by(keys, maintain_order=True).agg(
        wrong.alias("nats"), pl.lit(1, dtype=pl.Int64).alias("bytes"), pl.lit("scored").alias("outcome")
    )


def _stream(scored: pl.DataFrame, name: str) -> pl.DataFrame:
    """Items of a stream of held-out documents, or of a task."""
    found = scored.filter(pl.col("stream") == name)
    if found.is_empty():
        found = scored.filter(pl.col("task") == name)
    if found.is_empty():
        there = [*scored["stream"].unique().sort(), *scored["task"].unique().sort()]
        raise ValueError(
            f'nothing was scored in a stream or task "{name}"{nearest(name, there)}; there are: '
            f"{', '.join(dict.fromkeys(there)) or 'none'}"
        )
    return found


def _estimate(config: DecideConfig, items: pl.DataFrame, arm: str, other: str, count: int) -> Estimate:
    whole = items["stream"][0] in WHOLE_STREAMS
    found = paired_difference(
        items, arm, other, confidence=config.confidence, comparisons=count, languages_equal=not whole
    )
    if config.metric == "error_rate" and found.low is not None and found.low == found.high:
        # 0 of 164 still allows 2 %: answers that are all alike say that the task is too hard or too easy, no more.
        why = "no item was answered differently: the task is too hard or too easy for these models to show a difference"
        return replace(found, low=None, high=None, problem=why)
    return found


def _guardrails(config: DecideConfig, scored: pl.DataFrame, arm: str) -> list[Guardrail]:
    parts: list[tuple[str, pl.DataFrame]] = []
    for stream in scored["stream"].unique().sort():
        items = scored.filter(pl.col("stream") == stream)
        if items["task"].eq(config.stream).all():
            continue
        if stream != config.stream:
            parts.append((stream, items))
        elif stream not in WHOLE_STREAMS and items["language"].n_unique() > 1:
            parts += [
                (f"{stream}/{key[0]}", part)
                for key, part in sorted(items.partition_by("language", as_dict=True).items())
            ]
    estimates = [(name, _estimate(config, items, arm, config.baseline, 1)) for name, items in parts]
    return [Guardrail(name, each, config.margin_fraction * each.baseline_mean) for name, each in estimates]
