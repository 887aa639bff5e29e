import math

import numpy as np
import polars as pl
import pytest
import torch
from codesieve.train import validation
from codesieve.train.config import ModelConfig
from codesieve.train.model import Decoder
from codesieve.train.rows import IGNORED
from codesieve.train.tokenizer import encode, train_tokenizer
from codesieve.train.validation import Validation

CPU = torch.device("cpu")
TEXTS = {
    "a": ("code", "def add(a, b):\n    return a + b\n" * 3),
    "b": ("text", "Größe und Maß: 5 € für drei Äpfel."),
    "c": ("code", "for i in range(10):\n    print(i)\n"),
    "d": ("text", ""),
    "e": ("text", "x"),
}
DOCUMENTS = pl.DataFrame(
    {"id": list(TEXTS), "stream": [s for s, _ in TEXTS.values()], "text": [t for _, t in TEXTS.values()]}
)
VOCABULARY = 400


@pytest.fixture(scope="module")
def tokenizer():
    text = "".join(f"def name{n * 7919}(value{n}):\n    return value{n} + {n}\n" * 3 for n in range(40))
    letters = "".join(f"{a}{b}{c} " * 2 for a in "abcdef" for b in "ghijkl" for c in "mnopqr")
    return train_tokenizer([text, letters], VOCABULARY)


@pytest.fixture(scope="module")
def model():
    shape = ModelConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, initializer_range=0.3)
    return Decoder(shape, VOCABULARY, 16, seed=1)


class Uniform(torch.nn.Module):
    def loss(self, tokens_BT, targets_BT, positions_BT, mask, valid_targets):
        losses_BT = torch.where(targets_BT == IGNORED, 0.0, math.log(VOCABULARY))
        return losses_BT.sum() / valid_targets, losses_BT


def test_a_uniform_model_needs_the_same_bits_for_every_token(tokenizer):
    made = Validation(DOCUMENTS, tokenizer, 16, 0, most_bytes=100_000)
    found = made.bits_per_byte(Uniform(), CPU)
    for stream in ("code", "text"):
        texts = [text for of, text in TEXTS.values() if of == stream]
        tokens = sum(len(ids) for ids in encode(tokenizer, texts))
        size = sum(len(text.encode()) for text in texts)
        assert made.size_bytes[stream] == size
        assert found[stream] == pytest.approx(tokens * math.log2(VOCABULARY) / size)
    size = sum(made.size_bytes.values())
    assert found["all"] == pytest.approx(sum(found[name] * made.size_bytes[name] for name in ("code", "text")) / size)
    assert made.tokens == sum(len(ids) for ids in encode(tokenizer, [text for _, text in TEXTS.values()]))


def test_rows_that_hold_everything_score_each_document_as_if_alone(tokenizer, model):
    found = Validation(DOCUMENTS, tokenizer, 512, 0, most_bytes=100_000).bits_per_byte(model, CPU)
    for stream in ("code", "text"):
        nats, size = 0.0, 0
        for of, text in TEXTS.values():
            (ids,) = encode(tokenizer, [text])
            if of == stream and len(ids):
                inputs = torch.tensor([[0, *ids[:-1].tolist()]])
                logits = model(inputs)[0].detach().log_softmax(-1)
                nats -= float(logits[torch.arange(len(ids)), torch.tensor(ids.astype(np.int64))].sum())
                size += len(text.encode())
        assert found[stream] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [8, 40, 10_000])
def test_the_size_of_a_pass_changes_nothing(tokenizer, model, monkeypatch, batch_tokens):
    expected = Validation(DOCUMENTS, tokenizer, 16, 0, most_bytes=100_000).bits_per_byte(model, CPU)
    monkeypatch.setattr(validation, "BATCH_TOKENS", batch_tokens)
    assert Validation(DOCUMENTS, tokenizer, 16, 0, most_bytes=100_000).bits_per_byte(model, CPU) == pytest.approx(
        expected, rel=1e-5
    )


def test_the_order_of_the_documents_changes_nothing(tokenizer, model):
    first, second = (
        Validation(each, tokenizer, 16, 0, most_bytes=100).bits_per_byte(model, CPU)
        for each in (DOCUMENTS, DOCUMENTS.reverse())
    )
    assert first == second


def test_streams_share_the_bytes_and_no_document_has_most_of_them(tokenizer):
    many = pl.DataFrame({"id": [f"{n}" for n in range(40)], "text": ["é" * 300] * 40, "stream": ["a"] * 39 + ["b"]})
    made = Validation(many, tokenizer, 16, 0, most_bytes=3202)
    # 1,601 bytes a stream; a document gives at most 101, of which half a character is none.
    assert made.size_bytes == {"a": 1600, "b": 100}


def test_scoring_leaves_model_and_random_numbers_as_they_were(tokenizer, model):
    made = Validation(DOCUMENTS, tokenizer, 16, 0, most_bytes=100_000)
    model.train()
    state = torch.get_rng_state()
    assert made.bits_per_byte(model, CPU) == made.bits_per_byte(model, CPU)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (DOCUMENTS.drop("stream"), "column 'stream' is missing"),
        (DOCUMENTS.with_columns(text=pl.lit("")), "no document has text; 5 held-out documents were given"),
        (DOCUMENTS.clear(), "no document has text; 0 held-out"),
        (DOCUMENTS.with_columns(stream=pl.lit("all")), "a stream is called `all`"),
    ],
)
def test_documents_that_give_no_number_are_refused(documents, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        Validation(documents, tokenizer, 16, 0, most_bytes=100_000)
