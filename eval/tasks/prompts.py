"""What a model sees, byte for byte: the solved examples, then the item's prompt; and what is scored after it.

Pure functions of a task and an item. Examples are filled with the right answer; an item is never its own example.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .items import Item
from .schema import ChoiceTask, CodeTask, GoldTask, InfillTask, JudgeTask, MatchTask, TaskConfig
from .task import Task
from .templates import fill

__all__ = ["context", "continuation", "fill", "gold", "unconditional"]


def context(task: Task, item: Item, choice: str | None = None) -> str:
    """All that stands before the answer: examples and prompt.

    Args:
        choice: the one that is scored, where a task of choices has it in the prompt; default: the right one.
    """
    prompt = _prompt(task, item, choice)
    shots = _examples(task, item, prompt)
    if isinstance(task.config, CodeTask) and task.config.strip_prompt:
        prompt = prompt.rstrip()
    return shots + prompt


def continuation(task: Task, item: Item, choice: str | None = None) -> str:
    """What is scored after the context, or a right answer: of a choice, the first right answer, the reference."""
    config = task.config
    if isinstance(config, ChoiceTask):
        return fill(config.continuation, _with_choice(item, choice))
    if isinstance(config, MatchTask):
        return fill(config.continuation, {**item.fields, "answer": item.fields["answers"][0]})
    if isinstance(config, GoldTask | CodeTask):
        return fill(config.continuation, item.fields)
    return str(item.fields["reference"]) if isinstance(config, InfillTask) else ""


def unconditional(task: Task, item: Item, choice: str | None = None) -> str | None:
    """The context that PMI takes a choice's likelihood after; None where the task has none."""
    config = task.config
    if not isinstance(config, ChoiceTask) or config.unconditional is None:
        return None
    return fill(config.unconditional, _with_choice(item, choice))


def gold(item: Item) -> list[int]:
    """Positions of the right choices."""
    found = item.fields["gold"]
    return list(found) if isinstance(found, list) else [found]


def _prompt(task: Task, item: Item, choice: str | None) -> str:
    config = task.config
    if isinstance(config, ChoiceTask):
        return fill(config.prompt, _with_choice(item, choice))
    if isinstance(config, GoldTask | MatchTask | CodeTask | JudgeTask):
        return fill(config.prompt, item.fields)
    if isinstance(config, InfillTask):
        return str(item.fields["prefix"])
    raise ValueError(f'task "{task.name}" has no prompts: it scores held-out documents')


def _examples(task: Task, item: Item, prompt: str) -> str:
    """The task's examples without the item itself: one that asks the same, under whatever id."""
    if not task.shots or not isinstance(task.config, TaskConfig):
        return ""
    if isinstance(task.config, ChoiceTask):
        prompt = _prompt(task, item, None)
    config = task.config.shots
    others = [example for asked, example in _rendered(task) if asked != prompt]
    return "".join(example + config.separator for example in others[: config.count])


@lru_cache(maxsize=8)
def _rendered(task: Task) -> list[tuple[str, str]]:
    """The prompt of each example, and all of it."""
    found = []
    for shot in task.shots:
        fields = {**shot.fields, "prompt": _prompt(task, shot, None), "continuation": continuation(task, shot)}
        found.append((fields["prompt"], fill(task.config.shots.template, fields)))  # type: ignore[union-attr]
    return found


def _with_choice(item: Item, choice: str | None) -> Mapping[str, Any]:
    return {**item.fields, "choice": item.fields["choices"][gold(item)[0]] if choice is None else choice}
