"""What `codesieve run` does, in order. The only file that knows all rooms.

Every stage reads and writes the run directory and nothing else, and is skipped when its result is there with the right
fingerprint; so a run that was interrupted anywhere continues by the same command and ends in the same bytes. Timings
go to `summary.json` and `log.jsonl`, never into an artefact that is compared.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from . import __version__
from .config import (
    ClassifierConfig,
    ConfigError,
    DecideJobConfig,
    RunConfig,
    SelectionConfig,
    changes,
    fingerprint,
    override,
    parse,
    read_yaml,
)
from .curation.annotate import Annotated, annotate
from .curation.corpus import predicate, scan
from .curation.dedup.exact import exact_duplicates
from .curation.explain import explain_document
from .curation.layers import stage_layer, table_layer
from .curation.rules import RuleSet, RulesStep, load_rules
from .curation.schema import IDENTITY
from .curation.select import controls, funnel, where, write_corpus
from .curation.signals.pipeline import standard_steps
from .curation.split import HELDOUT, split_families
from .curation.stage import plan_fingerprint
from .curation.steps import STEP_ERRORS, check
from .curation.summary import summarise
from .curation.synthetic import VerifyStep
from .display import Display
from .files import read_json, replacing, write_atomic, write_json
from .report.page import write_report

PACKAGES = ("datatrove", "fasttext-numpy2", "polars", "pyarrow", "tokenizers", "torch", "transformers", "tree-sitter",
            "tree-sitter-language-pack")  # fmt: skip
"""Whose versions are recorded: what the results depend on."""

ALWAYS = {"duplicate_of", "duplicate_count", "reasons", "reason_count", "verified", "verification"}
QUALITY = {"quality_raw", "quality_probability", "quality_percentile"}


def run(config: RunConfig, folder: Path, display: Display, workers: int = 0) -> dict[str, Any]:
    """Do everything that `config` asks for in `folder`; returns the summary that is also written there.

    Raises:
        ConfigError: before any work starts, if the config does not hold together or the folder holds something else.
    """
    workers = workers or config.annotate.workers
    rules = load_rules(config.annotate.rules, signal_columns(config))
    check_predicates(config)
    open_run(folder, config, rules)
    annotated = curate(config, rules, folder, display, workers)
    card = classify(config, folder, display, workers)
    finish_layers(config, folder, display)
    selections = funnel(scan(folder), config.selections)
    for row in selections:
        if row["documents"] == 0:
            raise ConfigError(f'selection "{row["selection"]}": {row["where"]}: selects no document')
    record = None
    if config.train and config.eval:
        train_and_evaluate(config, folder, display, workers)
        record = decide(config, folder, display) if config.decide else None
    chosen = config.selections[0]
    if record is not None:
        chosen = next(s for s in config.selections if s.name == record["keep"])
    corpus(config, rules, chosen, folder, display)
    summary = summarise(folder, config.name, annotated, chosen, selections)
    summary["wall_seconds"] = display.wall_seconds
    write_json(folder / "summary.json", summary)
    with _stage(folder, display, "report", "one page"):
        write_report(folder)
    return {**summary, "decision": record, "classifier": card}


def signal_columns(config: RunConfig) -> list[str]:
    """Columns of the annotated shards; the steps are checked against each other."""
    return check(standard_steps(config.annotate), [*(c.name for c in IDENTITY), STEP_ERRORS])


def known_columns(config: RunConfig) -> list[str]:
    """All columns that a predicate of this run may name."""
    columns = [*signal_columns(config), *sorted(ALWAYS)]
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
    if config.classifier:
        predicate(config.classifier.where, signal_columns(config), place="classifier: where")


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
        if different:
            raise ConfigError(
                f"{folder}: was made with another configuration:\n  " + "\n  ".join(different) + "\nGive another --out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    state = {"config": new, "versions": versions(), "git_commit": _git_commit()}
    if rules is not None:
        state["rule_set"] = {"name": rules.name, "hash": rules.hash}
    write_atomic(path, yaml.safe_dump(state, sort_keys=True, allow_unicode=True))


def curate(config: RunConfig, rules: RuleSet, folder: Path, display: Display, workers: int) -> Annotated:
    """Annotated shards, and the layers that need nothing learned: reasons, duplicates, verification, split."""
    with _stage(folder, display, "annotate", "files → signals") as progress:
        annotated = annotate(folder, config.sources, config.annotate, workers, progress)
    with _stage(folder, display, "rules", f"rule set {rules.name}") as progress:
        stage_layer(folder, "rules", [RulesStep(rules)], {"rule_set": rules.hash}, progress=progress)
    with _stage(folder, display, "duplicates", "by content hash"):
        table_layer(folder, "duplicates", exact_duplicates, {"version": 1})
    with _stage(folder, display, "verify", "synthetic problems, in the sandbox") as progress:
        stage_layer(folder, "verified", [VerifyStep()], {"version": 1}, workers=1, progress=progress)
    if config.split:
        split = config.split
        with _stage(folder, display, "split", "held-out families"):
            table_layer(folder, "split", lambda frame: split_families(frame, split), split.model_dump(mode="json"))
    return annotated


def classify(config: RunConfig, folder: Path, display: Display, workers: int) -> dict[str, Any] | None:
    """Train the quality classifier, score every document it is for, rank the scores within their strata."""
    if config.classifier is None:
        return None
    from .classifiers.fit import train_classifier

    classifier = config.classifier
    model = folder / "classifiers" / classifier.name
    mark = fingerprint(classifier, plan_fingerprint(folder / "plan" / "annotated"), _split_mark(config))
    with _stage(folder, display, "classify", "fastText on weak labels") as progress:
        if _mark_of(model) != mark:
            train_classifier(classifier, scan(folder), model, progress)
            write_json(model / "fingerprint.json", {"fingerprint": mark})
    score(classifier, model, mark, folder, display, workers)
    card: dict[str, Any] = read_json(model / "card.json")
    return card


def score(classifier: ClassifierConfig, model: Path, mark: str, folder: Path, display: Display, workers: int) -> None:
    """Layers `quality` and `quality_percentile` from a trained classifier."""
    from .classifiers.percentiles import percentile_layer
    from .classifiers.step import ScoreStep

    with _stage(folder, display, "score", "every document") as progress:
        step = ScoreStep(model, where=classifier.where, max_characters=classifier.max_characters)
        stage_layer(folder, "quality", [step], {"classifier": mark}, workers=workers, progress=progress)
        table_layer(folder, "quality_percentile", percentile_layer, {"classifier": mark, "version": 1})


def finish_layers(config: RunConfig, folder: Path, display: Display) -> None:
    """Controls: random drops that are matched to a selection, which all other layers may define."""
    if not any(selection.control_of for selection in config.selections):
        return
    with _stage(folder, display, "controls", "matched random drops"):
        table_layer(
            folder,
            "controls",
            lambda frame: controls(frame, config.selections, config.seed),
            {"selections": [s.model_dump(mode="json") for s in config.selections], "layers": _layer_marks(folder)},
        )


def train_and_evaluate(config: RunConfig, folder: Path, display: Display, workers: int) -> None:
    """One tokenizer and one token store for all arms; a model for every arm and seed; items for every model."""
    assert config.train and config.eval
    from .eval.decisions.ladder import Job, run_jobs
    from .train.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
    from .train.tokens import build_store

    tokenizer_folder, store = folder / "tokens" / "tokenizer", folder / "tokens" / "all"
    mark = fingerprint(plan_fingerprint(folder / "plan" / "annotated"), _split_mark(config), config.train.vocab_size)
    frame = scan(folder)
    arms = [(s, where(s, frame.collect_schema().names())) for s in config.selections]
    used = pl.any_horizontal([chosen for _, chosen in arms])
    with _stage(folder, display, "tokenize", f"byte-level BPE, {config.train.vocab_size} tokens") as progress:
        marks = fingerprint(mark, [s.model_dump(mode="json") for s, _ in arms], _layer_marks(folder))
        if _mark_of(tokenizer_folder) != marks:
            texts = sample_texts(frame.filter(used))
            save_tokenizer(train_tokenizer(texts, config.train.vocab_size), tokenizer_folder)
            write_json(tokenizer_folder / "fingerprint.json", {"fingerprint": marks})
        build_store(
            (_stream(shard) for shard in _shards(frame.filter(used))),
            load_tokenizer(tokenizer_folder),
            store,
            marks,
            progress,
        )
    heldout = folder / "evals" / "heldout.parquet"
    documents = heldout_documents(frame)
    with replacing(heldout) as temporary:
        documents.write_parquet(temporary)
    rows = pl.read_parquet(store / "documents.parquet", columns=["id"]).with_row_index("row")
    jobs = []
    for selection, chosen in arms:
        path = folder / "tokens" / f"{selection.name}.parquet"
        ids = frame.filter(chosen).select("id").unique().collect()
        picked = rows.join(ids, on="id", how="semi").select(pl.col("row").cast(pl.Int64)).unique().sort("row")
        with replacing(path) as temporary:
            picked.write_parquet(temporary)
        jobs += [
            Job(
                arm=selection.name,
                arm_hash=fingerprint(selection, marks, fingerprint(picked["row"].to_list())),
                seed=seed,
                store=store,
                tokenizer=tokenizer_folder,
                documents=path,
                weights=selection.weights or _natural_weights(frame, chosen),
                heldout=heldout,
                model=folder / "models" / selection.name / str(seed),
                evaluation=folder / "evals" / f"{selection.name}-{seed}",
                train=config.train,
                eval=config.eval,
            )
            for seed in config.train.seeds
        ]
    # Seeds first: when a run is cut short, every arm has as many seeds as the others.
    jobs.sort(key=lambda job: config.train.seeds.index(job.seed) if config.train else 0)
    what = f"{len(arms)} arms × {len(config.train.seeds)} seeds × {config.train.tokens:,} tokens"
    with _stage(folder, display, "train", what) as progress:
        run_jobs(jobs, workers, progress)


def decide(config: RunConfig, folder: Path, display: Display) -> dict[str, Any]:
    """The decision record, from the items of all models."""
    assert config.decide and config.train and config.eval
    from .eval.decisions.arms import describe_arms
    from .eval.decisions.record import decide as make_record
    from .eval.decisions.record import write_record
    from .eval.store import read_items

    with _stage(folder, display, "decide", config.decide.question):
        arms = describe_arms(folder, config)
        items = read_items(folder / "evals", [s.name for s in config.selections], config.train.seeds)
        record = make_record(config.decide, items, arms, context(config, folder))
        write_record(record, folder / "decisions")
    return record


def context(config: RunConfig, folder: Path) -> dict[str, Any]:
    """What a decision record says about its surroundings."""
    assert config.train
    facts = [read_json(path) for path in sorted((folder / "models").glob("*/*/training.json"))]
    return {
        "train": config.train.model_dump(mode="json"),
        "eval": config.eval.model_dump(mode="json") if config.eval else None,
        "split": config.split.model_dump(mode="json") if config.split else None,
        "input": plan_fingerprint(folder / "plan" / "annotated"),
        "classifier": _mark_of(folder / "classifiers" / config.classifier.name) if config.classifier else None,
        "training": facts,
        "environment": versions(),
    }


def corpus(config: RunConfig, rules: RuleSet, chosen: SelectionConfig, folder: Path, display: Display) -> None:
    """The corpus shards of one selection."""
    target = folder / "corpus" / chosen.name
    mark = fingerprint(chosen, plan_fingerprint(folder / "plan" / "annotated"), rules.hash, _layer_marks(folder))
    with _stage(folder, display, "corpus", f"selection {chosen.name}") as progress:
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


def heldout_documents(frame: pl.LazyFrame) -> pl.DataFrame:
    """Documents of held-out families that have no copy anywhere: id, text, stream, language, family and their signals.

    A copy of a held-out file in a training family would be a leak, so only unique content is evaluated on.
    """
    held = frame.filter((pl.col("split") == HELDOUT) & (pl.col("duplicate_count") == 1))
    return held.with_columns(pl.col("kind").alias("stream")).collect()


def sample_texts(frame: pl.LazyFrame, most_bytes: int = 12_000_000) -> list[str]:
    """Texts to train a tokenizer on: each cut to 20,000 characters, in the order of their ids, up to `most_bytes`.

    An id is a hash, so its order is a random one that stays the same.
    """
    ordered = frame.select("id", pl.col("text").str.head(20_000)).sort("id")
    return ordered.filter(pl.col("text").str.len_bytes().cum_sum() <= most_bytes).collect()["text"].to_list()


def versions() -> dict[str, str]:
    """Versions of codesieve, Python and what the results depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"codesieve": __version__, "python": platform.python_version(), **found}


