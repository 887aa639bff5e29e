import hashlib

import numpy as np
import polars as pl
import pytest
from codesieve.train.config import TrainConfig
from codesieve.train.rows import Rows
from codesieve.train.sentinels import Sentinels
from codesieve.train.tokens import TokenStore
from hypothesis import given, settings
from hypothesis import strategies as st

SENTINELS = Sentinels(0, 1, 2, 3)
INFILL = [{"type": "causal"}, {"type": "infill", "split": "token"}]
COUNT = 40


def store_of(lengths, streams=None, score=0.5):
    """Document d has the tokens 1000 * (d + 1), 1000 * (d + 1) + 1, …"""
    lengths = np.asarray(lengths)
    documents = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(len(lengths))],
            "stream": streams or ["code"] * len(lengths),
            "score": score,
            "offset": np.cumsum(lengths) - lengths,
            "tokens": lengths,
        },
        strict=False,
    )
    tokens = [1000 * (number + 1) + token for number, length in enumerate(lengths) for token in range(length)]
    return TokenStore(None, documents, np.array(tokens, dtype=np.uint32), 2**31, "")


STORE = store_of(
    np.random.default_rng(0).integers(5, 40, COUNT),
    ["code" if number % 4 else "text" for number in range(COUNT)],
    [number / COUNT if number % 5 else None for number in range(COUNT)],
)


def rows_of(stages, store=STORE, weights=None, seed=0, **options):
    config = {"sequence_length": 16, "window_tokens": 24, "step_tokens": 32, **options}
    stages = [{"name": f"s{number}", **stage} for number, stage in enumerate(stages)]
    config = TrainConfig(stages=stages, **config)
    return Rows(store, np.arange(store.documents.height), config, weights or {}, seed, SENTINELS)


def raw(rows, first, count):
    """Raw tokens of some rows, as counts by token."""
    tokens, counts = np.unique(rows.batch(first, count).tokens_BT, return_counts=True)
    return {token: number for token, number in zip(tokens.tolist(), counts.tolist(), strict=True) if token >= 1000}


