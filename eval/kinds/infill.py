"""Programs with a hole: a model writes the middle from prefix and suffix, and the whole has to pass the tests.

The prompt's format (sentinels, order, end token) is data, see `eval/infilling.py`. Nothing is cut off an answer but
what the format says ends it, as CodeGen2 does. Some holes need no filling: the share of items that an empty middle
passes is reported beside the score. Where the model's window is small, the middle has at most a quarter of it: what
stands around the hole decides more than room for an answer that is rarely longer than a few lines.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ..infilling import infill_prompt, resolve_format, stop_tokens_of
from ..session import Session
from ..tasks.schema import InfillTask
from ..tasks.task import Task
from .code import facts, generated, row, sampling_of, with_verdicts
from .execution import empty_rate, judged_by, trial_of
from .programs import calibrated, program

ANSWER_SHARE = 4
"""Of the window one part in so many is for the answer. The longest references, those of several lines, have 106
characters in the median and 414 at the 95th percentile."""


def run(task: Task, session: Session) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One row an answer.

    Raises:
        ConfigError: if the model has no tokens for the format, or a language cannot be run here.
        ReferencesFail: if too few references pass.
    """
    config = task.config
    assert isinstance(config, InfillTask)
    chosen = resolve_format(session.config.infill, session.backend)
    items = session.chosen(task.items)
    judged = judged_by(task, session)
    calibration = calibrated(task, items, judged=judged)
    floor = empty_rate(task, items, judged_by(task, session, rerun_timeouts=False))
    prompts = {item.id: infill_prompt(chosen, item.fields["prefix"], item.fields["suffix"]) for item in items}
    sampling = sampling_of(task, session, config.stop, stop_tokens_of(chosen), ANSWER_SHARE)
    pairs, answers = generated(task, session, items, prompts, sampling)
    rows, trials = [], []
    for (item, sample), each in zip(pairs, answers, strict=True):
        trials.append(trial_of(task, item, program(task, item, each.text, each.form), calibration.limits[item.id]))
        rows.append(row(task, "infill", item, sample, prompts[item.id], each))
    outcomes = judged(
        trials, [["answer", item.id, trial.source] for (item, _), trial in zip(pairs, trials, strict=True)]
    )
    return with_verdicts(rows, answers, outcomes), {
        **facts(task, session, calibration, answers, sampling),
        "empty_rate": floor,
        "format": chosen.name,
    }
