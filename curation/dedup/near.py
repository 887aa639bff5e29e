"""Near duplicates: documents that share most of their runs of five tokens, over all shards of a run.

Every document gets a signature (`sketch.py`, in parallel, one shard each), then all of them are clustered in one pass
(`leaders.py`): in a declared order of preference, each is kept unless a kept one is at least `threshold` similar to
it. Exact duplicates take no part, being answered by `duplicate_of`; nor do documents without tokens. Only ids, the
columns of the order and the signatures are in memory, about 1 kB a document; time grows linearly.

The similarity is an estimate from full signatures: standard error 0.029 at the default threshold of 0.7. Which pairs
are compared at all is decided by bands of the signature, chosen so that a pair at the threshold is found with a
chance of at least 0.95 (at 0.7: 36 bands of 7 values; a pair at 0.75 with 0.994, at 0.8 with 0.9997).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ...config import NearDuplicatesConfig
from ...strict import ConfigError
from ..corpus import layer_columns, predicate, scan
from ..layers import derived_shards, table_layer
from ..shards import footer, shard_paths
from .signatures import MIN_TOKENS, NGRAM, SignatureStep

KEEP = (
    "licence_class = 'permissive'",
    "NOT is_vendored",
    "NOT is_generated",
    "NOT is_test",
    "size_bytes",
)
"""Which document of a cluster is kept: permissive licence first, as in The Stack v2 (arXiv:2402.19173, section 3), then
the one nearest to what people wrote for others to read, then the longest. Stars and dates, which The Stack v2 goes on
with, are known to few sources."""

TIES = ("path_length", "path", "row")
RECALL = 0.95
VERSION = 1
FOLDER = "signatures"


def near_duplicates(
    run: Path,
    config: NearDuplicatesConfig,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Layer `near_duplicates` of a run that has the layer `duplicates`.

    Columns: `near_duplicate_of` (id of the kept document, null for a kept one), `near_duplicate_count` (size of the
    cluster), `near_duplicate_similarity` (estimated, to the kept one; null for a kept one). All are null for a
    document that takes no part.

    Raises:
        ConfigError: if `keep` is no list of SQL expressions over columns of this run.
    """
    keep = keep_order(config, scan(run).collect_schema().names())
    settings = {"version": VERSION, "ngram": NGRAM, "min_tokens": MIN_TOKENS}
    mark = derived_shards(run, FOLDER, [SignatureStep()], settings, run / FOLDER, workers=workers, progress=progress)
    made_from = {**config.model_dump(mode="json"), "signatures": mark, "layers": _marks(run, keep), "version": VERSION}
    table_layer(run, "near_duplicates", lambda frame: _layer(frame, run, config, keep), made_from)


def keep_order(config: NearDuplicatesConfig, columns: Sequence[str]) -> list[str]:
    """The expressions of the order; of the default one, those whose columns this run has."""
    if config.keep is not None:
        for text in config.keep:
            predicate(text, columns, place="near_duplicates: keep")
        return list(config.keep)
    return [text for text in KEEP if set(pl.sql_expr(text).meta.root_names()) <= set(columns)]


