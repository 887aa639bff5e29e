"""Calibration: raw scores become probabilities, by isotonic regression on held-out families.

A curve is a list of knots with interpolation between them, one for each language that has enough documents and one
over all for the others. Documents are weighted so that both classes weigh the same in every language: a probability
says how a document ranks in a mix of as many good as bad examples of its language, not how common good code is.
Higher scores never get lower probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import read_json, write_json

CALIBRATION_FILE = "calibration.json"

MINIMUM_PER_CLASS = 50
"""Documents of each class for a curve of its own; isotonic regression overfits below (a knot for each few)."""

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Strings = NDArray[np.str_]


@dataclass(frozen=True)
class Curve:
    """Knots of a non-decreasing function from raw score to probability."""

    raw: tuple[float, ...]
    probability: tuple[float, ...]

    def __call__(self, raw: Floats) -> Floats:
        """Probabilities; beyond the outermost knots they stay as they are there."""
        return np.interp(raw, self.raw, self.probability)


@dataclass(frozen=True)
class Calibration:
    """A curve for each language that has its own, and one for the others."""

    pooled: Curve
    languages: Mapping[str, Curve]

    def probability(self, raw: float, language: str) -> float:
        """Of one document."""
        return float(self.languages.get(language, self.pooled)(np.asarray([raw]))[0])

    def probabilities(self, raw: Floats, languages: Strings) -> Floats:
        """Of many documents."""
        result = self.pooled(raw)
        for language, curve in self.languages.items():
            rows = languages == language
            result[rows] = curve(raw[rows])
        return result


def fit(raw: Floats, positive: Booleans, languages: Strings) -> Calibration:
    """Curves from scored documents with known labels. Languages with a single class are left out of the pooled curve.

    Raises:
        ValueError: if no language has both classes.
    """
    weights = balanced_weights(positive, languages)
    used = weights > 0
    if not used.any():
        raise ValueError("calibration needs a language with positives and negatives among the held-out families")
    curves = {}
    for language in sorted(set(languages[used].tolist())):
        rows = languages == language
        if min(positive[rows].sum(), (~positive[rows]).sum()) >= MINIMUM_PER_CLASS:
            curves[language] = fit_curve(raw[rows], positive[rows], weights[rows])
    return Calibration(fit_curve(raw[used], positive[used], weights[used]), curves)


def fit_curve(raw: Floats, positive: Booleans, weights: Floats) -> Curve:
    """Weighted isotonic regression of the label on the score, as knots at the ends of its steps.

    Probabilities keep 1 / (n + 2) off 0 and 1 (Laplace's rule): n documents cannot show that something never happens.
    """
    from scipy.optimize import isotonic_regression

    values, groups = np.unique(raw, return_inverse=True)  # equal scores must get equal probabilities
    group_weights = np.bincount(groups, weights=weights)
    means = np.bincount(groups, weights=weights * positive) / group_weights
    fitted = isotonic_regression(means, weights=group_weights, increasing=True).x
    margin = 1.0 / (len(raw) + 2)
    fitted = np.maximum.accumulate(np.clip(fitted, margin, 1.0 - margin))
    changes = np.flatnonzero(np.diff(fitted)) + 1
    knots = np.unique(np.concatenate([[0, len(values) - 1], changes, changes - 1]).astype(np.int64))
    return Curve(tuple(values[knots].tolist()), tuple(fitted[knots].tolist()))


def balanced_weights(positive: Booleans, languages: Strings) -> Floats:
    """Weights that keep each language's size and give its classes equal shares; 0 where a class is missing."""
    weights = np.zeros(len(positive))
    for language in set(languages.tolist()):
        rows = languages == language
        for side in (positive & rows, ~positive & rows):
            if side.any() and (rows & ~side).any():
                weights[side] = rows.sum() / (2.0 * side.sum())
    return weights


def brier(probability: Floats, positive: Booleans, weights: Floats) -> float:
    """Mean squared error of the probabilities; 0.25 is what "one half" for everything gets."""
    return float(np.average((probability - positive) ** 2, weights=weights))


def expected_calibration_error(probability: Floats, positive: Booleans, weights: Floats, bins: int = 10) -> float:
    """Mean over equal-width bins of |share of positives − mean probability|, weighted by the bin."""
    index = np.minimum((probability * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=weights * (positive - probability), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def save(calibration: Calibration, folder: Path) -> None:
    """Write `calibration.json`."""
    curves = {"pooled": calibration.pooled, **{f"language:{name}": c for name, c in calibration.languages.items()}}
    write_json(
        folder / CALIBRATION_FILE,
        {name: {"raw": curve.raw, "probability": curve.probability} for name, curve in curves.items()},
    )


def load(folder: Path) -> Calibration:
    """Read `calibration.json`.

    Raises:
        ValueError: if it is not a calibration.
    """
    path = folder / CALIBRATION_FILE
    data = read_json(path)
    try:
        curves = {name: _curve(knots) for name, knots in data.items()}
        pooled = curves.pop("pooled")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a calibration: {error!r}") from error
    return Calibration(pooled, {name.removeprefix("language:"): curve for name, curve in curves.items()})


def _curve(knots: Mapping[str, Any]) -> Curve:
    raw, probability = tuple(map(float, knots["raw"])), tuple(map(float, knots["probability"]))
    if not raw or len(raw) != len(probability) or list(probability) != sorted(probability) or list(raw) != sorted(raw):
        raise ValueError("knots must be non-empty, equally many and sorted")
    return Curve(raw, probability)
