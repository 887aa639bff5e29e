"""One training run, top to bottom: from a token store and a selection of its documents to a model folder.

Comes in: what to train (`TrainConfig`), the store, the arm's documents, the mixture and a seed. Goes out, atomically: a
folder that transformers loads (`checkpoint.py`), `metrics.jsonl` and `training.json`. What is in step n depends on the
seed and n alone (`order.py`), so runs with equal seeds are paired: same initial weights, same relative order of shared
documents, same windows of them. On a CPU a second run gives the same model, bit by bit.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

from .. import __version__
from ..files import replacing_folder, write_json
from .checkpoint import save_model
from .config import TrainConfig
from .device import choose_device, choose_dtype, reproducible
from .loss import linear_cross_entropy
from .metrics import StepMetrics, finite, losses_by_stream, write_step
from .model import Decoder
from .optim import make_optimizer, set_learning_rate
from .rows import IGNORED, Rows
from .schedule import learning_rate
from .tokens import TokenStore

FINAL_STEPS_FRACTION = 0.05
"""`final_loss` is the mean over the last twentieth of the steps: single steps of 2 k tokens differ by 10 %."""


def train(
    config: TrainConfig,
    store: TokenStore,
    documents: np.ndarray,
    weights: Mapping[str, float],
    seed: int,
    tokenizer_folder: Path,
    output: Path,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Train one model and write it to `output`.

    Args:
        documents: rows of `store.documents` that the arm selects.
        weights: share of the training tokens per stream; empty: every stream as much as it has.
        tokenizer_folder: of the tokenizer that made the store; its files are copied beside the model.
        progress: called after every step with the fraction of the run that is done.

    Returns:
        The content of `training.json`.

    Raises:
        ValueError: if store, documents and weights do not fit each other or the config.
        FloatingPointError: if more than half of the steps had to be skipped.
    """
    begun = time.perf_counter()
    rows = Rows(store, documents, weights, seed, config.sequence_length, config.window_tokens)
    _check(config, store, rows)
    device = choose_device()
    dtype = choose_dtype(config.dtype, device)
    steps = max(1, config.tokens // config.step_tokens)
    rows_per_step = config.step_tokens // config.sequence_length
    streams = sorted(rows.streams)
    final_losses: list[float] = []
    skipped = 0

    with reproducible(device, config.threads), replacing_folder(output) as folder:
        model = Decoder(config.model, store.vocab_size, config.sequence_length, seed, dtype).to(device)
        optimizer = make_optimizer(config, model)
        loop_begun = step_begun = time.perf_counter()
        with (folder / "metrics.jsonl").open("w", encoding="utf-8", buffering=1) as metrics:
            for step in range(steps):
                batch = rows.batch(step * rows_per_step, rows_per_step)
                valid_BT = batch.targets_BT != IGNORED
                tokens_BT, targets_BT, segments_BT, positions_BT = (
                    torch.from_numpy(array).to(device, non_blocking=True)
                    for array in (batch.tokens_BT, batch.targets_BT, batch.segments_BT, batch.positions_BT)
                )
                rate = learning_rate(config, (step + 1) * config.step_tokens, steps * config.step_tokens)
                set_learning_rate(optimizer, rate)

                hidden_BTD = model.hidden(tokens_BT, positions_BT, segments_BT)
                loss, losses_N = linear_cross_entropy(
                    hidden_BTD.flatten(0, 1), model.lm_head.weight, targets_BT.flatten(), int(valid_BT.sum()), dtype
                )
                loss.backward()  # type: ignore[no-untyped-call]
                grad_norm = float(clip_grad_norm_(model.parameters(), config.clip_norm))
                loss_value = loss.item()
                is_finite = finite(loss_value) is not None and finite(grad_norm) is not None
                if is_finite:
                    optimizer.step()
                    final_losses.append(loss_value)
                skipped += not is_finite
                optimizer.zero_grad(set_to_none=True)

                now = time.perf_counter()
                losses_BT = losses_N.cpu().numpy().reshape(valid_BT.shape)
                write_step(
                    metrics,
                    StepMetrics(
                        step=step,
                        tokens_seen=(step + 1) * config.step_tokens,
                        loss=finite(loss_value),
                        losses=losses_by_stream(streams, batch.streams, losses_BT, valid_BT),
                        learning_rate=rate,
                        grad_norm=finite(grad_norm),
                        skipped=not is_finite,
                        tokens_per_second=round(config.step_tokens / (now - step_begun), 1),
                    ),
                )
                step_begun = now
                if progress:
                    progress((step + 1) / steps)
        if skipped > steps / 2:
            raise FloatingPointError(
                f"{output}: {skipped} of {steps} steps had a loss or gradient that is not finite; "
                f"lower learning_rate ({config.learning_rate:g}) or use dtype float32"
            )
        loop_seconds = time.perf_counter() - loop_begun
        save_model(model, tokenizer_folder, folder)
        report = {
            "config": config.model_dump(mode="json"),
            "seed": seed,
            "steps": steps,
            "skipped_steps": skipped,
            "tokens": steps * config.step_tokens,
            **_data_seen(rows, steps * rows_per_step),
            "final_loss": float(np.mean(final_losses[-max(1, round(steps * FINAL_STEPS_FRACTION)) :])),
            **model.parameter_counts(),
            "device": device.type,
            "dtype": str(dtype).removeprefix("torch."),
            "tokens_per_second": round(steps * config.step_tokens / loop_seconds, 1),
            "wall_seconds": round(time.perf_counter() - begun, 3),
            "versions": {
                "codesieve": __version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "torch": str(torch.__version__),
            },
        }
        write_json(folder / "training.json", report)
    return report


def _check(config: TrainConfig, store: TokenStore, rows: Rows) -> None:
    if store.vocab_size != config.vocab_size:
        raise ValueError(
            f"{store.folder}: made with a vocabulary of {store.vocab_size}, the config says vocab_size "
            f"{config.vocab_size}; build the store again or change the config"
        )
    available = sum(order.epoch_tokens for order in rows.streams.values())
    if available < config.step_tokens:
        count = sum(len(order.rows) for order in rows.streams.values())
        raise ValueError(
            f"too few documents: {count} give {available} tokens an epoch (window_tokens {config.window_tokens}), "
            f"less than one step of {config.step_tokens}; widen the selection or lower step_tokens"
        )


def _data_seen(rows: Rows, row_count: int) -> dict[str, Any]:
    """How much of which stream the run saw, by arithmetic."""
    seen = rows.tokens_seen(row_count)
    return {
        "tokens_per_stream": seen,
        "epochs_per_stream": {name: seen[name] / order.epoch_tokens for name, order in rows.streams.items()},
        "documents": sum(len(order.rows) for order in rows.streams.values()),
        "unique_documents": sum(order.documents_in(seen[name]) for name, order in rows.streams.items()),
        "empty_documents": rows.empty_documents,
    }
