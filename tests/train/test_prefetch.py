import threading
import time

import pytest
from codesieve.train.prefetch import Prefetcher, row_spans
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_the_ranks_share_the_rows_of_every_step(first, steps, rows, world):
    """Together they have each row of the steps that are left once, whatever their number."""
    parts = [list(row_spans(first, first + steps, rows * world, rank, world)) for rank in range(world)]
    seen = sorted(row for part in parts for begin, count in part for row in range(begin, begin + count))
    assert seen == list(range(first * rows * world, (first + steps) * rows * world))


def test_rows_that_ranks_cannot_share_are_refused():
    with pytest.raises(ValueError, match="6 rows a step cannot be shared equally by 4"):
        list(row_spans(0, 1, 6, 0, 4))


def test_prefetched_batches_come_in_order_and_no_more_than_two_ahead():
    made = []

    def make(first, count):
        made.append(first)
        return first, count

    with Prefetcher(make, row_spans(0, 6, 4)) as batches:
        for step, batch in enumerate(batches):
            assert batch == (4 * step, 4)
            assert len(made) <= step + 3
    assert made == [0, 4, 8, 12, 16, 20]


def test_waiting_is_measured_and_batches_that_are_ready_cost_none():
    with Prefetcher(lambda first, count: time.sleep(0.05), row_spans(0, 2, 1), ahead=1) as batches:
        next(batches)
        waited = batches.wait_seconds
        time.sleep(0.15)
        next(batches)
        assert waited >= 0.04
        assert batches.wait_seconds - waited < 0.03


def test_an_exception_is_raised_where_its_batch_would_have_come():
    def make(first, count):
        if first == 2:
            raise OSError("the store is gone")
        return first

    with Prefetcher(make, row_spans(0, 9, 1)) as batches:
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(OSError, match="the store is gone"):
            next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_closing_early_ends_the_thread_and_makes_nothing_more():
    made = []
    with Prefetcher(lambda first, count: made.append(first), row_spans(0, 1000, 1)) as batches:
        next(batches)
    assert len(made) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
