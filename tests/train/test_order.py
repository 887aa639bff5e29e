import hashlib
import itertools

import numpy as np
import pytest
from codesieve.train.order import StreamOrder, document_hashes, epoch_windows, integer_shares, place, placed
from hypothesis import given, settings
from hypothesis import strategies as st

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 10), min_size=1)


def ids_of(count):
    return [hashlib.md5(str(number).encode()).hexdigest() for number in range(count)]


def order_of(rows, lengths, seed=0, window_tokens=16):
    rows = np.asarray(rows)
    return StreamOrder(
        rows, document_hashes(ids_of(len(lengths)))[rows], np.asarray(lengths)[rows], seed, window_tokens
    )


def tokens_of(pieces):
    """Every position as (document, token)."""
    return [(piece.row, token) for piece in pieces for token in range(piece.begin, piece.end)]


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=20)


@given(lengths=LENGTHS, seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_an_epoch_has_one_window_of_every_document(lengths, seed, epoch):
    windows = order_of(range(len(lengths)), lengths, seed).windows(epoch)
    assert sorted(windows.rows) == list(range(len(lengths)))
    for row, start, length in zip(windows.rows, windows.starts, windows.lengths, strict=True):
        whole = lengths[row] + 1
        assert length == min(whole, 16)
        assert 0 <= start <= whole - length


@given(lengths=LENGTHS, begin=st.integers(0, 500), size=st.integers(1, 100))
def test_any_part_computed_directly_equals_the_part_in_sequence(lengths, begin, size):
    everything = tokens_of(order_of(range(len(lengths)), lengths).pieces(0, begin + size))
    assert tokens_of(order_of(range(len(lengths)), lengths).pieces(begin, begin + size)) == everything[begin:]


@given(lengths=LENGTHS)
def test_epochs_have_equal_length_and_lose_no_token(lengths):
    order = order_of(range(len(lengths)), lengths)
    for epoch in range(3):
        pieces = order.pieces(epoch * order.epoch_tokens, (epoch + 1) * order.epoch_tokens)
        windows = order.windows(epoch)
        expected = [
            (row, token)
            for row, start, length in zip(windows.rows, windows.starts, windows.lengths, strict=True)
            for token in range(start, start + length)
        ]
        assert tokens_of(pieces) == expected


@given(lengths=LENGTHS, cuts=st.lists(st.integers(1, 400), max_size=6))
def test_a_window_that_is_cut_says_that_it_continues(lengths, cuts):
    order = order_of(range(len(lengths)), lengths)
    borders = [0, *sorted(set(cuts))]
    pieces = [piece for begin, end in itertools.pairwise(borders) for piece in order.pieces(begin, end)]
    for piece, following in itertools.pairwise(pieces):
        if piece.continues:
            assert (following.row, following.begin) == (piece.row, piece.end)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=20), data=st.data())
def test_removing_documents_keeps_order_and_windows_of_the_rest(lengths, data):
    kept = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)))
    for epoch in (0, 1):
        full, less = order_of(range(len(lengths)), lengths).windows(epoch), order_of(kept, lengths).windows(epoch)
        keep = np.isin(full.rows, kept)
        assert np.array_equal(full.rows[keep], less.rows)
        assert np.array_equal(full.starts[keep], less.starts)


def test_epochs_and_seeds_differ_in_order_and_windows():
    rows, hashes, lengths = np.arange(200), document_hashes(ids_of(200)), np.full(200, 1000)
    one, two, three = (epoch_windows(rows, hashes, lengths, *key, 16) for key in ((0, 0), (0, 1), (1, 0)))
    assert not np.array_equal(one.rows, two.rows)
    assert not np.array_equal(one.rows, three.rows)
    assert not np.array_equal(one.starts[np.argsort(one.rows)], two.starts[np.argsort(two.rows)])


def test_starts_are_spread_evenly_over_the_document():
    hashes = document_hashes(ids_of(4000))
    starts = epoch_windows(np.arange(4000), hashes, np.full(4000, 100), 0, 0, 2).starts
    counts = np.bincount(starts, minlength=100)
    assert len(counts) == 100  # 101 tokens with the end of text, windows of 2
    assert counts.min() > 15  # 40 expected, standard deviation 6
    assert counts.max() < 65


def test_documents_in_counts_the_documents_that_a_prefix_touches():
    order = order_of(range(4), [9, 9, 9, 9])
    assert [order.documents_in(tokens) for tokens in (0, 1, 10, 11, 39, 40, 400)] == [0, 1, 1, 2, 4, 4, 4]


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


def test_an_id_that_is_no_hash_is_named():
    with pytest.raises(ValueError, match="'readme': expected 32 hexadecimal digits"):
        document_hashes([*ids_of(2), "readme"])
