"""Stages over the annotated shards whose result is for other stages only: signatures, matches of n-grams.

Like a layer they have one shard for each annotated one, are made in parallel and continue where they were. Unlike a
layer they are not part of what is known about a document: they stay out of predicates, corpora and reports.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ...config import ConfigError
from ..executors import run_stage
from ..layers import ShardReader
from ..shards import shard_paths
from ..stage import Stage, plan_fingerprint, write_plan
from ..steps import Step


def stage_beside(
    run: Path,
    name: str,
    step: Step,
    made_from: Mapping[str, Any],
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> str:
    """`<run>/<name>/` with `id` and what `step` provides; returns the fingerprint of its shards.

    `made_from` is what it depends on besides the annotated shards; another value makes it anew.
    """
    facts = {"annotated": plan_fingerprint(run / "plan" / "annotated"), **made_from}
    shards = shard_paths(run / "annotated")
    units = [{"shard": path.name, "marks": [path.name], "bytes": path.stat().st_size} for path in shards]
    plan, output = run / "plan" / name, run / name
    try:
        mark = write_plan(plan, facts, units)
    except ConfigError:  # derived from the annotated shards: what it was made from changed, so it goes
        shutil.rmtree(plan)
        shutil.rmtree(output, ignore_errors=True)
        mark = write_plan(plan, facts, units)
    columns = ["id", *step.provides]
    reader = ShardReader(run, list(dict.fromkeys(["id", *step.requires])))
    run_stage(Stage(name, reader, [step], plan, output, columns=columns), run / "logs" / name, workers, progress)
    return mark


def read_beside(run: Path, name: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Columns of the stage's shards, one after the other in row order."""
    for path in shard_paths(run / name):
        yield pl.read_parquet(path, columns=list(columns))


def text_buffers(texts: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of all texts one after the other, and where each begins (and the last ends), without a copy a text."""
    array = texts.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8), starts
