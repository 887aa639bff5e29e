"""One table of everything known about every document: annotated columns and all layers, side by side.

Selections, reports, `explain` and training read through `scan`. Layers are aligned with the annotated shards (same
names, same row order), so no join is needed: shard by shard, columns are put beside columns. Row counts are compared
from the footers, which costs no data read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from ..strict import ConfigError, nearest
from .shards import column_names, row_count, shard_paths, write_shard

IS_TRUTH_VALUE = re.compile(r"\bIS\s+(?:NOT\s+)?(?:TRUE|FALSE)\b", re.IGNORECASE)


def scan(run: Path) -> pl.LazyFrame:
    """Annotated columns and layers of all documents of a run, in row order.

    Raises:
        ConfigError: if `run` has no annotated shards.
        ValueError: if a layer does not fit the annotated shards, or two layers share a column.
    """
    return pl.concat(scan_shards(run).values(), how="vertical")


def scan_shards(run: Path) -> dict[str, pl.LazyFrame]:
    """The same, shard name → frame."""
    annotated = shard_paths(run / "annotated")
    if not annotated:
        raise ConfigError(f"{run}: no annotated shards here; `codesieve curate` or `codesieve run` makes them")
    layers = layer_columns(run)
    return {path.name: _beside(path, layers) for path in annotated}


def scan_shard(run: Path, name: str) -> pl.LazyFrame:
    """The documents of one shard. Its footers alone are read, so that reading all shards one by one stays linear."""
    return _beside(run / "annotated" / name, layer_columns(run))


def layer_columns(run: Path) -> dict[Path, list[str]]:
    """Layer folder → its columns without `id`; layers that are not complete are not there yet and left out."""
    names = {path.name for path in shard_paths(run / "annotated")}
    found: dict[Path, list[str]] = {}
    owner = dict.fromkeys(column_names(run / "annotated" / min(names)), "annotated") if names else {}
    for folder in sorted(path for path in (run / "layers").glob("*") if path.is_dir()):
        shards = {path.name for path in shard_paths(folder)}
        if shards != names:
            continue
        columns = [column for column in column_names(folder / min(names)) if column != "id"]
        for column in columns:
            if column in owner:
                raise ValueError(f'{folder}: column "{column}" is in {owner[column]} as well; layers must differ')
            owner[column] = folder.name
        found[folder] = columns
    return found


def select(frame: pl.LazyFrame, where: str) -> pl.LazyFrame:
    """The rows for which the SQL predicate holds; null counts as false.

    Raises:
        ConfigError: as `predicate`.
    """
    return frame.filter(predicate(where, frame.collect_schema().names()))


def predicate(where: str, columns: Iterable[str], place: str = "predicate") -> pl.Expr:
    """A Polars SQL predicate as an expression that has a value, never null, for every row.

    Raises:
        ConfigError: if it does not parse, names an unknown column (with the nearest name), or is constant and no truth
            value.
    """
    if trap := IS_TRUTH_VALUE.search(where):
        raise ConfigError(
            f"{place}: {where}: Polars' SQL gives null for `NULL {trap.group()}`, unlike the standard; "
            "write COALESCE(column, TRUE) or COALESCE(column, FALSE)"
        )
    try:
        expression = pl.sql_expr(where)
        used = expression.meta.root_names()
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ConfigError(f"{place}: {where}: not a valid SQL predicate: {str(error).splitlines()[0]}") from error
    known = list(columns)
    for column in used:
        if column not in known:
            raise ConfigError(f'{place}: {where}: unknown column "{column}"{nearest(column, known)}')
    return expression.fill_null(False) if used else _constant(expression, f"{place}: {where}")


def _constant(expression: pl.Expr, place: str) -> pl.Expr:
    """`TRUE`, for every row: a literal is one value, which counts as one row in sums and fits no large frame."""
    try:
        value = pl.select(expression.fill_null(False)).item()
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{place}: cannot be computed: {str(error).splitlines()[0]}") from error
    if not isinstance(value, bool):
        raise ConfigError(f"{place}: is always {value}, not true or false")
    return pl.repeat(value, pl.len(), dtype=pl.Boolean)


def write_layer(run: Path, name: str, frame: pl.DataFrame, footer: Mapping[str, str]) -> Path:
    """Write `frame` (all documents in row order, `id` first) as layer `name`, shard by shard.

    Raises:
        ValueError: if its ids are not those of the annotated shards in their order.
    """
    folder = run / "layers" / name
    start = 0
    for path in shard_paths(run / "annotated"):
        rows = row_count(path)
        part = frame.slice(start, rows)
        ids = pl.read_parquet(path, columns=["id"])["id"]
        if not part["id"].equals(ids):
            raise ValueError(f"layer {name}: ids do not match {path}; a layer holds every document in row order")
        write_shard(folder / path.name, [part], footer)
        start += rows
    if start != frame.height:
        raise ValueError(f"layer {name}: {frame.height} rows for {start} documents")
    return folder


def _beside(annotated: Path, layers: Mapping[Path, list[str]]) -> pl.LazyFrame:
    frames = [pl.scan_parquet(annotated)]
    rows = row_count(annotated)
    for folder, columns in layers.items():
        path = folder / annotated.name
        if row_count(path) != rows:
            raise ValueError(f"{path}: {row_count(path)} rows for {rows} documents; delete the layer and run again")
        frames.append(pl.scan_parquet(path).select(columns))
    return pl.concat(frames, how="horizontal") if len(frames) > 1 else frames[0]
