"""The table of an evaluation: every pass@k, how much of the data, and what to know beside a score."""

from typing import Any

from codesieve.eval.notes import data_notes, run_notes
from codesieve.eval.scores import score_rows, suite_rows

FACTS = {"of": 164, "items": 164, "verified": True, "reference_pass_rate": 1.0, "own_references": 0}
FOUND = {
    "pass_at_1": 0.2, "pass_at_1_low": 0.1, "pass_at_1_high": 0.3, "pass_at_100": 0.7, "pass_at_10": 0.5,
    "problems": 164, "samples": 164, "sandbox_level": 3, "judged_weakly": 0,
}  # fmt: skip


def rows(found: dict[str, Any], stream: str = "problems", **facts: Any) -> list[dict[str, Any]]:
    return score_rows({"metrics": {"t": {stream: found}}, "tasks": {"t": {**FACTS, **facts}}})


def test_every_pass_at_k_that_was_computed_has_a_row() -> None:
    found = rows({**FOUND, "samples": 3280})
    assert [(row["metric"], row["score"]) for row in found] == [
        ("pass_at_1", "0.2000"), ("pass_at_10", "0.5000"), ("pass_at_100", "0.7000")
    ]  # fmt: skip
    assert found[0]["95 %"] == "0.1000 to 0.3000"
    assert (found[0]["items"], found[0]["notes"]) == (164, "3,280 answers, sandbox level 3, references pass 100 %")
    assert "notes" not in found[1]


def test_a_part_of_the_items_and_another_file_are_said_beside_the_score() -> None:
    choice = {"accuracy": 0.5, "chance": 0.25, "items": 1000}
    (row,) = rows(choice, "choice", of=10042, verified=False)
    assert (row["items"], row["chance"]) == ("1,000 of 10,042", "0.250")
    assert row["notes"].startswith("not the published file")


def test_what_is_not_known_of_a_file_is_said_only_of_published_data() -> None:
    assert data_notes({"of": 10, "items": 10, "verified": None}, 10) == [
        "file not compared: no published hash is known"
    ]
    assert data_notes({"of": None, "items": 10, "verified": None}, 10) == []
    assert data_notes({"of": None, "items": 10, "verified": None}, 3) == ["3 of 10 items"]
    assert data_notes({}, None) == []


def test_what_was_cut_is_said() -> None:
    facts = {"prompts_cut": 3, "answers_cut": 1200, "max_new_tokens": 128, "max_new_tokens_asked": 512}
    assert run_notes(facts, {}) == [
        "3 prompts cut", "1,200 answers cut", "answers of at most 128 tokens for the model's window, not 512"
    ]  # fmt: skip


def test_a_task_without_references_says_what_was_run_in_their_place() -> None:
    assert run_notes({"reference_pass_rate": None, "own_references": 1}, {}) == [
        "no references in the data; 1 of our own pass"
    ]
    assert run_notes({"reference_pass_rate": None, "own_references": 0}, {}) == ["no references"]


def test_a_void_win_rate_and_answers_alone_have_rows() -> None:
    assert rows({"win_rate": None, "items": 4}, "judge")[0]["score"] == "void"
    assert rows({"answered": 1200, "items": 1200}, "judge")[0]["score"] == "1,200"


def test_a_suites_rows_say_why_a_group_has_no_mean() -> None:
    task = {"metric": "accuracy", "value": 0.5, "complete": False, "why": ["1,000 of 10,042 items", "temperature 1"]}
    part = {"title": "talk (0 of 2)", "complete": False, "tasks": {"hellaswag": task}, "missing": ["sciq"],
            "mean": None, "mean_of_available": 0.5}  # fmt: skip
    found = suite_rows({"groups": {"talk": part}, "averages": {"nl": None}})
    assert found[0] == {
        "group": "talk (0 of 2)",
        "mean": "",
        "of what is there": "0.5000",
        "not the paper's, because": "hellaswag: 1,000 of 10,042 items; temperature 1; not measured: sciq",
    }
    assert found[1] == {"group": "average: nl", "mean": ""}
