"""Win rates from made-up judges: fair ones, and ones with the known bad habits."""

import numpy as np
import polars as pl
import pytest
from codesieve.eval.winrate import length_controlled, win_rate

Verdict = str | None


def table(pairs: list[tuple[Verdict, Verdict]], lengths: list[tuple[int, int]] | None = None) -> pl.DataFrame:
    """Verdicts in both orders; `first` in ab and `second` in ba are for model a."""
    lengths = lengths or [(100, 100)] * len(pairs)
    rows = [
        {"item": f"p{number:03d}", "order": order, "choice": choice, "length_a": sizes[0], "length_b": sizes[1]}
        for number, (both, sizes) in enumerate(zip(pairs, lengths, strict=True))
        for order, choice in zip(("ab", "ba"), both, strict=True)
    ]
    return pl.DataFrame(rows, schema_overrides={"choice": pl.String})


WIN: tuple[Verdict, Verdict] = ("first", "second")
LOSS: tuple[Verdict, Verdict] = ("second", "first")


def test_wins_count_one_and_disagreement_is_a_tie() -> None:
    found = win_rate(table([WIN] * 6 + [LOSS] * 2 + [("first", "first"), ("tie", "second")]))
    assert (found["wins"], found["losses"], found["ties"]) == (6, 2, 2)
    assert found["win_rate"] == pytest.approx(0.7)
    assert found["low"] < 0.7 < found["high"]
    assert found["tie_rate"] == pytest.approx(0.2)


def test_a_judge_that_likes_the_first_answer_prefers_nobody() -> None:
    found = win_rate(table([("first", "first")] * 30))
    assert found["win_rate"] == 0.5
    assert found["first_position_rate"] == 1.0
    assert found["low"] < 0.5 < found["high"]
    assert found["p"] == 1.0


def test_all_wins_are_not_certainty() -> None:
    found = win_rate(table([WIN] * 20))
    assert found["win_rate"] == found["high"] == 1.0
    assert 0.8 < found["low"] < 0.95


def test_unparsable_verdicts_are_neither_and_too_many_void_the_run() -> None:
    few = win_rate(table([WIN] * 19 + [LOSS] * 10 + [(None, "first")]))
    assert (few["unparsable"], few["is_void"], few["items"]) == (1, False, 30)
    assert few["win_rate"] == pytest.approx(19 / 29)
    many = win_rate(table([WIN] * 20 + [(None, None)] * 2))
    assert many["is_void"] and many["win_rate"] is None and many["length_controlled"] is None
    assert many["unparsable_share"] == pytest.approx(4 / 44)


def test_a_judge_of_length_is_seen_through() -> None:
    random = np.random.default_rng(0)
    pairs, lengths = [], []
    for _ in range(400):
        a, b = random.normal(130, 40), random.normal(100, 40)
        pairs.append(WIN if a + random.normal(0, 30) > b else LOSS)
        lengths.append((int(max(a, 1)), int(max(b, 1))))
    found = win_rate(table(pairs, lengths))
    assert found["win_rate"] > 0.6
    assert found["longer_wins_rate"] > 0.75
    assert found["mean_length_of_winners"] > found["mean_length_of_losers"] + 20
    controlled = found["length_controlled"]
    assert controlled["low"] < 0.5 < controlled["high"]


def test_the_length_controlled_rate_is_the_logistic_fit() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(1)
    longer = random.normal(10, 50, 500)
    scores = (random.random(500) < 1 / (1 + np.exp(-0.4 - longer / 60))).astype(float)
    found = length_controlled(scores, longer)
    assert found is not None
    feature = np.tanh(longer / np.sqrt(np.square(longer).mean()))[:, None]
    fit = linear_model.LogisticRegression(C=1e6, tol=1e-8).fit(feature, scores)
    assert found["win_rate"] == pytest.approx(1 / (1 + np.exp(-fit.intercept_[0])), abs=1e-3)
    assert found["low"] < 1 / (1 + np.exp(-0.4)) < found["high"]


def test_lengths_that_separate_wins_from_losses_do_not_break_the_fit() -> None:
    longer = np.repeat([5.0, -5.0], 20)
    found = length_controlled((longer > 0).astype(float), longer)
    assert found is not None and found["win_rate"] == pytest.approx(0.5, abs=1e-6)
    assert length_controlled(np.ones(20), np.zeros(20)) is None


def test_the_order_of_rows_changes_nothing() -> None:
    verdicts = table([WIN] * 12 + [LOSS] * 5 + [("tie", "tie")] * 3, [(90 + n, 100) for n in range(20)])
    assert win_rate(verdicts) == win_rate(verdicts.sample(fraction=1, shuffle=True, seed=3))


def test_incomplete_and_unknown_verdicts_are_refused() -> None:
    good = table([WIN, LOSS])
    with pytest.raises(ValueError, match="judged in the orders"):
        win_rate(good[:3])
    with pytest.raises(ValueError, match='choice is "A"'):
        win_rate(table([("A", "second")]))
    with pytest.raises(ValueError, match="no column choice"):
        win_rate(good.drop("choice"))
