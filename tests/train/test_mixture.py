import hashlib

import numpy as np
import pytest
from codesieve.train.hashing import document_hashes
from codesieve.train.mixture import check_weights, integer_shares, place, placed, simulated
from hypothesis import given
from hypothesis import strategies as st

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 10), min_size=1)
HASHES = document_hashes([hashlib.md5(str(number).encode()).hexdigest() for number in range(50)])
SIZES = np.random.default_rng(0).integers(1, 100, 50)


@given(weights=WEIGHTS, rows=st.integers(1, 300))
def test_shares_are_exact_to_two_rows_at_every_row(weights, rows):
    shares = integer_shares(weights)
    counts = placed(rows, shares)
    assert sum(counts.values()) == rows
    for name, weight in weights.items():
        assert abs(counts[name] - rows * weight / sum(weights.values())) < 2


@given(weights=WEIGHTS)
def test_every_stream_gets_its_rows_in_sequence(weights):
    shares = integer_shares(weights)
    counts = dict.fromkeys(weights, 0)
    for row in range(150):
        assert placed(row, shares) == counts
        name, index = place(row, shares)
        assert index == counts[name]
        counts[name] += 1


def test_even_weights_alternate():
    shares = integer_shares({"a": 0.5, "b": 0.5})
    assert [place(row, shares)[0] for row in range(6)] == ["a", "b"] * 3


@given(shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted), seed=st.integers(0, 9))
def test_a_smaller_budget_keeps_part_of_what_a_larger_one_keeps(shares, seed):
    small, large = (simulated(HASHES, SIZES, share, seed) for share in shares)
    assert set(small) <= set(large)
    tokens = SIZES[small].sum()
    assert shares[0] * SIZES.sum() <= tokens < shares[0] * SIZES.sum() + SIZES.max()


def test_the_whole_budget_keeps_everything_and_seeds_keep_different_documents():
    assert simulated(HASHES, SIZES, 1.0, 0).tolist() == list(range(50))
    assert set(simulated(HASHES, SIZES, 0.5, 0)) != set(simulated(HASHES, SIZES, 0.5, 1))


def test_impossible_weights_are_named_with_their_stage():
    known = ["code", "text"]
    check_weights({"code": 1, "text": 0}, ["code"], known, "main")
    with pytest.raises(ValueError, match=r'stage "main": .*unknown stream "txet" \(did you mean "text"\?\)'):
        check_weights({"code": 1, "txet": 1}, known, known, "main")
    with pytest.raises(ValueError, match=r'"text" has weight 0\.5, but the selection has no documents in it'):
        check_weights({"code": 0.5, "text": 0.5}, ["code"], known, "main")
    with pytest.raises(ValueError, match="weight -1"):
        check_weights({"code": -1}, known, known, "main")
    with pytest.raises(ValueError, match="nothing to train on"):
        check_weights({"code": 0}, known, known, "main")
    with pytest.raises(ValueError, match="nothing to train on"):
        check_weights({}, [], known, "main")
