import hashlib

import numpy as np
import polars as pl
import pytest
from codesieve.train.rows import IGNORED, Rows
from codesieve.train.tokens import SCHEMA, TokenStore
from hypothesis import given, settings
from hypothesis import strategies as st


def store_of(lengths, streams=None):
    """Document d has the tokens 1000 * (d + 1), 1000 * (d + 1) + 1, …"""
    lengths = np.asarray(lengths)
    documents = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(len(lengths))],
            "stream": streams or ["code"] * len(lengths),
            "language": ["python"] * len(lengths),
            "offset": np.cumsum(lengths) - lengths,
            "tokens": lengths,
            "bytes": lengths,
        },
        schema=SCHEMA,
    )
    tokens = [1000 * (number + 1) + token for number, length in enumerate(lengths) for token in range(length)]
    return TokenStore(None, documents, np.array(tokens, dtype=np.uint32), 2**31, "")


def rows_of(store, weights=None, documents=None, seed=0, sequence_length=16, window_tokens=12):
    chosen = np.arange(store.documents.height) if documents is None else documents
    return Rows(store, np.asarray(chosen), weights or {}, seed, sequence_length, window_tokens)


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 20))
def test_every_token_of_a_window_but_its_first_is_a_target_exactly_once(lengths, seed):
    rows = rows_of(store_of(lengths), seed=seed)
    order = rows.streams["code"]
    count = 2 * order.epoch_tokens // 16 + 1
    batch = rows.batch(0, count)
    pairs = list(zip(batch.tokens_BT.ravel(), batch.targets_BT.ravel(), strict=True))
    windows = [
        (row, start, start + length)
        for epoch in range(count * 16 // order.epoch_tokens + 1)
        for row, start, length in zip(
            order.windows(epoch).rows, order.windows(epoch).starts, order.windows(epoch).lengths, strict=True
        )
    ]
    ids = [
        [1000 * (row + 1) + token if token < lengths[row] else 0 for token in range(begin, end)]
        for row, begin, end in windows
    ]
    expected = [pair for window in ids for pair in zip(window, [*window[1:], IGNORED], strict=True)]
    assert pairs == expected[: len(pairs)]


@settings(deadline=None)
@given(lengths=LENGTHS)
def test_segments_hold_one_document_and_restart_positions(lengths):
    batch = rows_of(store_of(lengths)).batch(0, 6)
    for tokens, segments, positions, targets in zip(
        batch.tokens_BT, batch.segments_BT, batch.positions_BT, batch.targets_BT, strict=True
    ):
        assert segments[0] == 0
        assert set(np.diff(segments)) <= {0, 1}
        for segment in np.unique(segments):
            inside = np.flatnonzero(segments == segment)
            assert positions[inside].tolist() == list(range(len(inside)))
            assert targets[inside[:-1]].tolist() == tokens[inside[1:]].tolist()
            assert len({token // 1000 for token in tokens[inside] if token}) <= 1


def test_the_end_of_text_token_comes_after_the_last_token_of_each_document():
    batch = rows_of(store_of([3, 4]), sequence_length=9).batch(0, 1)
    documents = ([1000, 1001, 1002, 0], [2000, 2001, 2002, 2003, 0])
    assert batch.tokens_BT[0].tolist() in ([*documents[0], *documents[1]], [*documents[1], *documents[0]])


@settings(deadline=None)
@given(lengths=LENGTHS, first=st.integers(0, 50))
def test_a_row_does_not_depend_on_the_rows_before(lengths, first):
    streams = ["code" if number % 2 else "text" for number in range(len(lengths))]
    sequence = rows_of(store_of(lengths, streams)).batch(0, first + 2)
    direct = rows_of(store_of(lengths, streams)).batch(first, 2)
    for name in ("tokens_BT", "targets_BT", "segments_BT", "positions_BT"):
        assert np.array_equal(getattr(direct, name), getattr(sequence, name)[first:])
    assert direct.streams == sequence.streams[first:]


def test_adding_a_stream_does_not_move_the_rows_of_another():
    lengths, streams = [20, 30, 5, 9, 14, 25], ["code", "code", "code", "text", "text", "code"]
    store = store_of(lengths, streams)
    alone = rows_of(store, {"code": 1.0}).batch(0, 5).tokens_BT
    mixed = rows_of(store, {"code": 0.5, "text": 0.5}).batch(0, 10)
    assert np.array_equal(mixed.tokens_BT[[name == "code" for name in mixed.streams]], alone)


def test_two_arms_share_the_windows_of_shared_documents():
    store = store_of([30] * 10)
    everything, less = rows_of(store), rows_of(store, documents=[1, 4, 5, 8])
    first = [piece.row for piece in everything.streams["code"].pieces(0, 120) if piece.row in {1, 4, 5, 8}]
    assert [piece.row for piece in less.streams["code"].pieces(0, 48)] == first


def test_without_weights_every_stream_counts_as_much_as_it_has():
    rows = rows_of(store_of([11, 11, 11, 11], ["code", "code", "code", "text"]))
    assert rows.tokens_seen(40) == {"code": 30 * 16, "text": 10 * 16}


def test_documents_without_tokens_are_left_out_and_counted():
    rows = rows_of(store_of([5, 0, 7, 0]))
    assert rows.empty_documents == 2
    assert rows.streams["code"].rows.tolist() == [0, 2]


def test_order_and_repetition_of_the_selection_do_not_matter():
    store = store_of([20, 30, 5, 9])
    one, two = rows_of(store, documents=[0, 1, 3]), rows_of(store, documents=[3, 1, 0, 1])
    assert np.array_equal(one.batch(0, 4).tokens_BT, two.batch(0, 4).tokens_BT)


def test_impossible_weights_are_named():
    store = store_of([20, 30], ["code", "text"])
    with pytest.raises(ValueError, match=r'unknown stream "txet" \(did you mean "text"\?\)'):
        rows_of(store, {"code": 1, "txet": 1})
    with pytest.raises(ValueError, match=r'stream "text" has weight 0\.5, but the selection has no documents in it'):
        rows_of(store, {"code": 0.5, "text": 0.5}, documents=[0])
    with pytest.raises(ValueError, match="weight -1"):
        rows_of(store, {"code": -1})
    with pytest.raises(ValueError, match="nothing to train on"):
        rows_of(store, {"code": 0})
    with pytest.raises(ValueError, match="nothing to train on"):
        rows_of(store, documents=np.array([], dtype=np.int64))


def test_a_selection_that_is_no_list_of_rows_is_named():
    store = store_of([20, 30])
    with pytest.raises(ValueError, match="expected row numbers, got an array of bool"):
        rows_of(store, documents=np.array([True, False]))
    with pytest.raises(ValueError, match="rows 1 to 2, but the store has 2"):
        rows_of(store, documents=np.array([1, 2]))