def bands_for(threshold: float, values: int) -> tuple[int, int]:
    """Bands and rows: the most rows (fewest comparisons in vain) that find a pair at the threshold by `RECALL`."""
    choices = [(values // rows, rows) for rows in range(1, values + 1)]
    return max((c for c in choices if recall(threshold, *c) >= RECALL), key=lambda choice: choice[1])


def recall(similarity: float, bands: int, rows: int) -> float:
    """The chance that two documents of that Jaccard similarity share a band, and so are compared."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def cluster(
    signatures: npt.NDArray[np.uint16],
    order: npt.NDArray[np.int64],
    threshold: float,
    groups: npt.NDArray[np.uint32] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """For each row of `signatures`: the row that is kept for it (itself, or −1 outside `order`), and the similarity.

    Args:
        signatures: values of 16 bits, one document a row.
        order: the rows that take part, in the order in which they are kept.
        threshold: least estimated Jaccard similarity of a near duplicate.
        groups: a number for each row; only rows of one group are compared.

    Raises:
        ConfigError: if there are more documents than the index can number.
    """
    from .leaders import find_leaders

    documents, values = signatures.shape
    bands, rows = bands_for(threshold, values)
    if len(order) * bands >= 2**32:
        raise ConfigError(
            f"near_duplicates: {len(order):,} documents with {bands} bands each are more than one index holds; "
            f"at most {2**32 // bands:,}: divide the sources over several runs"
        )
    leader = np.full(documents, -1, np.int64)
    equal = np.zeros(documents, np.int64)
    if groups is None:
        groups = np.zeros(documents, np.uint32)
    least = math.ceil(threshold * values - 1e-9)
    find_leaders(signatures, groups, order, bands, rows, least, leader, equal)
    return leader, equal / values


def _layer(frame: pl.LazyFrame, run: Path, config: NearDuplicatesConfig, keep: Sequence[str]) -> pl.DataFrame:
    names = [f"keep_{index}" for index in range(len(keep))]
    table = (
        frame.select(
            "id",
            "path",
            "language",
            (pl.col("duplicate_of").is_null()).alias("first"),
            *(pl.sql_expr(text).alias(name) for text, name in zip(keep, names, strict=True)),
        )
        .with_columns(pl.col("path").str.len_bytes().alias("path_length"))
        .with_row_index("row")
        .collect()
    )
    signatures, has_tokens = _read_signatures(run, table["id"])
    order = (
        table.filter(pl.col("first") & pl.Series(has_tokens))
        .sort([*names, *TIES], descending=[True] * len(names) + [False] * len(TIES), nulls_last=True)["row"]
        .cast(pl.Int64)
        .to_numpy()
    )
    groups = table["language"].rank("dense").to_numpy().astype(np.uint32) if config.within_language else None
    leader, similarity = cluster(signatures, np.ascontiguousarray(order), config.threshold, groups)
    takes_part = leader >= 0
    sizes = np.bincount(leader[takes_part], minlength=len(leader))[leader]
    is_removed = takes_part & (leader != np.arange(len(leader)))
    return table.select("id").with_columns(
        pl.when(pl.Series(is_removed)).then(table["id"].gather(np.maximum(leader, 0))).alias("near_duplicate_of"),
        pl.when(pl.Series(takes_part)).then(pl.Series(sizes, dtype=pl.UInt32)).alias("near_duplicate_count"),
        pl.when(pl.Series(is_removed)).then(pl.Series(similarity)).alias("near_duplicate_similarity"),
    )


def _read_signatures(run: Path, ids: pl.Series) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """All signatures in the order of `ids`, filled in shard by shard, and which documents have one."""
    from .sketch import VALUES

    signatures = np.zeros((len(ids), VALUES), np.uint16)
    present = np.zeros(len(ids), np.bool_)
    start = 0
    for path in shard_paths(run / FOLDER):
        part = pl.read_parquet(path, columns=["id", "signature"])
        end = start + part.height
        if not part["id"].equals(ids[start:end]):
            raise ValueError(f"{run / FOLDER}: ids do not match the annotated shards; delete the folder and run again")
        has = part["signature"].is_not_null().to_numpy()
        values = np.frombuffer(b"".join(part["signature"].drop_nulls().to_list()), np.uint16)
        signatures[start:end][has] = values.reshape(-1, VALUES)
        present[start:end] = has
        start = end
    return signatures, present


def _marks(run: Path, keep: Sequence[str]) -> dict[str, str]:
    """Layers that the order reads → their fingerprint: another version of one may keep other documents."""
    used = {"duplicate_of", *(column for text in keep for column in pl.sql_expr(text).meta.root_names())}
    owners = [folder for folder, columns in layer_columns(run).items() if used & set(columns)]
    return {folder.name: footer(shard_paths(folder)[0])["fingerprint"] for folder in owners}
