"""Answers that are compared with the right ones: generated, extracted, normalised, then equal or overlapping.

The normalisers in their order, each as in SQuAD's and TriviaQA's own scripts (Rajpurkar et al. 2016): lower case,
punctuation and articles taken out, white space made single; `number` takes thousands separators, currency signs and
trailing zeros off what reads as a number, whatever its length.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import polars as pl

from ..backends.protocol import Generation, Sampling
from ..notes import cuts
from ..session import Session
from ..store import items_frame
from ..tasks.prompts import context
from ..tasks.schema import MatchTask
from ..tasks.task import Task

MOST_DIGITS = 1000
"""A number whose written form is longer is compared as text: nobody means it, and 1e1000000 has a million digits."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’´`“”")
_ORDER = ("lower", "punctuation", "articles", "whitespace")


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One item a question; greedy, whatever the sampling of code tasks is."""
    config = task.config
    assert isinstance(config, MatchTask)
    items = session.chosen(task.items)
    requests = [Generation(context(task, item), item.id) for item in items]
    sampling = Sampling(session.room(config.max_new_tokens), config.stop)
    found = session.generate(task, requests, sampling)
    rows = []
    for item, request, each in zip(items, requests, found, strict=True):
        answer = extract(each.text, config.extract)
        score = best_score(answer, item.fields["answers"], config)
        rows.append(
            {
                "task": task.name,
                "item": item.id,
                "cluster": item.cluster,
                "stream": "match",
                "language": item.language,
                "score": score,
                "outcome": "right" if score == 1 else "wrong",
                "prompt": request.prompt if each.seen is None else each.seen,
                "answer": each.text,
                "detail": json.dumps({"prompt_tokens_cut": each.lost_tokens}) if each.lost_tokens else None,
            }
        )
    return items_frame(rows), {"metric": config.metric, **cuts(found, sampling, config.max_new_tokens)}


def extract(text: str, patterns: Sequence[str]) -> str:
    """The last hit of the first pattern that hits; "" if none does; the whole text if there are no patterns."""
    if not patterns:
        return text.strip()
    for pattern in patterns:
        hits = re.findall(pattern, text)
        if hits:
            return str(hits[-1]).strip()
    return ""


def normalise(text: str, steps: Sequence[str]) -> str:
    """`text` after the named steps, in their fixed order; what reads as a number needs no other step."""
    if "number" in steps and (number := _number(text)) is not None:
        return number
    for step in _ORDER:
        if step in steps:
            text = _STEPS[step](text)
    return text


def best_score(answer: str, right: Sequence[str], config: MatchTask) -> float:
    """The task's metric against the right answer that fits best, in [0, 1]."""
    given = normalise(answer, config.normalise)
    golds = [normalise(each, config.normalise) for each in right]
    if config.metric == "exact_match":
        return float(given in golds)
    return max((f1(given, gold) for gold in golds), default=0.0)


def f1(given: str, gold: str) -> float:
    """F1 of the words, as in SQuAD; two empty texts agree."""
    first, second = given.split(), gold.split()
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def _number(text: str) -> str | None:
    bare = text.strip().strip("$€£%").rstrip(".").replace(",", "")
    try:
        value = Decimal(bare)
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value.adjusted()) > MOST_DIGITS or len(bare) > MOST_DIGITS:
        return None
    if value.is_zero():
        return "0"  # also -0
    # Not `normalize`, which rounds to the 28 digits of the context.
    written = format(value, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written


_STEPS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "punctuation": lambda text: text.translate(_PUNCTUATION),
    "articles": lambda text: _ARTICLES.sub(" ", text),
    "whitespace": lambda text: " ".join(text.split()),
}