def _stream(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("id", "text", pl.col("source").alias("stream"), "language")


def _shards(frame: pl.LazyFrame, rows: int = 2_000) -> Any:
    """The frame's rows in batches, without holding all texts at once."""
    return frame.select("id", "text", "source", "language").collect_batches(chunk_size=rows, maintain_order=True)


def _natural_weights(frame: pl.LazyFrame, chosen: pl.Expr) -> dict[str, float]:
    """Shares of the sources by bytes."""
    sizes = frame.filter(chosen).group_by("source").agg(pl.col("size_bytes").sum()).sort("source").collect()
    return dict(zip(sizes["source"], sizes["size_bytes"] / sizes["size_bytes"].sum(), strict=True))


def _split_mark(config: RunConfig) -> Any:
    return config.split.model_dump(mode="json") if config.split else None


def _mark_of(folder: Path) -> str | None:
    path = folder / "fingerprint.json"
    return read_json(path)["fingerprint"] if path.exists() else None


def _layer_marks(folder: Path) -> dict[str, str]:
    """Layer → fingerprint of its first shard; controls are derived from the others."""
    from .curation.shards import footer, shard_paths

    return {
        layer.name: footer(shard_paths(layer)[0])["fingerprint"]
        for layer in sorted((folder / "layers").iterdir())
        if layer.name != "controls" and shard_paths(layer)
    }


def _git_commit() -> str | None:
    """The commit that codesieve runs from, if it runs from a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


class _stage:
    """A stage on the display, written to the run's log as well."""

    def __init__(self, folder: Path, display: Display, name: str, what: str):
        self.folder, self.display, self.name = folder, display, name
        self.inner = display.stage(name, what)

    def __enter__(self) -> Callable[[float], None]:
        self._log("start")
        return self.inner.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        self._log("failed" if error else "done", **({"error": f"{type(error).__name__}: {error}"} if error else {}))
        return self.inner.__exit__(kind, error, trace)

    def _log(self, event: str, **more: str) -> None:
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "stage": self.name, "event": event, **more}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry, ensure_ascii=False) + "\n")


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


