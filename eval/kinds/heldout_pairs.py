"""Minimal pairs from held-out documents: the items of a `HeldoutPairsTask`, made when it is run.

In: documents that no arm was trained on. Out: one row a pair, in the form of a choice task's fields; `pairs.py` says
what is asked and what is balanced. The family is the cluster, and families take turns. Documents are parsed until a
language has its pairs, which takes some 5 ms a pair.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ..pairs import make_pairs
from ..tasks.schema import HeldoutPairsTask

PER_FUNCTION = 2
"""Pairs of one function share nearly all their text; two tell more than one, four little more than two."""


def heldout_items(config: HeldoutPairsTask, documents: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows with id, cluster, language, mutation, prompt, choices and gold; none if no function can be changed.

    Args:
        documents: columns id, text, stream, language, family.
    """
    code = documents.filter((pl.col("stream") != "text") & (pl.col("text") != ""))
    texts = code.select("id", "family", "language", "text").iter_rows()
    pairs = make_pairs(texts, config.seed, config.max_pairs, config.max_bytes, PER_FUNCTION, config.languages)
    return [
        {
            "id": pair.id,
            "cluster": pair.cluster,
            "language": pair.language,
            "mutation": pair.mutation,
            "prompt": pair.prompt,
            "choices": list(pair.choices),
            "gold": pair.gold,
        }
        for pair in pairs
    ]
