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

from ..files import remove_temporary
from ..processes import WorkerDiedError, run_processes
from .shards import shard_name
from .stage import Stage, check_columns, pending, read_plan, sweep, working


def run_stage(
    stage: Stage, log_folder: Path, workers: int = 0, progress: Callable[[float], None] | None = None
) -> None:
    """Make every missing shard of `stage`; `workers` 0 means one a core.

    `progress` is called with the fraction of the input (by bytes) that is finished.

    Raises:
        WorkerDiedError: if a worker is killed, with the shard, step and documents that it was at; the finished shards
            stay and the next start continues.
        ConfigError: if finished shards have other columns than this version of the code makes.
    """
    plan = read_plan(stage.plan_folder)
    stage.output.mkdir(parents=True, exist_ok=True)
    sweep(stage.output, plan["units"])
    remove_temporary(stage.plan_folder)
    for note in stage.plan_folder.glob("*.working"):  # of a start that was killed
        note.unlink(missing_ok=True)
    todo = pending(stage.plan_folder, stage.output)
    check_columns(stage, todo)

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
    try:
        run_processes(_make, arguments, names, workers=workers, poll=poll)
    except WorkerDiedError as error:
        at = [f"\n  {names[which]}{working(stage.plan_folder, todo[which])}" for which in error.unfinished]
        raise WorkerDiedError(f"{error}{''.join(at)}", error.unfinished) from error
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
    there = {path.name for path in output.iterdir()}  # a look at each of 10,000 shards takes 20 ms
    done = sum(size for index, size in enumerate(sizes) if shard_name(index) in there)
    return float(done / max(1, sum(sizes)))
