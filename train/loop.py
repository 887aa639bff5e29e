"""One training run, top to bottom: from a token store and a selection of its documents to a model folder.

Comes in: what to train (`TrainConfig`), the store, the arm's documents, the mixture and a seed. Goes out: a folder
that transformers loads, with `metrics.jsonl`, `validation.jsonl` and, last of all, `training.json`. What is in step n
depends on the seed and n alone (`rows.py`), so runs with equal seeds are paired, and a run that was cut short goes on
from its last checkpoint as if nothing had happened: on a CPU bit by bit, whatever micro-batch and number of processes.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from tokenizers import Tokenizer
from torch.nn.utils import clip_grad_norm_

from .. import __version__
from ..files import replacing_folder
from .accumulate import step_gradients
from .batches import Prepared
from .checkpoint import Snapshot, read_state, restore_optimizer
from .config import TrainConfig
from .device import choose_device, choose_dtype, reproducible
from .distributed import World, joined, shard
from .execution import Prefetcher, garbage_later, make_pass, spans
from .flops import flops_per_token, mfu, peak_flops
from .metrics import StepMetrics, ValidationMetrics, finite, losses_by_objective, losses_by_stream, read_metrics
from .model import Decoder
from .optim import make_optimizer, set_learning_rate
from .pretrained import initial_model
from .rows import IGNORED, Rows
from .run_folder import METRICS, RunFolder, identity
from .schedule import learning_rate
from .sentinels import Sentinels
from .spikes import SpikeGuard
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
        FloatingPointError: if more than half of the steps had to be skipped.
        OSError: if a checkpoint cannot be written; those before it are whole.
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
        with reproducible(device, config.threads), garbage_later():
            loop = _Loop(config, store, rows, seed, tokenizer_folder, tokenizer, run, world, device, validation)
            return loop.run(progress, stop)


class _Loop:
    """What the steps share: model, optimiser, and how far they are."""

    def __init__(
        self,
        config: TrainConfig,
        store: TokenStore,
        rows: Rows,
        seed: int,
        tokenizer_folder: Path,
        tokenizer: Tokenizer,
        run: RunFolder,
        world: World,
        device: torch.device,
        validation: pl.DataFrame | None,
    ) -> None:
        self.begun = time.perf_counter()
        self.config, self.store, self.rows, self.seed, self.run_folder = config, store, rows, seed, run
        self.tokenizer_folder, self.world, self.device = tokenizer_folder, world, device
        self.stages, self.steps = config.resolved_stages(), sum(config.stage_steps())
        self.rows_per_step = config.step_tokens // config.sequence_length
        self.is_sharded = config.parallel == "fsdp" and world.size > 1
        self.is_exact = device.type == "cpu" and not self.is_sharded

        resumed = run.checkpoints.latest()
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
        self.guard = SpikeGuard(config.skip_sigma)
        if state:
            self.guard.restore(state["spikes"])
        self.first_step, self.skipped = int(state.get("step", 0)), int(state.get("skipped", 0))
        self.seconds_before = float(state.get("wall_seconds", 0.0))
        self.validation = None
        if validation is not None and config.validate_tokens:
            self.validation = Validation(
                validation, tokenizer, config.sequence_length, store.end_of_text, VALIDATION_BYTES
            )

    def run(self, progress: Callable[[float], None] | None, stop: Callable[[], bool] | None) -> dict[str, Any]:
        """All steps that are left, then the model's files."""
        config, rows, world = self.config, self.rows, self.world
        joins = {sum(config.stage_steps()[:number]): stage for number, stage in enumerate(self.stages) if number}
        spans_of_steps = spans(self.first_step, self.steps, self.rows_per_step, world.rank, world.size)
        feed = Prefetcher(self._prepare, spans_of_steps)
        with feed, self.run_folder.log(config, self.first_step, is_silent=not world.is_first) as log:
            begun, waited = time.perf_counter(), 0.0
            for step, prepared in zip(range(self.first_step, self.steps), feed, strict=True):
                if (joined_stage := joins.get(step)) is not None:
                    self.guard.forget()
                    if joined_stage.reset_optimizer:
                        self.optimizer.state.clear()
                rate = learning_rate(config, step)
                set_learning_rate(self.optimizer, rate / config.learning_rate)
                # Dropout, which other architectures have, is a function of the step as well.
                torch.manual_seed(_mixed(self.seed, step))

                targets = int(world.total(prepared.targets))
                losses_BT = step_gradients(
                    self.compute, prepared.parts, targets, world, is_exact=self.is_exact, is_sharded=self.is_sharded
                )
                grad_norm = _number(clip_grad_norm_(self.compute.parameters, config.clip_norm))
                losses_BT, objectives_BT, valid_BT = _of_all_ranks(world, losses_BT, prepared)
                loss = float(losses_BT[valid_BT].sum()) / max(1, targets)
                is_skipped = self.guard.is_spike(loss, grad_norm)
                if is_skipped:
                    self.skipped += 1
                else:
                    self.optimizer.step()
                    self.guard.add(loss, grad_norm)
                self.compute.zero_grad()

                now, first_row, done = time.perf_counter(), step * self.rows_per_step, step + 1
                streams = [rows.stream_of(row) for row in range(first_row, first_row + self.rows_per_step)]
                speed = config.step_tokens / (now - begun)
                log.step(
                    StepMetrics(
                        step=step,
                        stage=self.stages[rows.stage_of(first_row)].name,
                        tokens_seen=done * config.step_tokens,
                        loss=finite(loss),
                        losses=losses_by_stream(rows.stream_names, streams, losses_BT, valid_BT),
                        losses_by_objective=losses_by_objective(
                            rows.objective_names, objectives_BT, losses_BT, valid_BT
                        ),
                        targets=targets,
                        learning_rate=rate,
                        grad_norm=finite(grad_norm),
                        skipped=is_skipped,
                        tokens_per_second=round(speed, 1),
                        mfu=self._mfu(speed),
                        wait_fraction=round((feed.wait_seconds - waited) / (now - begun), 4),
                    )
                )
                if self.validation and (self._is_due(done, config.validate_tokens) or done == self.steps):
                    log.validation(self._validate(step))
                is_stopped = stop is not None and world.total(float(stop())) > 0
                if (is_stopped and done < self.steps) or self._is_due(done, config.checkpoint_tokens):
                    self._save(done)
                if is_stopped and done < self.steps:
                    self.run_folder.checkpoints.wait()
                    raise KeyboardInterrupt
                if progress:
                    progress(done / self.steps)
                begun, waited = time.perf_counter(), feed.wait_seconds
        return self._finish()

    def _validate(self, step: int) -> ValidationMetrics:
        assert self.validation is not None
        found = {name: finite(bits) for name, bits in self.validation.bits_per_byte(self.model, self.device).items()}
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
        if self.device.type != "cuda" or not isinstance(self.model, Decoder):
            return None
        per_token = flops_per_token(self.model.config, self.store.vocab_size, self.config.sequence_length)
        found = mfu(tokens_per_second, per_token, peak_flops(torch.cuda.get_device_name(self.device)), self.world.size)
        return None if found is None else round(found, 4)

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.begun

    def _save(self, step: int) -> None:
        state = {
            "step": step,
            "skipped": self.skipped,
            "spikes": self.guard.state(),
            "wall_seconds": round(self._seconds(), 3),
            "identity": self.run_folder.identity,
        }
        snapshot = Snapshot.of(self.model, self.optimizer, self.tokenizer_folder, state)
        if self.world.is_first:
            self.run_folder.checkpoints.save(step, snapshot.write)

    def _finish(self) -> dict[str, Any]:
        """The model's files and the report; on one rank, while the others wait."""
        folder, config = self.run_folder, self.config
        if self.skipped > self.steps / 2:
            raise FloatingPointError(
                f"{folder.path}: {self.skipped} of {self.steps} steps were skipped (loss or gradient not finite, or a "
                f"spike); lower learning_rate ({config.learning_rate:g}) or use dtype float32"
            )
        snapshot = Snapshot.of(self.model, None, self.tokenizer_folder, {})
        report: dict[str, Any] = {}
        if self.world.is_first:
            folder.checkpoints.wait()
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


def _of_all_ranks(world: World, losses_BT: np.ndarray, prepared: Prepared) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses (float64), objectives and validity of all rows of the step, so that sums do not depend on the ranks."""
    valid_BT = prepared.batch.targets_BT != IGNORED
    each = np.concatenate((losses_BT, prepared.batch.objectives_BT, valid_BT), axis=1, dtype=np.float64)
    losses_BT, objectives_BT, valid_BT = np.split(world.collect(each), 3, axis=1)
    return losses_BT, objectives_BT.astype(np.int8), valid_BT > 0


def _mixed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:8], "big") >> 1


def _number(norm: torch.Tensor) -> float:
    """A gradient norm, which FSDP2 gives as a sharded tensor."""
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    value = float(whole)
    return value if math.isfinite(value) else math.inf
