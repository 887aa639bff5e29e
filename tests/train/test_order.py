import hashlib
import itertools

import numpy as np
import pytest
from codesieve.train.config import CausalObjective, InfillObjective, PrefixObjective, SpanObjective
from codesieve.train.hashing import document_hashes, draw, uniform
from codesieve.train.order import Cursor, StageOrder, StreamOrder
from hypothesis import example, given, settings
from hypothesis import strategies as st

OBJECTIVES = (
    CausalObjective(),
    PrefixObjective(type="prefix_lm"),
    SpanObjective(type="span_corruption", span_tokens=(1, 4)),
    InfillObjective(type="infill", split="token"),
)
CAUSAL, MIXED = (1, 0, 0, 0), (1, 1, 1, 1)
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=20)
MIXTURES = st.tuples(*[st.integers(0, 3)] * 4).filter(any)


def ids_of(count):
    return [hashlib.md5(str(number).encode()).hexdigest() for number in range(count)]


def order_of(rows, lengths, seed=0, window_tokens=16, group=0):
    rows = np.asarray(rows)
    hashes = document_hashes(ids_of(len(lengths)))[rows]
    return StreamOrder(rows, hashes, np.asarray(lengths)[rows], seed, window_tokens, group)


def stage_of(lengths, weights=CAUSAL, row_tokens=8, start=None, window_tokens=16):
    return StageOrder(
        order_of(range(len(lengths)), lengths, 0, window_tokens), start or Cursor(), row_tokens, OBJECTIVES, weights, 50
    )


def tokens_of(pieces):
    """Every raw position as (document, token)."""
    return [(piece.row, token) for piece in pieces for token in range(piece.begin, piece.end)]


def raw_epoch(order, epoch):
    windows = order.windows(epoch)
    return [
        (row, token)
        for row, start, length in zip(windows.rows, windows.starts, windows.lengths, strict=True)
        for token in range(start, start + length)
    ]


@given(lengths=LENGTHS, seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_an_epoch_has_one_window_of_every_document(lengths, seed, epoch):
    windows = order_of(range(len(lengths)), lengths, seed).windows(epoch)
    assert sorted(windows.rows) == list(range(len(lengths)))
    for row, start, length in zip(windows.rows, windows.starts, windows.lengths, strict=True):
        whole = lengths[row] + 1
        assert length == min(whole, 16)
        assert 0 <= start <= whole - length


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, weights=MIXTURES, row_tokens=st.integers(8, 40), window_tokens=st.integers(8, 64))
def test_every_raw_token_of_every_window_comes_exactly_once_an_epoch(lengths, weights, row_tokens, window_tokens):
    stage = stage_of(lengths, weights, row_tokens, window_tokens=window_tokens)
    expected = raw_epoch(stage.order, 0) + raw_epoch(stage.order, 1)
    found = []
    row = 0
    while len(found) < len(expected):
        pieces = stage.pieces(row)
        assert sum(piece.room for piece in pieces) == row_tokens
        found += tokens_of(pieces)
        row += 1
    assert found[: len(expected)] == expected


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, weights=MIXTURES, row=st.integers(0, 30))
def test_a_row_computed_directly_equals_the_row_in_sequence(lengths, weights, row):
    in_sequence = stage_of(lengths, weights)
    expected = [in_sequence.pieces(number) for number in range(row + 1)]
    assert stage_of(lengths, weights).pieces(row) == expected[row]


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, weights=MIXTURES, row_tokens=st.integers(8, 40))
@example(lengths=[16, 3], weights=(0, 0, 0, 1), row_tokens=8)  # two epochs' windows of one document that touch
def test_an_objective_has_room_for_what_it_needs_and_a_window_has_it_once(lengths, weights, row_tokens):
    stage = stage_of(lengths, weights, row_tokens, window_tokens=row_tokens)
    pieces = [piece for row in range(10) for piece in stage.pieces(row)]
    for piece in pieces:
        if piece.objective:
            assert piece.end - piece.begin >= 2
            assert weights[piece.objective] > 0
        else:
            assert piece.end - piece.begin == piece.room
    for one, two in itertools.pairwise(pieces):
        if (two.row, two.key, two.begin) == (one.row, one.key, one.end):
            assert not (one.objective > 1 and two.objective > 1)  # a prefix-LM needs no room: every piece is one


@given(lengths=LENGTHS, row_tokens=st.integers(8, 40))
def test_a_causal_window_that_is_cut_says_that_it_continues(lengths, row_tokens):
    stage = stage_of(lengths, CAUSAL, row_tokens)
    pieces = [piece for row in range(8) for piece in stage.pieces(row)]
    epochs = 8 * row_tokens // stage.order.epoch_tokens + 1
    ends = {(row, start + length) for epoch in range(epochs) for row, start, length in windows_of(stage, epoch)}
    for piece, following in itertools.pairwise(pieces):
        if piece.continues:
            assert (following.row, following.begin) == (piece.row, piece.end)
        else:
            assert (piece.row, piece.end) in ends


