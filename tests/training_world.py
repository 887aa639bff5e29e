"""What the tests of training train on: a store of made-up documents in two streams, and its tokenizer."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.tokenizer import save_tokenizer, train_tokenizer
from codesieve.train.tokens import TokenStore, build_store

VOCAB = 400

CONFIG = TrainConfig(
    model=ModelConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2),
    vocab_size=VOCAB,
    sequence_length=32,
    window_tokens=32,
    tokens=1920,
    step_tokens=64,
    learning_rate=1e-2,
    dtype="float32",
)


def changed(**fields: Any) -> TrainConfig:
    """`CONFIG` with other values, validated."""
    given = {**CONFIG.model_dump(), **fields}
    if "stages" in fields and "tokens" not in fields:
        del given["tokens"]
    return TrainConfig.model_validate(given)


def make_world(folder: Path, documents: int = 60) -> None:
    """`store` and `tokenizer` in `folder`: two thirds code, one third text."""
    chance = random.Random(0)
    names = ["".join(chance.choices("abcdefgh", k=4)) for _ in range(60)]
    code = [
        "".join(f"def {chance.choice(names)}(x):\n    return x + {number}\n" for _ in range(3))
        for number in range(documents * 2 // 3)
    ]
    text = [
        f"The {chance.choice(names)} of {chance.choice(names)} is number {number}.\n" * 2
        for number in range(documents - len(code))
    ]
    tokenizer = train_tokenizer(code + text, VOCAB)
    save_tokenizer(tokenizer, folder / "tokenizer")
    frame = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(documents)],
            "text": code + text,
            "stream": ["code"] * len(code) + ["text"] * len(text),
            "language": ["python"] * len(code) + ["text"] * len(text),
            "score": pl.Series([number / documents for number in range(documents)], dtype=pl.Float32),
        }
    )
    build_store([frame], tokenizer, folder / "store", "world")


def run(folder: Path, output: Path, config: TrainConfig = CONFIG, stop_after: int | None = None, **more: Any) -> Any:
    """`train` in this process; `stop_after` steps it is asked to stop."""
    from codesieve.train.loop import train

    store = TokenStore.open(folder / "store")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after

    given = {
        "documents": np.arange(store.documents.height),
        "weights": {"code": 0.75, "text": 0.25},
        "seed": 0,
        "tokenizer_folder": folder / "tokenizer",
        **more,
    }
    return train(config, store, output=output, stop=stop, **given)


def run_ranks(processes: int, folder: Path, output: Path, config: TrainConfig, stop_after: int | None = None) -> None:
    """The same with so many processes of torchrun, on CPUs."""
    job = json.dumps([str(folder), str(output), config.model_dump(mode="json"), stop_after])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*command, __file__, job], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    where, target, settings, after = json.loads(sys.argv[1])
    try:
        run(Path(where), Path(target), TrainConfig.model_validate(settings), after)
    except KeyboardInterrupt:
        assert after is not None
