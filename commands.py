"""What the commands besides `run` and `curate` do: mostly one stage, on a run directory that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .config import ClassifierConfig, DecideJobConfig, RunConfig
from .curation.corpus import scan
from .curation.explain import explain_document
from .curation.layers import layer_marks
from .curation.rules import RuleSet, load_rules, read_rules, rule_sets
from .curation.rules.compare import compare_rules, comparison_path
from .curation.rules.layers import RulesLayer, apply_rules, load_rules_for
from .curation.schema import IDENTITY, SIGNALS
from .curation.stage import plan_fingerprint
from .display import Display
from .experiment import decide
from .files import mark_of, read_json, write_mark
from .strict import ConfigError, fingerprint, override, parse, read_yaml
from .workflow import corpus_facts, score, signal_columns


def config_of(folder: Path) -> RunConfig:
    """The resolved config of a run directory.

    Raises:
        ConfigError: if it is not one.
    """
    path = folder / "run.yaml"
    if not path.exists():
        raise ConfigError(f"{folder}: not a codesieve run (no run.yaml)")
    return parse(RunConfig, read_yaml(path)["config"], where=str(path))


def rules_of(config: RunConfig) -> RuleSet:
    """The rule set of a run."""
    return load_rules(config.annotate.rules, signal_columns(config))


def rules_in(name_or_path: str) -> RuleSet:
    """A rule set, checked against the columns of a new run."""
    return load_rules(name_or_path, [column.name for column in (*IDENTITY, *SIGNALS)])


def list_rule_sets() -> list[dict[str, Any]]:
    """A row for each set that comes with codesieve."""
    return [
        {"name": found.name, "rules": len(found.rules), "hash": found.hash, "description": found.description.strip()}
        for found, _ in map(check_rule_set, rule_sets())
    ]


def check_rule_set(name_or_path: str) -> tuple[RuleSet, list[dict[str, Any]]]:
    """A rule set, and its problems: `message`, which says it all, and its parts."""
    rules, problems = read_rules(name_or_path, [column.name for column in (*IDENTITY, *SIGNALS)])
    return rules, [{"message": str(problem), **asdict(problem)} for problem in problems]


def apply_rule_set(folder: Path, name_or_path: str, display: Display) -> RulesLayer:
    """Make the layer of a rule set in a run."""
    rules = load_rules_for(folder, name_or_path)
    with display.stage("rules", f"rule set {rules.name}") as progress:
        return apply_rules(folder, rules, progress)


def compare_rule_sets(folder: Path, a: str, b: str, documents: int, display: Display) -> dict[str, Any]:
    """Compare two rule sets on a run; the report is made anew if there is one."""
    sets = [load_rules_for(folder, name) for name in (a, b)]
    with display.stage("compare", " and ".join(rules.name for rules in sets)) as progress:
        found = compare_rules(folder, sets[0], sets[1], documents, progress)
    if (folder / "report.html").exists():
        from .report.page import write_report

        with display.stage("report", "one page"):
            write_report(folder)
    return {**found, "written": str(comparison_path(folder, sets[0].name, sets[1].name))}


def selection_facts(folder: Path) -> dict[str, Any]:
    """Facts for the manifest of a selection that is made from a finished run."""
    config = config_of(folder)
    return corpus_facts(config, rules_of(config), fingerprint(layer_marks(folder)))


def explain(folder: Path, document: str) -> list[dict[str, Any]]:
    """Everything known about the documents that match; see `curation.explain`."""
    config = config_of(folder)
    return explain_document(folder, document, rules_of(config), config.selections)


def decide_again(job: DecideJobConfig, display: Display) -> dict[str, Any]:
    """A decision from the evaluations that a run has, with another question, baseline or margin."""
    folder = Path(job.run)
    data = {**config_of(folder).model_dump(mode="json"), "decide": job.decide.model_dump(mode="json")}
    return decide(parse(RunConfig, data, where=job.run), folder, display)


def train_classifier_of(folder: Path, overrides: Sequence[str], out: Path | None, display: Display) -> dict[str, Any]:
    """Train a classifier on a run, with the run's own classifier section as defaults."""
    from .classifiers.fit import train_classifier

    config = config_of(folder)
    base = (config.classifier or ClassifierConfig()).model_dump(mode="json")
    classifier = parse(ClassifierConfig, override(base, overrides), where="classifier")
    target = out or folder / "classifiers" / classifier.name
    with display.stage("classify", "fastText on weak labels") as progress:
        card: dict[str, Any] = train_classifier(classifier, scan(folder), target, progress)
        mark = fingerprint(classifier, plan_fingerprint(folder / "plan" / "annotated"), config.split)
        write_mark(target, mark)
    return card


def score_with(folder: Path, model: Path, display: Display, workers: int) -> None:
    """Score a run with a classifier trained elsewhere, into the layers `quality` and `quality_percentile`."""
    config_of(folder)
    if not (model / "card.json").exists():
        raise ConfigError(f"{model}: not a classifier folder (no card.json)")
    settings = parse(ClassifierConfig, read_json(model / "card.json")["config"], where=str(model / "card.json"))
    score(settings, model, str(mark_of(model)), folder, display, workers)
