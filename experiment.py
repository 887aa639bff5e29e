"""Putting selections to the test: arms × seeds → trained models → items → a decision record.

One tokenizer and one token store serve all arms, so that arms differ in their documents only; the rule of the decision
is written down before the first model is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from .config import EvalConfig, RunConfig, SelectionConfig
from .curation.corpus import scan, select
from .curation.layers import layer_marks
from .curation.select import where
from .curation.split import HELDOUT
from .curation.stage import plan_fingerprint
from .display import Display
from .files import mark_of, read_json, replacing, write_json
from .pretraining import fraction_of, predicate_columns, stream_batches, tokenizer_for
from .provenance import versions
from .strict import ConfigError, fingerprint

if TYPE_CHECKING:
    from .eval.decisions.arms import Arm
    from .eval.decisions.record import Context


def train_and_evaluate(config: RunConfig, folder: Path, display: Display, workers: int) -> None:
    """One tokenizer and one token store for all arms; a model for every arm and seed; items for every model."""
    assert config.train and config.eval
    from .eval.decisions.ladder import Job, run_jobs
    from .train.tokens import build_store

    tokenizer_folder, store = folder / "tokens" / "tokenizer", folder / "tokens" / "all"
    frame = scan(folder)
    arms = [(s, where(s, frame.collect_schema().names())) for s in config.selections]
    used = frame.filter(pl.any_horizontal([chosen for _, chosen in arms]))
    selections = [selection.model_dump(mode="json", exclude={"train"}) for selection, _ in arms]
    marks = fingerprint(input_mark(folder), selections, config.train.vocab_size)
    tokenizer = tokenizer_for(config.train, used, tokenizer_folder, marks, display)
    with display.stage("tokenize", f"vocabulary of {tokenizer.get_vocab_size():,}") as progress:
        columns = predicate_columns([config.train_of(selection) for selection, _ in arms], used)
        build_store(
            stream_batches(used, columns=columns),
            tokenizer,
            store,
            fingerprint(marks, mark_of(tokenizer_folder), columns),
            fraction_of(lambda: used.select(pl.col("size_bytes").sum()).collect().item() or 0, progress),
        )
    heldout = folder / "evals" / "heldout.parquet"
    documents = heldout_documents(frame, config.eval.heldout_where)
    check_tasks(config.eval, documents)
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
                weights=selection.weights,
                heldout=heldout,
                model=folder / "models" / selection.name / str(seed),
                evaluation=folder / "evals" / f"{selection.name}-{seed}",
                train=config.train_of(selection),
                eval=config.eval,
            )
            for seed in config.train.seeds
        ]
    # Seeds first: when a run is cut short, every arm has as many seeds as the others.
    jobs.sort(key=lambda job: config.train.seeds.index(job.seed) if config.train else 0)
    what = f"{len(arms)} arms × {len(config.train.seeds)} seeds × {config.train.tokens:,} tokens"
    with display.stage("train", what) as progress:
        run_jobs(jobs, workers, progress)


def decide(config: RunConfig, folder: Path, display: Display) -> dict[str, Any]:
    """The decision record, from the items of all models."""
    assert config.decide and config.train and config.eval
    from .eval.decisions.record import decide as make_record
    from .eval.decisions.record import write_record
    from .eval.store import collect

    with display.stage("decide", config.decide.question):
        items = collect(folder / "evals", [s.name for s in config.selections], config.train.seeds)
        record = make_record(config.decide, items, arms_of(config, folder), context_of(config, folder))
        write_record(record, folder / "decisions")
    return record


def check_tasks(config: EvalConfig, documents: pl.DataFrame) -> None:
    """Every task can be scored: better known before the first model is trained than after the last.

    Raises:
        ConfigError: if a task is wrong or finds nothing to score.
    """
    from .eval.evaluate import gather
    from .eval.kinds.documents import choose
    from .eval.tasks.schema import HeldoutTask

    for task in gather(config)[0]:
        if isinstance(task.config, HeldoutTask):
            try:
                choose(documents, task.config, config.documents_per_stream, config.min_families)
            except ValueError as error:
                raise ConfigError(str(error)) from error


def plan_decision(config: RunConfig, folder: Path) -> None:
    """Write down hypothesis and rule before the first model is trained; a rule that is there stays."""
    from .eval.decisions.record import rule

    if config.decide:
        path = folder / "plan" / f"decision-{config.decide.name}.json"
        if not path.exists():
            write_json(path, rule(config.decide))


def arms_of(config: RunConfig, folder: Path) -> list[Arm]:
    """Every selection as an arm: what it keeps of what may be trained on."""
    assert config.train and config.eval
    from .eval.decisions.arms import describe

    frame = scan(folder)
    columns = frame.collect_schema().names()
    pool = where(SelectionConfig(name="pool"), columns)
    arms = []
    for selection in config.selections:
        kept = frame.filter(where(selection, columns)).select("language", "size_bytes").collect()
        training = read_json(folder / "models" / selection.name / str(config.train.seeds[0]) / "training.json")
        arms.append(
            describe(
                selection,
                config.selections,
                kept,
                frame.filter(pool).select("language", "size_bytes").collect(),
                input_fingerprint=input_mark(folder),
                train=config.train_of(selection),
                evaluation=config.eval,
                epochs=max(training["epochs_per_stream"].values()),
            )
        )
    return arms


def context_of(config: RunConfig, folder: Path) -> Context:
    """What the record says about the run around the decision."""
    assert config.train and config.eval and config.decide
    facts = [read_json(path) for path in sorted((folder / "models").glob("*/*/training.json"))]
    planned = folder / "plan" / f"decision-{config.decide.name}.json"
    context: Context = {
        "train": config.train,
        "evaluation": config.eval,
        "parameters": facts[0]["parameters"],
        "input_fingerprint": input_mark(folder),
        "depends_on": layer_marks(folder),
        "environment": versions(),
        "times": {"training_wall_seconds": round(sum(fact["wall_seconds"] for fact in facts), 1)},
    }
    if planned.exists():
        context["planned_rule"] = read_json(planned)["hash"]
    return context


def input_mark(folder: Path) -> str:
    """Hash of the annotated shards and the layers."""
    return fingerprint(plan_fingerprint(folder / "plan" / "annotated"), layer_marks(folder))


def heldout_documents(frame: pl.LazyFrame, where: str) -> pl.DataFrame:
    """Documents of held-out families that have no copy anywhere: id, text, stream, language, family.

    A copy of a held-out file in a training family would be a leak, so only unique content is evaluated on.
    """
    held = frame.filter((pl.col("split") == HELDOUT) & (pl.col("duplicate_count") == 1))
    return select(held, where).select("id", "text", pl.col("kind").alias("stream"), "language", "family").collect()
