"""Our own problems: every reference passes, and no answer that ignores the question does."""

import ast
import copy
import json
from collections import Counter

import pytest
from codesieve.eval.tasks.load import load_task
from codesieve.sandbox import values
from codesieve.sandbox.judge import CallTests, Trial, judge_all, parse_tests
from codesieve.strict import CONFIGS

ROWS = [json.loads(line) for line in (CONFIGS / "tasks" / "problems.jsonl").read_text(encoding="utf-8").splitlines()]
CONSTANTS = [None, 0, 1, -1, "", [], {}, True, False]


def trial(row: dict, body: str) -> Trial:
    return Trial(row["prompt"] + body, CallTests(row["entry_point"], parse_tests(row["tests"], row["name"])))


def answers(row: dict) -> list[str]:
    return [values.canonical(test["expected"]) for test in row["tests"]]


def test_there_are_enough_problems_of_each_difficulty():
    assert len(ROWS) >= 42
    assert all(count >= 14 for count in Counter(row["difficulty"] for row in ROWS).values())
    assert {row["difficulty"] for row in ROWS} == {"easy", "medium", "hard"}
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_the_task_has_all_problems():
    task = load_task("problems")
    assert [item.id for item in task.items] == [row["name"] for row in ROWS]
    assert task.config.min_reference_pass_rate == 1.0


def test_every_reference_passes_in_the_sandbox():
    outcomes = judge_all([trial(row, row["reference"]) for row in ROWS])
    assert [(row["name"], o.detail) for row, o in zip(ROWS, outcomes, strict=True) if o.status != "passed"] == []


def test_an_answer_that_is_always_the_same_passes_in_the_sandbox_nowhere():
    outcomes = judge_all([trial(row, "    return None\n") for row in ROWS[::5]])
    assert {outcome.status for outcome in outcomes} == {"wrong"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_no_constant_and_no_argument_is_the_answer_to_all_tests(row: dict):
    expected = answers(row)
    assert 5 < len(expected) < 13
    assert len(set(expected)) > 1
    for constant in CONSTANTS:
        assert {values.canonical(json.loads(values.encode(constant)))} != set(expected)
    for place in range(len(row["tests"][0]["args"])):
        assert [values.canonical(test["args"][place]) for test in row["tests"]] != expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_problem_is_one_typed_function_whose_example_is_true(row: dict):
    (function,) = ast.parse(row["prompt"] + row["reference"]).body
    assert isinstance(function, ast.FunctionDef)
    assert function.name == row["name"] == row["entry_point"]
    assert function.returns is not None
    assert all(argument.annotation for argument in function.args.args)
    example = ast.get_docstring(function).partition(">>> ")[2].splitlines()
    space: dict = {}
    exec(compile(row["prompt"] + row["reference"], row["name"], "exec"), space)
    assert repr(eval(example[0], space)) == example[1]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_reference_is_deterministic_and_leaves_its_arguments_alone(row: dict):
    space: dict = {}
    exec(compile(row["prompt"] + row["reference"], row["name"], "exec"), space)
    for test in row["tests"]:
        args = values.decode(test["args"])
        before = copy.deepcopy(args)
        assert space[row["name"]](*args) == space[row["name"]](*args) == values.decode(test["expected"])
        assert args == before