@settings(deadline=None, max_examples=30)
@given(steps=st.lists(st.integers(1, 12), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_causal_stages_with_the_same_weights_are_one_stage(steps, seed):
    weights = {"code": 1.0}
    parts = rows_of([{"tokens": 32 * count} for count in steps], weights=weights, seed=seed)
    whole = rows_of([{"tokens": 32 * sum(steps)}], weights=weights, seed=seed)
    one, other = parts.batch(0, parts.rows), whole.batch(0, whole.rows)
    for name in ("tokens_BT", "targets_BT", "positions_BT", "begins_BT", "ends_BT"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert [parts.stage_of(row) for row in (0, parts.rows - 1)] == [0, len(steps) - 1]


def test_a_stream_goes_on_where_its_last_stage_stopped_whatever_the_objectives():
    store = store_of([20] * 50)
    stages = [{"tokens": 160}, {"tokens": 160, "objectives": INFILL}, {"tokens": 160}]
    rows = rows_of(stages, store=store)
    counts = raw(rows, 0, rows.rows)
    assert set(counts.values()) == {1}  # less than one epoch: no raw token comes twice over the joins


@settings(deadline=None, max_examples=20)
@given(steps=st.lists(st.integers(1, 8), min_size=2, max_size=4))
def test_rows_do_not_depend_on_how_batches_are_cut_over_a_join(steps):
    stages = [
        {"tokens": 32 * count, "objectives": INFILL, "weights": {"code": 1 + number, "text": 1}}
        for number, count in enumerate(steps)
    ]
    whole = rows_of(stages).batch(0, 2 * sum(steps))
    direct = rows_of(stages)
    for row in reversed(range(direct.rows)):
        assert np.array_equal(direct.batch(row, 1).tokens_BT[0], whole.tokens_BT[row])


def test_every_stage_has_its_weights():
    rows = rows_of([{"tokens": 3200, "weights": {"code": 0.75, "text": 0.25}}, {"tokens": 320, "weights": {"text": 1}}])
    assert rows.stream_names == ("code", "text")
    assert rows.batch(0, 200).streams.count("code") == 150
    assert set(rows.batch(200, 20).streams) == {"text"}


def test_without_weights_every_stream_counts_as_much_as_it_has():
    rows = rows_of([{"tokens": 640}], store=store_of([11] * 4, ["code", "code", "code", "text"]))
    assert rows.report()["tokens_per_stream"] == {"code": 480, "text": 160}


def test_a_predicate_chooses_the_documents_of_a_stage_and_null_is_false():
    rows = rows_of([{"tokens": 320}, {"tokens": 640, "where": "score >= 0.5"}])
    chosen = {token // 1000 - 1 for token in raw(rows, 20, 40)}
    assert chosen == {number for number in range(20, COUNT) if number % 5}


def test_another_predicate_has_windows_of_its_own():
    store = store_of([2000] * 6)
    rows = rows_of([{"tokens": 96}, {"tokens": 96, "where": "score > 0"}], store=store)
    assert not set(raw(rows, 0, 6)) & set(raw(rows, 6, 6))


def test_a_predicate_that_names_no_column_is_refused_with_its_stage():
    with pytest.raises(ValueError, match=r'stage "s1".*unknown column "scores" \(did you mean "score"\?\)'):
        rows_of([{"tokens": 320}, {"tokens": 320, "where": "scores > 0"}])


def test_the_report_counts_tokens_epochs_and_repeats():
    store = store_of([15] * 20, ["code"] * 15 + ["text"] * 5, [1.0] * 5 + [0.0] * 15)
    stages = [
        {"name": "main", "tokens": 640, "weights": {"code": 0.5, "text": 0.5}},
        {"name": "anneal", "tokens": 160, "weights": {"code": 1}, "where": "score = 1"},
    ]
    rows = rows_of(stages, store=store)
    report = rows.report()
    assert [stage["name"] for stage in report["stages"]] == ["main", "anneal"]
    assert [stage["tokens"] for stage in report["stages"]] == [640, 160]
    assert report["stages"][0]["shares"] == {"code": 0.5, "text": 0.5}
    assert report["stages"][0]["epochs_per_stream"] == {"code": 320 / 240, "text": 320 / 80}
    assert report["stages"][1]["epochs_per_stream"] == {"code": 160 / 80}
    assert report["tokens_per_stream"] == {"code": 480, "text": 320}
    assert report["epochs_per_stream"] == pytest.approx({"code": 480 / 240, "text": 4})
    assert (report["documents"], report["unique_documents"], report["empty_documents"]) == (20, 20, 0)
    counts = raw(rows, 0, rows.rows)
    assert report["most_repeated"] == max(counts.values())
    assert max(counts.values()) == 4


def test_documents_of_several_predicates_are_counted_over_all_of_them():
    store = store_of([15] * 20, score=[1.0] * 10 + [0.0] * 10)
    stages = [{"tokens": 320}, {"tokens": 320, "where": "score = 1"}]
    assert rows_of(stages, store=store).report()["most_repeated"] == 3
    rows_of(stages, store=store, max_epochs=3)
    with pytest.raises(ValueError, match=r'stage "s1".*comes 3 times in the run so far: more than max_epochs 2'):
        rows_of(stages, store=store, max_epochs=2)


def test_more_epochs_than_allowed_are_refused_with_the_numbers():
    store = store_of([15] * 20, ["code"] * 15 + ["text"] * 5)
    stages = [{"name": "main", "tokens": 640, "weights": {"code": 0.5, "text": 0.5}}]
    rows_of(stages, store=store, max_epochs=4)
    with pytest.raises(ValueError, match=r'"main": source "text" is at 4.00 epochs .* max_epochs 3.5.* so 280 fit'):
        rows_of(stages, store=store, max_epochs=3.5)


def test_a_simulated_run_repeats_as_the_long_one():
    store = store_of([15] * 200, ["code"] * 100 + ["text"] * 100)
    rows = rows_of([{"tokens": 640}], store=store, simulate_tokens=6400)
    report = rows.report()
    assert report["documents"] == 20
    assert report["epochs_per_stream"] == {"code": 2, "text": 2}
    assert report["most_repeated"] == 2
    assert set(raw(rows, 0, 40)) < set(raw(rows_of([{"tokens": 1280}], store=store, simulate_tokens=6400), 0, 80))


def test_fewer_tokens_than_one_step_are_refused():
    with pytest.raises(
        ValueError, match=r'stage "s0": its 1 documents have 6 tokens an epoch, fewer than one step of 32'
    ):
        rows_of([{"tokens": 320}], store=store_of([5]))


def test_a_weight_that_no_document_can_meet_names_the_stage():
    with pytest.raises(ValueError, match=r'stage "s1": weights: stream "text" has weight 1, but the selection has no'):
        rows_of([{"tokens": 320}, {"tokens": 320, "where": "stream = 'code'", "weights": {"text": 1}}])
