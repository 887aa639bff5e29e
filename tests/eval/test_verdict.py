"""The verdict rule, at its borders and under a change of sign."""

import dataclasses
import math

import pytest
from codesieve.eval.decisions.verdict import MAX_SEEDS, Guardrail, judge, seeds_needed
from codesieve.eval.statistics import Estimate, critical, satterthwaite
from hypothesis import given
from hypothesis import strategies as st

MARGIN = 0.009


def estimate(low: float, high: float, baseline: str = "everything", seeds: int = 4) -> Estimate:
    """An estimate with that interval; its noise is half from seeds and half from families."""
    difference, half = (low + high) / 2, (high - low) / 2
    freedom = satterthwaite(1.0, seeds - 1, 1.0, 39.0)
    error = half / critical(0.95, 3, freedom)
    return Estimate(
        arm="rules",
        baseline=baseline,
        difference=difference,
        low=low,
        high=high,
        confidence=0.95,
        comparisons=3,
        arm_mean=3.0 + difference,
        baseline_mean=3.0,
        by_seed=(difference,) * seeds,
        seeds=seeds,
        clusters=40,
        effective_clusters=40.0,
        documents=200,
        languages=("python",),
        seed_variance=error**2 / 2,
        cluster_variance=error**2 / 2,
        degrees_of_freedom=freedom,
        seed_sd=0.01,
        arm_sd=0.02,
        baseline_sd=0.02,
        pairing_correlation=0.8,
        smallest_detectable=0.03,
    )


def flipped(found: Estimate) -> Estimate:
    assert found.low is not None and found.high is not None
    return dataclasses.replace(found, difference=-found.difference, low=-found.high, high=-found.low)


GOOD_CONTROL = estimate(-0.03, -0.001, "random-drop")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.03, -0.0091, "adopt"),
        (-0.03, -0.0089, "undecided"),  # better than the baseline, but perhaps by less than matters
        (-0.0089, 0.0089, "equivalent"),
        (-0.0089, -0.0001, "equivalent"),  # a difference, but one that does not matter
        (-0.0091, 0.005, "undecided"),
        (0.0001, 0.03, "undecided"),
        (0.0091, 0.03, "reject"),
        (-0.05, 0.05, "undecided"),
    ],
)
def test_the_word_follows_from_the_interval_and_the_margin(low: float, high: float, word: str) -> None:
    assert judge(estimate(low, high), GOOD_CONTROL, MARGIN).word == word


def test_an_arm_that_does_not_beat_its_random_drop_is_not_adopted() -> None:
    verdict = judge(estimate(-0.05, -0.02), estimate(-0.02, 0.001, "random-drop"), MARGIN)
    assert verdict.word == "undecided"
    assert "not shown to beat the random drop random-drop" in verdict.reason
    assert verdict.seeds_needed is not None
    assert f"{verdict.seeds_needed} seeds" in verdict.reason


def test_an_arm_that_is_worse_than_its_random_drop_is_rejected_even_if_it_beats_the_baseline() -> None:
    assert judge(estimate(-0.05, -0.02), estimate(0.001, 0.02, "random-drop"), MARGIN).word == "reject"


def test_an_unmatched_random_drop_supports_no_adoption() -> None:
    verdict = judge(estimate(-0.05, -0.02), GOOD_CONTROL, MARGIN, unmatched="the drop keeps half of it")
    assert verdict.word == "undecided"
    assert "the drop keeps half of it" in verdict.reason
    assert judge(estimate(0.02, 0.05), GOOD_CONTROL, MARGIN, unmatched="…").word == "reject"


def test_without_a_control_adoption_is_possible_and_says_what_is_missing() -> None:
    verdict = judge(estimate(-0.05, -0.02), None, MARGIN)
    assert verdict.word == "adopt"
    assert "no random drop was trained" in verdict.reason


@pytest.mark.parametrize(("low", "word"), [(0.0051, "undecided"), (0.0049, "adopt"), (-0.1, "adopt")])
def test_a_guardrail_that_is_surely_worse_by_more_than_its_margin_blocks_adoption(low: float, word: str) -> None:
    text = Guardrail("text", dataclasses.replace(estimate(low, 0.3), arm="rules"), margin=0.005)
    verdict = judge(estimate(-0.05, -0.02), GOOD_CONTROL, MARGIN, [text])
    assert verdict.word == word
    assert ("significantly worse on text" in verdict.reason) == (word == "undecided")


def test_without_an_interval_nothing_is_decided_and_the_reason_is_passed_on() -> None:
    one_seed = dataclasses.replace(estimate(-0.05, -0.02), low=None, high=None, problem="one seed: train more")
    verdict = judge(one_seed, GOOD_CONTROL, MARGIN)
    assert (verdict.word, verdict.reason) == ("undecided", "one seed: train more")


bounds = st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)).map(sorted)
OPPOSITE = {"adopt": "reject", "reject": "adopt", "equivalent": "equivalent", "undecided": "undecided"}


@given(interval=bounds, margin=st.floats(0, 0.05))
def test_without_a_control_a_change_of_sign_turns_adopt_into_reject_and_leaves_the_rest(
    interval: list[float], margin: float
) -> None:
    found = estimate(*interval)
    assert judge(flipped(found), None, margin).word == OPPOSITE[judge(found, None, margin).word]


@given(interval=bounds, control=bounds, margin=st.floats(0, 0.05))
def test_with_a_control_the_opposite_of_what_is_adopted_is_rejected(
    interval: list[float], control: list[float], margin: float
) -> None:
    found, drop = estimate(*interval), estimate(*control, baseline="random-drop")
    if judge(found, drop, margin).word == "adopt":
        assert judge(flipped(found), flipped(drop), margin).word == "reject"


@given(interval=bounds, control=bounds, margin=st.floats(0, 0.05))
def test_adding_a_guardrail_or_an_unmatched_control_never_adds_an_adoption(
    interval: list[float], control: list[float], margin: float
) -> None:
    found, drop = estimate(*interval), estimate(*control, baseline="random-drop")
    plain = judge(found, drop, margin).word
    for strict in (
        judge(found, drop, margin, [Guardrail("text", estimate(0.05, 0.06), 0.01)]).word,
        judge(found, drop, margin, unmatched="…").word,
    ):
        assert strict == plain or (plain, strict) == ("adopt", "undecided")


@given(half=st.floats(0.01, 0.1), share=st.floats(0.75, 0.95))
def test_the_seeds_needed_are_the_fewest_that_bring_the_interval_below_the_distance(half: float, share: float) -> None:
    found = estimate(-half, half)
    distance = share * half
    seeds = seeds_needed(found, distance)
    assert found.seed_variance is not None and found.cluster_variance is not None

    def half_width(count: int) -> float:
        variance = found.seed_variance * found.seeds / count  # type: ignore[operator]
        freedom = satterthwaite(variance, count - 1, found.cluster_variance, 39.0)  # type: ignore[arg-type]
        return critical(0.95, 3, freedom) * math.sqrt(variance + found.cluster_variance)  # type: ignore[operator]

    if seeds is None:
        assert half_width(MAX_SEEDS) >= distance
    else:
        assert half_width(seeds) < distance
        assert seeds == found.seeds + 1 or half_width(seeds - 1) >= distance


def test_noise_between_families_is_not_cured_by_seeds_and_the_verdict_says_so() -> None:
    found = dataclasses.replace(estimate(-0.03, 0.02), seed_variance=1e-9, cluster_variance=1e-3)
    verdict = judge(found, None, MARGIN)
    assert verdict.seeds_needed is None
    assert "hold out more families" in verdict.reason