def windows_of(stage, epoch):
    windows = stage.order.windows(epoch)
    return list(zip(windows.rows, windows.starts, windows.lengths, strict=True))


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, weights=MIXTURES, rows=st.integers(1, 30))
def test_a_stage_that_goes_on_at_a_cursor_reads_what_the_one_before_left(lengths, weights, rows):
    before = stage_of(lengths, weights)
    after = stage_of(lengths, weights, start=before.cursor(rows))
    read = tokens_of([piece for row in range(rows) for piece in before.pieces(row)])
    read += tokens_of([piece for row in range(rows) for piece in after.pieces(row)])
    count = len(read) // before.order.epoch_tokens + 1
    epochs = [token for epoch in range(count) for token in raw_epoch(before.order, epoch)]
    assert read == epochs[: len(read)]


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, rows=st.integers(1, 30))
def test_a_causal_stage_split_in_two_has_the_same_rows(lengths, rows):
    whole = stage_of(lengths)
    second = stage_of(lengths, start=whole.cursor(rows))
    assert [second.pieces(row) for row in range(10)] == [whole.pieces(rows + row) for row in range(10)]


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, rows=st.integers(0, 30), weights=MIXTURES)
def test_epochs_and_repeats_before_a_cursor_are_those_of_the_tokens_read(lengths, rows, weights):
    stage = stage_of(lengths, weights)
    read = tokens_of([piece for row in range(rows) for piece in stage.pieces(row)])
    assert stage.epochs(rows) == pytest.approx(len(read) / stage.order.epoch_tokens)
    counts = stage.order.repeats(stage.cursor(rows))
    assert counts.max() == np.ceil(len(read) / stage.order.epoch_tokens)
    touched = {row for row, _ in read}
    assert {row for row, count in zip(stage.order.rows, counts, strict=True) if count} == touched


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 60), min_size=2, max_size=20), data=st.data())
def test_removing_documents_keeps_order_and_windows_of_the_rest(lengths, data):
    kept = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)))
    for epoch in (0, 1):
        full, less = order_of(range(len(lengths)), lengths).windows(epoch), order_of(kept, lengths).windows(epoch)
        keep = np.isin(full.rows, kept)
        assert np.array_equal(full.rows[keep], less.rows)
        assert np.array_equal(full.starts[keep], less.starts)


def test_epochs_seeds_and_groups_differ_in_order_and_windows():
    lengths = [1000] * 200
    one = order_of(range(200), lengths).windows(0)
    for other in (
        order_of(range(200), lengths).windows(1),
        order_of(range(200), lengths, seed=1).windows(0),
        order_of(range(200), lengths, group=1).windows(0),
    ):
        assert not np.array_equal(one.rows, other.rows)
        assert not np.array_equal(one.starts[np.argsort(one.rows)], other.starts[np.argsort(other.rows)])


def test_starts_are_spread_evenly_over_the_document():
    starts = order_of(range(4000), [100] * 4000, window_tokens=2).windows(0).starts
    counts = np.bincount(starts, minlength=100)
    assert len(counts) == 100  # 101 tokens with the end of text, windows of 2
    assert counts.min() > 15  # 40 expected, standard deviation 6
    assert counts.max() < 65


def test_objectives_are_drawn_by_weight():
    stage = stage_of([40] * 2000, (2, 0, 1, 1), row_tokens=64, window_tokens=64)
    pieces = [piece for row in range(1000) for piece in stage.pieces(row)]
    windows = len({piece.row for piece in pieces})
    drawn = np.bincount([piece.objective for piece in pieces], minlength=4)[1:] / windows  # one piece of a window
    assert drawn.tolist() == pytest.approx([0, 0.25, 0.25], abs=0.04)


def test_a_window_longer_than_a_row_draws_an_objective_for_every_row_of_it():
    stage = stage_of([6400] * 20, (1, 0, 0, 1), row_tokens=64, window_tokens=6400)
    pieces = [piece for row in range(600) for piece in stage.pieces(row)]
    infilled = sum(piece.room for piece in pieces if piece.objective) / sum(piece.room for piece in pieces)
    assert 0.3 < infilled < 0.45  # half of the parts, of which the largest pieces


def test_windows_too_small_for_an_objective_are_causal():
    stage = stage_of([1, 2, 3, 4, 5], (0, 0, 0, 1), row_tokens=64)
    assert {piece.objective for row in range(3) for piece in stage.pieces(row)} == {0}


def test_an_id_of_any_form_has_a_hash_of_its_own():
    mixed = document_hashes([*ids_of(2), "readme", "a/b.py", "é"])
    assert mixed[:2].tolist() == document_hashes(ids_of(2)).tolist()
    assert len(set(mixed.tolist())) == 5
    assert mixed[2] == document_hashes(["readme"])[0]


@given(key=st.integers(0, 2**64 - 1), number=st.integers(0, 5000))
def test_a_single_draw_is_that_of_an_array(key, number):
    assert draw(key, number) == uniform(np.array([key], dtype=np.uint64), np.uint64(number))[0]
