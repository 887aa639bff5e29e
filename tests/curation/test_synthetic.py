import ast
import json
import pickle
import tempfile

import polars as pl
import pytest
from codesieve.config import RunConfig
from codesieve.curation import synthetic
from codesieve.curation.faults import StepError, apply_step
from codesieve.curation.sources.problems import parse_problem
from codesieve.curation.steps import STEP_ERRORS, check
from codesieve.curation.synthetic import VerifyStep
from codesieve.eval.tasks.load import load_task
from codesieve.sandbox import containment
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.strict import CONFIGS, ConfigError

PATH = CONFIGS / "synthetic" / "problems.jsonl"
LINES = PATH.read_text(encoding="utf-8").splitlines()
RAW = [json.loads(line) for line in LINES]
LIMITS = Limits(cpu_seconds=1.0, wall_seconds=9.0, memory_bytes=128 * 2**20)


def batch_of(lines):
    problems = [parse_problem(line, f"problems.jsonl:{number}") for number, line in enumerate(lines, start=1)]
    return pl.DataFrame([{"text": each["text"], "kind": "synthetic", "extra": each["extra"]} for each in problems])


def verify(batch, **settings):
    step = pickle.loads(pickle.dumps(VerifyStep(LIMITS, **{"required_level": 1, **settings})))
    check([step], batch.columns)
    step.setup()
    return step(batch)


def test_our_own_set_is_what_it_says_and_the_planted_solutions_are_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = verify(batch_of(LINES), workers=2)
    assert dict(zip([raw["name"] for raw in RAW], found["verification"], strict=True)) == {
        raw["name"]: raw["planted"] for raw in RAW
    }
    assert found["verified"].to_list() == [raw["planted"] == "passed" for raw in RAW]
    assert found[STEP_ERRORS].list.len().sum() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_set_has_every_kind_of_bad_solution_planted():
    planted = [raw["planted"] for raw in RAW]
    assert planted.count("passed") == 24
    assert planted.count("wrong") >= 4
    assert planted.count("timeout") == 2
    assert {"memory", "output_flood", "syntax_error", "violation", "exception"} <= set(planted)


def test_training_and_evaluation_problems_differ():
    evaluated = load_task("problems").items
    names = {raw["name"] for raw in RAW}
    assert len(names) == len(RAW)
    assert not names & {problem.id for problem in evaluated}
    assert not {raw["entry_point"] for raw in RAW} & {problem.fields["entry_point"] for problem in evaluated}


def test_what_is_planted_never_reaches_a_document():
    for line in LINES:
        assert "planted" not in parse_problem(line, "x:1")["extra"]


def test_documents_of_other_kinds_are_left_null():
    batch = pl.DataFrame({"text": ["import os; os._exit(1)"], "kind": ["code"], "extra": ["{}"]})
    found = verify(batch)
    assert found.select("verified", "verification").row(0) == (None, None)
    assert found.schema["verified"] == pl.Boolean
    assert found.schema["verification"] == pl.String
    assert found.schema["verification_level"] == pl.Int8
    assert verify(batch.clear()).height == 0


def test_a_document_without_tests_is_null_with_a_named_error():
    batch = pl.DataFrame(
        {"text": ["x = 1"] * 3, "kind": ["synthetic"] * 3, "extra": ["{}", "{", '{"entry_point": "f"}']}
    )
    found = verify(batch)
    assert found["verified"].to_list() == [None] * 3
    messages = [errors[0] for errors in found[STEP_ERRORS]]
    assert messages[0].startswith("verify: extra has no entry_point")
    assert messages[1].startswith("verify: extra is not JSON")
    assert messages[2].startswith("verify: extra: tests: expected a list")


def test_a_level_that_the_host_does_not_give_refuses_the_first_problem_and_names_the_key():
    step = VerifyStep(required_level=4)
    step.setup()
    code = pl.DataFrame({"text": ["x = 1"], "kind": ["code"], "extra": ["{}"]})
    assert step(code)["verified"].to_list() == [None]
    for refuse in (lambda: apply_step(step, batch_of(LINES[:2])), step.check_level):
        with pytest.raises(ConfigError, match="level 4 is required") as error:
            refuse()
        assert "--set verify.sandbox_level=1" in str(error.value)
        assert "docs/security.md" in str(error.value)


def test_level_2_is_the_default():
    assert VerifyStep().required_level == 2 == RunConfig.model_fields["verify"].default_factory().sandbox_level


def test_the_level_that_was_reached_stands_beside_the_verdict():
    empty = json.dumps({**RAW[0], "solution": "# nothing"})
    found = verify(pl.concat([batch_of([LINES[0]]), batch_of([empty]).with_columns(text=pl.lit("# nothing"))]))
    assert found["verification"].to_list() == ["passed", "empty"]
    assert found["verification_level"].to_list() == [containment.best().level, None]


def test_a_sandbox_that_fails_is_no_verdict(monkeypatch):
    def fails(*arguments):
        raise SandboxError("no room")

    monkeypatch.setattr(synthetic, "judge_all", fails)
    with pytest.raises(StepError, match="no room"):
        apply_step(VerifyStep(LIMITS, required_level=1), batch_of(LINES[:3]))


def test_two_verifications_agree():
    batch = batch_of(LINES[22:28])
    assert verify(batch).equals(verify(batch, workers=3))


def test_the_text_is_a_module_with_the_statement_as_docstring():
    problem = parse_problem(LINES[0], "x:1")
    assert ast.get_docstring(ast.parse(problem["text"])) == RAW[0]["problem"]
    assert problem["text"].endswith(RAW[0]["solution"])
    assert json.loads(problem["extra"]) == {key: RAW[0][key] for key in ("name", "entry_point", "tests")}


def test_a_statement_that_a_docstring_would_change_becomes_comments():
    for statement in ['say """ twice', r"a \d", 'ends in "']:
        line = json.dumps({**RAW[0], "problem": f"{statement}\n\nmore"})
        if statement.startswith("ends"):
            line = json.dumps({**RAW[0], "problem": statement})
        text = parse_problem(line, "x:1")["text"]
        assert text.startswith(f"# {statement}\n")
        ast.parse(text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "expected an object"),
        (json.dumps({**RAW[0], "tests": None}), "tests: expected a list with at least one test"),
        (json.dumps({**RAW[0], "solution": " "}), 'field "solution" must be text, and not empty'),
        (json.dumps({**RAW[0], "solution": 1}), 'field "solution" must be text, and not empty (got 1)'),
        (json.dumps({**RAW[0], "entry_point": "f()"}), 'field "entry_point" must be the name of a function'),
        (json.dumps({k: v for k, v in RAW[0].items() if k != "tests"}), 'field "tests" is missing'),
        (
            json.dumps({("solutoin" if k == "solution" else k): v for k, v in RAW[0].items()}),
            'field "solution" is missing (did you mean "solutoin"?)',
        ),
        (json.dumps({**RAW[0], "difficulty": 1}), 'unknown field "difficulty"'),
    ],
)
def test_a_bad_line_names_file_line_and_field(line, message):
    with pytest.raises(ValueError) as error:
        parse_problem(line, "mine.jsonl:7")
    assert str(error.value).startswith("mine.jsonl:7: ")
    assert message in str(error.value)
