import hashlib
import itertools

import numpy as np
import polars as pl
import pytest
from codesieve.train.config import TrainConfig
from codesieve.train.objectives import objective_name, restore
from codesieve.train.rows import IGNORED, Rows
from codesieve.train.sentinels import Sentinels
from codesieve.train.tokens import TokenStore
from hypothesis import given, settings
from hypothesis import strategies as st

SENTINELS = Sentinels(0, 1, 2, 3, 4, 5, tuple(range(6, 106)), {"R": 106, "S": 107, "X": 108})
ARRAYS = ("tokens_BT", "targets_BT", "positions_BT", "begins_BT", "ends_BT", "objectives_BT")
LENGTHS = st.lists(st.integers(1, 40), max_size=10).map(lambda lengths: [*lengths, 20, 20])
MIXTURES = {
    "causal": [{"type": "causal"}],
    "prefix": [{"type": "prefix_lm"}, {"type": "prefix_lm", "mode": "S", "loss": "all"}],
    "span": [{"type": "causal"}, {"type": "span_corruption", "span_tokens": [1, 5], "bidirectional": True}],
    "infill": [{"type": "infill", "order": order, "split": "token"} for order in ("psm", "spm", "spm_separate")],
    "all": [
        {"type": "prefix_lm"},
        {"type": "span_corruption", "span_tokens": [1, 5], "loss": "targets", "mode": "R"},
        {"type": "infill", "split": "token", "loss": "middle"},
    ],
}


def store_of(lengths, streams=None):
    """Document d has the tokens 1000 * (d + 1), 1000 * (d + 1) + 1, …"""
    lengths = np.asarray(lengths)
    documents = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(len(lengths))],
            "stream": streams or ["code"] * len(lengths),
            "offset": np.cumsum(lengths) - lengths,
            "tokens": lengths,
        }
    )
    tokens = [1000 * (number + 1) + token for number, length in enumerate(lengths) for token in range(length)]
    return TokenStore(None, documents, np.array(tokens, dtype=np.uint32), 2**31, "")


def rows_of(store, weights=None, documents=None, seed=0, mixture="causal", **options):
    config = {"sequence_length": 16, "window_tokens": 12, "step_tokens": 16, "tokens": 16 * 200, **options}
    chosen = np.arange(store.documents.height) if documents is None else np.asarray(documents)
    return Rows(store, chosen, TrainConfig(objectives=MIXTURES[mixture], **config), weights or {}, seed, SENTINELS)


def segments_of(batch):
    """(row, first column, one past the last column) of every segment, in order."""
    borders = [[*np.flatnonzero(row == 0), len(row)] for row in batch.positions_BT]
    return [(b, int(i), int(j)) for b, row in enumerate(borders) for i, j in itertools.pairwise(row)]


@settings(deadline=None, max_examples=50)
@given(lengths=LENGTHS, seed=st.integers(0, 20))
def test_every_token_of_a_causal_window_but_its_first_is_a_target_exactly_once(lengths, seed):
    rows = rows_of(store_of(lengths), seed=seed)
    batch = rows.batch(0, 30)
    pairs = list(zip(batch.tokens_BT.ravel().tolist(), batch.targets_BT.ravel().tolist(), strict=True))
    ends = [place for place, (_, target) in enumerate(pairs) if target == IGNORED]
    windows = [pairs[begin + 1 : end + 1] for begin, end in zip([-1, *ends], ends, strict=False)]
    for window in windows:
        tokens = [token for token, _ in window]
        assert tokens[1:] == [target for _, target in window[:-1]]
        document = tokens[0] // 1000 - 1
        whole = [*range(1000 * (document + 1), 1000 * (document + 1) + lengths[document]), 0]
        start = whole.index(tokens[0])
        assert tokens == whole[start : start + 12]
        assert len(tokens) == min(12, len(whole))


