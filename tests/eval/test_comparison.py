"""Whole comparisons of made-up evaluations: what is said, what is refused, what is warned of."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codesieve.eval.comparison import compare, rows
from codesieve.eval.evaluations import read_models, short_names
from codesieve.eval.relative import relative_improvement
from codesieve.strict import ConfigError
from made_evaluations import Row, documents, problems, write_evaluation

CODE = {"humaneval": {"kind": "code"}}
HELDOUT = {"heldout": {"kind": "bits_per_byte"}}


def code(folder: Path, right: int, first: int = 0, **more: Any) -> Path:
    """A model that passes the problems `first` to `first + right`."""
    return write_evaluation(folder, problems(lambda item, _: first <= item < first + right), CODE, **more)


def only(comparison: dict[str, Any]) -> dict[str, Any]:
    """The one difference of a comparison of two models on one task."""
    (task,) = comparison["tasks"]
    (difference,) = task["differences"]
    found: dict[str, Any] = difference
    return found


def test_a_better_model_is_better_and_the_items_that_changed_are_named(tmp_path: Path) -> None:
    comparison = compare([code(tmp_path / "base", 30), code(tmp_path / "new", 45, first=2)])
    difference = only(comparison)
    assert difference["difference"] == pytest.approx(15 / 164)
    assert difference["verdict"]["word"] == "better"
    assert difference["test"] == "mcnemar"
    assert difference["worse"] == ["humaneval/0", "humaneval/1"]
    assert len(difference["better"]) == 17 and "humaneval/46" in difference["better"]
    base, new = comparison["tasks"][0]["estimates"]
    assert (base["interval"], base["value"]) == ("wilson", 30 / 164)
    assert new["outcomes"] == {"passed": 45, "wrong": 119}
    json.dumps(comparison, allow_nan=False)


def test_swapping_the_models_swaps_the_word(tmp_path: Path) -> None:
    base, new = code(tmp_path / "base", 30), code(tmp_path / "new", 45)
    forth, back = only(compare([base, new])), only(compare([base, new], baseline=new))
    assert back["verdict"]["word"] == "worse"
    assert back["difference"] == -forth["difference"]
    assert (back["low"], back["high"]) == pytest.approx((-forth["high"], -forth["low"]))
    assert back["better"] == [] and len(back["worse"]) == 15


def test_an_open_question_says_what_would_decide_it(tmp_path: Path) -> None:
    difference = only(compare([code(tmp_path / "base", 30), code(tmp_path / "new", 30, first=8)]))
    assert difference["verdict"]["word"] == "no decision"
    assert "easily missed at this size" in difference["verdict"]["reason"]
    assert difference["verdict"]["items_needed"] is None  # there is no difference to decide
    almost = only(compare([tmp_path / "base", code(tmp_path / "almost", 33)]))
    assert almost["verdict"]["word"] == "no decision"
    assert 164 < almost["verdict"]["items_needed"] < 2000
    assert almost["smallest_detectable"] > almost["difference"]


def test_several_samples_are_compared_by_item(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    rates = random.beta(0.4, 1.6, 100)
    folders = []
    for name, shift in (("base", 0.0), ("new", 0.01)):
        passed = random.random((100, 10)) < (rates + shift)[:, None]
        made = problems(lambda item, sample, passed=passed: bool(passed[item, sample]), 100, 10)  # type: ignore[misc]
        folders.append(write_evaluation(tmp_path / name, made, CODE))
    difference = only(compare(folders, replicates=1000))
    assert (difference["test"], difference["interval"]) == ("sign-flip", "bootstrap")
    assert 0 < difference["sampling_share"] <= 1
    assert difference["verdict"]["word"] == "no decision" and difference["verdict"]["samples_needed"] > 10
    assert compare(folders, metrics={"humaneval": "pass_at_5"}, replicates=100)["tasks"][0]["metric"] == "pass_at_5"
    with pytest.raises(ValueError, match="pass@20 needs at least 20 samples"):
        compare(folders, metrics={"humaneval": "pass_at_20"}, replicates=100)


def test_less_bits_per_byte_are_better(tmp_path: Path) -> None:
    made = [documents(lambda item, gain=gain: 900 + item - gain * (1 + item % 3)) for gain in (0, 20)]  # type: ignore[misc]
    base, new = (write_evaluation(tmp_path / name, each, HELDOUT) for name, each in zip("ab", made, strict=True))
    comparison = compare([base, new])
    difference = only(comparison)
    nats = [sum(row["nats"] for row in each) for each in made]
    size = sum(row["bytes"] for row in made[0])
    assert difference["difference"] == pytest.approx((nats[1] - nats[0]) / size / math.log(2))
    assert difference["verdict"]["word"] == "better" and difference["high"] < 0
    assert comparison["tasks"][0]["clusters"] == 8
    assert len(difference["better"]) == 40


def test_languages_of_held_out_code_count_the_same(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "a", documents(lambda item: 900.0, stream="code"), HELDOUT)
    comparison = compare([base])
    made = documents(lambda item: 900.0, stream="code")
    by_language = [
        sum(row["nats"] for row in made if row["language"] == name)
        / sum(row["bytes"] for row in made if row["language"] == name)
        / math.log(2)
        for name in ("python", "c")
    ]
    assert comparison["tasks"][0]["estimates"][0]["value"] == pytest.approx(np.mean(by_language))


def choices(shift: float) -> list[Row]:
    """Questions of two choices; the right one is longer, so normalisation matters."""
    details = [
        {"nats": [4.0, 5.0 + shift * (item % 2)], "tokens": [1, 2], "characters": [4, 9], "bytes": [4, 9],
         "unconditional": None, "gold": [1]}
        for item in range(50)
    ]  # fmt: skip
    return [
        {"task": "piqa", "item": f"q{item}", "cluster": f"q{item}", "stream": "choice", "language": "text",
         "score": 0.0, "outcome": "wrong", "nats": detail["nats"][1], "bytes": 9, "detail": json.dumps(detail)}
        for item, detail in enumerate(details)
    ]  # fmt: skip


def test_choices_are_scored_anew_under_another_normalisation(tmp_path: Path) -> None:
    facts = {"piqa": {"kind": "choice", "metric": "raw"}}
    base, new = (write_evaluation(tmp_path / name, choices(shift), facts) for name, shift in (("a", 9), ("b", 0)))
    assert only(compare([base, new]))["difference"] == 0
    normalised = only(compare([base, new], metrics={"piqa": "accuracy_characters"}))
    assert normalised["difference"] == 0.5
    with pytest.raises(ConfigError, match='did you mean "accuracy_characters"'):
        compare([base, new], metrics={"piqa": "accuracy_character"})


def test_p_values_are_corrected_over_tasks_but_not_for_the_primary_one(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(6)]
    facts = {name: {"kind": "code"} for name in names}
    folders = []
    for model, right in (("base", 30), ("new", 37)):
        made = [row for name in names for row in problems(lambda item, _, right=right: item < right, task=name)]  # type: ignore[misc]
        folders.append(write_evaluation(tmp_path / model, made, facts))
    together = compare(folders)
    assert together["comparisons"] == 6
    assert {task["differences"][0]["verdict"]["word"] for task in together["tasks"]} == {"no decision"}
    named = compare(folders, primary="t3")
    words = {task["task"]: task["differences"][0]["verdict"]["word"] for task in named["tasks"]}
    assert words.pop("t3") == "better"
    assert set(words.values()) == {"no decision"}
    loose = compare(folders, correction="benjamini-hochberg")
    assert {task["differences"][0]["verdict"]["word"] for task in loose["tasks"]} == {"better"}


def seeds(folder: Path, name: str, right: list[int]) -> list[Path]:
    return [code(folder / f"{name}-{seed}", count) for seed, count in enumerate(right)]


def test_the_noise_between_seeds_decides_where_it_is_larger(tmp_path: Path) -> None:
    quiet = compare(
        [*seeds(tmp_path / "q", "base", [30, 31, 29]), *seeds(tmp_path / "q", "new", [45, 44, 46])], by_seed=True
    )
    assert [model["name"] for model in quiet["models"]] == ["base", "new"]
    assert only(quiet)["verdict"]["word"] == "better"
    loud = only(
        compare(
            [*seeds(tmp_path / "l", "base", [15, 30, 45]), *seeds(tmp_path / "l", "new", [30, 45, 60])], by_seed=True
        )
    )
    assert loud["p"] < 0.05 and loud["low"] > 0  # over items it would have been clear
    assert loud["verdict"]["word"] == "no decision" and "between seeds" in loud["verdict"]["reason"]
    assert loud["seeds"]["sd"] == pytest.approx(15 / 164)
    assert loud["seeds"]["freedom"] == 4
    assert loud["verdict"]["seeds_needed"] > 3


def test_a_folder_of_evaluations_is_a_model_with_several_seeds(tmp_path: Path) -> None:
    seeds(tmp_path / "base", "s", [30, 32])
    seeds(tmp_path / "new", "s", [40, 45])
    comparison = compare([tmp_path / "base", tmp_path / "new"])
    assert [(model["name"], model["seeds"]) for model in comparison["models"]] == [("base", 2), ("new", 2)]
    assert comparison["tasks"][0]["estimates"][0]["by_seed"] == [30 / 164, 32 / 164]


def test_other_tasks_or_items_are_not_paired(tmp_path: Path) -> None:
    base = code(tmp_path / "base", 30)
    other = write_evaluation(
        tmp_path / "other", problems(lambda item, _: True), {"humaneval": {"kind": "code", "fingerprint": "changed"}}
    )
    with pytest.raises(ValueError, match=r'task "humaneval" is not the same task .*changed'):
        compare([base, other])
    fewer = write_evaluation(tmp_path / "fewer", problems(lambda item, _: True, items=160), CODE)
    with pytest.raises(ValueError, match=r"item humaneval/160 was not asked of fewer \(4 such items\)"):
        compare([base, fewer])
    apart = write_evaluation(tmp_path / "apart", documents(lambda item: 900.0), HELDOUT)
    with pytest.raises(ValueError, match="no task in common"):
        compare([base, apart])
    longer = documents(lambda item: 900.0)
    longer[5]["bytes"] += 1
    with pytest.raises(ValueError, match="item d005: 550 bytes were scored for apart, 551 for longer"):
        compare([apart, write_evaluation(tmp_path / "longer", longer, HELDOUT)])


def test_what_may_explain_a_difference_is_warned_of(tmp_path: Path) -> None:
    base = code(tmp_path / "base", 30, model="same")
    made = problems(lambda item, _: item < 31, sandbox_level=2)
    made[0]["judge"] = "weak"
    other = write_evaluation(
        tmp_path / "other", [*made, *documents(lambda item: 1.0)], CODE | HELDOUT,
        model="same", config={"temperature": 0.8}, backend={"dtype": "bfloat16"},
    )  # fmt: skip
    warnings = compare([base, other])["warnings"]
    for text in ("temperature differs: base 0.0, other 0.8", "dtype differs", "the sandbox level differs: base 3, other 2",
                 "the judge differs: base apart, other weak for 1 of the items", "are the same model",
                 "heldout (text): left out, because it was not measured for base"):  # fmt: skip
        assert any(text in warning for warning in warnings), text


def test_settings_that_differ_between_the_seeds_of_one_model_are_warned_of(tmp_path: Path) -> None:
    for name in ("base", "new"):
        for seed in (0, 1):
            config = {"temperature": 0.8 if (name, seed) == ("new", 1) else 0.0, "seed": seed}
            window = 512 if (name, seed) == ("base", 0) else 2048
            code(tmp_path / name / str(seed), 30, config=config, backend={"dtype": "float32", "context_tokens": window})
    warnings = compare([tmp_path / "base", tmp_path / "new"])["warnings"]
    for text in (
        "temperature differs: base 0.0, new/0 0.0, new/1 0.8",
        "seed differs: base/0 0, base/1 1, new/0 0, new/1 1",
        "context_tokens differs: base/0 512, base/1 2048, new 2048",
    ):
        assert text in warnings, text


def talk(folder: Path, scores: list[float] | None, judge: str | None = "j", against: str = "x") -> Path:
    """Answers of a model; judged against those of another where there are scores."""
    rows = [
        {"task": "talk", "item": f"p{number}", "cluster": f"p{number}", "stream": "judge", "language": "",
         "outcome": "answered", "prompt": "Why?", "answer": "Because."}
        | ({} if scores is None else {"score": scores[number], "outcome": "win" if scores[number] else "loss"})
        for number in range(12)
    ]  # fmt: skip
    judged = {"judge": judge, "against": against} if scores is not None else {"judge": None, "against": None}
    return write_evaluation(folder, rows, {"talk": {"kind": "judge", **judged}})


def test_answers_that_nobody_judged_are_shown_and_not_compared(tmp_path: Path) -> None:
    bare, judged = talk(tmp_path / "a", None), talk(tmp_path / "b", [1.0] * 9 + [0.0] * 3)
    alone = compare([bare])
    assert [(row["score"], row["verdict"]) for row in rows(alone)] == [("no score", "")]
    assert (alone["tasks"][0]["items"], alone["warnings"]) == (12, [])
    both = compare([bare, judged])
    assert [row["score"][:4] for row in rows(both)] == ["no s", "75.0"]
    assert both["tasks"][0]["differences"] == []
    assert both["warnings"] == [
        "talk: b is not compared with a: no answer of a has a score; answers are judged with --judge"
    ]
    json.dumps(both, allow_nan=False)


def test_win_rates_need_one_judge_and_one_other_side(tmp_path: Path) -> None:
    base = talk(tmp_path / "base", [1.0] * 6 + [0.0] * 6)
    made = {"same": ("j", "x"), "judge": ("k", "x"), "side": ("j", "y")}
    others = [talk(tmp_path / name, [1.0] * 12, *how) for name, how in made.items()]
    comparison = compare([base, *others])
    assert [each["model"] for each in comparison["tasks"][0]["differences"]] == ["same"]
    assert comparison["comparisons"] == 1
    said = "is not compared with base: their answers were compared by different judges, or with different answers"
    assert comparison["warnings"] == [f"talk: judge {said}", f"talk: side {said}"]


def test_an_evaluation_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    base = code(tmp_path / "base", 3)
    (base / "items.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"base/items\.parquet: cannot be read: .*evaluate again"):
        compare([base])


def test_answers_without_a_score_are_left_out_and_counted(tmp_path: Path) -> None:
    made = problems(lambda item, _: item < 30)
    made[3] |= {"score": None, "outcome": "harness error"}
    broken = write_evaluation(tmp_path / "broken", made, CODE)
    alone = compare([broken])
    assert alone["tasks"][0]["items"] == 163
    assert alone["warnings"] == ["humaneval: 1 answers of broken have no score and are left out (0.6 %)"]
    together = compare([code(tmp_path / "base", 30), broken])
    assert (only(together)["items"], only(together)["difference"]) == (163, 0.0)
    for row in made[40:60]:
        row |= {"score": None}
    many = compare([write_evaluation(tmp_path / "many", made, CODE)])
    assert "may be a chosen part" in many["warnings"][0]


TALK, FACT = {"talk": {"kind": "code"}, "more": {"kind": "code"}}, {"fact": {"kind": "code"}}


def group(mean: float, *tasks: str, title: str = "group", whole: bool = True) -> dict[str, Any]:
    """A group of a suite as an evaluation summarises it."""
    scored = {task: {"metric": "pass_at_1", "value": mean, "complete": whole, "why": []} for task in tasks}
    return {"title": title, "tasks": scored, "missing": [], "mean": mean if whole else None, "mean_of_available": mean}


def in_groups(folder: Path, items: int = 9, **groups: dict[str, Any]) -> Path:
    """An evaluation on three tasks, `items` of "more", with a suite of these groups; "nl" is the average of two."""
    rows = [
        *problems(lambda *_: True, 9, task="talk"),
        *problems(lambda *_: True, items, task="more"),
        *problems(lambda *_: True, 9, task="fact"),
    ]
    averages = {"nl": None if any(each["mean"] is None for each in groups.values()) else 0.5}
    suite = {"title": "paper", "groups": groups, "averages": averages, "averages_of": {"nl": list(groups)}}
    return write_evaluation(folder, rows, TALK | FACT, suites={"paper": suite})


def test_relative_improvement_is_taken_on_the_means_of_groups(tmp_path: Path) -> None:
    base = in_groups(tmp_path / "base", reasoning=group(49.0, "talk"), knowledge=group(9.5, "fact", whole=False))
    new = in_groups(tmp_path / "new", reasoning=group(53.0, "talk"), knowledge=group(9.9, "fact", whole=False))
    comparison = compare([base, new])
    found = {row["group"]: row["relative"] for row in comparison["relative"]["paper"]}
    # Table 2 of the paper: balanced→text against text-only, +8.2 % and +4.2 %.
    assert found["reasoning"] == pytest.approx(0.082, abs=5e-4)
    assert found["knowledge"] == pytest.approx(0.042, abs=5e-4)
    assert found["nl"] is None
    assert not [each for each in comparison["warnings"] if "relative" in each]


def test_groups_of_other_tasks_are_not_joined_whatever_their_titles(tmp_path: Path) -> None:
    part = {"title": "reasoning (1 of 2)", "whole": False}
    base = in_groups(tmp_path / "base", reasoning=group(0.2, "talk", **part), knowledge=group(0.1, "fact"))
    new = in_groups(tmp_path / "new", reasoning=group(0.4, "more", **part), knowledge=group(0.2, "fact"))
    comparison = compare([base, new])
    rows = {row["group"]: row for row in comparison["relative"]["paper"]}
    assert (rows["reasoning"]["relative"], rows["knowledge"]["relative"]) == (None, 1.0)
    said = "paper, reasoning: no relative improvement of new: more, talk was measured for one of the models only"
    assert said in comparison["warnings"]


def test_groups_and_averages_of_other_items_are_not_joined(tmp_path: Path) -> None:
    base = in_groups(tmp_path / "base", reasoning=group(0.2, "talk", "more"), code=group(0.2, "fact"))
    fewer = in_groups(tmp_path / "fewer", 8, reasoning=group(0.4, "talk", "more"), code=group(0.4, "fact"))
    found = {row["group"]: row for row in relative_improvement(read_models([base, fewer]))["paper"]}
    assert {name: row["relative"] for name, row in found.items()} == {"reasoning": None, "code": 1.0, "nl": None}
    assert found["reasoning"]["left_out"] == found["nl"]["left_out"] == "more: other items, or another metric"


def test_a_suite_that_only_one_model_has_is_said(tmp_path: Path) -> None:
    alone = write_evaluation(tmp_path / "alone", problems(lambda *_: True, 9, task="talk"), TALK)
    found = compare([alone, in_groups(tmp_path / "new", reasoning=group(0.4, "talk"))])["relative"]["paper"]
    assert {row["left_out"] for row in found} == {"only one of the models has the suite"}


def test_the_table_has_a_row_a_task_and_model(tmp_path: Path) -> None:
    table = rows(compare([code(tmp_path / "base", 30), code(tmp_path / "new", 45)]))
    assert [(row["task"], row["model"], row["verdict"]) for row in table] == [
        ("humaneval", "base", "baseline"), ("humaneval", "new", "better"),
    ]  # fmt: skip
    assert table[0]["score"] == "18.3 % [13.1, 24.9]"
    assert table[1]["difference"].startswith("+9.1 [+")


def test_names_are_what_tells_the_folders_apart(tmp_path: Path) -> None:
    assert short_names([Path("/m/a/eval"), Path("/m/b/eval")]) == ["a", "b"]
    assert short_names([Path("/m/a/x/eval"), Path("/m/b/x/eval")]) == ["a", "b"]
    assert short_names([Path("/m/a/1"), Path("/m/b/1"), Path("/m/b/2")]) == ["a/1", "b/1", "b/2"]
    assert short_names([Path("/m/a/eval")]) == ["a"]


def test_folders_that_hold_no_evaluation_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no items\.parquet here"):
        compare([tmp_path])
    base = code(tmp_path / "base", 3)
    with pytest.raises(ConfigError, match="given twice"):
        compare([base, base])
    with pytest.raises(ConfigError, match='unknown baseline "bas"'):
        compare([base], baseline="bas")
