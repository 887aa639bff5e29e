"""The likelihood requests of a task without a session: for checks of a backend, not for scores."""

from __future__ import annotations

from .backends.protocol import Continuation
from .tasks.prompts import context, continuation
from .tasks.schema import ChoiceTask, GoldTask
from .tasks.task import Task


def continuations(task: Task) -> list[Continuation]:
    """Every context with every choice, or with the reference answer; empty for other kinds of task."""
    if isinstance(task.config, ChoiceTask):
        return [
            Continuation(context(task, item, choice), continuation(task, item, choice))
            for item in task.items
            for choice in item.fields["choices"]
        ]
    if isinstance(task.config, GoldTask):
        return [Continuation(context(task, item), continuation(task, item)) for item in task.items]
    return []
