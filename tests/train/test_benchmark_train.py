import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from codesieve.train.config import ModelConfig, TrainConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train.py"
CONFIG = TrainConfig(
    model=ModelConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1),
    vocab_size=400,
    sequence_length=16,
    window_tokens=16,
    step_tokens=64,
    dtype="float32",
)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_sides_train_and_are_compared(benchmark):
    report = benchmark.measure(CONFIG, "transformers", rounds=2, steps=1)
    assert report["ratio"] > 0
    assert report["codesieve_tokens_per_second"] > 0
    assert report["ratio_range"][0] <= report["ratio"] <= report["ratio_range"][1]


def test_both_sides_learn_from_the_same_rows(benchmark):
    rows = benchmark.synthetic_rows(CONFIG, documents=50)
    for make in (benchmark.our_step, benchmark.transformers_step):
        step = make(CONFIG, torch.float32, torch.device("cpu"))
        losses = [step(rows.batch(0, 4)) for _ in range(8)]
        assert losses[0] == pytest.approx(np.log(400), abs=0.1)
        assert losses[-1] < losses[0] - 0.1
