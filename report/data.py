"""A run directory as plain values for the page. Reads files only; what a run does not have is None or empty.

`summary.json` and `run.yaml` are needed; layers, classifiers, models and decisions are shown when they are there. The
table of documents is read through `curation.corpus.scan`, column by column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ..config import RunConfig, SelectionConfig
from ..curation.corpus import scan
from ..curation.rules import Rule, RuleSet, load_rules
from ..curation.select import where
from ..files import read_json
from ..strict import ConfigError, parse, read_yaml
from .comparisons import Comparison, read_comparisons
from .counts import Overlap, Step, funnel, overlap, step_errors
from .samples import Sample, kept_samples, percentile_samples, rule_samples
from .scores import PROBABILITY, Distribution, distributions
from .training import Curve, curves

SAMPLE_LANGUAGE = "python"


@dataclass(frozen=True)
class RuleView:
    """A reason's row of the summary, the rule behind it where it is known, and documents it fired on."""

    counts: dict[str, Any]
    rule: Rule | None
    samples: list[Sample]

    @property
    def name(self) -> str:
        return str(self.counts["reason"])


@dataclass(frozen=True)
class Scores:
    """What a classifier's scores look like, and its card; None if it was trained elsewhere."""

    card: dict[str, Any] | None
    by_language: list[Distribution]
    language: str | None
    extremes: dict[str, list[Sample]]

    @property
    def audited(self) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Name, ranking and rejected positives: over all languages, then of each that was measured."""
        if self.card is None:
            return []
        audit = self.card["audit"]
        languages = [(language, row, row) for language, row in audit["languages"].items()]
        return [("all, within language", audit["within_language"], audit["false_reject"]), *languages]


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    summary: dict[str, Any]
    finished: str | None
    wall_seconds: list[tuple[str, float]]
    config: RunConfig
    run_yaml: str
    state: dict[str, Any]
    chosen: SelectionConfig
    steps: list[Step]
    rules: list[RuleView]
    quiet_rules: list[str]
    rules_note: str | None
    overlap: Overlap | None
    comparisons: list[Comparison]
    kept: list[Sample]
    scores: Scores | None
    curves: list[Curve]
    records: list[dict[str, Any]]
    step_errors: list[tuple[str, int]]


def read_run(run: Path) -> Report:
    """The values of a finished run.

    Raises:
        ConfigError: if `run` is not a run directory, or its curation is not finished.
    """
    for name in ("run.yaml", "summary.json"):
        if not (run / name).is_file():
            raise ConfigError(f"{run}: no {name} here; a report is made from a finished run (codesieve curate or run)")
    state = read_yaml(run / "run.yaml")
    config = parse(RunConfig, state["config"], where=str(run / "run.yaml"))
    summary: dict[str, Any] = read_json(run / "summary.json")
    chosen = _selection(config, summary["selection"], run)
    frame = scan(run)
    columns = frame.collect_schema().names()
    rule_set, note = _rule_set(config, state, columns)
    by_name = {rule.name: rule for rule in rule_set.rules} if rule_set else {}
    fired = {row["reason"]: by_name.get(row["reason"]) for row in summary["reasons"]}
    samples = rule_samples(frame, fired)
    log = _log(run / "log.jsonl")
    return Report(
        summary=summary,
        finished=_finished(log),
        wall_seconds=_in_order(summary["wall_seconds"], log),
        config=config,
        run_yaml=(run / "run.yaml").read_text(encoding="utf-8"),
        state=state,
        chosen=chosen,
        steps=funnel(run, summary, chosen, frame),
        rules=[RuleView(row, fired[row["reason"]], samples[row["reason"]]) for row in summary["reasons"]],
        quiet_rules=[name for name in by_name if name not in fired],
        rules_note=note,
        overlap=overlap(frame, summary["reasons"]),
        comparisons=read_comparisons(run),
        kept=kept_samples(frame, where(chosen, columns)),
        scores=_scores(run, config, frame, columns),
        curves=curves(run / "models", [selection.name for selection in config.selections]),
        records=_records(run, config),
        step_errors=step_errors(frame),
    )


def _selection(config: RunConfig, name: str, run: Path) -> SelectionConfig:
    for selection in config.selections:
        if selection.name == name:
            return selection
    raise ConfigError(f'{run}: summary.json was made with the selection "{name}", which run.yaml does not have')


def _rule_set(config: RunConfig, state: Mapping[str, Any], columns: list[str]) -> tuple[RuleSet | None, str | None]:
    """The rule set that gave the reasons; None, and why, where it is not here any more."""
    try:
        found = load_rules(config.annotate.rules, columns)
    except ConfigError as error:
        return None, f"The rule set is not here, so rules are shown without their predicates: {error}"
    used = state.get("rule_set", {}).get("hash")
    if used not in (None, found.hash):
        return None, f"The rule set {found.name} has changed since this run, so rules are shown without predicates."
    return found, None


def _scores(run: Path, config: RunConfig, frame: pl.LazyFrame, columns: list[str]) -> Scores | None:
    found = distributions(frame, "language") if PROBABILITY in columns else []
    if not found:
        return None
    names = [each.name for each in found]
    language = SAMPLE_LANGUAGE if SAMPLE_LANGUAGE in names else names[0]
    extremes = percentile_samples(frame, language) if "quality_percentile" in columns else {}
    card = run / "classifiers" / (config.classifier.name if config.classifier else "quality") / "card.json"
    return Scores(read_json(card) if card.is_file() else None, found, language if extremes else None, extremes)


def _records(run: Path, config: RunConfig) -> list[dict[str, Any]]:
    """Decision records by name; that of the run itself comes first."""
    own = config.decide.name if config.decide else None
    paths = sorted((run / "decisions").glob("*.json"), key=lambda path: (path.stem != own, path.stem))
    return [read_json(path) for path in paths]


def _log(path: Path) -> list[dict[str, Any]]:
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # the last line of a killed run
    return entries


def _finished(log: Sequence[Mapping[str, Any]]) -> str | None:
    """When the last stage before the report ended, in local time, to the minute."""
    times = [str(entry["time"]) for entry in log if entry["event"] == "done" and entry["stage"] != "report"]
    return times[-1][:16].replace("T", " ") if times else None


def _in_order(wall_seconds: Mapping[str, float], log: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Stages in the order in which they started; JSON keeps none."""
    order = {stage: position for position, stage in enumerate(dict.fromkeys(entry["stage"] for entry in log))}
    return sorted(wall_seconds.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))