def selection_facts(folder: Path) -> dict[str, Any]:
    """Facts for the manifest of a selection that is made from a finished run."""
    config = config_of(folder)
    return corpus_facts(config, rules_of(config), fingerprint(_layer_marks(folder)))


def explain(folder: Path, document: str) -> list[dict[str, Any]]:
    """Everything known about the documents that match; see `curation.explain`."""
    config = config_of(folder)
    return explain_document(folder, document, rules_of(config), config.selections)


def decide_again(job: DecideJobConfig, display: Display) -> dict[str, Any]:
    """A decision from the evaluations that a run has, with another question, baseline or margin."""
    folder = Path(job.run)
    data = {**config_of(folder).model_dump(mode="json"), "decide": job.decide.model_dump(mode="json")}
    record = decide(parse(RunConfig, data, where=job.run), folder, display)
    return record


def train_classifier_of(folder: Path, overrides: Sequence[str], out: Path | None, display: Display) -> dict[str, Any]:
    """Train a classifier on a run, with the run's own classifier section as defaults."""
    from .classifiers.fit import train_classifier

    config = config_of(folder)
    base = (config.classifier or ClassifierConfig()).model_dump(mode="json")
    classifier = parse(ClassifierConfig, override(base, overrides), where="classifier")
    target = out or folder / "classifiers" / classifier.name
    with _stage(folder, display, "classify", "fastText on weak labels") as progress:
        card: dict[str, Any] = train_classifier(classifier, scan(folder), target, progress)
        mark = fingerprint(classifier, plan_fingerprint(folder / "plan" / "annotated"), _split_mark(config))
        write_json(target / "fingerprint.json", {"fingerprint": mark})
    return card


def score_with(folder: Path, model: Path, display: Display, workers: int) -> None:
    """Score a run with a classifier trained elsewhere, into the layers `quality` and `quality_percentile`."""
    config_of(folder)
    if not (model / "card.json").exists():
        raise ConfigError(f"{model}: not a classifier folder (no card.json)")
    settings = parse(ClassifierConfig, read_json(model / "card.json")["config"], where=str(model / "card.json"))
    score(settings, model, str(_mark_of(model)), folder, display, workers)
