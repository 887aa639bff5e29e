"""The sides of `benchmarks/train.py`: how codesieve, transformers and the nanoGPT-style reference take one step.

A side prepares a batch (in the prefetching thread) and trains on it: gradients of all parts, clipping at norm 1, fused
update. Ours does what the training loop does, its look at the gradient norm (one wait for the GPU a step) included; the
others do what their own training scripts do, and never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from codesieve.benchmarks.nanogpt import NanoGPT
from codesieve.train.accumulate import step_gradients
from codesieve.train.batches import Prepared
from codesieve.train.config import TrainConfig
from codesieve.train.distributed import World
from codesieve.train.execution import make_pass
from codesieve.train.model import Decoder
from codesieve.train.optim import make_optimizer
from codesieve.train.prefetch import to_device
from codesieve.train.rows import Batch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_


@dataclass(frozen=True)
class Side:
    """`prepare` needs no model; `step` trains on what it gave and returns the mean loss, still on the device."""

    prepare: Callable[[Batch], Any]
    step: Callable[[Any], Tensor]
    computed: Callable[[], str]
    """How, in words; known for sure after the first step."""


Maker = Callable[[TrainConfig, torch.device, torch.dtype], Side]


def codesieve(config: TrainConfig, device: torch.device, dtype: torch.dtype, attention: str = "documents") -> Side:
    """Ours; `causal`: every row counts as one document."""
    model = Decoder(config.model, config.vocab_size, config.sequence_length, 0, dtype).to(device)
    optimizer = make_optimizer(config, model)
    compute = make_pass(model, config, device)
    is_exact = device.type == "cpu"
    rows_per_part = 1 if is_exact else _micro(config) // config.sequence_length

    def prepare(batch: Batch) -> Prepared:
        batch = _as_whole_rows(batch) if attention == "causal" else batch
        return Prepared.of(batch, rows_per_part, device)

    def step(prepared: Prepared) -> Tensor:
        losses_BT = step_gradients(
            compute, prepared.parts, prepared.targets, World(), is_exact=is_exact, is_sharded=False
        )
        float(clip_grad_norm_(compute.parameters, config.clip_norm))
        optimizer.step()
        compute.zero_grad()
        return torch.tensor(losses_BT.sum() / prepared.targets)

    return Side(prepare, step, lambda: compute.description)


def transformers(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Side:
    """The class of the family from transformers, fp32 weights under autocast, SDPA where it has it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        facts = Decoder(config.model, config.vocab_size, config.sequence_length).to_hf_config()
    attention = "eager" if config.model.family == "codegen" else "sdpa"
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(facts.pop("model_type"), **facts), attn_implementation=attention, dtype=torch.float32
    )
    model.config.use_cache = False
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=config.betas, fused=True)

    def forward(model: Any, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return model(input_ids=tokens_BT, labels=targets_BT, shift_labels=targets_BT).loss  # type: ignore[no-any-return]

    return _peer(model, forward, optimizer, config, device, dtype, attention)


def nanogpt(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> Side:
    """`nanogpt.NanoGPT`."""
    model = NanoGPT(config.model, config.vocab_size, config.sequence_length).to(device)
    optimizer = model.optimizer(config.learning_rate, config.betas, config.weight_decay)
    return _peer(model, lambda model, *parts: model(*parts), optimizer, config, device, dtype, "sdpa")


def _peer(
    model: nn.Module,
    forward: Callable[[Any, Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    device: torch.device,
    dtype: torch.dtype,
    attention: str,
) -> Side:
    """The training step that everybody writes."""
    is_compiled = config.compile if config.compile is not None else device.type == "cuda"
    run: Any = torch.compile(model, dynamic=False) if is_compiled else model
    rows = _micro(config) // config.sequence_length

    def move(array: np.ndarray) -> Sequence[Tensor]:
        return to_device(torch.from_numpy(array), device).split(rows)

    def prepare(batch: Batch) -> list[tuple[Tensor, Tensor]]:
        return list(zip(move(batch.tokens_BT), move(batch.targets_BT), strict=True))

    def step(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        total = torch.zeros((), device=device)
        for tokens_BT, targets_BT in parts:
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = forward(run, tokens_BT, targets_BT) / len(parts)
            loss.backward()
            total += loss.detach()
        clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return Side(prepare, step, lambda: f"{'compiled' if is_compiled else 'eager'}, {attention}")


def _micro(config: TrainConfig) -> int:
    return config.micro_batch_tokens or config.step_tokens


def _as_whole_rows(batch: Batch) -> Batch:
    """The same tokens and targets, every row one document."""
    columns = np.arange(batch.tokens_BT.shape[1], dtype=np.int32)
    positions_BT = np.broadcast_to(columns, batch.tokens_BT.shape).copy()
    return replace(batch, positions_BT=positions_BT, begins_BT=np.zeros_like(positions_BT), ends_BT=positions_BT + 1)


SIDES: dict[str, Maker] = {
    "codesieve documents": codesieve,
    "codesieve causal": partial(codesieve, attention="causal"),
    "transformers": transformers,
    "nanogpt": nanogpt,
}
