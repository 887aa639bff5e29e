"""What `codesieve run` does, in order. The only file that knows all rooms.

Every stage reads and writes the run directory and nothing else, and is skipped when its result is there with the right
fingerprint; so a run that was interrupted anywhere continues by the same command and ends in the same bytes. Timings
go to `summary.json` and `log.jsonl`, never into an artefact that is compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import yaml

from . import __version__
from .config import ClassifierConfig, DecontaminateConfig, RunConfig, SelectionConfig
from .curation.annotate import Annotated, annotate
from .curation.benchmark_items import item_files
from .curation.corpus import predicate, scan
from .curation.decontaminate import decontaminate
from .curation.dedup.exact import exact_duplicates
from .curation.dedup.near import keep_order, near_duplicates
from .curation.layers import layer_marks, stage_layer, table_layer
from .curation.licences import LAYER as LICENCES
from .curation.licences import licences, made_from
from .curation.rules import RuleSet, load_rules
from .curation.rules.layers import apply_rules, other_layer
from .curation.schema import IDENTITY
from .curation.select import controls, funnel, where, write_corpus
from .curation.signals.pipeline import standard_steps
from .curation.split import split_families
from .curation.stage import plan_fingerprint
from .curation.steps import STEP_ERRORS, check
from .curation.summary import summarise
from .curation.synthetic import VerifyStep
from .differences import changes
from .display import Display
from .experiment import decide, plan_decision, train_and_evaluate
from .files import mark_of, read_json, remove_temporary, write_atomic, write_json, write_mark
from .provenance import git_commit, versions
from .report.page import write_report
from .strict import ConfigError, fingerprint

VERIFIED = set(VerifyStep.provides)
ALWAYS = {"duplicate_of", "duplicate_count", "reasons", "reason_count", *VERIFIED, *LICENCES}
NEAR_DUPLICATES = {"near_duplicate_of", "near_duplicate_count", "near_duplicate_similarity"}
CONTAMINATION = {"contaminated_by", "contamination_overlap"}
QUALITY = {"quality_raw", "quality_probability", "quality_percentile"}
OWN_PROBLEMS = "configs:tasks/problems.jsonl"


def run(config: RunConfig, folder: Path, display: Display, workers: int = 0) -> dict[str, Any]:
    """Do everything that `config` asks for in `folder`; returns the summary that is also written there.

    Raises:
        ConfigError: before any work starts, if the config does not hold together or the folder holds something else.
    """
    workers = workers or config.annotate.workers
    rules = load_rules(config.annotate.rules, signal_columns(config))
    check_predicates(config)
    open_run(folder, config, rules)
    display.log = folder / "log.jsonl"
    annotated = curate(config, rules, folder, display, workers)
    card = classify(config, folder, display, workers)
    finish_layers(config, folder, display)
    selections = funnel(scan(folder), config.selections)
    empty = [row for row in selections if row["documents"] == 0]
    if empty and config.train:
        raise ConfigError(f'selection "{empty[0]["selection"]}": {empty[0]["where"]}: selects no document to train on')
    record = None
    if config.train and config.eval:
        plan_decision(config, folder)
        train_and_evaluate(config, folder, display, workers)
        record = decide(config, folder, display) if config.decide else None
    chosen = config.selections[0]
    if record is not None:
        chosen = next(s for s in config.selections if s.name == record["keep"])
    if chosen.name in {row["selection"] for row in empty}:
        display.say(f"selection {chosen.name}: {chosen.where}: selects no document, so there is no corpus")
    else:
        corpus(config, rules, chosen, folder, display)
    summary = summarise(folder, config.name, annotated, chosen, selections)
    summary["wall_seconds"] = display.wall_seconds
    write_json(folder / "summary.json", summary)
    with display.stage("report", "one page"):
        write_report(folder)
    return {**summary, "decision": record, "classifier": card}


def signal_columns(config: RunConfig) -> list[str]:
    """Columns of the annotated shards; the steps are checked against each other."""
    return check(standard_steps(config.annotate), [*(c.name for c in IDENTITY), STEP_ERRORS])


def other_rules(config: RunConfig) -> list[RuleSet]:
    """The rule sets that are applied besides the run's own."""
    columns = signal_columns(config)
    others = [load_rules(name, columns) for name in config.annotate.also_rules]
    names = [load_rules(config.annotate.rules, columns).name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise ConfigError(f"annotate: also_rules: names of rule sets must differ (got {', '.join(names)})")
    return others


def known_columns(config: RunConfig) -> list[str]:
    """All columns that a predicate of this run may name."""
    columns = [*signal_columns(config), *sorted(ALWAYS)]
    for layer in map(other_layer, other_rules(config)):
        columns += [layer.reasons, layer.count]
    if config.near_duplicates:
        columns += sorted(NEAR_DUPLICATES)
    if config.decontaminate:
        columns += sorted(CONTAMINATION)
    if config.split:
        columns += ["family", "split"]
    if config.classifier:
        columns += sorted(QUALITY)
    return columns + [f"control_{s.name}" for s in config.selections if s.control_of]


def check_predicates(config: RunConfig) -> None:
    """Every predicate of the config parses and names columns that will exist."""
    columns = known_columns(config)
    for selection in config.selections:
        where(selection, columns)
        for source in selection.weights:
            if source not in {s.name for s in config.sources}:
                raise ConfigError(f'selection "{selection.name}": weights: unknown source "{source}"')
    if config.near_duplicates:
        keep_order(config.near_duplicates, [*signal_columns(config), *sorted(ALWAYS)])
    if config.decontaminate:
        item_files(benchmarks(config, config.decontaminate).against)
    if config.classifier:
        predicate(config.classifier.where, signal_columns(config), place="classifier: where")
    if config.eval:
        predicate(config.eval.heldout_where, columns, place="eval: heldout_where")
        if not config.split:
            raise ConfigError("`eval` needs `split`: without held-out families there is nothing to evaluate on")


def open_run(folder: Path, config: RunConfig, rules: RuleSet | None = None) -> None:
    """Create or re-open the run directory; `run.yaml` is what it is for.

    Raises:
        ConfigError: if the folder holds other files, or a run whose name or sources differ.
    """
    path = folder / "run.yaml"
    if folder.exists() and any(folder.iterdir()) and not path.exists():
        raise ConfigError(f"{folder}: is not empty and not a codesieve run; give another --out")
    new = config.model_dump(mode="json")
    if path.exists():
        old = yaml.safe_load(path.read_text(encoding="utf-8"))["config"]
        fixed = ("name", "sources")
        different = changes({key: old.get(key) for key in fixed}, {key: new[key] for key in fixed})
        is_begun = (folder / "plan" / "annotated" / "plan.json").exists()
        if different and is_begun:  # a mistyped path must not stand in the way of the right one
            raise ConfigError(
                f"{folder}: was made with another configuration:\n  " + "\n  ".join(different) + "\nGive another --out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder)
    state = {"config": new, "versions": versions(), "git_commit": git_commit()}
    if rules is not None:
        state["rule_set"] = {"name": rules.name, "hash": rules.hash}
    write_atomic(path, yaml.safe_dump(state, sort_keys=True, allow_unicode=True))


def curate(config: RunConfig, rules: RuleSet, folder: Path, display: Display, workers: int) -> Annotated:
    """Annotated shards, and the layers that need nothing learned: reasons, duplicates, verification, split."""
    if any(source.type == "problems" or source.kind == "synthetic" for source in config.sources):
        VerifyStep(required_level=config.verify.sandbox_level).check_level()  # before hours of other work
    with display.stage("annotate", "files → signals") as progress:
        annotated = annotate(folder, config.sources, config.annotate, workers, progress)
    with display.stage("rules", f"rule set {rules.name}") as progress:
        apply_rules(folder, rules, progress, own=True)
    for other in other_rules(config):
        with display.stage("rules", f"rule set {other.name}") as progress:
            apply_rules(folder, other, progress)
    with display.stage("duplicates", "by content hash"):
        table_layer(folder, "duplicates", exact_duplicates, {"version": 1})
    with display.stage("licences", "repository, file, folder"):
        table_layer(folder, "licences", licences, made_from())
    if config.near_duplicates:
        with display.stage("near duplicates", "by runs of tokens") as progress:
            near_duplicates(folder, config.near_duplicates, workers, progress)
    if config.decontaminate:
        with display.stage("contamination", "by benchmark items") as progress:
            decontaminate(folder, benchmarks(config, config.decontaminate), workers, progress)
    verify(config, folder, display)
    if config.split:
        split = config.split
        with display.stage("split", "held-out families"):
            table_layer(folder, "split", lambda frame: split_families(frame, split), split.model_dump(mode="json"))
    return annotated


def verify(config: RunConfig, folder: Path, display: Display) -> None:
    """Layer `verified`, with the level of containment that each problem was run at; the least of them is logged."""
    level = config.verify.sandbox_level
    with display.stage("verify", "synthetic problems, in the sandbox") as progress:
        step = VerifyStep(required_level=level)
        made_from = {"version": 2, "sandbox_level": level}
        stage_layer(folder, "verified", [step], made_from, workers=1, progress=progress)
    reached = scan(folder).select(pl.col("verification_level").min()).collect().item()
    if reached is not None:
        display.say(f"{'verify':<10} at sandbox level {reached}")
        display.note("verify", "contained", sandbox_level=reached)


def benchmarks(config: RunConfig, section: DecontaminateConfig) -> DecontaminateConfig:
    """The section, with our own problems among the benchmarks where models are evaluated on them."""
    if not (config.eval and "problems" in config.eval.tasks) or OWN_PROBLEMS in section.against:
        return section
    return section.model_copy(update={"against": (*section.against, OWN_PROBLEMS)})


def classify(config: RunConfig, folder: Path, display: Display, workers: int) -> dict[str, Any] | None:
    """Train the quality classifier, score every document it is for, rank the scores within their strata."""
    if config.classifier is None:
        return None
    from .classifiers.fit import train_classifier

    classifier = config.classifier
    model = folder / "classifiers" / classifier.name
    mark = fingerprint(classifier, plan_fingerprint(folder / "plan" / "annotated"), config.split)
    with display.stage("classify", "fastText on weak labels") as progress:
        if mark_of(model) != mark:
            train_classifier(classifier, scan(folder), model, progress)
            write_mark(model, mark)
    score(classifier, model, mark, folder, display, workers)
    card: dict[str, Any] = read_json(model / "card.json")
    return card


def score(classifier: ClassifierConfig, model: Path, mark: str, folder: Path, display: Display, workers: int) -> None:
    """Layers `quality` and `quality_percentile` from a trained classifier."""
    from .classifiers.percentiles import percentiles
    from .classifiers.step import ScoreStep

    with display.stage("score", "every document") as progress:
        step = ScoreStep(model, where=classifier.where)
        stage_layer(folder, "quality", [step], {"classifier": mark}, workers=workers, progress=progress)
        table_layer(folder, "quality_percentile", percentiles, {"classifier": mark, "version": 1})


def finish_layers(config: RunConfig, folder: Path, display: Display) -> None:
    """Controls: random drops that are matched to a selection, which all other layers may define."""
    if not any(selection.control_of for selection in config.selections):
        return
    with display.stage("controls", "matched random drops"):
        selections = [selection.model_dump(mode="json", exclude={"train"}) for selection in config.selections]
        table_layer(
            folder,
            "controls",
            lambda frame: controls(frame, config.selections, config.seed),
            {"selections": selections, "layers": layer_marks(folder)},
        )


def corpus(config: RunConfig, rules: RuleSet, chosen: SelectionConfig, folder: Path, display: Display) -> None:
    """The corpus shards of one selection."""
    target = folder / "corpus" / chosen.name
    mark = fingerprint(chosen, plan_fingerprint(folder / "plan" / "annotated"), rules.hash, layer_marks(folder))
    with display.stage("corpus", f"selection {chosen.name}") as progress:
        manifest = target / "manifest.json"
        if not (manifest.exists() and read_json(manifest).get("fingerprint") == mark):
            write_corpus(folder, chosen, target, corpus_facts(config, rules, mark), progress)


def corpus_facts(config: RunConfig, rules: RuleSet, mark: str) -> dict[str, Any]:
    """What a manifest says about where its documents come from."""
    return {
        "run": config.name,
        "rule_set": f"{rules.name} {rules.hash}",
        "codesieve": __version__,
        "fingerprint": mark,
    }
