"""Layers: columns about all documents, made and re-made without touching the annotated shards.

`stage_layer` runs steps over the annotated shards, one shard each, through the same Stage as annotation.
`table_layer` is for what needs all documents at once (duplicates, percentiles, controls): a function from the scan to
a table. Both are skipped when the layer is there with the right fingerprint, and made anew when it is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..files import remove_temporary
from ..strict import ConfigError, fingerprint
from .corpus import scan, scan_shard, write_layer
from .executors import run_stage
from .shards import footer, shard_paths
from .stage import Stage, plan_fingerprint, write_plan
from .steps import Step


class ShardReader:
    """Reads columns of one annotated shard, with its layers beside it, as one batch."""

    def __init__(self, run: Path, columns: Sequence[str]):
        self.run = run
        self.columns = tuple(columns)

    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        """One batch: units of annotation are small enough."""
        yield scan_shard(self.run, unit["shard"]).select(self.columns).collect()


def stage_layer(
    run: Path,
    name: str,
    steps: Sequence[Step],
    made_from: Mapping[str, Any],
    *,
    facts: Mapping[str, str] | None = None,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> str:
    """Layer `name` with the columns that `steps` provide; as `derived_shards`."""
    output = run / "layers" / name
    return derived_shards(run, name, steps, made_from, output, facts=facts, workers=workers, progress=progress)


def derived_shards(
    run: Path,
    name: str,
    steps: Sequence[Step],
    made_from: Mapping[str, Any],
    output: Path,
    *,
    facts: Mapping[str, str] | None = None,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> str:
    """Shards in `output`, one for each annotated one, with `id` and what `steps` provide; returns their fingerprint.

    Args:
        run: the run directory.
        name: of the stage.
        steps: they may require annotated columns, those of layers, and what a step before them provides.
        made_from: what the shards depend on besides the annotated ones; another value makes them anew.
        output: a layer's folder, or another where the columns are for later stages only.
        facts: more for the footers.
        workers: processes; 0 means one a core.
        progress: called with the finished fraction.
    """
    shards = shard_paths(run / "annotated")
    units = [{"shard": path.name, "marks": [path.name], "bytes": path.stat().st_size} for path in shards]
    plan = run / "plan" / name
    whole = {"annotated": plan_fingerprint(run / "plan" / "annotated"), **made_from}
    try:
        mark = write_plan(plan, whole, units)
    except ConfigError:  # derived shards: what they were made from changed, so they go
        shutil.rmtree(plan)
        shutil.rmtree(output, ignore_errors=True)
        mark = write_plan(plan, whole, units)
    provided = [column for step in steps for column in step.provides]
    needed = dict.fromkeys(["id", *(c for step in steps for c in step.requires if c not in provided)])
    reader = ShardReader(run, list(needed))
    stage = Stage(name, reader, steps, plan, output, columns=["id", *provided], facts=facts)
    run_stage(stage, run / "logs" / name, workers, progress)
    return mark


def table_layer(
    run: Path, name: str, make: Callable[[pl.LazyFrame], pl.DataFrame], made_from: Mapping[str, Any]
) -> None:
    """Layer `name` from a function of all documents; `id` first, rows in the order of the scan."""
    mark = fingerprint(plan_fingerprint(run / "plan" / "annotated"), dict(made_from))
    folder = run / "layers" / name
    if layer_is_done(run, name, mark):
        return
    # An old version must not be in the scan that the new one is made from.
    shutil.rmtree(folder, ignore_errors=True)
    write_layer(run, name, make(scan(run)), {"fingerprint": mark, "stage": name})


def layer_is_done(run: Path, name: str, mark: str) -> bool:
    """Whether every shard of the layer is there with that fingerprint."""
    folder = run / "layers" / name
    remove_temporary(folder)
    shards = shard_paths(folder)
    expected = [path.name for path in shard_paths(run / "annotated")]
    return [path.name for path in shards] == expected and all(footer(p).get("fingerprint") == mark for p in shards)


def layer_marks(run: Path) -> dict[str, str]:
    """Layer → fingerprint; controls are left out, being derived from the others and the selections."""
    folders = sorted(folder for folder in (run / "layers").glob("*") if folder.name != "controls")
    return {f.name: footer(shards[0])["fingerprint"] for f in folders if (shards := shard_paths(f))}
