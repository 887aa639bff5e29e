"""Documents that hold items of a benchmark: layer `contamination`.

In: the text of all documents, and the passages of `benchmark_items.py`. A document's overlap with a passage is the
share of the passage's n-grams of tokens that it holds; indentation, line breaks and spacing do not count. Out:
`contaminated_by`, the items (`file#item`) with a passage of which at least `threshold` is there, null if there are
none; `contamination_overlap`, the largest share of any passage, so that another threshold is another predicate.

What is no evidence: n-grams of more than a twentieth of a file's items (instructions, imports, few-shot examples),
which leave the passage; and n-grams in more than `generic_documents` documents that do not hold the rest of the
passage, as GPT-3 (arXiv:2005.14165, appendix C) ignored 13-grams of more than ten documents. They count as not found.
Copies of an item, however many, do not make it generic. Not found: renamed variables, translations, paraphrases.

Price: 120 MB/s a core against HumanEval and MBPP (95,000 n-grams), 31 against forty times the text (1.1 million, which
do not fit the cache); the rest is about matches only. Of 17,652 files of the standard library and installed packages,
2,164 hold one of those 95,000 n-grams, and none holds more than 0.36 of a passage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ..config import DecontaminateConfig
from ..strict import fingerprint
from .benchmark_items import Items, read_items
from .buffers import utf8
from .layers import derived_shards, table_layer
from .shards import shard_paths

VERSION = 1
FOLDER = "benchmark_matches"

TEMPLATE_FRACTION = 0.05
TEMPLATE_ITEMS = 10
"""An n-gram of more than both (a share of one file's items, and items) is the file's template. A share, because files
of infilling tasks hold every problem many times: HumanEval-MultiLineInfilling up to 190 times among 5,815 items."""


@dataclass(frozen=True)
class Index:
    """Passages as n-grams.

    Attributes:
        hashes: of all n-grams, sorted, each once.
        lengths: the lengths in tokens that occur.
        ngrams: of each passage, positions in `hashes`, each once.
        protected: passages of 2n tokens and more: long enough that sharing most of one is no accident.
        items: the items of each passage.
    """

    hashes: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int64]
    ngrams: tuple[npt.NDArray[np.int64], ...]
    protected: npt.NDArray[np.bool_]
    items: tuple[tuple[str, ...], ...]


def decontaminate(
    run: Path,
    config: DecontaminateConfig,
    workers: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Items:
    """Layer `contamination` of a run that has the layer `duplicates`; returns what was compared with.

    Raises:
        ConfigError: if there is nothing to compare with, or it cannot be read.
    """
    items = read_items(config.against, config.columns, config.ngram)
    index = build_index(items, config.ngram)
    content = fingerprint([[p.text, p.items] for p in items.passages], config.ngram, VERSION)
    made_from: dict[str, object] = {"items": content}
    mark = derived_shards(run, FOLDER, [MatchStep(index)], made_from, run / FOLDER, workers=workers, progress=progress)
    made_from = {"matches": mark, "threshold": config.threshold, "generic_documents": config.generic_documents}
    table_layer(run, "contamination", lambda frame: _layer(frame, run, index, config), made_from)
    return items


def build_index(items: Items, ngram: int) -> Index:
    """The n-grams of all passages, without those of a file's template."""
    from .dedup.matches import count_tokens, ngrams_of

    counts = [count_tokens(passage.text) for passage in items.passages]
    grams = [
        np.unique(ngrams_of(passage.text, ngram if count >= ngram else None))
        for passage, count in zip(items.passages, counts, strict=True)
    ]
    template = _template(items, grams)
    informative = [np.setdiff1d(found, template, assume_unique=True) for found in grams]
    hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *informative]))
    return Index(
        hashes=hashes,
        lengths=np.unique(np.array([min(count, ngram) for count in counts], np.int64)),
        ngrams=tuple(np.searchsorted(hashes, found) for found in informative),
        protected=np.array([count >= 2 * ngram for count in counts], np.bool_),
        items=tuple(passage.items for passage in items.passages),
    )


