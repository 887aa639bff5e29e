"""Checkpoints of our own trainer: scored by its decoder, causally or with contexts that see themselves both ways."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codesieve.eval.backends.checkpoint import CheckpointBackend
from codesieve.eval.backends.protocol import Continuation, Generation, Sampling
from codesieve.files import write_json
from codesieve.train.config import ModelConfig
from codesieve.train.model import Decoder
from codesieve.train.pretrained import load_model, save_model

TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n" * 3,
    "naïve café — 日本語のコメント # ✓\n",
]
PAIRS = [
    Continuation("def add(a, b):\n    ", "return a + b\n"),
    Continuation("for number in ", "range(10)"),
    Continuation("", "x = 1"),
    Continuation("# naïve café — ", "日本語 ✓"),
    Continuation("class Point:\n    def __init__(self, x, y):\n        self.x = x\n" * 2, "        self.y = y\n"),
]


def sure(result: Any) -> Any:
    assert result is not None
    return result


def own_model(folder: Path, tiny_model: Path, family: dict[str, Any], training: dict[str, Any] | None) -> Path:
    """A random model as our trainer writes it."""
    config = ModelConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, initializer_range=0.3, **family)
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True, exist_ok=True)
    shutil.copy(tiny_model / "tokenizer.json", tokenizer)
    write_json(tokenizer / "tokenizer_config.json", {})
    save_model(Decoder(config, 320, sequence_length=24, seed=3), tokenizer, folder / "model")
    if training is not None:
        write_json(folder / "model/training.json", training)
    return folder / "model"


FAMILIES: list[dict[str, Any]] = [
    {},
    {"family": "cohere", "logit_scale": 0.25},
    {"family": "codegen", "tie_word_embeddings": False},
]


@pytest.mark.parametrize("family", FAMILIES, ids=["llama", "cohere", "codegen"])
def test_codesieves_own_checkpoints_are_scored_by_its_decoder_as_transformers_scores_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: dict[str, Any]
) -> None:
    by_transformers = CheckpointBackend(own_model(tmp_path, tiny_model, family, None), device="cpu")
    folder = own_model(tmp_path, tiny_model, family, {})
    monkeypatch.setattr(CheckpointBackend, "_transformers", None)  # scoring must not need it
    by_decoder = CheckpointBackend(folder, device="cpu")
    expected = [sure(each).nats for each in by_transformers.rolling(TEXTS)]
    assert [sure(each).nats for each in by_decoder.rolling(TEXTS)] == pytest.approx(expected, rel=1e-5)
    expected = [sure(each).nats for each in by_transformers.loglikelihood(PAIRS)]
    assert [sure(each).nats for each in by_decoder.loglikelihood(PAIRS)] == pytest.approx(expected, rel=1e-5)
    assert by_decoder.facts["scored_by"] == "codesieve"


def dense_llama(model: Decoder, tokens: Sequence[int], prefix: int) -> np.ndarray:
    """Log-probabilities [T, V] of a Llama, written out in float64 numpy: the definition."""
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    config, time = model.config, len(tokens)
    size, heads = config.head_dim, config.num_attention_heads

    def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * weight
        return scaled

    angles = np.arange(time)[:, None] / config.rope_theta ** (np.arange(0, size, 2) / size)
    cos, sin = (np.concatenate([f(angles), f(angles)], -1) for f in (np.cos, np.sin))

    def turn(x: np.ndarray) -> np.ndarray:
        turned: np.ndarray = x * cos + np.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1) * sin
        return turned

    visible = np.tril(np.ones((time, time), bool))
    visible[:prefix, :prefix] = True
    x = state["model.embed_tokens.weight"][list(tokens)]
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}."
        y = norm(x, state[name + "input_layernorm.weight"])
        q, k, v = (
            (y @ state[f"{name}self_attn.{part}_proj.weight"].T).reshape(time, heads, size).transpose(1, 0, 2)
            for part in "qkv"
        )
        scores = np.where(visible, turn(q) @ turn(k).transpose(0, 2, 1) / math.sqrt(size), -np.inf)
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        out = (chances / chances.sum(-1, keepdims=True)) @ v
        x = x + out.transpose(1, 0, 2).reshape(time, -1) @ state[name + "self_attn.o_proj.weight"].T
        y = norm(x, state[name + "post_attention_layernorm.weight"])
        gate, up = (y @ state[f"{name}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ state[name + "mlp.down_proj.weight"].T
    logits = norm(x, state["model.norm.weight"]) @ state["lm_head.weight"].T
    largest = logits.max(-1, keepdims=True)
    logs: np.ndarray = logits - largest - np.log(np.exp(logits - largest).sum(-1, keepdims=True))
    return logs


PREFIX = {"config": {"objectives": [{"type": "prefix_lm", "weight": 1.0}], "stages": []}}


@pytest.mark.parametrize("training", [PREFIX, None], ids=["own decoder", "transformers"])
def test_a_prefix_sees_itself_both_ways_as_the_definition_says(
    tiny_model: Path, tmp_path: Path, training: dict[str, Any] | None
) -> None:
    folder = own_model(tmp_path, tiny_model, {}, training)
    backend = CheckpointBackend(folder, device="cpu", attention="auto" if training else "prefix")
    assert backend.facts["attention"] == "prefix"
    causal = CheckpointBackend(folder, device="cpu", attention="causal")
    model = load_model(folder)
    pairs = PAIRS[:4]
    for pair, found, other in zip(pairs, backend.loglikelihood(pairs), causal.loglikelihood(pairs), strict=True):
        [(context, text)] = backend.encoder.pairs([pair])
        logs = dense_llama(model, [*context, *text], len(context))
        places = range(len(context) - 1, len(context) + len(text) - 1)
        assert sure(found).nats == pytest.approx(-sum(logs[p, t] for p, t in zip(places, text, strict=True)), rel=1e-5)
        assert len(context) < 3 or abs(sure(found).nats - sure(other).nats) > 1e-3
    prompts = ["def add(a", "for number in range(10", "x"]
    answers = backend.generate([Generation(prompt, prompt) for prompt in prompts], Sampling(6))
    for prompt, answer in zip(prompts, answers, strict=True):
        context = backend.encoder.text(prompt)
        sequence = list(context)
        while len(sequence) < len(context) + 6:
            sequence.append(int(dense_llama(model, sequence, len(context))[-1].argmax()))
            if sequence[-1] == 0:
                break
        assert sure(answer).text == backend.encoder.tokenizer.decode([t for t in sequence[len(context) :] if t])


def test_auto_attention_is_what_the_last_stage_was_trained_with(tiny_model: Path, tmp_path: Path) -> None:
    both = [{"type": "causal"}, {"type": "prefix_lm"}]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"objectives": both, "stages": []}, "causal"),
        ({"objectives": [{"type": "causal"}], "stages": [{"objectives": None}]}, "causal"),
        ({"objectives": both, "stages": [{"objectives": both[1:]}]}, "prefix"),
        ({"objectives": [{"type": "span_corruption"}, both[1]], "stages": []}, "prefix"),
    ]
    identities = set()
    for config, attention in cases:
        folder = own_model(tmp_path, tiny_model, {}, {"config": config})
        backend = CheckpointBackend(folder, device="cpu")
        assert backend.facts["attention"] == attention
        identities.add(backend.identity)
    assert len(identities) == 2
