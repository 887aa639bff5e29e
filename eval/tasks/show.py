"""One item of a task as the model sees it, to the byte: most wrong scores are a wrong newline in a prompt."""

from __future__ import annotations

from typing import Any

from ...strict import ConfigError, nearest
from ..backends.protocol import spelled
from ..infilling import infill_prompt, resolve_format, stop_tokens_of
from .items import Item
from .prompts import context, continuation, gold, unconditional
from .schema import ChoiceTask, CodeTask, GoldTask, InfillTask, JudgeTask, MatchTask
from .task import Task
from .templates import fill

ANSWER = "⟨answer⟩"
"""Stands for the model's answer in what is run."""


def choose(task: Task, number_or_id: int | str) -> Item:
    """The item of that id, or else the one of that number, counted from 0. Many benchmarks have numbers as ids.

    Raises:
        ConfigError: if there is none.
    """
    by_id = {item.id: item for item in task.items}
    wanted = str(number_or_id)
    if wanted in by_id:
        return by_id[wanted]
    if wanted.isdecimal() and int(wanted) < len(task.items):
        return task.items[int(wanted)]
    if not task.items:
        raise ConfigError(f'task "{task.name}" has no items of its own: it scores held-out documents')
    raise ConfigError(
        f'task "{task.name}": no item "{wanted}"{nearest(wanted, by_id)}; it has {len(task.items)}, '
        f"from {task.items[0].id} to {task.items[-1].id}"
    )


def show(task: Task, number_or_id: int | str = 0, infill: str = "psm") -> dict[str, Any]:
    """All that decides one item's score.

    Args:
        infill: format of the prompt of an infilling task, from `configs/infill.yaml`; a model's own may be another.

    Returns:
        `task`, `kind`, `item`, `cluster`, `language`, `prompt` and what the kind has: `continuations` and `right` of
        choices, `unconditional`, `answers`, `stop`, `extract`, `tests`, `program` (what is run), `reference`, …
    """
    item = choose(task, number_or_id)
    config = task.config
    found: dict[str, Any] = {
        "task": task.name,
        "kind": config.kind,
        "item": item.id,
        "cluster": item.cluster,
        "language": item.language,
        "prompt": context(task, item),
    }
    if isinstance(config, ChoiceTask):
        return found | _choice(task, item)
    if isinstance(config, GoldTask):
        return found | {"continuation": continuation(task, item)}
    if isinstance(config, MatchTask):
        return found | {
            "right": continuation(task, item),
            "answers": item.fields["answers"],
            "stop": config.stop,
            "extract": config.extract,
            "normalise": config.normalise,
            "max_new_tokens": config.max_new_tokens,
        }
    if isinstance(config, CodeTask | InfillTask):
        return found | _code(task, item, config, infill)
    if isinstance(config, JudgeTask):
        answers = {"first": "⟨first answer⟩", "second": "⟨second answer⟩"}
        return found | {"question": fill(config.question, {**item.fields, **answers}), "verdicts": config.answers}
    raise ConfigError(f'task "{task.name}" has no items of its own')


def _choice(task: Task, item: Item) -> dict[str, Any]:
    choices = item.fields["choices"]
    contexts = [context(task, item, choice) for choice in choices]
    return {
        "prompts": contexts if len(set(contexts)) > 1 else None,
        "continuations": [continuation(task, item, choice) for choice in choices],
        "right": gold(item),
        "unconditional": unconditional(task, item),
        "metric": getattr(task.config, "metric", "raw"),
    }


def _code(task: Task, item: Item, config: CodeTask | InfillTask, infill: str) -> dict[str, Any]:
    found = {
        "right": continuation(task, item),
        "stop": config.stop,
        "program": fill(config.program, {**item.fields, "answer": ANSWER}),
        "reference_program": fill(config.reference_program, item.fields),
        "form": config.tests.form,
        "setup": item.fields.get("setup"),
        "entry_point": item.fields.get("entry_point"),
        "tests": item.fields["tests"],
        "judge": "weak" if item.id in config.tests.weak or config.tests.form == "program" else "apart",
    }
    if isinstance(config, InfillTask):
        chosen = resolve_format(infill, None)
        found["prompt"] = spelled(infill_prompt(chosen, item.fields["prefix"], item.fields["suffix"]))
        found |= {"format": chosen.name, "stop_tokens": stop_tokens_of(chosen), "suffix": item.fields["suffix"]}
    else:
        found["extract"] = config.extract
    return found