class MatchStep:
    """Adds `ngrams`, the positions in the index of the n-grams that a document holds; null for none."""

    name = "matches"
    requires = ("text",)
    provides: Mapping[str, pl.DataType] = {"ngrams": pl.List(pl.UInt32())}

    def __init__(self, index: Index):
        self.hashes = index.hashes
        self.lengths = index.lengths

    def setup(self) -> None:
        """Load the compiled loop and make its bit table."""
        from .dedup.matches import bit_table

        self.bits = bit_table(self.hashes)

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the column."""
        from .dedup.matches import find_ngrams

        data, offsets = utf8(batch["text"])
        documents, found = find_ngrams(data, offsets, self.lengths, self.hashes, self.bits)
        matches = (
            pl.DataFrame({"row": documents.astype(np.uint32), "ngrams": found.astype(np.uint32)})
            .unique()
            .sort("row", "ngrams")
            .group_by("row", maintain_order=True)
            .agg("ngrams")
        )
        rows = pl.DataFrame({"row": np.arange(batch.height, dtype=np.uint32)})
        return batch.with_columns(rows.join(matches, on="row", how="left", maintain_order="left")["ngrams"])


def overlaps(
    matches: pl.DataFrame, is_copy: pl.Series, index: Index, threshold: float, generic_documents: int
) -> pl.DataFrame:
    """`row`, `passage` and `overlap` of every document and passage that share an n-gram which is evidence.

    Args:
        matches: `row` (of the document) and `ngram`, one match a line.
        is_copy: for every document, whether it is an exact duplicate: copies of a file are one document when n-grams
            are found generic.
        index: of the passages.
        threshold: share from which a document holds a passage.
        generic_documents: see the head of this module.
    """
    passages = pl.DataFrame(
        {
            "passage": np.repeat(np.arange(len(index.ngrams), dtype=np.uint32), [len(n) for n in index.ngrams]),
            "ngram": np.concatenate([np.empty(0, np.int64), *index.ngrams]).astype(np.uint32),
        }
    )
    facts = pl.DataFrame(
        {
            "passage": np.arange(len(index.ngrams), dtype=np.uint32),
            "size": np.array([len(n) for n in index.ngrams], np.uint32),
            "protected": index.protected,
        }
    )
    pairs = matches.join(passages, on="ngram")
    share = (pl.len() / pl.col("size").first()).alias("overlap")
    raw = pairs.join(facts, on="passage").group_by("row", "passage").agg(share, pl.col("protected").first())
    held = raw.filter(pl.col("protected") & (pl.col("overlap") >= threshold)).select("row", "passage")
    explained = pairs.join(held, on=["row", "passage"]).select("row", "ngram").unique()
    generic = (
        matches.filter(~is_copy.gather(matches["row"]))
        .join(explained, on=["row", "ngram"], how="anti")
        .group_by("ngram")
        .agg(pl.len().alias("documents"))
        .filter(pl.col("documents") > generic_documents)
    )
    evidence = pairs.join(generic, on="ngram", how="anti").join(facts, on="passage")
    return evidence.group_by("row", "passage").agg(share).sort("row", "passage")


def _template(items: Items, grams: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """N-grams of more than `TEMPLATE_FRACTION` of the items of a file, and more than `TEMPLATE_ITEMS` of them."""
    by_item: dict[str, list[npt.NDArray[np.uint64]]] = {}
    for passage, found in zip(items.passages, grams, strict=True):
        for item in passage.items:
            by_item.setdefault(item, []).append(found)
    by_file: dict[str, list[npt.NDArray[np.uint64]]] = {}
    for item, lists in by_item.items():
        by_file.setdefault(item.partition("#")[0], []).append(np.unique(np.concatenate(lists)))
    common = [np.empty(0, np.uint64)]
    for file, lists in by_file.items():
        hashes, counts = np.unique(np.concatenate(lists), return_counts=True)
        common.append(hashes[counts > max(TEMPLATE_ITEMS, math.floor(TEMPLATE_FRACTION * items.files[file]))])
    return np.unique(np.concatenate(common))


def _layer(frame: pl.LazyFrame, run: Path, index: Index, config: DecontaminateConfig) -> pl.DataFrame:
    table = frame.select("id", is_copy=pl.col("duplicate_of").is_not_null()).with_row_index("row").collect()
    parts = pl.read_parquet(shard_paths(run / FOLDER), columns=["id", "ngrams"])
    if not parts["id"].equals(table["id"]):
        raise ValueError(f"{run / FOLDER}: ids do not match the annotated shards; delete the folder and run again")
    matches = parts.select(pl.col("ngrams").alias("ngram")).with_row_index("row").drop_nulls("ngram").explode("ngram")
    found = overlaps(matches, table["is_copy"], index, config.threshold, config.generic_documents)
    names = pl.DataFrame(
        {
            "passage": np.arange(len(index.items), dtype=np.uint32),
            "item": pl.Series(index.items, dtype=pl.List(pl.String)),
        }
    )
    contaminated = (
        found.filter(pl.col("overlap") >= config.threshold)
        .join(names, on="passage")
        .explode("item")
        .group_by("row")
        .agg(pl.col("item").unique().sort().alias("contaminated_by"))
    )
    largest = found.group_by("row").agg(pl.col("overlap").max().alias("contamination_overlap"))
    return (
        table.select("row", "id")
        .join(contaminated, on="row", how="left", maintain_order="left")
        .join(largest, on="row", how="left", maintain_order="left")
        .select("id", "contaminated_by", pl.col("contamination_overlap").fill_null(0.0))
    )
