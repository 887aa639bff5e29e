"""Training and evaluating the proxies of a rung: every arm with every seed, several at a time.

A job is one model: train, then evaluate. Jobs are independent processes with their own threads, so two single-thread
runs share two cores better than one two-thread run, and each is bit-reproducible. A finished job leaves a marker with
the hash of everything it was made from; a restarted ladder does only what is missing.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import EvalConfig
from ...files import read_json, write_json
from ...processes import START_METHOD, run_processes, stop_requested
from ...strict import fingerprint
from ...train.config import TrainConfig

TRAIN_SHARE = 0.8
"""Of a job's time, for the progress bar; the rest is evaluation."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One proxy: an arm, a seed, and where everything is."""

    arm: str
    arm_hash: str
    seed: int
    store: Path
    tokenizer: Path
    documents: Path
    """Parquet file of one column `row`: the rows of the token store that the arm selects."""
    weights: dict[str, float]
    heldout: Path
    model: Path
    evaluation: Path
    train: TrainConfig
    eval: EvalConfig

    @property
    def mark(self) -> str:
        """Hash of all that decides the result."""
        return fingerprint(
            self.arm_hash, self.seed, self.weights, self.train, self.eval, read_json(self.store / "store.json")
        )

    @property
    def marker(self) -> Path:
        return self.evaluation / "job.json"

    def is_done(self) -> bool:
        """Whether the marker is there and of this very job."""
        return self.marker.exists() and read_json(self.marker).get("mark") == self.mark


def run_jobs(
    jobs: Sequence[Job], workers: int = 0, progress: Callable[[float], None] | None = None
) -> list[dict[str, Any]]:
    """Train and evaluate what is not done; returns each job's training facts, in the order of `jobs`.

    `progress` is called with the fraction of all jobs that is done. `workers` 0: one a core.

    Raises:
        WorkerDiedError: if a process is killed (memory); finished jobs are kept.
    """
    todo = [job for job in jobs if not job.is_done()]
    # A plain array in shared memory: a lock of another start method could not be handed to the workers.
    fractions = multiprocessing.get_context(START_METHOD).Array("d", max(1, len(todo)), lock=False)

    def poll() -> None:
        if progress:
            progress((len(jobs) - len(todo) + sum(fractions[:])) / len(jobs))

    if todo:
        names = [str(job.model) for job in todo]
        run_processes(
            _do,
            list(enumerate(todo)),
            names,
            workers=workers or os.cpu_count() or 1,
            poll=poll,
            initializer=_begin,
            initial=(fractions,),
        )
    if progress:
        progress(1.0)
    return [read_json(job.model / "training.json") for job in jobs]


_fractions: Any = None


def _begin(fractions: Any) -> None:
    global _fractions  # noqa: PLW0603  set once in the worker, before its first job
    _fractions = fractions


def _do(index: int, job: Job) -> None:
    import numpy as np
    import polars as pl

    from ...train.loop import train
    from ...train.tokens import TokenStore
    from ..backends.checkpoint import CheckpointBackend
    from ..evaluate import evaluate

    def report(base: float, share: float) -> Callable[[float], None]:
        def update(fraction: float) -> None:
            _fractions[index] = base + share * fraction

        return update

    rows = pl.read_parquet(job.documents)["row"].to_numpy().astype(np.int64)
    heldout = pl.read_parquet(job.heldout)
    with stop_requested() as stop:
        try:
            train(
                job.train,
                TokenStore.open(job.store),
                rows,
                job.weights,
                job.seed,
                job.tokenizer,
                job.model,
                progress=report(0.0, TRAIN_SHARE),
                validation=heldout if job.train.validate_tokens else None,
                stop=stop,
                restart=True,  # the marker has just said that this is another job
            )
        except KeyboardInterrupt:
            os._exit(1)  # the parent ended us, and the checkpoint is written: the pool must not hand out more
    backend = CheckpointBackend(job.model, attention=job.eval.attention)
    evaluate(backend, heldout, job.eval, job.evaluation, report(TRAIN_SHARE, 1 - TRAIN_SHARE))
    write_json(job.marker, {"mark": job.mark, "arm": job.arm, "seed": job.seed})
    _fractions[index] = 1.0
