"""Prompts equal those of OLMo's in-loop evaluations, byte for byte: golden values from allenai/OLMo-in-loop-evals.

The request files hold their examples in the contexts; they are parsed from there and given to our task as its own.
Where a file has a quirk (a fence of Markdown after HumanEval's prompt, a space before the solutions of its examples),
the task's YAML is varied, never the code.
"""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmark_data import benchmark
from codesieve.eval.tasks.load import load_task
from codesieve.eval.tasks.prompts import context, continuation, unconditional
from codesieve.eval.tasks.task import Task
from codesieve.strict import CONFIGS

COPIES = 1_000_000
"""From this document number on, requests are those of PMI: the same continuations after an unconditional prompt."""

Rows = list[dict[str, Any]]


def requests(name: str) -> Rows:
    with gzip.open(benchmark(f"{name}.requests.jsonl.gz"), "rt", encoding="utf-8", newline="") as file:
        return [json.loads(line) for line in file.read().split("\n") if line]


def documents(found: Rows) -> Rows:
    by_number = {each["doc_id"]: each["doc"] for each in found if each["doc_id"] < COPIES}
    return [by_number[number] for number in sorted(by_number)]


def varied(folder: Path, name: str, rows: Rows, **changes: Any) -> Task:
    """The task `name` with other data and settings."""
    config = yaml.safe_load((CONFIGS / "tasks" / f"{name}.yaml").read_text())
    config["data"] = {"files": ["rows.jsonl"]}
    (folder / "task.yaml").write_text(yaml.safe_dump({**config, **changes}))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(str(folder / "task.yaml"))


def examples(found: Rows, ours: str) -> list[str]:
    """The solved examples of the first context, which ends with our prompt."""
    first = found[0]["request"]["context"]
    assert first.endswith(ours)
    return first.removesuffix(ours).removesuffix("\n\n").split("\n\n")


def question_and_answer(text: str) -> list[str]:
    return re.fullmatch(r"(?s)Question: (.*)\nAnswer: (.*)", text).groups()


def arc_row(text: str) -> dict[str, Any]:
    question, answer = question_and_answer(text)
    return {"id": text, "query": f"Question: {question}\nAnswer:", "choices": [answer, "-"], "gold": 0}


def hellaswag_row(text: str) -> dict[str, Any]:
    query, _, ending = text.rpartition(" ")
    return {"ind": text, "query": query, "choices": [ending, "-"], "gold": 0}


def gsm8k_row(text: str) -> dict[str, Any]:
    question, answer = question_and_answer(text)
    return {"question": question, "answer": answer}


def nq_row(text: str) -> dict[str, Any]:
    question, answer = question_and_answer(text)
    return {"question": question, "answer": [answer]}


def nq_document(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["question"], "answer": row["answers"]}


@pytest.mark.parametrize(
    ("file", "name", "row"),
    [("arc_easy_val_rc_5shot", "arc-easy", arc_row), ("hellaswag_rc_5shot", "hellaswag", hellaswag_row)],
)
def test_choices_are_asked_as_in_the_request_file(
    tmp_path: Path, file: str, name: str, row: Callable[[str], dict[str, Any]]
) -> None:
    found = requests(file)
    rows = documents(found)
    bare = varied(tmp_path, name, rows)
    shots = [row(text) for text in examples(found, context(bare, bare.items[0]))]
    assert len(shots) == 5
    task = varied(tmp_path, name, rows, shots={"count": 5, "rows": shots})
    for each in found:
        item = task.items[each["doc_id"] % COPIES]
        choice = item.fields["choices"][each["idx"]]
        ours = unconditional(task, item) if each["doc_id"] >= COPIES else context(task, item, choice)
        assert (ours, continuation(task, item, choice)) == (each["request"]["context"], each["request"]["continuation"])
        assert item.fields["gold"] == each["label"]


@pytest.mark.parametrize(
    ("file", "name", "row", "document", "count"),
    [
        ("gsm8k_gold_bpb_5shot", "gsm8k-bpb", gsm8k_row, dict, 8),
        ("naturalqs_open_bpb_5shot", "nq-open-bpb", nq_row, nq_document, 5),
    ],
)
def test_answers_are_scored_as_in_the_request_file(
    tmp_path: Path,
    file: str,
    name: str,
    row: Callable[[str], dict[str, Any]],
    document: Callable[[dict[str, Any]], dict[str, Any]],
    count: int,
) -> None:
    found = requests(file)
    rows = [document(each) for each in documents(found)]
    bare = varied(tmp_path, name, rows)
    shots = [row(text) for text in examples(found, context(bare, bare.items[0]))]
    assert len(shots) == count
    same_as_requested(varied(tmp_path, name, rows, shots={"count": count, "rows": shots}), found)


def test_mbpp_is_scored_as_in_the_request_file(tmp_path: Path) -> None:
    found = requests("mbpp_gold_bpb_3shot")
    shots = [
        {"task_id": text, "text": text, "code": code}
        for text, code in re.findall(r"(?s)(.*?)\n```python\n(.*?)\n```\n\n", found[0]["request"]["context"])
    ]
    assert len(shots) == 3
    same_as_requested(varied(tmp_path, "mbpp-bpb", documents(found), shots={"count": 3, "rows": shots}), found)


def test_humaneval_is_scored_as_in_the_request_file_with_its_fence(tmp_path: Path) -> None:
    found = requests("humaneval_gold_bpb_0shot")
    fence = "{prompt}Here is the completed function:\n\n```python\n"
    same_as_requested(varied(tmp_path, "humaneval-bpb", documents(found), prompt=fence), found)


def test_humaneval_with_examples_is_scored_as_in_the_request_file(tmp_path: Path) -> None:
    found = requests("humaneval_gold_bpb_3shot")
    rows = documents(found)
    by_name = {row["entry_point"]: row for row in rows}
    # Items that are among the examples get the next one instead, so there is a fourth.
    shown = dict.fromkeys(
        name
        for each in found
        for name in re.findall(r"(?m)^def (\w+)\(", each["request"]["context"].removesuffix(each["doc"]["prompt"]))
    )
    assert len(shown) == 4
    shots = {"count": 3, "rows": [by_name[name] for name in shown], "template": "{prompt} {continuation}"}
    same_as_requested(varied(tmp_path, "humaneval-bpb", rows, shots=shots), found)


def same_as_requested(task: Task, found: Rows) -> None:
    assert len(task.items) == len(found)
    for item, each in zip(task.items, found, strict=True):
        assert context(task, item) == each["request"]["context"]
        assert continuation(task, item) == each["request"]["continuation"]
