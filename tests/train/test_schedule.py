import math

import pytest
from codesieve.train.config import StageConfig, TrainConfig
from codesieve.train.schedule import learning_rate
from hypothesis import given
from hypothesis import strategies as st

BASE = {"learning_rate": 1.0, "final_learning_rate_fraction": 0.1, "warmup_fraction": 0.1, "sequence_length": 8}


def config(*stages, steps=1000, step_tokens=8, **fields):
    length = {"stages": stages} if stages else {"tokens": steps * step_tokens}
    return TrainConfig(**{**BASE, "step_tokens": step_tokens, **length, **fields})


def stage(name, steps, step_tokens=8, **fields):
    return StageConfig(name=name, tokens=steps * step_tokens, **fields)


def rates(made):
    return [learning_rate(made, step) for step in range(sum(made.stage_steps()))]


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        ("constant", lambda n: 1.0),
        ("cosine", lambda n: 0.1 + 0.9 * (1 + math.cos(math.pi * (n - 100) / 900)) / 2),
        ("linear", lambda n: 1.0 - 0.9 * (n - 100) / 900),
        ("wsd", lambda n: 1.0 if n <= 800 else 1.0 - 0.9 * (n - 800) / 200),
    ],
)
def test_every_shape_is_its_closed_form(schedule, closed_form):
    expected = [n / 100 if n < 100 else closed_form(n) for n in range(1, 1001)]
    assert rates(config(schedule=schedule)) == pytest.approx(expected)


def test_the_clock_is_tokens():
    # Every fourth step of the one run ends where a step of the other ends.
    small, large = rates(config(steps=400)), rates(config(steps=100, step_tokens=32))
    assert small[3::4] == pytest.approx(large)


@given(
    schedule=st.sampled_from(["constant", "cosine", "linear", "wsd"]),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
    step=st.integers(0, 999),
)
def test_rates_stay_between_zero_and_the_peak(schedule, warmup, decay, final, step):
    made = config(schedule=schedule, warmup_fraction=warmup, decay_fraction=decay, final_learning_rate_fraction=final)
    rate = learning_rate(made, step)
    assert 0 <= rate <= 1 + 1e-12
    assert step > 0 or rate > 0


def test_wsd_decays_over_its_own_fraction_even_when_warmup_overlaps():
    overlapping = rates(config(schedule="wsd", warmup_fraction=0.9, decay_fraction=0.5))
    assert overlapping[899] == 1.0
    assert overlapping[999] == pytest.approx(0.1)


def test_without_warmup_and_decay_the_rate_is_the_peak():
    assert set(rates(config(schedule="wsd", warmup_fraction=0.0, decay_fraction=0.0))) == {1.0}


def test_stages_that_continue_share_one_cosine():
    two = config(stage("text", 300), stage("code", 700))
    assert rates(two) == rates(config())


def test_a_fresh_stage_has_a_cosine_and_a_warmup_of_its_own():
    two = rates(config(stage("text", 300), stage("code", 700, join="fresh", learning_rate=0.5, warmup_fraction=0.2)))
    assert two[:300] == rates(config(steps=300))
    code = [
        0.5 * n / 140 if n < 140 else 0.05 + 0.45 * (1 + math.cos(math.pi * (n - 140) / 560)) / 2 for n in range(1, 701)
    ]
    assert two[300:] == pytest.approx(code)


def test_the_cooldown_of_aryabumi_is_linear_to_1e_6():
    # Aryabumi et al. 2024: cosine with 1,325 steps of warmup over 400 B tokens, then 40 B of linear annealing to 1e-6.
    # Here in hundredths of their steps; the peak is not printed in the paper.
    paper = config(
        stage("balanced", 477), stage("text", 477), stage("cooldown", 95, join="anneal", final_learning_rate=1e-6),
        learning_rate=3e-4, warmup_fraction=13.25 / 954,
    )  # fmt: skip
    found = rates(paper)
    reached = 3e-5
    assert found[:954] == pytest.approx(rates(config(steps=954, learning_rate=3e-4, warmup_fraction=13.25 / 954)))
    assert found[953] == pytest.approx(reached)
    assert found[954:] == pytest.approx([reached + (1e-6 - reached) * n / 95 for n in range(1, 96)])
    assert found[-1] == pytest.approx(1e-6, rel=1e-9)


def test_a_branch_off_a_constant_stage_is_wsd():
    whole = config(schedule="wsd", decay_fraction=0.2, final_learning_rate_fraction=0.0)
    stable = stage("stable", 800, join="fresh", schedule="constant", warmup_fraction=0.125)
    branched = config(stable, stage("decay", 200, join="anneal", final_learning_rate=0.0))
    assert rates(branched) == pytest.approx(rates(whole))
    # A longer stable run is the same up to the branch.
    longer = config(stable.model_copy(update={"tokens": 8 * 2000, "warmup_fraction": 0.05}))
    assert rates(longer)[:800] == pytest.approx(rates(whole)[:800])


def test_an_anneal_continues_over_the_stages_after_it():
    parts = (stage("all", 100), stage("best", 30, join="anneal", final_learning_rate=0.0), stage("rest", 70))
    assert rates(config(*parts))[100:] == pytest.approx([0.1 * (1 - n / 100) for n in range(1, 101)])


def test_an_anneal_falls_to_zero_from_whatever_rate_was_reached():
    # A cosine that ended far below a tenth of its peak, as the tutorial's cooldown does.
    low = config(stage("all", 100), stage("best", 50, join="anneal"), final_learning_rate_fraction=1e-6)
    assert rates(low)[100:] == pytest.approx([1e-6 * (1 - n / 50) for n in range(1, 51)])


def test_an_anneal_that_would_rise_is_refused_by_stage_and_rates():
    with pytest.raises(ValueError, match=r'stage "best": final_learning_rate 0\.2 is above the rate .* reached, 0\.1,'):
        config(stage("all", 100), stage("best", 50, join="anneal", final_learning_rate=0.2))
    flat = config(stage("all", 100), stage("best", 50, join="anneal", final_learning_rate=0.1))
    assert rates(flat)[100:] == pytest.approx([0.1] * 50)


def test_an_anneal_that_begins_at_zero_is_refused():
    with pytest.raises(ValueError, match=r'stage "rest": `join: anneal` starts at .* which is 0'):
        config(stage("all", 100), stage("best", 50, join="anneal"), stage("rest", 50, join="anneal"))


def test_the_first_stage_is_fresh_whatever_it_says():
    assert (
        rates(config(stage("all", 100))) == rates(config(stage("all", 100, join="fresh"))) == rates(config(steps=100))
    )


def test_a_step_behind_the_end_is_refused():
    with pytest.raises(ValueError, match="step 1000: the run has the steps 0 to 999"):
        learning_rate(config(), 1000)
