"""One training run, top to bottom: from a token store and a selection of its documents to a model folder.

Comes in: what to train (`TrainConfig`), the store, the arm's documents, the mixture and a seed. Goes out: a folder
that transformers loads, with `metrics.jsonl`, `validation.jsonl` and, last of all, `training.json`. What is in step n
depends on the seed and n alone (`rows.py`), so runs with equal seeds are paired, and a run that was cut short goes on
from its last checkpoint as if nothing had happened: on a CPU bit by bit, whatever micro-batch and number of processes.
What a step says about itself is worked out in a thread during the next one; only what decides about the update (the
loss and the gradient norm of all ranks) is waited for.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.nn.utils import clip_grad_norm_

from .. import __version__
from ..files import replacing_folder
from .accumulate import step_gradients
from .batches import Prepared
from .checkpoint import Snapshot, read_state, restore_optimizer
from .config import TrainConfig
from .device import choose_device, choose_dtype, reproducible
from .distributed import World, joined, shard
from .execution import garbage_later, make_pass
from .flops import flops_per_token, mfu, peak_flops
from .metrics import StepMetrics, ValidationMetrics, finite, losses_by_objective, losses_by_stream, read_metrics
from .model import Decoder
from .optim import make_optimizer, set_learning_rate
from .prefetch import Prefetcher, row_spans
from .pretrained import initial_model
from .rows import IGNORED, Rows
from .run_folder import METRICS, RunFolder, identity
from .schedule import learning_rate
from .sentinels import Sentinels
from .spikes import MOST_IN_A_ROW, SpikeGuard
from .tokenizer import load_tokenizer
from .tokens import TokenStore
from .validation import Validation

FINAL_STEPS_FRACTION = 0.05
"""`final_loss` is the mean over the last twentieth of the steps: single steps of 2 k tokens differ by 10 %."""

VALIDATION_BYTES = 400_000
"""Raw text that is scored at a time: a standard error of about 1 % over documents, for tenths of a second at 1 M."""


def train(
    config: TrainConfig,
    store: TokenStore,
    documents: np.ndarray,
    weights: Mapping[str, float],
    seed: int,
    tokenizer_folder: Path,
    output: Path,
    progress: Callable[[float], None] | None = None,
    *,
    validation: pl.DataFrame | None = None,
    stop: Callable[[], bool] | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Train one model and write it to `output`; go on where an interrupted run of the same left a checkpoint.

    Args:
        documents: rows of `store.documents` that the arm selects.
        weights: share of the training tokens per stream, for stages without their own; empty: as much as there is.
        tokenizer_folder: of the tokenizer that made the store; its files are copied beside the model.
        progress: called after every step with the fraction of the run that is done.
        validation: held-out documents (id, text, stream), measured every `validate_tokens`.
        stop: asked after every step; when true a checkpoint is written and the run ends.
        restart: start over where `output` holds a run of something else; default: refuse.

    Returns:
        The content of `training.json`.

    Raises:
        ValueError: if store, documents, weights or what is in `output` do not fit each other or the config.
        FloatingPointError: if ten steps in a row were not finite, or more than half of all had to be skipped.
        torch.OutOfMemoryError: if a step does not fit into the memory of the GPU; says what to lower.
        OSError: if the model, or the checkpoint at a stop, cannot be written; those before it are whole. One at an
            interval that cannot be written is a warning.
        KeyboardInterrupt: if `stop` asked for it.
    """
    with joined() as world:
        tokenizer = load_tokenizer(tokenizer_folder)
        rows = Rows(store, documents, config, weights, seed, Sentinels.of(tokenizer), tokenizer)
        run = RunFolder(output, identity(config, store, documents, weights, seed), config.keep_checkpoints)
        try:
            finished = run.finished()
        except ValueError:
            if not restart:
                raise
            run.clear()
            finished = None
        world.wait()
        if finished is not None:
            return finished
        device = choose_device(world.local_rank)
        held_out = None
        if validation is not None and config.validate_tokens:
            length, end_of_text = config.sequence_length, store.end_of_text
            held_out = Validation(validation, tokenizer, length, end_of_text, VALIDATION_BYTES)
        with reproducible(device, config.threads), garbage_later():
            loop = _Loop(
                config=config,
                store=store,
                rows=rows,
                seed=seed,
                tokenizer_folder=tokenizer_folder,
                run_folder=run,
                world=world,
                device=device,
                validation=held_out,
            )
            return loop.run(progress, stop)


