"""From scored items to the decision record, its page and its table."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from codesieve.config import DecideConfig, EvalConfig
from codesieve.eval.decisions.arms import Arm
from codesieve.eval.decisions.markdown import render
from codesieve.eval.decisions.record import Context, decide, rule, table, write_record
from codesieve.eval.statistics import wilson
from codesieve.eval.store import items_frame
from codesieve.train.config import TrainConfig

CONFIG = DecideConfig(baseline="everything", control="random-drop")
CONTEXT: Context = {
    "train": TrainConfig(seeds=(0, 1, 2, 3), tokens=400_000),
    "evaluation": EvalConfig(),
    "parameters": 838_000,
    "input_fingerprint": "f00d",
    "depends_on": {"classifier quality": "c0de"},
    "environment": {"torch": "2.13.0"},
    "times": {"train": 12.5},
}


def arm(name: str, keep_rate: float = 0.5, control_of: str | None = None, epochs: float = 1.0) -> Arm:
    return Arm(
        name=name,
        hash=f"hash-of-{name}",
        where="TRUE",
        control_of=control_of,
        documents=int(1000 * keep_rate),
        bytes=int(100_000 * keep_rate),
        keep_rate=keep_rate,
        keep_rate_documents=keep_rate,
        composition={"python": 0.6, "c": 0.4},
        epochs=epochs,
    )


ARMS = [arm("everything", 1.0), arm("rules", 0.5), arm("random-drop", 0.5, control_of="rules")]


def items(effects: dict[str, dict[str, float]], seeds: int = 4, noise: float = 0.004) -> pl.DataFrame:
    """Items of every arm; `effects`: arm → group (python, c, text) → bits per byte over the baseline."""
    random = np.random.default_rng(7)
    groups = [("code", "python"), ("code", "c"), ("text", "markdown")]
    base = {(group, number): random.normal(3, 0.4) for _, group in groups for number in range(30)}
    by_seed = random.normal(0, 0.03, seeds)  # shared by all arms: what pairing takes away
    arms, rows = [], []
    for name, effect in effects.items():
        for seed in range(seeds):
            own = random.normal(0, noise)
            for stream, group in groups:
                for number in range(30):
                    bits = base[group, number] + by_seed[seed] + own + random.normal(0, noise) + effect.get(group, 0.0)
                    item = {"item": f"{group}-{number}", "cluster": f"family-{number}", "stream": stream}
                    scored = {"nats": bits * 1000 * math.log(2), "bytes": 1000, "outcome": "scored"}
                    arms.append((name, seed))
                    rows.append({"task": "heldout", **item, "language": group, **scored})
            for number in range(12):
                outcome = "passed" if number < 2 and name == "rules" else "wrong"
                item = {"item": f"p{number}", "cluster": f"p{number}", "stream": "problems", "language": "python"}
                judged = {"score": float(outcome == "passed"), "outcome": outcome, "answer": "return 1"}
                arms.append((name, seed))
                rows.append({"task": "problems", **item, **judged, "sandbox_level": 3, "judge": "apart"})
    return pl.concat([pl.DataFrame(arms, schema=["arm", "seed"], orient="row"), items_frame(rows)], how="horizontal")


def better(python: float, c: float | None = None, text: float = 0.0, drop: float = 0.0) -> dict[str, dict[str, float]]:
    rules = {"python": python, "c": python if c is None else c, "markdown": text}
    return {"everything": {}, "rules": rules, "random-drop": {"python": drop, "c": drop}}


def entry(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in record["arms"] if each["name"] == name)


def test_an_arm_that_beats_baseline_and_random_drop_is_adopted() -> None:
    record = decide(CONFIG, items(better(-0.05, drop=-0.01)), ARMS, CONTEXT)
    assert (record["winner"], record["keep"]) == ("rules", "rules")
    assert entry(record, "rules")["verdict"]["word"] == "adopt"
    assert record["conclusion"].startswith("Adopt rules: better than everything by at least 0.0")
    estimate = entry(record, "rules")["against_baseline"]
    assert estimate["difference"] == pytest.approx(-0.05, abs=0.01)
    assert estimate["low"] < -0.05 < estimate["high"]
    assert entry(record, "rules")["against_control"]["baseline"] == "random-drop"


def test_the_random_drop_is_measured_and_never_adopted() -> None:
    record = decide(CONFIG, items(better(-0.05, drop=-0.2)), ARMS, CONTEXT)
    assert entry(record, "random-drop")["verdict"]["word"] == "control"
    assert entry(record, "random-drop")["against_baseline"]["high"] < -0.1
    assert entry(record, "rules")["verdict"]["word"] == "reject"  # worse than its random drop
    assert (record["winner"], record["keep"]) == (None, "everything")


@pytest.mark.parametrize(("effect", "word"), [(0.05, "reject"), (0.0, "equivalent"), (-0.009, "undecided")])
def test_without_an_adoption_the_baseline_is_kept(effect: float, word: str) -> None:
    config = CONFIG.model_copy(update={"margin_fraction": 0.003 if effect else 0.01})
    record = decide(config, items(better(effect, drop=0.0)), ARMS, CONTEXT)
    assert entry(record, "rules")["verdict"]["word"] == word
    assert record["keep"] == "everything"
    assert f"No arm is adopted (rules: {word})" in record["conclusion"]


def test_harm_on_text_or_on_one_language_blocks_the_adoption() -> None:
    text = decide(CONFIG, items(better(-0.05, text=0.08)), ARMS, CONTEXT)
    assert entry(text, "rules")["verdict"]["word"] == "undecided"
    assert "significantly worse on text" in entry(text, "rules")["verdict"]["reason"]
    language = decide(CONFIG, items(better(-0.2, c=0.08)), ARMS, CONTEXT)
    assert "significantly worse on code/c" in entry(language, "rules")["verdict"]["reason"]
    names = [guardrail["name"] for guardrail in entry(language, "rules")["guardrails"]]
    assert names == ["code/c", "code/python", "text"]


def test_each_arm_is_compared_with_the_random_drop_made_for_it() -> None:
    arms = [*ARMS, arm("strict", 0.2), arm("strict-drop", 0.2, control_of="strict")]
    effects = {**better(-0.05), "strict": {"python": -0.06, "c": -0.06}, "strict-drop": {}}
    record = decide(CONFIG, items(effects), arms, CONTEXT)
    assert entry(record, "strict")["against_control"]["baseline"] == "strict-drop"
    assert entry(record, "rules")["against_control"]["baseline"] == "random-drop"
    assert record["comparisons"] == 6  # four arms with the baseline, two with their drops
    assert record["winner"] == "strict"
    assert "Also adopted: rules" in record["conclusion"]


def test_a_random_drop_made_for_another_arm_supports_no_adoption() -> None:
    arms = [*ARMS, arm("strict", 0.2)]
    record = decide(CONFIG, items({**better(-0.05), "strict": {"python": -0.06, "c": -0.06}}), arms, CONTEXT)
    verdict = entry(record, "strict")["verdict"]
    assert verdict["word"] == "undecided"
    assert 'add a selection with "control_of: strict"' in verdict["reason"]
    assert entry(record, "strict")["caveats"] == []  # the reason says it already


def test_only_the_arms_that_the_config_names_are_judged() -> None:
    arms = [*ARMS, arm("strict", 0.2)]
    found = items({**better(-0.05), "strict": {}})
    record = decide(CONFIG.model_copy(update={"arms": ("rules",)}), found, arms, CONTEXT)
    assert [each["name"] for each in record["arms"]] == ["everything", "rules", "random-drop"]


def test_one_seed_decides_nothing_and_the_record_says_why() -> None:
    record = decide(CONFIG, items(better(-0.5), seeds=1), ARMS, CONTEXT)
    assert entry(record, "rules")["verdict"]["word"] == "undecided"
    assert "one seed" in entry(record, "rules")["verdict"]["reason"]
    assert entry(record, "rules")["against_baseline"]["low"] is None


def test_more_repetition_than_the_baseline_is_pointed_out() -> None:
    arms = [ARMS[0], arm("rules", 0.5, epochs=2.0), ARMS[2]]
    record = decide(CONFIG, items(better(-0.05)), arms, CONTEXT)
    assert "repeats its documents 2.0 times, everything 1.0 times" in entry(record, "rules")["caveats"][0]


def test_the_record_states_noise_cost_and_what_would_undo_it() -> None:
    record = decide(CONFIG, items(better(-0.05)), ARMS, CONTEXT)
    noise = record["noise"]["against_baseline"]["rules"]
    assert noise["pairing_correlation"] > 0.9  # the seeds' noise is shared
    assert noise["seed_sd"] < noise["arm_sd"] / 2
    assert record["cost"] == {"runs": 12, "training_tokens": 12 * 400_000}
    assert record["evidence"] == {
        "seeds": [0, 1, 2, 3],
        "documents": 60,
        "families": 30,
        "effective_families": pytest.approx(30),
    }
    assert any("classifier quality changes from c0de" in line for line in record["invalidated_if"])
    assert record["proxy"]["seeds"] == [0, 1, 2, 3]
    problems = entry(record, "rules")["pass_at_1"]
    assert (problems["passed"], problems["answers"], problems["sandbox_level"]) == (8, 48, 3)
    assert (problems["low"], problems["high"]) == wilson(8, 48)


def test_the_rules_hash_shows_a_rule_that_was_changed_after_launch() -> None:
    found = items(better(-0.05))
    planned = rule(CONFIG)["hash"]
    same = decide(CONFIG, found, ARMS, {**CONTEXT, "planned_rule": planned})
    assert same["rule"]["fixed_before_launch"] is True
    softer = CONFIG.model_copy(update={"margin_fraction": 0.0})
    changed = decide(softer, found, ARMS, {**CONTEXT, "planned_rule": planned})
    assert changed["rule"]["fixed_before_launch"] is False
    assert rule(softer)["hash"] != planned


def test_two_runs_write_the_same_bytes_but_for_times(tmp_path: Path) -> None:
    found = items(better(-0.05))
    first = write_record(decide(CONFIG, found, ARMS, CONTEXT), tmp_path / "a")
    again = decide(CONFIG, found.sample(fraction=1, shuffle=True, seed=1), ARMS, {**CONTEXT, "times": {"train": 99.0}})
    second = write_record(again, tmp_path / "b")
    assert first[1].read_bytes() == second[1].read_bytes()
    one, two = (json.loads(paths[0].read_text()) for paths in (first, second))
    assert one.pop("times") != two.pop("times")
    assert one == two


def test_the_page_and_the_table_show_the_numbers_of_the_record(tmp_path: Path) -> None:
    record = decide(CONFIG, items(better(-0.05)), ARMS, CONTEXT)
    _, page = write_record(record, tmp_path)
    text = page.read_text()
    for row, each in zip(table(record), record["arms"], strict=True):
        assert row["verdict"] == each["verdict"]["word"]
        assert row["against_baseline"] == (each["against_baseline"] or {}).get("difference")
        assert f"| {row['arm']} | {row['keep_percent']:.1f} | {row['mean']:.4f} |" in text
    estimate = entry(record, "rules")["against_baseline"]
    assert f"{estimate['difference']:+.4f} [{estimate['low']:+.4f}, {estimate['high']:+.4f}]" in text
    assert record["question"] in text
    assert all(line in text for line in record["invalidated_if"])
    assert text.index("**Adopt rules") < text.index("## Why") < text.index("## What would undo it")


def test_the_share_of_wrong_answers_to_a_task_can_decide() -> None:
    config = CONFIG.model_copy(update={"metric": "error_rate", "stream": "problems", "margin_fraction": 0.01})
    record = decide(config, items(better(0.0)), ARMS, CONTEXT)
    assert record["metric"]["unit"] == "share of wrong answers"
    assert entry(record, "rules")["mean"] == pytest.approx(10 / 12)
    assert entry(record, "everything")["mean"] == pytest.approx(1.0)
    assert entry(record, "rules")["against_baseline"]["difference"] == pytest.approx(-2 / 12)
    assert entry(record, "rules")["against_baseline"]["clusters"] == 12
    assert {each["name"] for each in entry(record, "rules")["guardrails"]} == {"code", "text"}
    assert "share of wrong answers" in render(record) and "the task problems" in record["rule"]["text"]


def test_a_task_that_no_arm_solves_decides_nothing() -> None:
    config = CONFIG.model_copy(update={"metric": "error_rate", "stream": "problems", "margin_fraction": 0.02})
    none_solved = items(better(0.0)).with_columns(score=pl.when(pl.col("score").is_not_null()).then(0.0))
    record = decide(config, none_solved, ARMS, CONTEXT)
    verdict = entry(record, "rules")["verdict"]
    assert verdict["word"] == "undecided"
    assert "too hard or too easy" in verdict["reason"]
    assert "[no interval]" in render(record)


def test_unknown_arms_streams_metrics_and_context_are_refused_with_the_nearest_name() -> None:
    found = items(better(-0.05))
    with pytest.raises(ValueError, match=r'no arm "rule" \(did you mean "rules"\?\)'):
        decide(CONFIG.model_copy(update={"arms": ("rule",)}), found, ARMS, CONTEXT)
    with pytest.raises(ValueError, match=r'stream or task "cod" \(did you mean "code"\?\)'):
        decide(CONFIG.model_copy(update={"stream": "cod"}), found, ARMS, CONTEXT)
    with pytest.raises(ValueError, match=r'unknown metric "bits_per_bit" \(did you mean "bits_per_byte"\?\)'):
        decide(CONFIG.model_copy(update={"metric": "bits_per_bit"}), found, ARMS, CONTEXT)
    with pytest.raises(ValueError, match=r'unknown context "time" \(did you mean "times"\?\)'):
        decide(CONFIG, found, ARMS, {"time": {}})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(ValueError, match="no arm to compare with everything"):
        decide(CONFIG, found, [ARMS[0], ARMS[2]], CONTEXT)
