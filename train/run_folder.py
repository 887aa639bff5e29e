"""The folder of one training run: whether it is finished, can go on or belongs to something else, and its files.

`metrics.jsonl` and `validation.jsonl` grow while the run goes; `checkpoints/` is what it can go on from; the model's
files come at the end and `training.json` last, so that a folder with it is whole. A run is the same run when its
identity is: configuration (without what decides only speed or output), the content of the checkpoint that it starts
from, wherever that lies, token store, documents, weights and seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import xxhash

from ..differences import changes
from ..files import read_json, remove_temporary, write_json
from .checkpoint import OPTIMIZER_FILE, Checkpoints, read_state
from .config import TrainConfig
from .loggers import Logger, open_loggers
from .metrics import StepMetrics, ValidationMetrics, finish_metrics, scalars, truncate_metrics, write_step
from .pretrained import WEIGHT_FILES
from .tokens import TokenStore

NEUTRAL = frozenset(
    {"micro_batch_tokens", "compile", "threads", "parallel", "checkpoint_tokens", "keep_checkpoints"}
    | {"keep_checkpoints_every_tokens", "validate_tokens", "loggers", "seeds", "max_epochs"}
)
"""Settings that may differ between two parts of a run: they decide how it is computed and watched, not what."""

METRICS, VALIDATION, REPORT = "metrics.jsonl", "validation.jsonl", "training.json"


class RunFolder:
    """The folder `path` as the place of the run with this identity."""

    def __init__(self, path: Path, identity: Mapping[str, Any], keep_checkpoints: int) -> None:
        self.path, self.identity = path, dict(identity)
        self.checkpoints = Checkpoints(path / "checkpoints", keep_checkpoints)

    def finished(self) -> dict[str, Any] | None:
        """The report of the run, if it is finished.

        Raises:
            ValueError: if the folder holds a run of something else, finished or not; says what differs.
        """
        report: dict[str, Any] | None = None
        if (self.path / REPORT).is_file():
            report = read_json(self.path / REPORT)
            self._compare(report.get("identity"), REPORT)
        elif (latest := self.checkpoints.latest()) is not None:
            self._compare(read_state(latest).get("identity"), latest.name)
        return report

    def clear(self) -> None:
        """Forget whatever is in the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def log(self, config: TrainConfig, first_step: int, *, is_silent: bool) -> Iterator[RunLog]:
        """Files and loggers open for the steps from `first_step` on; lines of later steps, if any, are cut off.

        With `is_silent`, for all ranks but the first, nothing is written.
        """
        if is_silent:
            yield RunLog(None, None, [])
            return
        self.path.mkdir(parents=True, exist_ok=True)
        remove_temporary(self.path)
        for name in (METRICS, VALIDATION):
            truncate_metrics(self.path / name, first_step)
        loggers = open_loggers(
            config.loggers, self.path, "-".join(self.path.parts[-2:]), config.model_dump(mode="json"), first_step
        )
        with (
            (self.path / METRICS).open("a", encoding="utf-8", buffering=1) as metrics,
            (self.path / VALIDATION).open("a", encoding="utf-8", buffering=1) as validation,
        ):
            log = RunLog(metrics, validation, loggers)
            try:
                yield log
            finally:
                log.close()

    def finish(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Write `metrics.parquet` and, last, `training.json`."""
        finish_metrics(self.path)
        whole = {**report, "identity": self.identity}
        write_json(self.path / REPORT, whole)
        return whole

    def move_in(self, folder: Path) -> None:
        """Put the files of `folder`, made beside the run's own, among them."""
        for path in sorted(folder.iterdir()):
            path.replace(self.path / path.name)
        folder.rmdir()

    def _compare(self, there: Mapping[str, Any] | None, where: str) -> None:
        different = changes(dict(there or {}), json.loads(json.dumps(self.identity)))
        if different:
            lines = "\n  ".join(different[:12])
            raise ValueError(
                f"{self.path}: {where} belongs to a run of something else; choose another folder or remove this one. "
                f"What differs:\n  {lines}"
            )


class RunLog:
    """Where the loop writes its numbers: in a thread, at most one step behind, so that no GPU waits for it.

    Lines come in the order of the calls. What fails in the thread is raised by the next call, `flush` or `close`.
    """

    def __init__(self, metrics: TextIO | None, validation: TextIO | None, loggers: list[Logger]) -> None:
        """Without files nothing is written, nor worked out."""
        self._metrics, self._validation, self._loggers = metrics, validation, loggers
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="log")
        self._behind: Future[None] | None = None

    def step(self, make: Callable[[], StepMetrics]) -> None:
        """One optimiser step, worked out in the thread."""
        self._later(self._metrics, make)

    def validation(self, metrics: ValidationMetrics) -> None:
        """One measurement on held-out documents."""
        self._later(self._validation, lambda: metrics)

    def flush(self) -> None:
        """Until everything is written; before a checkpoint, which must not be ahead of the lines of its steps."""
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.result()

    def close(self) -> None:
        """Write what is left, and close the loggers."""
        try:
            self.flush()
        finally:
            self._thread.shutdown()
            for logger in self._loggers:
                logger.close()

    def _later(self, file: TextIO | None, make: Callable[[], StepMetrics | ValidationMetrics]) -> None:
        self.flush()
        if file is not None:
            self._behind = self._thread.submit(self._write, file, make)

    def _write(self, file: TextIO, make: Callable[[], StepMetrics | ValidationMetrics]) -> None:
        metrics = make()
        write_step(file, metrics)
        for logger in self._loggers:
            logger.log(metrics.step, scalars(metrics))


def identity(
    config: TrainConfig, store: TokenStore, documents: np.ndarray, weights: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """All that decides what a run computes, as plain values.

    Raises:
        ValueError: if `init_from` is no checkpoint.
    """
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key not in NEUTRAL}
    if config.init_from:
        settings["init_from"] = _content(Path(config.init_from), with_optimizer=config.init_optimizer)
    chosen = hashlib.sha256(np.unique(documents).astype("<i8").tobytes()).hexdigest()[:32]
    data = {"token_store": store.fingerprint, "documents": chosen, "weights": dict(weights)}
    return {"config": settings, "data": data, "seed": seed}


def _content(folder: Path, *, with_optimizer: bool) -> dict[str, str]:
    """A hash of every file that training takes from a checkpoint. Reads them all, as loading them does."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"init_from: {folder}: no config.json there; expected the folder of a checkpoint")
    names = ["config.json", "tokenizer.json"]
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is not None:
        names.append(weights)
        if weights.endswith(".json"):
            names += sorted(set(read_json(folder / weights)["weight_map"].values()))
    if with_optimizer:
        names.append(OPTIMIZER_FILE)
    return {name: _digest(folder / name) for name in names if (folder / name).is_file()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
