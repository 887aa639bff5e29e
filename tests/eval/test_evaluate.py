"""One model, measured: files, metrics, and what does not change between two runs."""

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import EvalConfig
from codesieve.eval.code import ReferencesFail, judge
from codesieve.eval.evaluate import evaluate, metrics, model_fingerprint
from codesieve.eval.generation import program
from codesieve.eval.statistics import wilson
from codesieve.eval.store import ITEMS, read_items
from codesieve.eval.tasks import load_task

CONFIG = EvalConfig(documents_per_stream=4, max_new_tokens=8)


def heldout() -> pl.DataFrame:
    rows = [
        (f"{language}-{number}", f"{language} line {number} é\n" * 6, stream, language, f"family-{number % 8}")
        for stream, language in [("code", "python"), ("code", "c"), ("text", "markdown")]
        for number in range(16)
    ]
    return pl.DataFrame(rows, schema=["id", "text", "stream", "language", "family"], orient="row")


def test_items_and_metrics_agree_and_two_runs_write_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    fractions: list[float] = []
    first = evaluate(tiny_model, ["heldout"], heldout(), CONFIG, tmp_path / "a", fractions.append)
    second = evaluate(tiny_model, ["heldout"], heldout()[::-1], CONFIG, tmp_path / "b")
    assert (tmp_path / "a/items.parquet").read_bytes() == (tmp_path / "b/items.parquet").read_bytes()
    assert first == json.loads((tmp_path / "a/evaluation.json").read_text())
    assert first.pop("times") and second.pop("times")
    assert first == second
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    items = read_items(tmp_path / "a")
    assert items.group_by("language").len().sort("language")["len"].to_list() == [4, 4, 4]
    python = items.filter(pl.col("language") == "python")
    code = first["metrics"]["heldout"]["code"]
    assert code["languages"]["python"]["bits_per_byte"] == pytest.approx(
        python["nats"].sum() / python["bytes"].sum() / math.log(2)
    )


def test_answers_are_judged_by_execution_and_the_references_pass_first(tiny_model: Path, tmp_path: Path) -> None:
    problem = {
        "name": "add",
        "prompt": "def add(a, b):\n",
        "entry_point": "add",
        "tests": [{"args": [1, 2], "expected": 3}],
        "reference": "    return a + b\n",
    }
    task = tmp_path / "mine.yaml"
    task.write_text("kind: code\nname: mine\nproblems: mine.jsonl\n")
    (tmp_path / "mine.jsonl").write_text(json.dumps(problem) + "\n")
    found = evaluate(tiny_model, [str(task)], None, CONFIG, tmp_path / "out")
    assert found["tasks"]["mine"]["reference_pass_rate"] == 1.0
    assert found["tasks"]["mine"]["sandbox_level"] >= 1
    assert found["metrics"]["mine"]["problems"]["passed"] == 0  # random weights
    [item] = read_items(tmp_path / "out").rows(named=True)
    assert (item["task"], item["item"], item["stream"], item["nats"]) == ("mine", "add", "problems", None)
    assert item["outcome"] not in {"passed", "scored", "ok"}
    assert item["answer"] is not None
    (tmp_path / "mine.jsonl").write_text(json.dumps({**problem, "reference": "    return a - b\n"}) + "\n")
    with pytest.raises(ReferencesFail, match="add: wrong"):
        evaluate(tiny_model, [str(task)], None, CONFIG, tmp_path / "out")


def test_a_model_that_answers_with_the_reference_passes() -> None:
    """The path from answer to verdict, with the answer that a perfect model would give: all shipped problems."""
    task = load_task("problems")
    for problem in task.problems:
        tail = problem.prompt[len(problem.prompt.rstrip()) :]
        solution = program(problem, tail + problem.reference + "\nprint('more')\n")
        assert judge(problem, solution).status == "passed", problem.name


def frame(*rows: tuple[object, ...]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=ITEMS, orient="row")


def scored(item: str, stream: str, language: str, bits: float, size: int) -> tuple[object, ...]:
    return ("heldout", item, item, stream, language, bits * size * math.log(2), size, "scored", None, None)


def test_code_is_the_mean_of_its_languages_and_text_is_one_stream() -> None:
    found = metrics(
        frame(
            scored("a", "code", "python", 2.0, 900),
            scored("b", "code", "c", 4.0, 100),
            scored("c", "text", "text", 2.0, 900),
            scored("d", "text", "markdown", 4.0, 100),
        )
    )["heldout"]
    assert (found["code"]["bits_per_byte"], found["code"]["micro"]) == (pytest.approx(3.0), pytest.approx(2.2))
    assert (found["text"]["bits_per_byte"], found["text"]["mean_of_languages"]) == (
        pytest.approx(2.2),
        pytest.approx(3.0),
    )
    assert found["code"]["languages"]["c"]["bytes"] == 100


def test_problems_give_a_rate_with_a_wilson_interval_and_all_outcomes() -> None:
    outcomes = ["passed", "wrong", "wrong", "timeout", "empty"]
    rows = [
        ("problems", each, each, "problems", "python", None, None, outcome, "x", None if outcome == "empty" else 3)
        for each, outcome in zip("abcde", outcomes, strict=True)
    ]
    found = metrics(frame(*rows))["problems"]["problems"]
    assert (found["pass_at_1"], found["low"], found["high"]) == (0.2, *wilson(1, 5))
    assert found["outcomes"] == {"passed": 1, "wrong": 2, "timeout": 1, "empty": 1}
    assert found["sandbox_level"] == 3  # an empty answer is not run


def test_the_model_fingerprint_covers_weights_tokenizer_and_config(tiny_model: Path, tmp_path: Path) -> None:
    first = model_fingerprint(tiny_model)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder)
        assert model_fingerprint(folder) == first
        with (folder / name).open("ab") as handle:
            handle.write(b" ")
        assert model_fingerprint(folder) != first


def test_a_task_that_needs_documents_says_so_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task heldout scores held-out documents"):
        evaluate(tmp_path / "no-model", ["heldout"], None, CONFIG, tmp_path)
