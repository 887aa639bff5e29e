import json
import math

import numpy as np
import pytest
from codesieve.train.spikes import MOST_IN_A_ROW, SpikeGuard
from hypothesis import given, settings
from hypothesis import strategies as st


def calm(sigma=6.0, count=128, window=128):
    guard = SpikeGuard(sigma, window)
    random = np.random.default_rng(0)
    values = [(float(loss), float(norm)) for loss, norm in random.normal((3.0, 1.0), (0.1, 0.05), (count, 2))]
    for loss, norm in values:
        guard.add(loss, norm)
    return guard, values


def test_six_deviations_above_the_mean_are_a_spike_in_loss_or_norm():
    guard, values = calm()
    losses, norms = (np.array(each) for each in zip(*values, strict=True))
    limit, norm_limit = losses.mean() + 6 * losses.std(), norms.mean() + 6 * norms.std()
    assert not guard.is_spike(limit - 1e-6, norm_limit - 1e-6)
    assert guard.is_spike(limit + 1e-6, 1.0)
    assert guard.is_spike(3.0, norm_limit + 1e-6)
    assert not guard.is_spike(-100.0, 0.0)


def test_nothing_finite_is_a_spike_before_the_window_is_full():
    guard, _ = calm(count=127)
    assert not guard.is_spike(1e9, 1e9)
    guard.add(3.0, 1.0)
    assert guard.is_spike(1e9, 1e9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_skipped_always(value):
    guard = SpikeGuard(None)
    assert all(guard.is_spike(value, 1.0) and guard.is_spike(1.0, value) for _ in range(3 * MOST_IN_A_ROW))
    assert not guard.is_spike(1e9, 1e9)


def test_ten_steps_in_a_row_that_are_not_finite_are_hopeless_and_one_that_is_ends_the_row():
    guard = SpikeGuard(6.0)
    for _ in range(5):
        assert all(guard.is_spike(math.nan, 1.0) and not guard.is_hopeless for _ in range(MOST_IN_A_ROW - 1))
        assert not guard.is_spike(3.0, 1.0)
    assert all(guard.is_spike(1.0, math.inf) for _ in range(MOST_IN_A_ROW - 1))
    resumed = SpikeGuard(6.0)
    resumed.restore(json.loads(json.dumps(guard.state())))
    resumed.is_spike(math.nan, 1.0)
    assert resumed.is_hopeless


def test_after_ten_in_a_row_a_new_level_is_accepted():
    guard, _ = calm()
    found = []
    for _ in range(300):
        found.append(guard.is_spike(5.0, 1.0))
        if not found[-1]:
            guard.add(5.0, 1.0)
    assert found == [True] * 10 + [False] * 290


def test_an_accepted_step_ends_the_row():
    guard, _ = calm()
    for _ in range(5):
        assert all(guard.is_spike(5.0, 1.0) for _ in range(9))
        guard.add(3.0, 1.0)


def test_only_the_last_window_counts():
    guard, _ = calm(window=16, count=40)
    for _ in range(8):
        guard.add(8.0, 1.0)
        guard.add(9.0, 1.0)
    assert not guard.is_spike(10.0, 1.0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=40), st.integers(0, 40))
def test_a_restored_guard_decides_as_the_uninterrupted_one(steps, cut):
    whole, first, second = (SpikeGuard(2.0, window=4) for _ in range(3))

    def decide(guard, part):
        found = []
        for loss, norm in part:
            found.append(guard.is_spike(loss, norm))
            if not found[-1]:
                guard.add(loss, norm)
        return found

    expected = decide(whole, steps)
    before = decide(first, steps[:cut])
    second.restore(json.loads(json.dumps(first.state())))
    assert before + decide(second, steps[cut:]) == expected
    assert second.state() == whole.state()
