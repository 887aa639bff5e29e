import math

import pytest
from codesieve.train.config import TrainConfig
from codesieve.train.schedule import learning_rate
from hypothesis import given
from hypothesis import strategies as st

PEAK, TOTAL = 1.0, 1000
BASE = {"learning_rate": PEAK, "final_learning_rate_fraction": 0.1, "warmup_fraction": 0.1}


def config(**fields):
    return TrainConfig(**{**BASE, **fields})


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        ("cosine", lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * (t - 100) / 900)) / 2),
        ("linear", lambda t: 1.0 - 0.9 * (t - 100) / 900),
        ("wsd", lambda t: 1.0 if t <= 800 else 1.0 - 0.9 * (t - 800) / 200),
    ],
)
def test_every_schedule_is_its_closed_form(schedule, closed_form):
    for tokens in range(1, 100):
        assert learning_rate(config(schedule=schedule), tokens, TOTAL) == pytest.approx(tokens / 100)
    for tokens in range(100, TOTAL + 1):
        assert learning_rate(config(schedule=schedule), tokens, TOTAL) == pytest.approx(closed_form(tokens))


@given(
    schedule=st.sampled_from(["cosine", "linear", "wsd"]),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
    tokens=st.integers(1, TOTAL),
)
def test_rates_stay_between_zero_and_the_peak(schedule, warmup, decay, final, tokens):
    made = config(schedule=schedule, warmup_fraction=warmup, decay_fraction=decay, final_learning_rate_fraction=final)
    assert 0 <= learning_rate(made, tokens, TOTAL) <= PEAK + 1e-12


def test_wsd_decays_over_its_own_fraction_even_when_warmup_overlaps():
    overlapping = config(schedule="wsd", warmup_fraction=0.9, decay_fraction=0.5)
    assert learning_rate(overlapping, 900, TOTAL) == PEAK
    assert learning_rate(overlapping, 1000, TOTAL) == pytest.approx(0.1)


def test_without_warmup_and_decay_the_rate_is_the_peak():
    flat = config(schedule="wsd", warmup_fraction=0.0, decay_fraction=0.0)
    assert {learning_rate(flat, tokens, TOTAL) for tokens in (1, 500, 1000)} == {PEAK}
