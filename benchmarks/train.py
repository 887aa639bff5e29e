"""Training speed of codesieve's decoder, side by side with transformers' Llama at the same shapes.

    python benchmarks/train.py --preset proxy-1m --against transformers [--json]

Both sides train on the same packed rows with the same optimiser, dtype and threads, and take turns round by round; the
figure is the median over rounds, and the ratio the median of the rounds' ratios. Ours isolates documents inside a row;
transformers runs its fastest causal path (SDPA, no document mask), with its own loss on all logits. The documents are
made up: lengths log-normal around 900 tokens (as in a corpus of source files), tokens by Zipf's law.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from codesieve.strict import ConfigError, parse, read_yaml, resolve
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.device import choose_device, choose_dtype, reproducible
from codesieve.train.loss import linear_cross_entropy
from codesieve.train.model import Decoder
from codesieve.train.optim import make_optimizer
from codesieve.train.rows import IGNORED, Batch, Rows
from codesieve.train.tokens import SCHEMA, TokenStore
from torch.nn.utils import clip_grad_norm_

Step = Callable[[Batch], float]


def main() -> None:
    arguments = _arguments()
    try:
        path = resolve(arguments.preset, "models")
        model = parse(ModelConfig, read_yaml(path), str(path))
        config = parse(
            TrainConfig,
            {
                "model": model,
                "vocab_size": arguments.vocab_size,
                "sequence_length": arguments.sequence_length,
                "window_tokens": arguments.sequence_length,
                "step_tokens": arguments.step_tokens,
                "dtype": arguments.dtype,
                "threads": arguments.threads,
            },
            "arguments",
        )
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    report = measure(config, arguments.against, arguments.rounds, arguments.steps)
    report = {"preset": arguments.preset, **report}
    if arguments.json:
        print(json.dumps(report, indent=2, sort_keys=True))
    else:
        for name, value in report.items():
            print(f"{name:32} {value}")


def measure(config: TrainConfig, against: str | None, rounds: int, steps: int) -> dict[str, Any]:
    """Median tokens per second of each side, wall clock and processor time, and their ratio."""
    device = choose_device()
    dtype = choose_dtype(config.dtype, device)
    rows = synthetic_rows(config)
    rows_per_step = config.step_tokens // config.sequence_length
    with reproducible(device, config.threads):
        sides: dict[str, Step] = {"codesieve": our_step(config, dtype, device)}
        if against:
            sides["transformers"] = transformers_step(config, dtype, device)
        for step in sides.values():  # allocate, warm caches
            for number in range(2):
                step(rows.batch(number * rows_per_step, rows_per_step))
        wall: dict[str, list[float]] = {name: [] for name in sides}
        processor: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds):
            for name, step in sides.items():
                wall_begun, processor_begun = time.perf_counter(), time.process_time()
                for index in range(number * steps, (number + 1) * steps):
                    step(rows.batch(index * rows_per_step, rows_per_step))
                wall[name].append(steps * config.step_tokens / (time.perf_counter() - wall_begun))
                processor[name].append(steps * config.step_tokens / (time.process_time() - processor_begun))
    report: dict[str, Any] = {
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": config.threads,
        "vocab_size": config.vocab_size,
        "sequence_length": config.sequence_length,
        "step_tokens": config.step_tokens,
        "rounds": rounds,
        "steps_per_round": steps,
        "torch": str(torch.__version__),
        "machine": platform.machine(),
    }
    for name in sides:
        report[f"{name}_tokens_per_second"] = round(statistics.median(wall[name]))
        report[f"{name}_tokens_per_cpu_second"] = round(statistics.median(processor[name]))
    if against:
        for key, speeds in (("ratio", wall), ("ratio_cpu", processor)):
            ratios = [ours / theirs for ours, theirs in zip(speeds["codesieve"], speeds["transformers"], strict=True)]
            report[key] = round(statistics.median(ratios), 3)
            report[f"{key}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return report


def synthetic_rows(config: TrainConfig, documents: int = 2000) -> Rows:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(900), 1.2, documents), 1, 50_000).astype(np.int64)
    ids = generator.zipf(1.2, int(lengths.sum())) % config.vocab_size
    table = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(documents)],
            "stream": ["code"] * documents,
            "language": ["python"] * documents,
            "offset": np.cumsum(lengths) - lengths,
            "tokens": lengths,
            "bytes": lengths,
        },
        schema=SCHEMA,
    )
    store = TokenStore(Path(), table, ids.astype(np.uint32), config.vocab_size, "")
    return Rows(store, np.arange(documents), {}, 0, config.sequence_length, config.window_tokens)


def our_step(config: TrainConfig, dtype: torch.dtype, device: torch.device) -> Step:
    model = Decoder(config.model, config.vocab_size, config.sequence_length, 0, dtype).to(device)
    optimizer = make_optimizer(config, model)

    def step(batch: Batch) -> float:
        tokens, targets, segments, positions = (
            torch.from_numpy(array).to(device)
            for array in (batch.tokens_BT, batch.targets_BT, batch.segments_BT, batch.positions_BT)
        )
        valid = int((batch.targets_BT != IGNORED).sum())
        hidden = model.hidden(tokens, positions, segments)
        loss, _ = linear_cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, targets.flatten(), valid, dtype)
        loss.backward()
        clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def transformers_step(config: TrainConfig, dtype: torch.dtype, device: torch.device) -> Step:
    from transformers import LlamaConfig, LlamaForCausalLM

    facts = Decoder(config.model, config.vocab_size, config.sequence_length).to_hf_config()
    model = LlamaForCausalLM(LlamaConfig(**facts, attn_implementation="sdpa", use_cache=False)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=config.betas, fused=True)

    def step(batch: Batch) -> float:
        tokens, targets = (torch.from_numpy(array).to(device) for array in (batch.tokens_BT, batch.targets_BT))
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(input_ids=tokens, labels=targets, shift_labels=targets).loss
        loss.backward()
        clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()  # type: ignore[no-any-return]

    return step


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="proxy-1m", help="name in configs/models, or a path")
    parser.add_argument("--against", choices=["transformers"])
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--step-tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="per round and side")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
