"""Bits per byte on held-out documents: which documents, and their likelihood.

In: documents that no arm was trained on (id, text, stream, language, family). Out: one item a document, with nats and
bytes; the family is its cluster. Documents are drawn in the order of a hash of their id, one from each family in turn,
so that a large family does not stand for all code; at most so many a language (`code`) or a stream (`text`, whose
"languages" are mark-up formats). Price: documents of small families weigh more than in the pool.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import polars as pl

from ...strict import ConfigError
from ..session import Session
from ..store import WHOLE_STREAMS, items_frame
from ..tasks.schema import HeldoutTask
from ..tasks.task import Task
from ..windows import cut_bytes, excerpt

COLUMNS = ("id", "text", "stream", "language", "family")


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Items, and what was left out.

    Raises:
        ValueError: if there are no held-out documents to score, or the model gives one no finite likelihood (a
            diverged training run).
    """
    config = task.config
    assert isinstance(config, HeldoutTask)
    there = check(task, session.documents)
    chosen, left_out = choose(there, config, session.config.documents_per_stream, session.config.min_families)
    texts = [_piece(text, document, config) for document, text in chosen.select("id", "text").iter_rows()]
    found = session.rolling(task, texts, chosen["id"].to_list(), config.max_tokens)
    for document, each in zip(chosen["id"], found, strict=True):
        if not math.isfinite(each.nats):
            raise ValueError(f"document {document}: log-likelihood is {each.nats}; did the training run diverge?")
    rows = [
        {
            "task": config.name,
            "item": row["id"],
            "cluster": row["family"],
            "stream": row["stream"],
            "language": row["language"],
            "nats": each.nats,
            "bytes": each.size_bytes,
            "outcome": "scored",
        }
        for row, each in zip(chosen.iter_rows(named=True), found, strict=True)
    ]
    return items_frame(rows), {"left_out": left_out}


def check(task: Task, documents: pl.DataFrame | None) -> pl.DataFrame:
    """The held-out documents.

    Raises:
        ConfigError: if there are none.
    """
    if documents is None:
        raise ConfigError(
            f"task {task.name} needs held-out documents: give them with --documents, or choose other tasks"
        )
    return documents


def choose(
    documents: pl.DataFrame, task: HeldoutTask, per_group: int, min_families: int | None = None
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The documents to score, and why a language or stream is left out (`stream/language` → reason).

    Args:
        documents: columns id, text, stream, language, family.
        task: which streams, and from how many families.
        per_group: documents a language or whole stream, unless the task says.
        min_families: instead of the task's.

    Raises:
        ValueError: on a missing column or two documents of one id, or if nothing can be scored.
    """
    _check(documents)
    fewest = task.min_families if min_families is None else min_families
    left_out: dict[str, str] = {}
    chosen = []
    for stream in task.streams:
        there = documents.filter((pl.col("stream") == stream) & (pl.col("text") != ""))
        if there.is_empty():
            left_out[stream] = "no held-out documents"
            continue
        groups = [there] if stream in WHOLE_STREAMS else there.sort("language").partition_by("language")
        for group in groups:
            families = group["family"].n_unique()
            if families < fewest:
                name = stream if stream in WHOLE_STREAMS else f"{stream}/{group['language'][0]}"
                left_out[name] = f"{families} held-out families, the task wants {fewest}"
                continue
            chosen.append(_in_turn(group, task.seed).head(task.documents or per_group))
    if not chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f'task "{task.name}": nothing to score ({reasons})')
    return pl.concat(chosen), left_out


def _check(documents: pl.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in documents.columns]
    if missing:
        raise ValueError(f"held-out documents lack the columns {', '.join(missing)}; they have {documents.columns}")
    twice = documents.filter(documents["id"].is_duplicated())
    if not twice.is_empty():
        raise ValueError(f"held-out documents: id {twice['id'][0]} occurs more than once")


def _piece(text: str, document: str, task: HeldoutTask) -> str:
    if task.max_bytes is None:
        return text
    if task.part == "beginning":
        return cut_bytes(text, task.max_bytes)
    return excerpt(text, task.max_bytes, int(_hash(f"{task.seed}:piece:{document}")[:13], 16) / 16**13)


def _in_turn(group: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The group's documents: first one of each family, then the second of each, …; by hash within a turn."""
    hashes = [_hash(f"{seed}:{document}") for document in group["id"]]
    return (
        group.with_columns(pl.Series("_hash", hashes))
        .with_columns(pl.col("_hash").rank("ordinal").over("family").alias("_turn"))
        .sort("_turn", "_hash")
        .drop("_hash", "_turn")
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
