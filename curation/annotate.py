"""Annotation: from sources to annotated shards, the one stage that reads raw files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ..config import AnnotateConfig, SourceConfig
from .executors import run_stage
from .shards import shard_paths
from .signals.pipeline import standard_steps
from .sources.files import FilesReader, write_skips
from .sources.listing import Entry, units
from .sources.sources import list_sources
from .stage import Stage, pending, write_plan
from .steps import STEP_ERRORS

TABLE_FORMS = frozenset({"parquet", "jsonl"})


@dataclass(frozen=True)
class Annotated:
    """What annotation did: files listed, documents made, skips by reason."""

    files_in: int
    bytes_in: int
    skipped: dict[str, int]
    was_done: bool


def annotate(
    run: Path,
    sources: Sequence[SourceConfig],
    config: AnnotateConfig,
    workers: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Annotated:
    """Make `annotated/` of a run: list, cut into units, read, measure, write; continue where it was.

    Raises:
        ConfigError: a missing path, or a run directory that was made with something else.
        WorkerDiedError: a worker was killed.
    """
    listing = list_sources(sources)
    pieces = units(listing.entries, config.unit_bytes)
    plan = run / "plan" / "annotated"
    made_from = {
        "sources": [source.model_dump(mode="json", exclude={"path", "storage", "content"}) for source in sources],
        "annotate": config.model_dump(mode="json", exclude={"rules", "also_rules", "workers"}),
    }
    write_plan(plan, made_from, pieces)
    skips = run / "skipped"
    write_skips(skips / "listing.parquet", listing.skips)
    reader = FilesReader(config.batch_bytes, skips)
    stage = Stage("annotated", reader, [_Errors(), *standard_steps(config)], plan, run / "annotated")
    was_done = not pending(plan, stage.output)
    run_stage(stage, run / "logs" / "annotated", workers, progress)
    return Annotated(
        files_in=_files(listing.entries) + len(listing.skips),
        bytes_in=sum(entry.size_bytes for entry in listing.entries),
        skipped=skipped_by_reason(run),
        was_done=was_done,
    )


def _files(entries: Sequence[Entry]) -> int:
    """A table is one file, however many pieces it is read in; a member of an archive is one as well."""
    tables = {entry.file for entry in entries if entry.form in TABLE_FORMS}
    return len(tables) + sum(1 for entry in entries if entry.form not in TABLE_FORMS)


def skipped_by_reason(run: Path) -> dict[str, int]:
    """Reason → files that are not documents. A reason's detail after the colon is not part of the key."""
    paths = shard_paths(run / "skipped")
    if not paths:
        return {}
    reason = pl.col("reason").str.split(":").list.first().alias("reason")
    table = pl.scan_parquet(paths).group_by(reason).len().sort("reason").collect()
    return dict(zip(table["reason"], table["len"], strict=True))


class _Errors:
    """Starts the `step_errors` column, so that every shard has it whether or not a step failed."""

    name = "step_errors"
    requires: tuple[str, ...] = ()
    provides: Mapping[str, pl.DataType] = {STEP_ERRORS: pl.List(pl.String())}

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with an empty list for each document."""
        return batch.with_columns(pl.Series(STEP_ERRORS, [[]] * batch.height, dtype=pl.List(pl.String)))
