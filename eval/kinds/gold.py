"""Bits per byte of reference answers: how likely the model finds the right solution, given the question.

The continuous signal that ranks models too small to solve a problem. Bytes are those of the raw continuation; its
leading white space counts, and white space at the end of the context is moved into it before it is tokenised but not
before it is counted.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from ..backends.protocol import Continuation
from ..session import Session
from ..store import items_frame
from ..tasks.prompts import context, continuation
from ..tasks.task import Task


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One item a reference answer.

    Raises:
        ValueError: if the model gives one no finite likelihood.
    """
    items = [item for item in session.chosen(task.items) if continuation(task, item)]
    requests = [Continuation(context(task, item), continuation(task, item)) for item in items]
    found = session.loglikelihood(task, requests, [item.id for item in items])
    rows = []
    for item, request, each in zip(items, requests, found, strict=True):
        if not math.isfinite(each.nats):
            raise ValueError(f"item {item.id}: log-likelihood is {each.nats}; did the training run diverge?")
        rows.append(
            {
                "task": task.name,
                "item": item.id,
                "cluster": item.cluster,
                "stream": "gold",
                "language": item.language,
                "nats": each.nats,
                "bytes": len(request.text.encode()),
                "outcome": "scored",
                "prompt": request.context,
                "answer": request.text,
            }
        )
    return items_frame(rows), {"contexts_cut": sum(each.lost_tokens > 0 for each in found)}
