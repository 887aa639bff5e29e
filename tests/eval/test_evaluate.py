"""One model, measured: files, metrics, what does not change between two runs, and what an interruption loses."""

import gzip
import json
import multiprocessing
import random
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import EvalConfig
from codesieve.eval.evaluate import evaluate, gather
from codesieve.eval.kinds.execution import ReferencesFail
from codesieve.eval.store import read_items
from codesieve.strict import ConfigError
from evaluation_world import FunctionBackend, answer, slow_run

PROBLEMS = [
    {"name": "add", "entry_point": "add", "prompt": "def add(a, b):\n", "reference": "    return a + b\n",
     "tests": [{"args": [1, 2], "expected": 3}]},
    {"name": "twice", "entry_point": "twice", "prompt": "def twice(a):\n", "reference": "    return 2 * a\n",
     "tests": [{"args": ["x"], "expected": "xx"}, {"args": [0], "expected": 0}]},
]  # fmt: skip

CODE = """
kind: code
name: mine
data: {files: [mine.jsonl]}
layouts:
  - {id: "{name}", entry_point: "{entry_point}", prompt: "{prompt}", reference: "{reference}", tests: "{tests}"}
"""

CHOICE = """
kind: choice
name: colours
data: {files: [colours.jsonl]}
layouts: [{id: "{n}", question: "{q}", choices: "{c}", gold: "{g}"}]
prompt: "{question}"
"""

MATCH = """
kind: generate_match
name: capitals
data: {files: [capitals.jsonl]}
layouts: [{id: "{q}", question: "{q}", answers: ["{a}"]}]
prompt: "{question}:"
"""


def rows(path: Path, *values: dict) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def tasks(folder: Path) -> tuple[str, ...]:
    """Three tasks of different kinds, with data beside them."""
    for name, text in (("mine", CODE), ("colours", CHOICE), ("capitals", MATCH)):
        (folder / f"{name}.yaml").write_text(text)
    rows(folder / "mine.jsonl", *PROBLEMS)
    rows(
        folder / "colours.jsonl", *({"n": n, "q": "?" * n, "c": ["blue", "red", "green"], "g": n % 3} for n in range(9))
    )
    rows(folder / "capitals.jsonl", {"q": "France", "a": "Paris"}, {"q": "Chad", "a": "N'Djamena"})
    return tuple(
        str(folder / f"{name}.yaml") for name in ("mine", "colours", "capitals", "heldout") if name != "heldout"
    )


def heldout() -> pl.DataFrame:
    languages = [("code", "python"), ("code", "c"), ("text", "markdown")]
    made = [
        {
            "id": f"{language}-{n}",
            "text": f"{language} {n} é\n" * 6,
            "stream": stream,
            "language": language,
            "family": f"f{n}",
        }
        for stream, language in languages
        for n in range(8)
    ]
    return pl.DataFrame(made)


def config(names: tuple[str, ...], **fields) -> EvalConfig:
    return EvalConfig(tasks=names, documents_per_stream=4, **fields)


def test_every_kind_of_task_gives_items_and_metrics(tmp_path: Path) -> None:
    fractions: list[float] = []
    names = (*tasks(tmp_path), "heldout")
    found = evaluate(
        FunctionBackend(answer=answer), heldout(), config(names), tmp_path / "out", fractions.append, workers=2
    )
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert found == json.loads((tmp_path / "out/evaluation.json").read_text())
    metrics = found["metrics"]
    assert metrics["mine"]["problems"]["outcomes"] == {"passed": 1, "wrong": 1}
    assert metrics["colours"]["choice"]["accuracy"] == pytest.approx(3 / 9)  # "red" is the shortest
    assert metrics["capitals"]["match"]["exact_match"] == 0.5
    assert metrics["heldout"]["code"]["bits_per_byte"] == pytest.approx(8.0)
    items = read_items(tmp_path / "out")
    assert items.filter(pl.col("task") == "mine")["judge"].unique().to_list() == ["apart"]
    assert found["tasks"]["mine"]["reference_pass_rate"] == 1.0
    assert str(tmp_path) not in json.dumps(found)