@dataclass(frozen=True)
class _Update:
    """What one step did, of all ranks. marks_BT: number of each position's objective, -1 where there is no target."""

    step: int
    learning_rate: float
    targets: int
    losses_BT: np.ndarray
    marks_BT: np.ndarray
    loss: float
    grad_norm: float
    is_skipped: bool


class _Loop:
    """What the steps share: model, optimiser, and how far they are."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        store: TokenStore,
        rows: Rows,
        seed: int,
        tokenizer_folder: Path,
        run_folder: RunFolder,
        world: World,
        device: torch.device,
        validation: Validation | None,
    ) -> None:
        self.begun = time.perf_counter()
        self.config, self.store, self.rows, self.seed, self.run_folder = config, store, rows, seed, run_folder
        self.tokenizer_folder, self.world, self.device, self.validation = tokenizer_folder, world, device, validation
        self.stages, self.steps = config.resolved_stages(), sum(config.stage_steps())
        self.joins = {sum(config.stage_steps()[:number]): stage for number, stage in enumerate(self.stages) if number}
        self.rows_per_step = config.step_tokens // config.sequence_length
        self.is_sharded = config.parallel == "fsdp" and world.size > 1
        self.is_exact = device.type == "cpu" and not self.is_sharded

        resumed = run_folder.checkpoints.latest()
        state: Mapping[str, Any] = read_state(resumed) if resumed else {}
        start = config.model_copy(update={"init_from": str(resumed)}) if resumed else config
        self.dtype = choose_dtype(config.dtype, device)
        self.model = initial_model(start, store.vocab_size, store.end_of_text, seed, self.dtype).to(device)
        self.counts = self.model.parameter_counts()
        if self.is_sharded:
            shard(self.model, device, world)
        self.optimizer = make_optimizer(config, self.model)
        if optimizer_from := resumed or (config.init_from if config.init_optimizer else None):
            restore_optimizer(self.optimizer, self.model, Path(optimizer_from))
        self.compute = make_pass(self.model, config, device, is_sharded=self.is_sharded)
        self.peak_flops = _peak_flops(device, self.dtype)
        self.guard = SpikeGuard(config.skip_sigma)
        if state:
            self.guard.restore(state["spikes"])
        self.first_step, self.skipped = int(state.get("step", 0)), int(state.get("skipped", 0))
        self.seconds_before = float(state.get("wall_seconds", 0.0))

    def run(self, progress: Callable[[float], None] | None, stop: Callable[[], bool] | None) -> dict[str, Any]:
        """All steps that are left, then the model's files."""
        config, world = self.config, self.world
        spans_of_steps = row_spans(self.first_step, self.steps, self.rows_per_step, world.rank, world.size)
        feed = Prefetcher(self._prepare, spans_of_steps)
        with feed, self.run_folder.log(config, self.first_step, is_silent=not world.is_first) as log:
            begun, waited = time.perf_counter(), 0.0
            for step, prepared in zip(range(self.first_step, self.steps), feed, strict=True):
                rate = self._begin(step)
                update = self._update(step, rate, prepared)
                seconds, done = time.perf_counter() - begun, step + 1
                log.step(partial(self._metrics, update, seconds, feed.wait_seconds - waited))
                if self.guard.is_hopeless:
                    raise FloatingPointError(_hopeless(self.run_folder.path, step, config))
                if self.validation and (self._is_due(done, config.validate_tokens) or done == self.steps):
                    log.validation(self._validate(self.validation, step))
                is_stopped = stop is not None and world.total(float(stop())) > 0 and done < self.steps
                is_kept = self._is_due(done, config.keep_checkpoints_every_tokens)
                if is_stopped or is_kept or self._is_due(done, config.checkpoint_tokens):
                    log.flush()
                    self._save(done, is_kept=is_kept)
                if is_stopped:
                    self._leave()
                if progress:
                    progress(done / self.steps)
                begun, waited = time.perf_counter(), feed.wait_seconds
        return self._finish()

    def _begin(self, step: int) -> float:
        """Set what is a function of the step: stage, learning rate (the one that is given back), random numbers."""
        if (stage := self.joins.get(step)) is not None:
            self.guard.forget()
            if stage.reset_optimizer:
                self.optimizer.state.clear()
        rate = learning_rate(self.config, step)
        set_learning_rate(self.optimizer, rate / self.config.learning_rate)
        # Dropout, which other architectures have, is a function of the step as well.
        torch.manual_seed(_mixed(self.seed, step))
        return rate

    def _update(self, step: int, rate: float, prepared: Prepared) -> _Update:
        """Forwards, backwards, and the optimiser's step unless loss or gradient are out of line."""
        world = self.world
        targets = int(world.total(prepared.targets))
        try:
            losses_BT = step_gradients(
                self.compute, prepared.parts, targets, world, is_exact=self.is_exact, is_sharded=self.is_sharded
            )
            grad_norm = _number(clip_grad_norm_(self.compute.parameters, self.config.clip_norm))
            losses_BT, marks_BT = _of_all_ranks(world, losses_BT, prepared)
            loss = float(losses_BT[marks_BT >= 0].astype(np.float64).sum()) / max(1, targets)
            is_skipped = self.guard.is_spike(loss, grad_norm)
            if is_skipped:
                self.skipped += 1
            else:
                self.optimizer.step()
                self.guard.add(loss, grad_norm)
            self.compute.zero_grad()
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(_out_of_memory(step, self.config, error)) from error
        return _Update(step, rate, targets, losses_BT, marks_BT, loss, grad_norm, is_skipped)

    def _metrics(self, update: _Update, seconds: float, waited: float) -> StepMetrics:
        """The line of a step; computed in the log's thread, from what does not change any more."""
        config, rows, valid_BT = self.config, self.rows, update.marks_BT >= 0
        first_row = update.step * self.rows_per_step
        streams = [rows.stream_of(row) for row in range(first_row, first_row + self.rows_per_step)]
        speed = config.step_tokens / seconds
        return StepMetrics(
            step=update.step,
            stage=self.stages[rows.stage_of(first_row)].name,
            tokens_seen=(update.step + 1) * config.step_tokens,
            loss=finite(update.loss),
            losses=losses_by_stream(rows.stream_names, streams, update.losses_BT, valid_BT),
            losses_by_objective=losses_by_objective(rows.objective_names, update.marks_BT, update.losses_BT, valid_BT),
            targets=update.targets,
            learning_rate=update.learning_rate,
            grad_norm=finite(update.grad_norm),
            skipped=update.is_skipped,
            tokens_per_second=round(speed, 1),
            mfu=self._mfu(speed),
            wait_fraction=round(waited / seconds, 4),
        )

    def _validate(self, validation: Validation, step: int) -> ValidationMetrics:
        found = {name: finite(bits) for name, bits in validation.bits_per_byte(self.model, self.device).items()}
        tokens = (step + 1) * self.config.step_tokens
        return ValidationMetrics(step=step, tokens_seen=tokens, bits_per_byte=found.pop("all"), by_stream=found)

    def _prepare(self, first: int, count: int) -> Prepared:
        micro = (self.config.micro_batch_tokens or self.config.step_tokens) // self.config.sequence_length
        return Prepared.of(self.rows.batch(first, count), 1 if self.is_exact else micro, self.device)

    def _is_due(self, done: int, every_tokens: int | None) -> bool:
        """Whether step number `done` is the first at or past a multiple of so many tokens."""
        size = self.config.step_tokens
        return every_tokens is not None and done * size // every_tokens > (done - 1) * size // every_tokens

    def _mfu(self, tokens_per_second: float) -> float | None:
        if self.peak_flops is None or not isinstance(self.model, Decoder):
            return None
        per_token = flops_per_token(self.model.config, self.store.vocab_size, self.config.sequence_length)
        found = mfu(tokens_per_second, per_token, self.peak_flops, self.world.size)
        return None if found is None else round(found, 4)

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.begun

    def _save(self, step: int, *, is_kept: bool) -> None:
        """A checkpoint after `step` steps; it is written while training goes on."""
        checkpoints, is_first = self.run_folder.checkpoints, self.world.is_first
        state = {
            "step": step,
            "skipped": self.skipped,
            "spikes": self.guard.state(),
            "wall_seconds": round(self._seconds(), 3),
            "identity": self.run_folder.identity,
        }
        checkpoints.settle()  # first, so that memory never holds two
        snapshot = Snapshot.of(self.model, self.optimizer, self.tokenizer_folder, state, is_first=is_first)
        if is_first:
            checkpoints.save(step, snapshot.write, is_kept=is_kept)

    def _leave(self) -> None:
        """End the run where it was asked to stop, once the checkpoint is whole.

        The other ranks wait for that: when one process ends with an error, torchrun ends them all.
        """
        try:
            self.run_folder.checkpoints.wait()
        finally:
            self.world.wait()
        raise KeyboardInterrupt

    def _finish(self) -> dict[str, Any]:
        """The model's files and the report; on one rank, while the others wait."""
        folder, config, is_first = self.run_folder, self.config, self.world.is_first
        if self.skipped > self.steps / 2:
            raise FloatingPointError(
                f"{folder.path}: {self.skipped} of {self.steps} steps were skipped (loss or gradient not finite, or a "
                f"spike); lower learning_rate ({config.learning_rate:g}) or use dtype float32"
            )
        folder.checkpoints.settle()  # one that failed is no reason to lose the model
        snapshot = Snapshot.of(self.model, None, self.tokenizer_folder, {}, is_first=is_first)
        report: dict[str, Any] = {}
        if is_first:
            with replacing_folder(folder.path / "final") as final:
                snapshot.write_model(final)
            folder.move_in(folder.path / "final")
            report = folder.finish(self._report())
            if config.checkpoint_tokens is None:
                folder.checkpoints.remove()
        self.world.wait()
        finished = report or folder.finished()
        assert finished is not None, "the first rank has just finished it"
        return finished

    def _report(self) -> dict[str, Any]:
        config = self.config
        metrics = read_metrics(self.run_folder.path / METRICS)
        last = metrics.tail(max(1, round(self.steps * FINAL_STEPS_FRACTION))).filter(~pl.col("skipped"))
        return {
            "config": config.model_dump(mode="json"),
            "seed": self.seed,
            "steps": self.steps,
            "skipped_steps": self.skipped,
            "tokens": self.steps * config.step_tokens,
            "targets": int(metrics["targets"].sum()),
            **self.rows.report(),
            "final_loss": last["loss"].mean(),
            **self.counts,
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "computed": self.compute.description,
            "processes": self.world.size,
            "tokens_per_second": round(float(metrics["tokens_per_second"].median() or 0.0), 1),  # type: ignore[arg-type]
            "wall_seconds": round(self._seconds(), 3),
            "versions": {
                "codesieve": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
            },
        }


