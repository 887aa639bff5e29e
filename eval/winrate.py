"""Win rate of a model from a judge's verdicts on pairs of answers, each pair judged in both orders.

In: one row a verdict (columns item, order: "ab" or "ba", choice: "first", "second", "tie" or null where it could not
be parsed, length_a, length_b; optional cluster). Out: a `WinRate` of a against b as a plain dict. A prompt scores 1 if
a wins in both orders, 0 if b does, ½ otherwise: a judge that changes its mind with the order has no preference.

The rate stands beside what may explain it: how often the first position wins, how often the longer answer wins. A
prompt with a verdict that could not be parsed is neither a win nor a loss; above 5 % of such verdicts there is no rate.
The length-controlled rate is the logistic fit at equal length (Dubois et al. 2024, without their terms for prompts); it
assumes that length has no merit of its own, so it is never given alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special, stats

from .paired import bootstrap_interval, by_cluster, sign_flip
from .statistics import wilson

MAX_UNPARSABLE = 0.05
"""Share of verdicts above which those that were parsed may be a chosen part."""

COLUMNS = ("item", "order", "choice", "length_a", "length_b")

_RIDGE = 1e-2  # of the logistic fit: keeps it finite where length separates wins from losses

Array = NDArray[np.float64]


def win_rate(verdicts: pl.DataFrame, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """The rate with its interval, and the judge's habits.

    Args:
        verdicts: as above.
        confidence: of the interval, over prompts (over clusters where there are some).
        seed: of the bootstrap.

    Returns:
        win_rate, low, high, p (against ½), wins, ties, losses, tie_rate, first_position_rate, longer_wins_rate,
        mean_length_of_winners, mean_length_of_losers, unparsable, unparsable_share, items, is_void, and
        length_controlled {win_rate, low, high} or null. The rate and what depends on it is null if it is void.

    Raises:
        ValueError: if a pair was not judged once in each order, or a word is not known.
    """
    pairs = _pairs(verdicts)
    unparsable = int(verdicts["choice"].null_count())
    share = unparsable / verdicts.height
    parsed = pairs.drop_nulls(["ab", "ba"])
    votes = verdicts["choice"].drop_nulls()
    decided_votes = votes.filter(votes != "tie")
    is_void = share > MAX_UNPARSABLE or parsed.is_empty()
    scores = _scores(parsed)
    wins, losses = int((scores == 1).sum()), int((scores == 0).sum())
    found: dict[str, Any] = {
        "win_rate": None,
        "low": None,
        "high": None,
        "p": None,
        "wins": wins,
        "ties": len(scores) - wins - losses,
        "losses": losses,
        "tie_rate": (len(scores) - wins - losses) / len(scores) if len(scores) else None,
        "first_position_rate": float((decided_votes == "first").mean()) if len(decided_votes) else None,  # type: ignore[arg-type]
        "items": pairs.height,
        "unparsable": unparsable,
        "unparsable_share": share,
        "is_void": is_void,
        "length_controlled": None,
        **_lengths(parsed, scores),
    }
    if is_void:
        return found
    low, high = _interval(scores, parsed["cluster"].to_list(), confidence, seed)
    groups = by_cluster(scores - 0.5, np.ones(len(scores)), parsed["cluster"].to_list())
    found |= {"win_rate": float(scores.mean()), "low": low, "high": high, "p": sign_flip(groups.contributions(), seed)}
    longer = parsed["length_a"].to_numpy() - parsed["length_b"].to_numpy()
    return found | {"length_controlled": length_controlled(scores, longer.astype(np.float64), confidence)}


def length_controlled(scores: Array, longer_by: Array, confidence: float = 0.95) -> dict[str, float] | None:
    """Win rate at equal length: logistic regression of the score on tanh of the length difference over its spread.

    A tie is half a win. The interval is of the fit's intercept, with the robust ("sandwich") variance. None if the
    lengths never differ, or there are fewer than 10 prompts.
    """
    if len(scores) < 10 or not np.any(longer_by):
        return None
    spread = math.sqrt(float(np.square(longer_by).mean()))  # around 0: equal length must stay 0
    design = np.stack([np.ones(len(scores)), np.tanh(longer_by / spread)], axis=1)
    weights, bread = np.zeros(2), np.eye(2)
    for _ in range(100):
        rates = special.expit(design @ weights)
        gradient = design.T @ (scores - rates) - _RIDGE * weights
        bread = np.linalg.inv((design.T * (rates * (1 - rates))) @ design + _RIDGE * np.eye(2))
        step = bread @ gradient
        weights = weights + np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    residuals = design * (scores - special.expit(design @ weights))[:, None]
    error = math.sqrt(float((bread @ (residuals.T @ residuals) @ bread)[0, 0]))
    z = float(stats.norm.ppf((1 + confidence) / 2))
    low, rate, high = (float(special.expit(weights[0] + sign * z * error)) for sign in (-1, 0, 1))
    return {"win_rate": rate, "low": low, "high": high}


def _pairs(verdicts: pl.DataFrame) -> pl.DataFrame:
    """One row an item: item, ab, ba, length_a, length_b, cluster; in the order of the items' names."""
    missing = [name for name in COLUMNS if name not in verdicts.columns]
    if missing:
        raise ValueError(f"verdicts: no column {', '.join(missing)}")
    if verdicts.is_empty():
        raise ValueError("verdicts: there are none")
    for column, known in (("order", ("ab", "ba")), ("choice", ("first", "second", "tie"))):
        wrong = verdicts.filter(~pl.col(column).is_in(known))
        if not wrong.is_empty():
            row = wrong.row(0, named=True)
            raise ValueError(f'item {row["item"]}: {column} is "{row[column]}"; known: {", ".join(known)}')
    cluster = pl.col("cluster") if "cluster" in verdicts.columns else pl.col("item").alias("cluster")
    rows = verdicts.select(*COLUMNS, cluster)
    keep = ["item", "length_a", "length_b", "cluster"]
    sides = [rows.filter(pl.col("order") == order).rename({"choice": order}) for order in ("ab", "ba")]
    count = rows["item"].n_unique()
    if any(side.height != count or side["item"].n_unique() != count for side in sides):
        counts = rows.group_by("item").agg(pl.col("order").sort()).sort("item")
        odd = counts.filter(pl.col("order").list.join(" ") != "ab ba").row(0)
        raise ValueError(f"item {odd[0]}: judged in the orders {odd[1]}; each pair is judged once in ab and once in ba")
    pairs = sides[0].select(*keep, "ab").join(sides[1].select(*keep, "ba"), on=keep, how="inner").sort("item")
    if pairs.height != count:
        raise ValueError("the two orders of an item differ in its lengths or cluster: are they the same answers?")
    return pairs