@pytest.mark.parametrize("mixture", sorted(MIXTURES))
@settings(deadline=None, max_examples=20)
@given(lengths=LENGTHS, seed=st.integers(0, 20))
def test_every_segment_gives_back_a_piece_of_one_document(mixture, lengths, seed):
    rows = rows_of(store_of(lengths), seed=seed, mixture=mixture)
    batch = rows.batch(0, 12)
    by_name = {objective_name(objective): objective for objective in rows.objectives}
    for b, begin, end in segments_of(batch):
        tokens = batch.tokens_BT[b, begin:end]
        (number,) = set(batch.objectives_BT[b, begin:end].tolist())
        raw = restore(by_name[rows.objective_names[number]], tokens, SENTINELS)
        assert len(set(raw // 1000)) <= 1
        assert (np.diff(raw) == 1).all()


@pytest.mark.parametrize("mixture", sorted(MIXTURES))
@settings(deadline=None, max_examples=20)
@given(lengths=LENGTHS)
def test_targets_are_the_next_tokens_and_attention_stays_in_the_segment(mixture, lengths):
    batch = rows_of(store_of(lengths), mixture=mixture).batch(0, 12)
    for b, begin, end in segments_of(batch):
        targets, following = batch.targets_BT[b, begin : end - 1], batch.tokens_BT[b, begin + 1 : end]
        assert ((targets == following) | (targets == IGNORED)).all()
        assert batch.positions_BT[b, begin:end].tolist() == list(range(end - begin))
        assert set(batch.begins_BT[b, begin:end].tolist()) == {begin}
        ends = batch.ends_BT[b, begin:end]
        causal = np.arange(begin, end) + 1
        assert ((ends == causal) | ((ends == ends[0]) & (causal < ends[0]))).all()
        assert ends[-1] == end


def test_a_prefix_sees_itself_both_ways_and_is_no_target():
    batch = rows_of(store_of([11] * 20), mixture="prefix", window_tokens=16).batch(0, 10)
    found = 0
    for b, begin, end in segments_of(batch):
        prefix = int(batch.ends_BT[b, begin]) - begin
        if prefix > 1 and batch.tokens_BT[b, begin] >= 1000:
            found += 1
            assert (batch.targets_BT[b, begin : begin + prefix - 1] == IGNORED).all()
            assert (batch.targets_BT[b, begin + prefix - 1 : end - 1] != IGNORED).all()
    assert found > 3


def test_what_an_objective_leaves_over_is_padding_without_targets():
    batch = rows_of(store_of([14] * 20), mixture="infill", window_tokens=16).batch(0, 40)
    padded = 0
    for b, begin, end in segments_of(batch):
        ends = np.flatnonzero(batch.tokens_BT[b, begin:end] == 0)
        if len(ends) > 1:
            padded += 1
            assert ends.tolist() == list(range(ends[0], end - begin))
            assert (batch.targets_BT[b, begin + ends[0] : end] == IGNORED).all()
            assert batch.targets_BT[b, begin + ends[0] - 1] == 0  # the first end of text counts
    assert padded


def test_the_end_of_text_token_comes_after_the_last_token_of_each_document():
    batch = rows_of(store_of([3, 4]), sequence_length=9, step_tokens=9).batch(0, 1)
    documents = ([1000, 1001, 1002, 0], [2000, 2001, 2002, 2003, 0])
    assert batch.tokens_BT[0].tolist() in ([*documents[0], *documents[1]], [*documents[1], *documents[0]])


@pytest.mark.parametrize("mixture", sorted(MIXTURES))
@settings(deadline=None, max_examples=20)
@given(lengths=LENGTHS, first=st.integers(0, 20))
def test_a_row_does_not_depend_on_the_rows_before(mixture, lengths, first):
    streams = ["code" if number % 2 else "text" for number in range(len(lengths))]
    sequence = rows_of(store_of(lengths, streams), mixture=mixture).batch(0, first + 2)
    direct = rows_of(store_of(lengths, streams), mixture=mixture).batch(first, 2)
    for name in ARRAYS:
        assert np.array_equal(getattr(direct, name), getattr(sequence, name)[first:])
    assert direct.streams == sequence.streams[first:]


def test_arrays_have_the_types_that_the_loop_expects():
    batch = rows_of(store_of([30] * 5)).batch(0, 3)
    kinds = {name: getattr(batch, name).dtype.name for name in ARRAYS}
    assert list(kinds.values()) == ["int64", "int64", "int32", "int32", "int32", "int8"]
    assert all(getattr(batch, name).shape == (3, 16) for name in ARRAYS)


def test_adding_a_stream_does_not_move_the_rows_of_another():
    lengths, streams = [20, 30, 5, 9, 14, 25], ["code", "code", "code", "text", "text", "code"]
    store = store_of(lengths, streams)
    for mixture in MIXTURES:
        alone = rows_of(store, {"code": 1.0}, mixture=mixture).batch(0, 5).tokens_BT
        mixed = rows_of(store, {"code": 0.5, "text": 0.5}, mixture=mixture).batch(0, 10)
        assert np.array_equal(mixed.tokens_BT[[name == "code" for name in mixed.streams]], alone)


def test_two_arms_see_shared_documents_in_one_order_and_corrupted_alike():
    store = store_of([11] * 40)
    kept = [1, 4, 5, 8, 11, 12, 17, 20, 30, 31]

    def items(rows, count):
        """Document and tokens of the windows that no row end cuts."""
        batch = rows.batch(0, count)
        tokens = [tuple(batch.tokens_BT[b, begin:end].tolist()) for b, begin, end in segments_of(batch)]
        raw = [[token // 1000 - 1 for token in each if token >= 1000] for each in tokens]
        return {of[0]: each for of, each in zip(raw, tokens, strict=True) if len(of) == 11}

    everything = items(rows_of(store, mixture="all", sequence_length=256, step_tokens=256), 3)
    less = items(rows_of(store, documents=kept, mixture="all", sequence_length=96, step_tokens=96), 2)
    shared = [number for number in everything if number in less]
    assert len(shared) > 5
    assert [number for number in less if number in everything] == shared
    assert all(everything[number] == less[number] for number in shared)


def test_objectives_of_all_stages_have_their_names():
    rows = rows_of(store_of([30] * 5), mixture="all")
    assert rows.objective_names == ("causal", "prefix_lm", "span_corruption_R", "infill_psm")
    assert set(rows.batch(0, 40).objectives_BT.ravel().tolist()) == {0, 1, 2, 3}


def test_documents_without_tokens_are_left_out_and_counted():
    rows = rows_of(store_of([25, 0, 17, 0]))
    assert rows.empty_documents == 2
    assert set((rows.batch(0, 20).tokens_BT // 1000).ravel().tolist()) == {0, 1, 3}
    assert rows.report()["documents"] == 2


def test_order_and_repetition_of_the_selection_do_not_matter():
    store = store_of([20, 30, 5, 9])
    one, two = rows_of(store, documents=[0, 1, 3]), rows_of(store, documents=[3, 1, 0, 1])
    assert np.array_equal(one.batch(0, 4).tokens_BT, two.batch(0, 4).tokens_BT)


def test_a_selection_that_is_no_list_of_rows_is_named():
    store = store_of([20, 30])
    with pytest.raises(ValueError, match="expected row numbers, got an array of bool"):
        rows_of(store, documents=np.array([True, False]))
    with pytest.raises(ValueError, match="rows 1 to 2, but the store has 2"):
        rows_of(store, documents=np.array([1, 2]))
    with pytest.raises(ValueError, match="nothing to train on"):
        rows_of(store, documents=np.array([], dtype=np.int64))


def test_what_an_objective_lacks_is_named():
    store, chosen = store_of([20, 30]), np.arange(2)
    config = TrainConfig(sequence_length=16, step_tokens=16, objectives=[{"type": "span_corruption"}])
    with pytest.raises(ValueError, match="no token for separator, end_of_mask, masks"):
        Rows(store, chosen, config, {}, 0, Sentinels(0))
    config = TrainConfig(sequence_length=16, step_tokens=16, objectives="fim")
    with pytest.raises(ValueError, match="split: character needs the tokenizer"):
        Rows(store, chosen, config, {}, 0, SENTINELS)


def test_a_row_outside_the_run_is_refused():
    rows = rows_of(store_of([30] * 5))
    assert rows.rows == 200
    with pytest.raises(IndexError, match="row 200: the run has 200"):
        rows.batch(199, 2)
