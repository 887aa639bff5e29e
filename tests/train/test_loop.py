import hashlib
import json

import numpy as np
import polars as pl
import pytest
import torch
from codesieve.train import loop
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.loop import train
from codesieve.train.metrics import read_metrics
from codesieve.train.tokenizer import save_tokenizer, train_tokenizer
from codesieve.train.tokens import build_store

CONFIG = TrainConfig(
    model=ModelConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2),
    vocab_size=400,
    sequence_length=32,
    window_tokens=32,
    tokens=1920,
    step_tokens=64,
    learning_rate=1e-2,
    dtype="float32",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of 60 documents in two streams, and its tokenizer."""
    folder = tmp_path_factory.mktemp("world")
    code = [f"def f{number}(x):\n    return x + {number}\n" * 3 for number in range(40)]
    text = [f"This is sentence number {number} of the manual.\n" * 2 for number in range(20)]
    tokenizer = train_tokenizer(code + text, 400)
    save_tokenizer(tokenizer, folder / "tokenizer")
    frame = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(60)],
            "text": code + text,
            "stream": ["code"] * 40 + ["text"] * 20,
            "language": ["python"] * 40 + ["text"] * 20,
        }
    )
    return build_store([frame], tokenizer, folder / "store", "f"), folder / "tokenizer"


def run(world, output, config=CONFIG, documents=None, weights=None, seed=0, progress=None):
    store, tokenizer = world
    chosen = np.arange(store.documents.height) if documents is None else documents
    return train(config, store, chosen, weights or {"code": 0.75, "text": 0.25}, seed, tokenizer, output, progress)


def test_a_run_learns_and_writes_what_it_says(world, tmp_path):
    fractions = []
    report = run(world, tmp_path / "model", progress=fractions.append)
    assert report == json.loads((tmp_path / "model" / "training.json").read_text())
    assert report["steps"] == 30
    assert report["tokens"] == 1920
    assert report["tokens_per_stream"] == {"code": 45 * 32, "text": 15 * 32}
    assert report["config"] == CONFIG.model_dump(mode="json")
    assert report["final_loss"] < 3.5  # a uniform guess over 300 tokens costs 5.7
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)

    metrics = read_metrics(tmp_path / "model" / "metrics.jsonl")
    assert metrics["tokens_seen"].to_list() == list(range(64, 1921, 64))
    assert metrics["loss"][0] == pytest.approx(np.log(400), abs=0.2)
    assert not metrics["skipped"].any()
    code = metrics["losses"].struct.field("code")
    text = metrics["losses"].struct.field("text")
    assert code.null_count() == 0
    assert text.null_count() == 15  # every second step has a row of it


def test_two_runs_give_the_same_model_bit_by_bit(world, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(hash(name))
        run(world, tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        if path.name not in {"metrics.jsonl", "training.json"}:
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    timing = ("tokens_per_second", "wall_seconds")
    reports = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("a", "b")]
    assert (
        len({json.dumps({key: value for key, value in report.items() if key not in timing}) for report in reports}) == 1
    )
    steps = [read_metrics(tmp_path / name / "metrics.jsonl").drop("tokens_per_second") for name in ("a", "b")]
    assert steps[0].equals(steps[1])


def test_seeds_and_selections_give_different_models(world, tmp_path):
    run(world, tmp_path / "a")
    run(world, tmp_path / "b", seed=1)
    run(world, tmp_path / "c", documents=np.arange(1, 60))
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}) == 3


def test_bfloat16_runs_learn_too(world, tmp_path):
    report = run(world, tmp_path / "model", CONFIG.model_copy(update={"dtype": "bfloat16"}))
    assert report["dtype"] == "bfloat16"
    assert report["final_loss"] < 3.6


def test_the_seen_data_is_counted(world, tmp_path):
    report = run(world, tmp_path / "model", documents=np.r_[0:10, 40:60])
    assert report["documents"] == 30
    assert report["epochs_per_stream"]["code"] > 1 > report["epochs_per_stream"]["text"] > 0.5
    assert 10 + 10 < report["unique_documents"] < 30


def test_a_step_that_is_not_finite_is_skipped_and_counted(world, tmp_path, monkeypatch):
    real, calls = loop.linear_cross_entropy, []

    def sometimes_nan(*arguments):
        calls.append(0)
        loss, losses = real(*arguments)
        return loss * (float("nan") if len(calls) == 5 else 1.0), losses

    monkeypatch.setattr(loop, "linear_cross_entropy", sometimes_nan)
    report = run(world, tmp_path / "model")
    assert report["skipped_steps"] == 1
    metrics = read_metrics(tmp_path / "model" / "metrics.jsonl")
    assert metrics["skipped"].arg_true().to_list() == [4]
    assert metrics["loss"][4] is None
    assert report["final_loss"] < 3.5


def test_a_run_that_diverges_fails_and_leaves_nothing(world, tmp_path, monkeypatch):
    real = loop.linear_cross_entropy

    def infinite(*arguments):
        loss, losses = real(*arguments)
        return loss * float("inf"), losses

    monkeypatch.setattr(loop, "linear_cross_entropy", infinite)
    with pytest.raises(FloatingPointError, match="30 of 30 steps"):
        run(world, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_threads_and_determinism_are_put_back(world, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(world, tmp_path / "model", CONFIG.model_copy(update={"tokens": 64}))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_impossible_runs_are_named(world, tmp_path):
    with pytest.raises(ValueError, match=r'unknown stream "kode" \(did you mean "code"\?\)'):
        run(world, tmp_path / "model", weights={"kode": 1.0})
    with pytest.raises(ValueError, match=r'stream "text" has weight 0\.25, but the selection has no documents in it'):
        run(world, tmp_path / "model", documents=np.arange(10))
    with pytest.raises(ValueError, match="too few documents: 1 give 32 tokens an epoch"):
        run(world, tmp_path / "model", documents=np.array([0]), weights={"code": 1.0})
    with pytest.raises(ValueError, match="made with a vocabulary of 300, the config says vocab_size 4096"):
        run(world, tmp_path / "model", CONFIG.model_copy(update={"vocab_size": 4096}))
    assert list(tmp_path.iterdir()) == []
