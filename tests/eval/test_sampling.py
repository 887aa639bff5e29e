"""Drawing tokens: the distribution, its cuts, and that a sample depends on nothing but its own counters."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from codesieve.eval.backends import checkpoint
from codesieve.eval.backends.checkpoint import CheckpointBackend
from codesieve.eval.backends.protocol import Generated, Generation, Sampling
from codesieve.eval.backends.sampling import Chooser, nucleus, sample, seed_of
from hypothesis import given
from hypothesis import strategies as st

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5, -3.0]])


def frequencies(sampling: Sampling, draws: int = 20_000) -> list[float]:
    requests = [Generation("", f"item {number}") for number in range(draws)]
    tokens = Chooser(sampling, requests)(LOGITS.expand(draws, -1), range(draws), 3)
    counts = Counter(tokens)
    return [counts[token] / draws for token in range(LOGITS.shape[1])]


def test_tokens_are_drawn_with_their_probability() -> None:
    for temperature in (0.5, 1.0, 2.0):
        expected = torch.softmax(LOGITS[0] / temperature, 0).tolist()
        assert frequencies(Sampling(1, temperature=temperature)) == pytest.approx(expected, abs=0.015)


def test_top_k_and_top_p_keep_what_transformers_keeps() -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    for top_k, top_p in ((None, 0.7), (3, 1.0), (4, 0.8), (2, 0.1), (None, 0.01)):
        scores = TemperatureLogitsWarper(0.8)(torch.zeros(1, 1), LOGITS)
        if top_k is not None:
            scores = TopKLogitsWarper(top_k)(torch.zeros(1, 1), scores)
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(torch.zeros(1, 1), scores)
        expected = torch.softmax(scores[0], 0).tolist()
        found = frequencies(Sampling(1, temperature=0.8, top_p=top_p, top_k=top_k))
        assert found == pytest.approx(expected, abs=0.015)
        assert [value > 0 for value in found] == [value > 0 for value in expected]


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda each: sum(each) > 0.01),
    top_p=st.floats(0.01, 0.99),
    guess=st.integers(1, 40),
)
def test_a_nucleus_is_the_smallest_set_that_reaches_its_share(weights: list[float], top_p: float, guess: int) -> None:
    chances = torch.tensor([weights], dtype=torch.float64)
    kept = nucleus(chances, top_p, guess)[0]
    total = chances.sum().item()
    assert kept.sum().item() >= top_p * total * (1 - 1e-12)
    inside = kept > 0
    smallest = kept[inside].min().item()
    assert (kept.sum().item() - smallest) < top_p * total * (1 + 1e-12)
    assert chances[0][~inside].max().item() <= smallest if bool((~inside).any()) else True


@given(draw=st.floats(0, 1, exclude_max=True), cut=st.integers(1, 5))
def test_a_token_without_a_chance_is_never_drawn(draw: float, cut: int) -> None:
    logits = LOGITS.clone()
    logits[0, cut] = -torch.inf
    [token] = sample(logits, np.array([draw]), Sampling(1, temperature=1.0))
    assert token != cut
    [last] = sample(logits, np.array([np.nextafter(1.0, 0.0)]), Sampling(1, temperature=1.0, top_k=2))
    assert last in logits[0].topk(2).indices.tolist()


def test_draws_depend_on_seed_key_sample_and_position_alone() -> None:
    flat = torch.zeros(4, 50_000)
    requests = [Generation("p", "a", 0), Generation("p", "a", 1), Generation("q", "b", 0), Generation("r", "a", 0)]
    choose = Chooser(Sampling(1, temperature=1.0, seed=5), requests)
    tokens = choose(flat, [0, 1, 2, 3], 0)
    assert len(set(tokens)) == 3
    assert tokens[0] == tokens[3]
    assert choose(flat[:2], [2, 0], 0) == [tokens[2], tokens[0]]
    assert choose(flat, [0, 1, 2, 3], 1) != tokens
    assert Chooser(Sampling(1, temperature=1.0, seed=6), requests)(flat, [0, 1, 2, 3], 0) != tokens
    seeds = {seed_of(Sampling(1, seed=seed), each) for seed in (0, 1) for each in requests}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)


def texts(answers: Sequence[Generated | None]) -> list[str]:
    return [each.text if each else "" for each in answers]


def test_a_sample_is_the_same_whoever_shares_its_batch(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CheckpointBackend(tiny_model, device="cpu")
    requests = [
        Generation(prompt, f"item {number}", index)
        for number, prompt in enumerate(["def add(a", "x = ", "for number in range(", "class Point:\n    def"])
        for index in range(3)
    ]
    sampling = Sampling(8, temperature=0.9, top_p=0.95, top_k=200, seed=3, stop=("e", ")"))
    together = backend.generate(requests, sampling)
    assert len(set(texts(together))) > 6
    assert backend.generate(requests[::-1], sampling)[::-1] == together
    assert [backend.generate([each], sampling)[0] for each in requests] == together
    monkeypatch.setitem(checkpoint.POSITIONS_PER_GENERATION, "cpu", 40)
    assert backend.generate(requests, sampling) == together
    other = Sampling(8, temperature=0.9, top_p=0.95, top_k=200, seed=4, stop=("e", ")"))
    assert texts(backend.generate(requests, other)) != texts(together)
