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

from ..config import ConfigError, fingerprint
from ..files import remove_temporary
from .corpus import scan, scan_shards, write_layer
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
        yield scan_shards(self.run)[unit["shard"]].select(self.columns).collect()


def stage_layer(
    run: Path,
    name: str,
    steps: Sequence[Step],
    made_from: Mapping[str, Any],
    *,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Layer `name` with the columns that `steps` provide.

    `made_from` is what the layer depends on besides the annotated shards; another value makes it anew.
    """
    annotated = plan_fingerprint(run / "plan" / "annotated")
    shards = shard_paths(run / "annotated")
    units = [{"shard": path.name, "marks": [path.name], "bytes": path.stat().st_size} for path in shards]
    plan = run / "plan" / name
    output = run / "layers" / name
    try:
        write_plan(plan, {"annotated": annotated, **made_from}, units)
    except ConfigError:  # a layer is derived: what it was made from changed, so it goes
        shutil.rmtree(plan)
        shutil.rmtree(output, ignore_errors=True)
        write_plan(plan, {"annotated": annotated, **made_from}, units)
    provided = [column for step in steps for column in step.provides]
    needed = dict.fromkeys(["id", *(c for step in steps for c in step.requires if c not in provided)])
    stage = Stage(name, ShardReader(run, list(needed)), steps, plan, output, columns=["id", *provided])
    run_stage(stage, run / "logs" / name, workers, progress)


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