def test_two_runs_write_the_same_bytes_whatever_the_order_and_the_workers(tmp_path: Path) -> None:
    names = (*tasks(tmp_path), "heldout")
    first = evaluate(FunctionBackend(answer=answer), heldout(), config(names), tmp_path / "a", workers=1)
    for name in ("mine", "colours", "capitals"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    second = evaluate(
        FunctionBackend(answer=answer, batch=5), heldout()[::-1], config(names), tmp_path / "b", workers=3
    )
    assert (tmp_path / "a/items.parquet").read_bytes() == (tmp_path / "b/items.parquet").read_bytes()
    assert first["metrics"] == second["metrics"]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    names = (*tasks(tmp_path), "heldout")
    evaluate(FunctionBackend(answer=answer), heldout(), config(names), tmp_path / "out")
    again = FunctionBackend(answer=answer)
    evaluate(again, heldout(), config(names), tmp_path / "out")
    assert again.asked == []
    other = FunctionBackend(answer=answer, identity="another model")
    evaluate(other, heldout(), config(names), tmp_path / "out", say=lambda _: None)
    assert other.asked


def test_references_that_fail_stop_the_evaluation_before_the_model_is_asked(tmp_path: Path) -> None:
    names = tasks(tmp_path)[:1]
    rows(tmp_path / "mine.jsonl", {**PROBLEMS[0], "reference": "    return a - b\n"})
    backend = FunctionBackend(answer=answer)
    with pytest.raises(ReferencesFail, match="add: wrong"):
        evaluate(backend, None, config(names), tmp_path / "out")
    assert backend.asked == []


def test_two_different_tasks_of_one_name_and_missing_documents_are_refused(tmp_path: Path) -> None:
    names = tasks(tmp_path)
    (tmp_path / "other.yaml").write_text(CHOICE.replace('prompt: "{question}"', 'prompt: "Q: {question}"'))
    with pytest.raises(ConfigError, match='two different tasks are named "colours"'):
        gather(config((*names, str(tmp_path / "other.yaml"))))
    with pytest.raises(ValueError, match="task heldout needs held-out documents"):
        evaluate(FunctionBackend(), None, config(("heldout",)), tmp_path / "out")


def test_an_evaluation_of_other_settings_is_replaced_but_not_in_silence(tmp_path: Path) -> None:
    names = tasks(tmp_path)
    said: list[str] = []

    def run(some: tuple[str, ...], **fields) -> None:
        evaluate(FunctionBackend(answer=answer), None, config(some, **fields), tmp_path / "out", say=said.append)

    run(names)
    run(names)
    assert said == []
    run(names[:1], samples=2, temperature=0.6, pass_at=(1, 2))
    assert len(said) == 1
    for text in ("temperature 0.0", "samples 1", "tasks capitals, colours", "is replaced", "--out"):
        assert text in said[0]
    run(names[:1], samples=2, temperature=0.6, pass_at=(1, 2))
    assert len(said) == 1


def test_a_damaged_line_of_the_records_is_said_and_asked_again(tmp_path: Path) -> None:
    names = tasks(tmp_path)[1:2]
    whole = evaluate(FunctionBackend(answer=answer), None, config(names), tmp_path / "out")
    path = tmp_path / "out/records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4][:-9], *lines[5:]]) + "\n")
    said: list[str] = []
    again = FunctionBackend(answer=answer, batch=1)
    found = evaluate(again, None, config(names), tmp_path / "out", say=said.append)
    assert len(again.asked) == 1
    assert said == [f"{path}: line 5: no record; put into records.damaged.jsonl, and asked again"]
    assert found["metrics"] == whole["metrics"]


def test_what_must_be_known_beside_a_score_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(b'{"task_id": "a", "prompt": "def f():\\n", '
        b'"canonical_solution": "    return 1\\n", "test": "def check(c): assert c() == 1", "entry_point": "f"}\n'))  # fmt: skip
    found = evaluate(
        FunctionBackend(answer=lambda *_: "\n    return 1"),
        None,
        config(("humaneval",), data=(str(tmp_path),)),
        tmp_path / "o",
    )
    facts = found["tasks"]["humaneval"]
    assert facts["verified"] is False
    assert facts["notes"][:2] == ["1 of 164 items", "not the published file"]


def test_a_suite_says_what_it_lacks_and_gives_no_mean_of_a_part(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="to-code-or-not: no task of it has its data"):
        gather(config(("to-code-or-not",)))
    rows(tmp_path / "piqa.jsonl", {"goal": "g", "sol1": "a", "sol2": "b", "label": 0})
    found = evaluate(FunctionBackend(), None, config(("to-code-or-not",), data=(str(tmp_path),)), tmp_path / "out")[
        "suites"
    ]["to-code-or-not"]
    assert found["title"].startswith("to-code-or-not (0 of 15")  # one item is not the published set
    groups = list(found["groups"].values())
    assert all(group["mean"] is None for group in groups)
    assert all(value is None for value in found["averages"].values())


def test_a_run_that_is_killed_at_random_points_ends_with_the_same_bytes(tmp_path: Path) -> None:
    names = (*tasks(tmp_path), "heldout")
    chance = random.Random(5)
    # From a server that has imported everything and runs no threads: a fork of this process could hang.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["evaluation_world", "codesieve.eval.evaluate", "torch"])

    def run(out: str, seconds: float | None) -> bool:
        process = processes.Process(target=slow_run, args=(config(names), heldout(), tmp_path / out))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        return process.exitcode == 0

    assert run("whole", None)
    kills = 0
    while kills < 6 and not run("killed", chance.uniform(0.1, 0.7)):
        kills += 1
    assert run("killed", None)
    assert (tmp_path / "whole/items.parquet").read_bytes() == (tmp_path / "killed/items.parquet").read_bytes()
    whole, killed = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "killed"))
    assert whole.pop("times") and killed.pop("times")
    assert whole == killed
    assert kills
