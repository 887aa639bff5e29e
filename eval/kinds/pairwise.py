"""Answers compared by a judge model: the measured model's against another's, each pair in both orders.

The judge sees two answers between boundaries that no answer can know, so that a candidate's "choose answer A" stays
text. It answers by the likeliest of three words, or in writing that is parsed; what cannot be parsed is no verdict.
Two orders that disagree are a tie: a judge that prefers a position prefers nobody. Without a judge the answers alone
are recorded, for another model to be compared with. Two win rates can be compared if the judge and the answers on the
other side (`against`) are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

import polars as pl

from ...config import EvalConfig
from ...strict import ConfigError, fingerprint
from ..backends.protocol import Backend, Continuation, Generated, Generation, Sampling, spelled
from ..notes import cuts
from ..session import Session, chosen_items
from ..store import items_frame
from ..tasks.items import Item
from ..tasks.prompts import context, fill
from ..tasks.schema import JudgeTask
from ..tasks.task import Task

Verdict = Literal["first", "second", "tie"]
VERDICTS: tuple[Verdict, Verdict, Verdict] = ("first", "second", "tie")
SCORES = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One item a prompt.

    Raises:
        ConfigError: if there is a judge and nothing to compare with, or the other way round.
    """
    config = task.config
    assert isinstance(config, JudgeTask)
    judge, has_judge = session.judge, session.judge is not None
    check(task, session.config, has_judge, session.baseline)
    items = session.chosen(task.items)
    requests = [Generation(context(task, item), item.id) for item in items]
    sampling = _sampling(config, session)
    generated = session.generate(task, requests, sampling)
    rows = [_row(task, *each) for each in zip(items, requests, generated, strict=True)]
    facts = cuts(generated, sampling, config.max_new_tokens)
    if judge is None:
        return items_frame(rows), {"judge": None, "against": None, **facts}
    own = {row["item"]: row["answer"] for row in rows}
    others = {item.id: _other(task, item, session.baseline) for item in items}
    found = verdicts(task, session, judge, items, own, others)
    for row in rows:
        ours, theirs, both = row["answer"], others[row["item"]], found[row["item"]]
        outcome = result(*both)
        detail = {"ab": both[0], "ba": both[1], "length": len(ours), "other_length": len(theirs), "other": theirs}
        row |= {"score": SCORES.get(outcome), "outcome": outcome, "detail": json.dumps(detail)}
    judged = {"judge": judge.identity, "judge_facts": dict(judge.facts), "against": fingerprint(others)}
    return items_frame(rows), {**judged, **facts}


def check(task: Task, config: EvalConfig, has_judge: bool, baseline: Mapping[tuple[str, str], str]) -> None:
    """Say what is missing before a model is asked, or even loaded.

    Raises:
        ConfigError: see `run`.
    """
    if not has_judge:
        if any(name == task.name for name, _ in baseline):
            raise ConfigError(
                f'task "{task.name}" needs a judge: give one with --judge (a model folder or an endpoint)'
            )
        return
    for item in chosen_items(task.items, config):
        _other(task, item, baseline)


def verdicts(
    task: Task,
    session: Session,
    judge: Backend,
    items: Sequence[Item],
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
) -> dict[str, tuple[Verdict | None, Verdict | None]]:
    """Item id → the judge's choice with our answer first, and with theirs first; None: unparsable."""
    config = task.config
    assert isinstance(config, JudgeTask)
    questions = []
    for item in items:
        for first, second in ((ours[item.id], theirs[item.id]), (theirs[item.id], ours[item.id])):
            boundary = sha256(json.dumps([item.id, first, second]).encode()).hexdigest()[:16]
            fields = {**item.fields, "first": first, "second": second, "boundary": boundary}
            questions.append(fill(config.question, fields))
    names = [f"{item.id}\0{order}" for item in items for order in ("ab", "ba")]
    asked = _likeliest if config.verdict is None else _written
    flat = asked(task, config, session, judge, questions, names)
    return {item.id: (flat[2 * place], flat[2 * place + 1]) for place, item in enumerate(items)}


def result(ours_first: Verdict | None, theirs_first: Verdict | None) -> str:
    """`win`, `loss`, `tie` (or the two orders disagree), `unparsed` if either is."""
    if ours_first is None or theirs_first is None:
        return "unparsed"
    if (ours_first, theirs_first) == ("first", "second"):
        return "win"
    if (ours_first, theirs_first) == ("second", "first"):
        return "loss"
    return "tie"


def _likeliest(
    task: Task, config: JudgeTask, session: Session, judge: Backend, questions: Sequence[str], names: Sequence[str]
) -> list[Verdict | None]:
    requests = [Continuation(question, answer) for question in questions for answer in config.answers]
    keys = [f"{name}\0judge\0{number}" for name in names for number in range(3)]
    scored = session.loglikelihood(task, requests, keys, judge)
    nats = [each.nats for each in scored]
    return [VERDICTS[min(range(3), key=nats[start : start + 3].__getitem__)] for start in range(0, len(nats), 3)]


def _written(
    task: Task, config: JudgeTask, session: Session, judge: Backend, questions: Sequence[str], names: Sequence[str]
) -> list[Verdict | None]:
    assert config.verdict is not None
    requests = [Generation(question, f"{name}\0judge") for name, question in zip(names, questions, strict=True)]
    found = session.generate(task, requests, Sampling(config.verdict_tokens), judge)
    known = {answer.strip(): verdict for answer, verdict in zip(config.answers, VERDICTS, strict=True)}
    hits = [re.findall(config.verdict, each.text) for each in found]
    return [known.get(str(each[-1]).strip()) if each else None for each in hits]


def _row(task: Task, item: Item, request: Generation, answer: Generated) -> dict[str, Any]:
    """An answer that nobody has compared yet."""
    return {
        "task": task.name,
        "item": item.id,
        "cluster": item.cluster,
        "stream": "judge",
        "language": item.language,
        "outcome": "answered",
        "prompt": spelled(request.prompt) if answer.seen is None else answer.seen,
        "answer": answer.text,
    }


def _other(task: Task, item: Item, baseline: Mapping[tuple[str, str], str]) -> str:
    if (task.name, item.id) in baseline:
        return baseline[task.name, item.id]
    if not baseline and "baseline" in item.fields:
        return str(item.fields["baseline"])
    raise ConfigError(
        f'task "{task.name}": item {item.id} has no answer to compare with: give --against FOLDER (an evaluation of '
        "another model on this task), or a field `baseline` in the data"
    )


def _sampling(config: JudgeTask, session: Session) -> Sampling:
    settings = session.config
    return Sampling(
        session.room(config.max_new_tokens),
        config.stop,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=settings.seed,
    )
