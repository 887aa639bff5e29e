"""The audit: how well a classifier ranks documents of families that it has not seen, and what it misses.

In go held-out documents with labels, their scores, and pairs of documents with their corrupted copies; out comes a
plain table. The number to read is the AUC within language beside that of length alone: a pooled AUC rewards knowing
which languages have more junk. The labels are weak, so all of this measures agreement with them; the corrupted pairs,
where only the damage differs, do not depend on labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import xxhash

from . import calibration
from .calibration import Booleans, Calibration, Floats, Strings
from .ranking import Interval, auc, auc_intervals, auc_of_groups, wilson_upper

MINIMUM_PER_CLASS = 10
"""Held-out documents of each class for a language to get its own row."""

DIGITS = 4
"""Of the figures in the audit; the fifth is noise, and rounding keeps the card equal across platforms."""


@dataclass(frozen=True)
class Pair:
    """Raw scores of a document and of its corrupted copy."""

    corruption: str
    original: float
    corrupted: float


def audit(table: pl.DataFrame, pairs: Sequence[Pair], trained: Sequence[str], seed: int) -> dict[str, Any]:
    """All figures of the card.

    Args:
        table: held-out documents without corrupted ones: `language`, `family`, `size_bytes`, `positive`, `rules` (the
            label predicates that named it), `raw`.
        pairs: held-out positives and their corrupted copies.
        trained: corruptions that training has seen.
        seed: of the bootstrap.
    """
    raw, positive, size, languages, families = _columns(table)
    probability = cross_fitted(table, seed)
    rows = {}
    for language in sorted(set(languages.tolist())):
        mask = languages == language
        if min(positive[mask].sum(), (~positive[mask]).sum()) >= MINIMUM_PER_CLASS:
            part = (raw[mask], positive[mask], size[mask], languages[mask], families[mask])
            rows[language] = {**_ranking(*part, seed), **_rejected(probability[mask], positive[mask])}
    weights = calibration.balanced_weights(positive, languages)
    before = 1 / (1 + np.exp(-raw))
    return {
        "documents": len(raw),
        "positives": int(positive.sum()),
        "families": len(set(families.tolist())),
        "within_language": _ranking(raw, positive, size, languages, families, seed),
        "pooled_auc": _round(auc(raw, positive)),
        "pooled_length_auc": _round(_either_way(auc(size, positive))),
        "languages": rows,
        "not_measured": _too_few(positive, languages, rows),
        "negatives": _by_rule(table, raw, positive, languages),
        "false_reject": _rejected(probability, positive),
        "calibration": {
            "brier_before": _round(calibration.brier(before, positive, weights)),
            "brier_after": _round(calibration.brier(probability, positive, weights)),
            "ece_before": _round(calibration.expected_calibration_error(before, positive, weights)),
            "ece_after": _round(calibration.expected_calibration_error(probability, positive, weights)),
        },
        "corruptions": _corruptions(pairs, trained),
    }


def cross_fitted(table: pl.DataFrame, seed: int) -> Floats:
    """Probability of each document by a calibration fitted on the other half of the families.

    A calibration measured on its own documents flatters itself. Halves are dealt by a hash of the family; where one
    half cannot be calibrated alone, all documents are used, and the estimate flatters.
    """
    raw, positive, _, languages, families = _columns(table)
    half = np.array([xxhash.xxh3_64_intdigest(family.encode(), seed=seed) % 2 for family in families.tolist()])
    result = np.zeros(len(raw))
    for side in (0, 1):
        own, other = half == side, half != side
        fitted = _fit_or_none(raw[other], positive[other], languages[other])
        if fitted is None:
            fitted = calibration.fit(raw, positive, languages)
        result[own] = fitted.probabilities(raw[own], languages[own])
    return result


def _fit_or_none(raw: Floats, positive: Booleans, languages: Strings) -> Calibration | None:
    if not calibration.balanced_weights(positive, languages).any():
        return None
    return calibration.fit(raw, positive, languages)


def _ranking(
    raw: Floats, positive: Booleans, size: Floats, languages: Strings, families: Strings, seed: int
) -> dict[str, Any]:
    """AUC within language, that of length alone in its better direction, and the interval of the lead."""
    value = auc_of_groups(raw, positive, languages)
    by_length = max(auc_of_groups(size, positive, languages), auc_of_groups(-size, positive, languages))
    intervals = auc_intervals([raw, size, -size], positive, languages, families, seed)
    return {
        "documents": len(raw),
        "positives": int(positive.sum()),
        "families": len(set(families.tolist())),
        "auc": _round(value),
        "auc_interval": _pair(intervals[0][0]) if intervals else None,
        "length_auc": _round(by_length),
        "lead": _round(value - by_length),
        "lead_interval": _pair(intervals[1]) if intervals else None,
    }


def _rejected(probability: Floats, positive: Booleans) -> dict[str, Any]:
    """Share of positives that a cut at one half would reject, with Wilson's 95 % upper bound."""
    rejected, total = int((probability[positive] < 0.5).sum()), int(positive.sum())
    return {
        "rejected_positives": rejected,
        "rejected_share": _round(rejected / total) if total else None,
        "rejected_upper_bound": _round(wilson_upper(rejected, total)),
    }


def _corruptions(pairs: Sequence[Pair], trained: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Share of pairs in which the original scores higher, ties half, for each corruption."""
    found = {}
    for name in sorted({pair.corruption for pair in pairs}):
        lead = np.array([pair.original - pair.corrupted for pair in pairs if pair.corruption == name])
        found[name] = {
            "pairs": len(lead),
            "accuracy": _round(float((lead > 0).mean() + (lead == 0).mean() / 2)),
            "in_training": name in trained,
        }
    return found


def _by_rule(table: pl.DataFrame, raw: Floats, positive: Booleans, languages: Strings) -> dict[str, dict[str, Any]]:
    """For each predicate: how many held-out negatives it named, and how well all positives are told from those."""
    found = {}
    negatives = table.filter(~pl.col("positive")).explode("rules")["rules"]
    for rule in negatives.drop_nulls().unique().sort().to_list():
        named = table["rules"].list.contains(rule).to_numpy().astype(np.bool_)
        mask = positive | named
        value = auc_of_groups(raw[mask], positive[mask], languages[mask])
        found[rule] = {"documents": int((named & ~positive).sum()), "auc": _round(value)}
    return found


def _too_few(positive: Booleans, languages: Strings, measured: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {
        language: {
            "positives": int((positive & (languages == language)).sum()),
            "negatives": int((~positive & (languages == language)).sum()),
        }
        for language in sorted(set(languages.tolist()) - set(measured))
    }


def _columns(table: pl.DataFrame) -> tuple[Floats, Booleans, Floats, Strings, Strings]:
    return (
        table["raw"].to_numpy().astype(np.float64),
        table["positive"].to_numpy().astype(np.bool_),
        table["size_bytes"].to_numpy().astype(np.float64),
        np.array(table["language"].to_list(), dtype=np.str_),
        np.array(table["family"].to_list(), dtype=np.str_),
    )


def _either_way(value: float) -> float:
    return max(value, 1 - value)


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), DIGITS)


def _pair(interval: Interval) -> list[float]:
    return [round(interval.low, DIGITS), round(interval.high, DIGITS)]
