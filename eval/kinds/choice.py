"""Choice tasks: the likelihood of every choice after its context; the most likely one is the answer.

The raw sums and the lengths of the choices are kept in every item, so that each normalisation is a function of the
items and needs no model. With an unconditional prompt a second likelihood is taken for PMI (Holtzman et al. 2021).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from ..backends.protocol import Continuation, Scored
from ..normalisation import choice_correct, chosen
from ..session import Session
from ..store import items_frame
from ..tasks.items import Item
from ..tasks.prompts import context, continuation, gold, unconditional
from ..tasks.schema import ChoiceTask, HeldoutPairsTask
from ..tasks.task import Task
from . import documents
from .heldout_pairs import heldout_items

HELDOUT_PAIRS = ChoiceTask.model_validate(
    {"kind": "choice", "name": "pairs", "data": {"files": ["-"]}, "prompt": "{prompt}", "continuation": "{choice}"}
)
"""How a pair from held-out documents is asked."""


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Items with one row each, and how many contexts did not fit the model's window.

    Raises:
        ValueError: if the model gives a choice no finite likelihood, or there is nothing to ask.
    """
    config, asked = task.config, task
    if isinstance(config, HeldoutPairsTask):
        asked = _pairs(task, session)
        config = HELDOUT_PAIRS
    assert isinstance(config, ChoiceTask)
    items = session.chosen(asked.items)
    requests, names = [], []
    for item in items:
        for number, choice in enumerate(item.fields["choices"]):
            requests.append(Continuation(context(asked, item, choice), continuation(asked, item, choice)))
            names.append(f"{item.id}\0{number:03d}")
    scored = _finite(session.loglikelihood(task, requests, names), names)
    alone: list[Scored] | None = None
    if config.unconditional is not None:
        pairs = [
            Continuation(unconditional(asked, item, choice) or "", request.text)
            for request, (item, choice) in zip(requests, _choices(items), strict=True)
        ]
        alone = _finite(session.loglikelihood(task, pairs, [f"{name}\0alone" for name in names]), names)
    rows, start = [], 0
    for item in items:
        stop = start + len(item.fields["choices"])
        part = slice(start, stop)
        rows.append(_row(task, config, item, requests[part], scored[part], None if alone is None else alone[part]))
        start = stop
    cut = sum(each.lost_tokens > 0 for each in scored)
    return items_frame(rows), {"metric": config.metric, "contexts_cut": cut}


def _row(
    task: Task,
    config: ChoiceTask,
    item: Item,
    requests: Sequence[Continuation],
    scored: Sequence[Scored],
    alone: Sequence[Scored] | None,
) -> dict[str, Any]:
    # Lengths are those of the choice as the task has it, where lm-evaluation-harness counts them.
    texts = [str(choice) for choice in item.fields["choices"]]
    detail: dict[str, Any] = {
        "nats": [each.nats for each in scored],
        "tokens": [each.tokens for each in scored],
        "characters": [len(text) for text in texts],
        "bytes": [len(text.encode()) for text in texts],
        "unconditional": None if alone is None else [each.nats for each in alone],
        "gold": gold(item),
    }
    score = choice_correct(detail, config.metric)
    first = detail["gold"][0]
    return {
        "task": task.name,
        "item": item.id,
        "cluster": item.cluster,
        "stream": "choice",
        "language": item.language,
        # The right choice's likelihood: a continuous signal where accuracy is still at chance.
        "nats": scored[first].nats,
        "bytes": len(requests[first].text.encode()),
        "score": score,
        "outcome": "right" if score == 1 else "wrong",
        "prompt": requests[first].context,
        "answer": requests[chosen(detail, config.metric)].text,
        "detail": json.dumps(detail),
    }


def _pairs(task: Task, session: Session) -> Task:
    config = task.config
    assert isinstance(config, HeldoutPairsTask)
    rows = heldout_items(config, documents.check(task, session.documents))
    if not rows:
        raise ValueError(f'task "{task.name}": no function in the held-out documents can be mutated')
    items = tuple(Item(row["id"], row["cluster"], row["language"], row) for row in rows)
    return Task(HELDOUT_PAIRS, items, (), task.fingerprint, {})


def _choices(items: Sequence[Item]) -> list[tuple[Item, str]]:
    return [(item, choice) for item in items for choice in item.fields["choices"]]


def _finite(scored: list[Scored], names: Sequence[str]) -> list[Scored]:
    for name, each in zip(names, scored, strict=True):
        if not math.isfinite(each.nats):
            item = name.partition("\0")[0]
            raise ValueError(f"item {item}: log-likelihood is {each.nats}; did the training run diverge?")
    return scored
