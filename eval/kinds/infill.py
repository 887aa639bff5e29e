"""Programs with a hole: a model writes the middle from prefix and suffix, and the whole has to pass the tests.

The prompt's format (sentinels, order, end token) is data, see `eval/infilling.py`. Nothing is cut off an answer but
what the format says ends it, as CodeGen2 does. Some holes need no filling: the share of items that an empty middle
passes is reported beside the score.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ..infilling import infill_prompt, resolve_format, stop_tokens_of
from ..session import Session
from ..store import items_frame
from ..tasks.load import Task
from ..tasks.schema import InfillTask
from .code import facts, generated, row
from .execution import calibrate, empty_rate, judged_by, program_of, trial_of, verdict


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
    calibration = calibrate(task, items, judged=judged)
    floor = empty_rate(task, items, judged_by(task, session, rerun_timeouts=False))
    prompts = {item.id: infill_prompt(chosen, item.fields["prefix"], item.fields["suffix"]) for item in items}
    pairs, answers = generated(task, session, items, prompts, config.stop, stop_tokens_of(chosen))
    rows, trials = [], []
    for (item, sample), each in zip(pairs, answers, strict=True):
        source = program_of(task, item, each.text)
        trials.append(trial_of(task, item, source, calibration.limits[item.id]))
        rows.append(row(task, "infill", item, sample, prompts[item.id], each))
    outcomes = judged(
        trials, [["answer", item.id, trial.source] for (item, _), trial in zip(pairs, trials, strict=True)]
    )
    rows = [{**each, **verdict(outcome)} for each, outcome in zip(rows, outcomes, strict=True)]
    return items_frame(rows), {
        **facts(calibration, answers, session.config.sandbox_level),
        "empty_rate": floor,
        "format": chosen.name,
    }
