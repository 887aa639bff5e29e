"""An arm: one candidate of a decision, named by the hash of all that defines it.

In: a selection, the documents that it keeps out of the pool, and what its models are trained and measured with. Out:
a value for the decision record: hash, keep rates, unique documents, composition. Two arms of the same hash would give
the same models and the same scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ...config import EvalConfig, SelectionConfig
from ...strict import fingerprint, nearest
from ...train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What a decision record says about a candidate.

    Attributes:
        hash: of selection, input, training and evaluation.
        where: predicate of the selection; for a control, of the selection that it is the control of.
        documents, bytes: unique ones that the selection keeps for training.
        keep_rate: share of the pool's bytes; `keep_rate_documents` of its documents.
        composition: language → share of the kept bytes.
        train: settings of training that are this arm's own.
        epochs: passes over the kept documents in one training run; None where it was not counted.
    """

    name: str
    hash: str
    where: str
    control_of: str | None = None
    documents: int
    bytes: int
    keep_rate: float
    keep_rate_documents: float
    composition: dict[str, float] = field(default_factory=dict)
    epochs: float | None = None
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def is_control(self) -> bool:
        return self.control_of is not None


def describe(
    selection: SelectionConfig,
    selections: Sequence[SelectionConfig],
    kept: pl.DataFrame,
    pool: pl.DataFrame,
    *,
    input_fingerprint: str,
    train: TrainConfig,
    evaluation: EvalConfig,
    epochs: float | None = None,
) -> Arm:
    """The arm of a selection.

    Args:
        selection: the candidate.
        selections: all of the run; a control's hash covers the selection that it is matched to.
        kept: one row a training document that the selection keeps; columns language, size_bytes.
        pool: the same of all documents that may be trained on.
        input_fingerprint: hash of the annotated shards and layers that the predicate reads.
        train: the training config of the proxies.
        evaluation: the config of what they are measured on.
        epochs: passes over the kept documents in one run.

    Raises:
        ValueError: if the selection keeps nothing, or is the control of an unknown one.
    """
    if kept["size_bytes"].sum() == 0:
        raise ValueError(f'selection "{selection.name}" keeps no training document: {selection.where}')
    of = _controlled(selection, selections)
    kept_bytes, pool_bytes = int(kept["size_bytes"].sum()), int(pool["size_bytes"].sum())
    by_language = kept.group_by("language").agg(pl.col("size_bytes").sum()).sort("language")
    return Arm(
        name=selection.name,
        hash=fingerprint(selection, of, input_fingerprint, train, evaluation),
        where=of.where if of else selection.where,
        control_of=selection.control_of,
        documents=kept.height,
        bytes=kept_bytes,
        keep_rate=kept_bytes / pool_bytes,
        keep_rate_documents=kept.height / pool.height,
        composition={language: size / kept_bytes for language, size in by_language.iter_rows()},
        epochs=epochs,
        train=dict(selection.train),
    )


def _controlled(selection: SelectionConfig, selections: Sequence[SelectionConfig]) -> SelectionConfig | None:
    if selection.control_of is None:
        return None
    by_name = {each.name: each for each in selections}
    if selection.control_of not in by_name:
        raise ValueError(
            f'selection "{selection.name}" is the control of "{selection.control_of}", which does not exist'
            f"{nearest(selection.control_of, by_name)}"
        )
    return by_name[selection.control_of]
