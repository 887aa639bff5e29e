"""What is run of an answer, and what of a task's own references: the same for a model and for samples of others.

A model's answer continues the prompt that it was asked, whose last white space may have been left to it, and is cut to
what belongs to the program. Samples of others continue the item's own prompt and are taken as they are; `solution`s are
programs already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..backends.protocol import Form
from ..tasks.items import Item
from ..tasks.schema import CodeTask
from ..tasks.task import Task
from .answers import extracted
from .execution import Calibration, JudgeOnce, calibrate, execution_config, program_of, source_of


def program(task: Task, item: Item, answer: str, form: Form = "continuation") -> str:
    """The whole program; "" for an answer to a code task that holds no code, which is not run."""
    config = execution_config(task)
    if not isinstance(config, CodeTask):
        return answer if form == "program" else program_of(task, item, answer)
    if form == "program":
        return source_of(answer, answer)
    if form == "completion":
        return source_of(answer, program_of(task, item, answer))
    kept = extracted(answer, config.extract, entry_point(item))
    return source_of(kept, program_of(task, item, kept, config.strip_prompt))


def entry_point(item: Item) -> str:
    """The function that an item asks for; "" where its tests name none."""
    return str(item.fields.get("entry_point", ""))


def calibrated(
    task: Task, items: Sequence[Item], workers: int = 1, required_level: int = 1, judged: JudgeOnce | None = None
) -> Calibration:
    """Run the references: those written in the task's file, all of which have to pass, then those of the items.

    Raises:
        ConfigError, ReferencesFail: see `calibrate`.
    """
    if task.calibration:
        strict = task.config.model_copy(update={"min_reference_pass_rate": 1.0})
        calibrate(replace(task, config=strict), task.calibration, workers, required_level, judged)
    return calibrate(task, items, workers, required_level, judged)
