"""Running a stage on this machine, with progress, and with an error instead of a hang when a worker is killed.

The work is datatrove's LocalPipelineExecutor; Slurm and Ray executors take the same `Stage`. What is added here: its
log goes to files only, Ctrl-C does not print a traceback a worker, finished shards are reported while it runs, and a
worker that dies (out of memory, `kill -9`) ends the stage with a message that names its unit — multiprocessing pools
wait for such a worker for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import multiprocess
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.utils.logging import logger

from .shards import shard_name
from .stage import Stage, claims, pending, read_plan, sweep, unit_path

POLL_SECONDS = 0.25


class WorkerDiedError(RuntimeError):
    """A worker process ended without finishing its unit."""


class _Executor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor with its console log off: it would write over the progress bar."""

    def _launch_run_for_rank(self, *args: Any, **kwargs: Any) -> Any:
        if multiprocess.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends the pool
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                return super()._launch_run_for_rank(*args, **kwargs)
            finally:
                logger.remove()  # it was bound to the stream that closes now


def run_stage(
    stage: Stage, log_folder: Path, workers: int = 0, progress: Callable[[float], None] | None = None
) -> None:
    """Make every missing shard of `stage`; `workers` 0 means one a core.

    `progress` is called with the fraction of the input (by bytes) that is finished. Call it from the main thread.

    Raises:
        WorkerDiedError: if a worker is killed; the finished shards stay and the next start continues.
    """
    plan = read_plan(stage.plan_folder)
    stage.output.mkdir(parents=True, exist_ok=True)
    sweep(stage.output, plan["units"])
    todo = pending(stage.plan_folder, stage.output)
    if progress:
        progress(_fraction(plan, stage.output))
    if not todo:
        return
    workers = min(workers or os.cpu_count() or 1, len(todo))
    executor = _Executor(
        [stage], tasks=plan["units"], workers=workers, logging_dir=str(log_folder), skip_completed=False
    )
    logger.remove()
    watcher = _Watcher(stage, plan, progress)
    watcher.start()
    try:
        executor.run()
    except KeyboardInterrupt:
        if watcher.dead is None:
            raise
        raise WorkerDiedError(_explain(stage, watcher.dead)) from None
    finally:
        watcher.stop.set()
        watcher.join()
    if progress:
        progress(1.0)


class _Watcher(threading.Thread):
    """Reports finished shards, and interrupts the main thread when a claimed unit's process is gone."""

    def __init__(self, stage: Stage, plan: dict[str, Any], progress: Callable[[float], None] | None):
        super().__init__(daemon=True)
        self.stage, self.plan, self.progress = stage, plan, progress
        self.stop = threading.Event()
        self.dead: int | None = None

    def run(self) -> None:
        suspects: set[int] = set()
        while not self.stop.wait(POLL_SECONDS):
            if self.progress:
                self.progress(_fraction(self.plan, self.stage.output))
            gone = {unit for unit, pid in claims(self.stage.output).items() if not _is_alive(pid)}
            # Twice in a row: a worker may end between removing its claim and our look at it.
            if gone & suspects:
                self.dead = min(gone & suspects)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            suspects = gone


def _fraction(plan: dict[str, Any], output: Path) -> float:
    sizes = plan["units_bytes"]
    done = sum(size for index, size in enumerate(sizes) if (output / shard_name(index)).exists())
    return float(done / max(1, sum(sizes)))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _explain(stage: Stage, unit: int) -> str:
    return (
        f"a worker was killed while it made {stage.output / shard_name(unit)} (its input: "
        f"{unit_path(stage.plan_folder, unit)}); most often memory ran out. The finished shards are kept: "
        "run the same command again, with fewer workers (--workers 1) if it happens again"
    )