def _scores(pairs: pl.DataFrame) -> Array:
    won = (pl.col("ab") == "first") & (pl.col("ba") == "second")
    lost = (pl.col("ab") == "second") & (pl.col("ba") == "first")
    score = pl.when(won).then(1.0).when(lost).then(0.0).otherwise(0.5)
    return pairs.select(score.alias("score"))["score"].to_numpy().astype(np.float64)


def _interval(scores: Array, clusters: list[Any], confidence: float, seed: int) -> tuple[float | None, float | None]:
    count = len(set(clusters))
    if count < 2:
        return None, None
    if np.ptp(scores) == 0:
        # Nothing but wins, ties or losses: redrawing them cannot show another outcome; ties are half of each.
        low, high = wilson(round(2 * float(scores[0]) * count), 2 * count, confidence)
        return low, high
    return bootstrap_interval(by_cluster(scores, np.ones(len(scores)), clusters), confidence, seed)


def _lengths(pairs: pl.DataFrame, scores: Array) -> dict[str, float | None]:
    decided = scores != 0.5
    a, b = pairs["length_a"].to_numpy()[decided], pairs["length_b"].to_numpy()[decided]
    won = scores[decided] == 1
    winners, losers = np.where(won, a, b), np.where(won, b, a)
    unequal = winners != losers
    return {
        "longer_wins_rate": float((winners > losers)[unequal].mean()) if unequal.any() else None,
        "mean_length_of_winners": float(winners.mean()) if len(winners) else None,
        "mean_length_of_losers": float(losers.mean()) if len(losers) else None,
    }
