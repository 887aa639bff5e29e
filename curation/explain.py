"""Everything known about one document: signals, the rules with the numbers that fired them, scores, selections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ..config import SelectionConfig
from ..strict import ConfigError, nearest
from .corpus import layer_columns, scan
from .rules import RuleSet, explain
from .schema import IDENTITY, SIGNALS
from .select import where
from .shards import shard_paths

MAX_MATCHES = 20


def explain_document(
    run: Path, path_or_id: str, rules: RuleSet, selections: Sequence[SelectionConfig]
) -> list[dict[str, Any]]:
    """One entry a document with that id, path, or ending of a path; a skipped file is an entry that says why.

    Raises:
        ConfigError: if nothing matches (with the nearest path), or too many do.
    """
    frame = scan(run)
    columns = frame.collect_schema().names()
    chosen = [where(selection, columns).alias(f"selection {selection.name}") for selection in selections]
    wanted = (pl.col("id") == path_or_id) | (pl.col("path") == path_or_id)
    rows = frame.filter(wanted).with_columns(chosen).collect()
    if rows.is_empty():
        rows = frame.filter(pl.col("path").str.ends_with(f"/{path_or_id}")).with_columns(chosen).collect()
    if rows.height > MAX_MATCHES:
        raise ConfigError(f'{run}: {rows.height} documents match "{path_or_id}"; give the id or more of the path')
    if rows.is_empty():
        return _skipped(run, path_or_id)
    layers = layer_columns(run)
    return [_entry(row, rules, selections, layers) for row in rows.iter_rows(named=True)]


def _entry(
    row: dict[str, Any], rules: RuleSet, selections: Sequence[SelectionConfig], layers: dict[Path, list[str]]
) -> dict[str, Any]:
    identity = {column.name: row[column.name] for column in IDENTITY if column.name != "text"}
    return {
        "identity": identity,
        "signals": {signal.name: row[signal.name] for signal in SIGNALS},
        "step_errors": row["step_errors"],
        "reasons": [
            {
                "rule": rule.name,
                "version": rule.version,
                "fires": rule.fires,
                "numbers": explain(rule, row),
                "why": rule.why,
            }
            for rule in (rules.rule(name) for name in row["reasons"])
        ],
        "layers": {
            folder.name: {column: row[column] for column in columns}
            for folder, columns in layers.items()
            if folder.name != "rules"
        },
        "selections": {selection.name: row[f"selection {selection.name}"] for selection in selections},
    }


def _skipped(run: Path, path: str) -> list[dict[str, Any]]:
    skips = pl.scan_parquet(shard_paths(run / "skipped"))
    found = skips.filter((pl.col("path") == path) | pl.col("path").str.ends_with(f"/{path}")).collect()
    if found.is_empty():
        paths = scan(run).select("path").collect()["path"].to_list()
        raise ConfigError(f'{run}: no document with id or path "{path}"{nearest(path, paths)}')
    return [{"skipped": row} for row in found.head(MAX_MATCHES).to_dicts()]
