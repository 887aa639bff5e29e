"""What a reader must know beside a score: how much of the data it is of, how it was run and judged, what was cut.

In: the facts of a task, as `evaluation.json` has them, and what was scored. Out: short texts, the same in the table of
an evaluation, in its file, on its page and in what judging others' samples prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .backends.protocol import Generated, Sampling


def data_notes(facts: Mapping[str, Any], scored: int | None) -> list[str]:
    """How far the items that were scored are the published ones; nothing where they are.

    Args:
        facts: `of` and `items` (numbers of items: published, and in the file) and `verified` (None: no hash is known,
            which says something of published data only).
        scored: items.
    """
    notes = []
    if part := part_of(facts, scored):
        notes.append(part)
    if facts.get("verified") is False:
        notes.append("not the published file")
    elif facts.get("verified", True) is None and facts.get("of") is not None:
        notes.append("file not compared: no published hash is known")
    return notes


def part_of(facts: Mapping[str, Any], scored: int | None) -> str | None:
    """`1,000 of 10,042 items`; None if it is all, or how many there are is not known."""
    published = facts.get("of") or facts.get("items")
    if published is None or scored is None or scored >= published:
        return None
    return f"{scored:,} of {published:,} items"


def run_notes(facts: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How answers were run and judged, and what did not fit.

    Args:
        facts: of the task.
        found: the task's metrics.
    """
    notes = []
    if found.get("sandbox_level") is not None:
        notes.append(f"sandbox level {found['sandbox_level']}")
    if found.get("judged_weakly"):
        notes.append(f"{found['judged_weakly']:,} judged weakly")
    if "reference_pass_rate" in facts:
        notes.append(_references(facts))
    if facts.get("empty_rate"):
        notes.append(f"an empty middle passes {facts['empty_rate']:.1%}")
    return [*notes, *cut_notes(facts)]


def cuts(answers: Sequence[Generated], sampling: Sampling, asked: int) -> dict[str, Any]:
    """The facts of what did not fit: prompts, answers, and the answers' length where the window allows less.

    Args:
        asked: tokens of an answer, as the task has them.
    """
    return {
        "prompts_cut": sum(each.lost_tokens > 0 for each in answers),
        "answers_cut": sum(each.finish == "length" for each in answers),
        "max_new_tokens": sampling.max_new_tokens,
        "max_new_tokens_asked": asked,
    }


def cut_notes(facts: Mapping[str, Any]) -> list[str]:
    """What did not fit the model's window."""
    notes = [
        f"{facts[name]:,} {what} cut"
        for name, what in (("contexts_cut", "contexts"), ("prompts_cut", "prompts"), ("answers_cut", "answers"))
        if facts.get(name)
    ]
    most, asked = facts.get("max_new_tokens"), facts.get("max_new_tokens_asked")
    if most is not None and asked is not None and most < asked:
        notes.append(f"answers of at most {most:,} tokens for the model's window, not {asked:,}")
    return notes


def _references(facts: Mapping[str, Any]) -> str:
    own = facts.get("own_references")
    if facts["reference_pass_rate"] is None:
        return f"no references in the data; {own} of our own pass" if own else "no references"
    return f"references pass {100 * facts['reference_pass_rate']:.4g} %"