def _of_all_ranks(world: World, losses_BT: np.ndarray, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Losses (float32) and marks (int8, as in `_Update`) of all rows of the step: sums must not depend on the ranks."""
    batch = prepared.batch
    marks_BT = np.where(batch.targets_BT == IGNORED, np.int8(-1), batch.objectives_BT)
    return world.collect(losses_BT), world.collect(marks_BT)


def _peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """What MFU is a share of: the peak in bfloat16, and only where that is computed in."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    return peak_flops(torch.cuda.get_device_name(device))


def _hopeless(folder: Path, step: int, config: TrainConfig) -> str:
    return (
        f"{folder}: step {step}: loss or gradient norm was not finite in {MOST_IN_A_ROW} steps in a row, on other rows "
        "each time and with the same weights, so the next ones would be no better; start again with a lower "
        f"learning_rate ({config.learning_rate:g} now), a longer warmup_fraction ({config.warmup_fraction:g} now) or "
        "dtype: float32" + (f", and check the weights in {config.init_from}" if config.init_from else "")
    )


def _out_of_memory(step: int, config: TrainConfig, error: Exception) -> str:
    return (
        f"step {step} does not fit into the memory of the GPU; lower micro_batch_tokens "
        f"({config.micro_batch_tokens or config.step_tokens} now, at least sequence_length, {config.sequence_length}: "
        f"only the rounding of the result depends on it), or use several GPUs with parallel: fsdp ({error})"
    )


def _mixed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:8], "big") >> 1


def _number(norm: torch.Tensor) -> float:
    """A gradient norm, which FSDP2 gives as a sharded tensor."""
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    value = float(whole)
    return value if math.isfinite(value) else math.inf
