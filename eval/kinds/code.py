"""Code problems judged by execution: a model completes a prompt, and the program has to pass the problem's tests.

White space at the end of a prompt is left to the model. Byte-level tokenizers join a line end with the indentation
after it, and a prompt that ends between the two asks for a token that the model never saw there (the fault that once
gave Mistral-7B 0.012 instead of 0.274 on HumanEval). One trial costs some milliseconds and what the program takes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from ...sandbox import containment
from ...sandbox.run import Outcome
from ..backends.protocol import Generated, Generation, Prompt, Sampling, spelled
from ..notes import cuts
from ..session import Session
from ..store import items_frame
from ..tasks.items import Item
from ..tasks.prompts import context
from ..tasks.schema import CodeTask
from ..tasks.task import Task
from .execution import Calibration, execution_config, judged_by, language, trial_of, verdict
from .programs import calibrated, program


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One row an answer. References first: an expensive generation that cannot be judged would be lost.

    Raises:
        ConfigError: if a language cannot be run here, or a test is not in the declared form.
        ReferencesFail: if too few references pass.
    """
    config = task.config
    assert isinstance(config, CodeTask)
    items = session.chosen(task.items)
    judged = judged_by(task, session)
    calibration = calibrated(task, items, judged=judged)
    prompts: dict[str, Prompt] = {item.id: context(task, item) for item in items}
    sampling = sampling_of(task, session, config.stop)
    pairs, answers = generated(task, session, items, prompts, sampling)
    rows, trials = [], []
    for (item, sample), each in zip(pairs, answers, strict=True):
        trials.append(trial_of(task, item, program(task, item, each.text, each.form), calibration.limits[item.id]))
        rows.append(row(task, "problems", item, sample, prompts[item.id], each))
    outcomes = judged(
        trials, [["answer", item.id, trial.source] for (item, _), trial in zip(pairs, trials, strict=True)]
    )
    return with_verdicts(rows, answers, outcomes), facts(task, session, calibration, answers, sampling)


def sampling_of(
    task: Task, session: Session, stop: Sequence[str], stop_tokens: Sequence[str] = (), share: int = 2
) -> Sampling:
    """As the evaluation's config says; an answer has at most one `share`-th of the model's window."""
    config = session.config
    return Sampling(
        session.room(longest(task, session), share),
        tuple(stop),
        tuple(stop_tokens),
        config.temperature,
        config.top_p,
        config.top_k,
        config.seed,
    )


def longest(task: Task, session: Session) -> int:
    """Tokens of an answer, as the task or the evaluation's config has them."""
    return execution_config(task).max_new_tokens or session.config.max_new_tokens


def generated(
    task: Task, session: Session, items: Sequence[Item], prompts: dict[str, Prompt], sampling: Sampling
) -> tuple[list[tuple[Item, int]], list[Generated]]:
    """((item, number of the sample), …) and an answer to each."""
    pairs = [(item, sample) for item in items for sample in range(session.config.samples)]
    requests = [Generation(prompts[item.id], item.id, sample) for item, sample in pairs]
    return pairs, session.generate(task, requests, sampling)


def row(task: Task, stream: str, item: Item, sample: int, prompt: Prompt, answer: Generated) -> dict[str, Any]:
    """The columns of an item that are known before it is judged."""
    return {
        "task": task.name,
        "item": item.id,
        "sample": sample,
        "cluster": item.cluster,
        "stream": stream,
        "language": item.language or language(execution_config(task), item),
        "prompt": spelled(prompt) if answer.seen is None else answer.seen,
        "answer": answer.text,
    }


def with_verdicts(
    rows: Sequence[dict[str, Any]], answers: Sequence[Generated], outcomes: Sequence[Outcome]
) -> pl.DataFrame:
    """Items with how each program ended, and what its prompt had lost."""
    whole = []
    for each, answer, outcome in zip(rows, answers, outcomes, strict=True):
        found = verdict(outcome)
        if answer.lost_tokens:
            detail = {**json.loads(found["detail"] or "{}"), "prompt_tokens_cut": answer.lost_tokens}
            found["detail"] = json.dumps(detail)
        whole.append({**each, **found})
    return items_frame(whole)


def facts(
    task: Task, session: Session, calibration: Calibration, answers: Sequence[Generated], sampling: Sampling
) -> dict[str, Any]:
    """For the record of the evaluation."""
    return {
        "sandbox_level": containment.best(session.config.sandbox_level).level,
        "reference_pass_rate": calibration.rate,
        "references_failed": list(calibration.failed),
        "own_references": len(task.calibration),
        **cuts(answers, sampling, longest(task, session)),
    }
