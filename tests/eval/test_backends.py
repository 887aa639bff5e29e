"""Likelihood and greedy decoding against brute force with transformers."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from codesieve.eval.backends import TOKENS_PER_BATCH, CheckpointBackend
from tokenizers import Tokenizer

TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "x",
    "",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n" * 3,
    "naïve café — 日本語のコメント # ✓\n",
    "a <|endoftext|> b",
]


@pytest.fixture(scope="module")
def backend(tiny_model: Path) -> CheckpointBackend:
    return CheckpointBackend(tiny_model, device="cpu")


def brute_force(folder: Path, text: str) -> float:
    """One forward pass a token, on the last window that the token belongs to; log-softmax in float64."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    context = model.config.max_position_embeddings
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    sequence = [0, *tokenizer.encode(text).ids]
    nats, start = 0.0, 0
    for position in range(1, len(sequence)):
        if position - start > context:  # the window is full: the next one keeps half a context
            start = position - 1 - context // 2
        with torch.inference_mode():
            logits = model(torch.tensor([sequence[start:position]])).logits[0, -1]
        nats -= float(torch.log_softmax(logits, dim=-1)[sequence[position]])
    return nats


def test_likelihoods_equal_a_token_by_token_log_softmax_of_transformers(
    backend: CheckpointBackend, tiny_model: Path
) -> None:
    for text, found in zip(TEXTS, backend.rolling(TEXTS), strict=True):
        assert found.nats == pytest.approx(brute_force(tiny_model, text), rel=1e-5, abs=1e-6)
        assert found.size_bytes == len(text.encode())


def test_likelihoods_do_not_depend_on_the_batch(backend: CheckpointBackend) -> None:
    together = backend.rolling(TEXTS)
    backwards = backend.rolling(TEXTS[::-1])[::-1]
    alone = [backend.rolling([text])[0] for text in TEXTS]
    for first, second, third in zip(together, backwards, alone, strict=True):
        assert first.nats == pytest.approx(third.nats, abs=1e-4)
        assert second.nats == pytest.approx(third.nats, abs=1e-4)


def test_small_batches_give_the_same_as_one_batch(backend: CheckpointBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    large = backend.rolling(TEXTS)
    monkeypatch.setitem(TOKENS_PER_BATCH, "cpu", 30)
    fractions: list[float] = []
    small = backend.rolling(TEXTS, progress=fractions.append)
    assert [each.nats for each in small] == pytest.approx([each.nats for each in large], abs=1e-4)
    assert len(fractions) > 2
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_the_first_tokens_of_a_text_are_scored_as_the_text_of_those_tokens(backend: CheckpointBackend) -> None:
    text = "naïve café — 日本語のコメント"
    for limit in range(8, 40):
        [cut] = backend.rolling([text], max_tokens=limit)
        assert cut.tokens <= limit
        beginning = text.encode()[: cut.size_bytes].decode()  # raises if a character were split
        full = backend.rolling([beginning])[0]
        if full.tokens == cut.tokens:  # else the tokenizer merges the shorter text in another way
            assert cut.nats == pytest.approx(full.nats, abs=1e-4)


def test_a_special_token_inside_a_text_is_ordinary_text(backend: CheckpointBackend) -> None:
    [found] = backend.rolling(["a<|endoftext|>b"])
    assert found.tokens > 5
    assert backend.start_token == 0


def test_greedy_answers_do_not_depend_on_the_batch_and_equal_transformers_generate(
    backend: CheckpointBackend, tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    prompts = ["def", "for number in range(", "x = 1", "class Point:\n"]
    together = backend.generate(prompts, 8, [])
    assert together == [backend.generate([prompt], 8, [])[0] for prompt in prompts]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    for prompt, answer in zip(prompts, together, strict=True):
        tokens = [0, *backend.tokenizer.encode(prompt).ids]
        output = model.generate(torch.tensor([tokens]), max_new_tokens=8, do_sample=False, pad_token_id=0)
        new = output[0, len(tokens) :].tolist()
        new = new[: new.index(0)] if 0 in new else new
        assert answer == backend.tokenizer.decode(new)


def test_each_answer_ends_before_its_first_stop_string(backend: CheckpointBackend) -> None:
    prompts = ["def", "for number in range("]
    free = backend.generate(prompts, 12, [])
    assert all(len(answer) > 4 for answer in free)
    stop = free[0][2:4]
    stopped = backend.generate(prompts, 12, [stop, "never there"])
    for answer, unstopped in zip(stopped, free, strict=True):
        assert answer == unstopped.split(stop)[0]


def test_a_prompt_longer_than_the_context_loses_its_beginning(backend: CheckpointBackend) -> None:
    long = "x = 1\n" * 50
    room = backend.context_tokens - 4
    kept = backend.tokenizer.encode(long).ids[-room:]
    assert backend.generate([long], 4, []) == [backend._continue([kept], 4, [])[0]]
    with pytest.raises(ValueError, match="no room for a prompt in a context of 24"):
        backend.generate(["x"], 24, [])


def test_a_model_without_a_tokenizer_is_refused_with_the_file_name(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file"):
        CheckpointBackend(folder)


def test_an_untrained_uniform_model_has_eight_bits_a_byte_over_bytes(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.nn.init.zeros_(model.lm_head.weight)
    folder = tmp_path / "uniform"
    model.save_pretrained(folder)
    shutil.copy(tiny_model / "tokenizer.json", folder)
    [found] = CheckpointBackend(folder, device="cpu").rolling(["def add(a, b): return a + b"])
    assert found.nats == pytest.approx(found.tokens * math.log(320), rel=1e-6)


def test_codesieves_own_checkpoints_are_scored_by_its_decoder_as_transformers_scores_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codesieve.files import write_json
    from codesieve.train.config import ModelConfig
    from codesieve.train.model import Decoder
    from codesieve.train.pretrained import save_model

    config = ModelConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, initializer_range=0.3)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    shutil.copy(tiny_model / "tokenizer.json", tokenizer)
    write_json(tokenizer / "tokenizer_config.json", {})
    save_model(Decoder(config, 320, sequence_length=24, seed=3), tokenizer, tmp_path / "model")
    by_transformers = CheckpointBackend(tmp_path / "model", device="cpu").rolling(TEXTS)
    write_json(tmp_path / "model/training.json", {})
    monkeypatch.setattr(CheckpointBackend, "_transformers", None)  # scoring must not need it
    by_decoder = CheckpointBackend(tmp_path / "model", device="cpu").rolling(TEXTS)
    assert [each.nats for each in by_decoder] == pytest.approx([each.nats for each in by_transformers], rel=1e-5)
