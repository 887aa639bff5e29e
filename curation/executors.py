"""Running a stage on this machine.

A unit is a task of datatrove's LocalPipelineExecutor, run as its Slurm executor runs one: `_run_for_rank`. Slurm and
Ray executors take the same `Stage`. What is added here: tasks run in processes whose death is an error and not a hang,
finished shards are reported while the others are made, and datatrove's console log, which would write over the progress
bar, goes to files only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.utils.logging import logger

from ..processes import run_processes
from .shards import shard_name
from .stage import Stage, pending, read_plan, sweep


def run_stage(
    stage: Stage, log_folder: Path, workers: int = 0, progress: Callable[[float], None] | None = None
) -> None:
    """Make every missing shard of `stage`; `workers` 0 means one a core.

    `progress` is called with the fraction of the input (by bytes) that is finished.

    Raises:
        WorkerDiedError: if a worker is killed; the finished shards stay and the next start continues.
    """
    plan = read_plan(stage.plan_folder)
    stage.output.mkdir(parents=True, exist_ok=True)
    sweep(stage.output, plan["units"])
    todo = pending(stage.plan_folder, stage.output)

    def poll() -> None:
        if progress:
            progress(_fraction(plan, stage.output))

    poll()
    if not todo:
        return
    workers = min(workers or os.cpu_count() or 1, len(todo))
    log_folder.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        for unit in todo:
            _make(stage, unit, plan["units"], log_folder)
            poll()
        return
    arguments = [(stage, unit, plan["units"], log_folder) for unit in todo]
    names = [str(stage.output / shard_name(unit)) for unit in todo]
    run_processes(_make, arguments, names, workers=workers, poll=poll)
    poll()


def _make(stage: Stage, unit: int, units: int, log_folder: Path) -> None:
    executor = LocalPipelineExecutor([stage], tasks=units, logging_dir=str(log_folder), skip_completed=False)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            executor._run_for_rank(unit, local_rank=unit)
        finally:
            logger.remove()  # it was bound to the stream that closes now


def _fraction(plan: dict[str, Any], output: Path) -> float:
    sizes = plan["units_bytes"]
    done = sum(size for index, size in enumerate(sizes) if (output / shard_name(index)).exists())
    return float(done / max(1, sum(sizes)))
