"""Code problems judged by execution: a model completes a prompt, and the program has to pass the problem's tests.

White space at the end of a prompt is left to the model. Byte-level tokenizers join a line end with the indentation
after it, and a prompt that ends between the two asks for a token that the model never saw there (the fault that once
gave Mistral-7B 0.012 instead of 0.274 on HumanEval). One trial costs some milliseconds and what the program takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from ...sandbox import containment
from ..backends.protocol import Generated, Generation, Prompt, Sampling, Special
from ..session import Session
from ..store import items_frame
from ..tasks.load import Item, Task
from ..tasks.prompts import context
from ..tasks.schema import CodeTask
from .answers import extracted
from .execution import (
    Calibration,
    ReferencesFail,
    calibrate,
    check_toolchains,
    execution_config,
    judged_by,
    language,
    program_of,
    reference_of,
    source_of,
    trial_of,
    verdict,
)

__all__ = [
    "Calibration", "ReferencesFail", "calibrate", "check_toolchains", "generated", "program", "reference_of", "run",
    "trial_of",
]  # fmt: skip


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
    calibration = calibrate(task, items, judged=judged)
    prompts = {item.id: prompt(task, item) for item in items}
    pairs, answers = generated(task, session, items, prompts, config.stop)
    rows, trials = [], []
    for (item, sample), each in zip(pairs, answers, strict=True):
        kept = extracted(each.text, config.extract, str(item.fields.get("entry_point", "")))
        source = source_of(kept, program_of(task, item, kept, config.strip_prompt))
        trials.append(trial_of(task, item, source, calibration.limits[item.id]))
        rows.append(row(task, "problems", item, sample, prompts[item.id], each))
    outcomes = judged(
        trials, [["answer", item.id, trial.source] for (item, _), trial in zip(pairs, trials, strict=True)]
    )
    rows = [{**each, **verdict(outcome)} for each, outcome in zip(rows, outcomes, strict=True)]
    return items_frame(rows), facts(calibration, answers, session.config.sandbox_level)


def prompt(task: Task, item: Item) -> str:
    """What the model sees."""
    text = context(task, item)
    return text.rstrip() if isinstance(task.config, CodeTask) and task.config.strip_prompt else text


def program(task: Task, item: Item, answer: str) -> str:
    """What is executed of a model's answer, prompt included."""
    config = task.config
    assert isinstance(config, CodeTask)
    kept = extracted(answer, config.extract, str(item.fields.get("entry_point", "")))
    return program_of(task, item, kept, config.strip_prompt)


def generated(
    task: Task,
    session: Session,
    items: Sequence[Item],
    prompts: dict[str, Any],
    stop: Sequence[str],
    stop_tokens: Sequence[str] = (),
) -> tuple[list[tuple[Item, int]], list[Generated]]:
    """((item, number of the sample), …) and an answer to each, sampled as the evaluation's config says."""
    config = session.config
    sampling = Sampling(
        getattr(task.config, "max_new_tokens", None) or config.max_new_tokens,
        tuple(stop),
        tuple(stop_tokens),
        config.temperature,
        config.top_p,
        config.top_k,
        config.seed,
    )
    pairs = [(item, sample) for item in items for sample in range(config.samples)]
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
        "prompt": _shown(prompt),
        "answer": answer.text,
    }


def facts(calibration: Calibration, answers: Sequence[Generated], required_level: int) -> dict[str, Any]:
    """For the record of the evaluation."""
    return {
        "sandbox_level": containment.best(required_level).level,
        "reference_pass_rate": calibration.rate,
        "references_failed": list(calibration.failed),
        "prompts_cut": sum(each.lost_tokens > 0 for each in answers),
        "answers_cut": sum(each.finish == "length" for each in answers),
    }


def _shown(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "".join(part.name if isinstance(part, Special) else part for part in prompt)
