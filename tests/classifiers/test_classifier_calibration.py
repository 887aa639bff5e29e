from pathlib import Path

import numpy as np
import pytest
from codesieve.classifiers import calibration
from codesieve.classifiers.calibration import MINIMUM_PER_CLASS, Calibration, Curve
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

SCORED = st.lists(st.tuples(st.floats(-12, 12, width=32), st.booleans(), st.floats(0.1, 5)), min_size=1, max_size=80)


def simulated(count: int, language: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    raw = generator.normal(0, 2, count)
    positive = generator.random(count) < 1 / (1 + np.exp(-raw))
    return raw, positive, np.full(count, language)


@given(SCORED, st.lists(st.floats(-20, 20), max_size=20))
def test_a_higher_score_never_gets_a_lower_probability(
    scored: list[tuple[float, bool, float]], probes: list[float]
) -> None:
    raw, positive, weights = (np.array(column) for column in zip(*scored, strict=True))
    curve = calibration.fit_curve(raw, positive, weights)
    probability = curve(np.sort(np.concatenate([raw, probes])))
    assert (np.diff(probability) >= 0).all()
    assert probability.min() > 0
    assert probability.max() < 1


@given(st.lists(st.tuples(st.integers(-6, 6), st.booleans(), st.integers(1, 5)), min_size=1, max_size=40))
def test_at_the_scores_it_was_fitted_on_it_is_sklearns_isotonic_regression(
    scored: list[tuple[int, bool, int]],
) -> None:
    raw, positive, weights = (np.array(column) for column in zip(*scored, strict=True))
    golden = IsotonicRegression().fit(raw, positive, sample_weight=weights).predict(raw)
    margin = 1 / (len(raw) + 2)
    ours = calibration.fit_curve(raw, positive, weights)(raw)
    np.testing.assert_allclose(ours, np.clip(golden, margin, 1 - margin), atol=1e-6)


def test_it_repairs_overconfident_scores() -> None:
    raw, positive, languages = simulated(4000, "python")
    weights = calibration.balanced_weights(positive, languages)
    fitted = calibration.fit(3 * raw, positive, languages)
    fresh, truth, _ = simulated(4000, "python", seed=1)
    before = 1 / (1 + np.exp(-3 * fresh))
    after = fitted.probabilities(3 * fresh, languages)
    for measure in (calibration.brier, calibration.expected_calibration_error):
        assert measure(after, truth, weights) < measure(before, truth, weights) - 0.01


def test_a_language_with_enough_documents_has_a_curve_of_its_own() -> None:
    many, few = simulated(1000, "python"), simulated(MINIMUM_PER_CLASS, "go")
    raw, positive, languages = (np.concatenate(parts) for parts in zip(many, few, strict=True))
    fitted = calibration.fit(raw, positive, languages)
    assert set(fitted.languages) == {"python"}
    assert fitted.probability(1.0, "go") == pytest.approx(float(fitted.pooled(np.array([1.0]))[0]))
    assert fitted.probability(1.0, "python") == pytest.approx(float(fitted.languages["python"](np.array([1.0]))[0]))


def test_classes_weigh_the_same_in_every_language_that_has_both() -> None:
    languages = np.array(["a"] * 4 + ["b"] * 3)
    positive = np.array([True, False, False, False, True, True, True])
    weights = calibration.balanced_weights(positive, languages)
    np.testing.assert_allclose(weights, [2, 2 / 3, 2 / 3, 2 / 3, 0, 0, 0])


def test_without_a_language_that_has_both_classes_there_is_no_calibration() -> None:
    with pytest.raises(ValueError, match="needs a language with positives and negatives"):
        calibration.fit(np.array([1.0, 2.0]), np.array([True, False]), np.array(["a", "b"]))


def test_brier_is_sklearns() -> None:
    raw, positive, _ = simulated(200, "c")
    probability = 1 / (1 + np.exp(-raw))
    weights = np.random.default_rng(1).random(200)
    golden = brier_score_loss(positive, probability, sample_weight=weights)
    assert calibration.brier(probability, positive, weights) == pytest.approx(golden)


def test_expected_calibration_error_of_a_worked_example() -> None:
    probability = np.array([0.95, 0.95, 0.15, 0.15])
    positive = np.array([True, False, False, False])
    assert calibration.expected_calibration_error(probability, positive, np.ones(4)) == pytest.approx((0.45 + 0.15) / 2)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    raw, positive, languages = simulated(500, "python")
    fitted = calibration.fit(raw, positive, languages)
    calibration.save(fitted, tmp_path)
    assert calibration.load(tmp_path) == fitted


@pytest.mark.parametrize("text", ["{}", '{"pooled": {"raw": [1], "probability": []}}', "[]", "{"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ValueError, match=r"calibration\.json"):
        calibration.load(tmp_path)


def test_beyond_the_outer_knots_the_probability_stays() -> None:
    both = Calibration(Curve((0.0, 1.0), (0.2, 0.8)), {})
    assert both.probability(-9, "x") == pytest.approx(0.2)
    assert both.probability(9, "x") == pytest.approx(0.8)
    assert both.probability(0.5, "x") == pytest.approx(0.5)
