"""Tasks of code: references first, then answers, each in the sandbox; what is extracted, and samples of others."""

import gzip
import json
from dataclasses import dataclass, field, replace

import pytest
from codesieve.config import EvalConfig
from codesieve.eval.backends.protocol import Generated
from codesieve.eval.backends.replay import ReplayBackend
from codesieve.eval.kinds import code
from codesieve.eval.kinds.answers import extracted, fenced_part, function_part, has_code
from codesieve.eval.kinds.execution import (
    CAP_SECONDS,
    FLOOR_SECONDS,
    ReferencesFail,
    calibrate,
    limits_for,
    shadowed_builtins,
    trial_of,
    verdict,
)
from codesieve.eval.kinds.programs import calibrated
from codesieve.eval.kinds.replay import replay
from codesieve.eval.records import Records
from codesieve.eval.samples import Sample, read_samples
from codesieve.eval.session import Session
from codesieve.eval.tasks.items import Item
from codesieve.eval.tasks.schema import CodeTask
from codesieve.eval.tasks.task import Task
from codesieve.sandbox import containment
from codesieve.sandbox.judge import AssertTests, CheckTests, ProgramTests, StdioTests, judge_all
from codesieve.sandbox.run import Outcome
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st

PROMPT = 'def add(a: int, b: int) -> int:\n    """Return the sum."""\n'
REFERENCE = "    return a + b\n"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n"


def item(name="add/0", **fields):
    known = {"prompt": PROMPT, "reference": REFERENCE, "tests": CHECK, "entry_point": "add"}
    return Item(name, name.partition("/")[0], "", {**known, **fields})


def task(*items, **config):
    made = {"kind": "code", "name": "t", "data": {"files": ["t.jsonl"]}, "tests": {"form": "check"}, **config}
    return Task(CodeTask.model_validate(made), items or (item(),), (), "fingerprint")


@dataclass
class Scripted:
    """Answers by item and sample."""

    answers: dict
    asked: list = field(default_factory=list)
    identity: str = "scripted"
    facts: dict = field(default_factory=dict)

    def generate(self, requests, sampling, done=None, known=()):
        self.asked += requests
        found = [Generated(self.answers[each.key][each.sample], 3, "stop") for each in requests]
        done(range(len(requests)), found)
        return found


def run(task, answers, folder, **config):
    samples = len(next(iter(answers.values())))
    settings = EvalConfig(samples=samples, temperature=0.5 if samples > 1 else 0.0, sandbox_level=1, **config)
    backend = Scripted(answers)
    with Records(folder) as records:
        return *code.run(task, Session(backend, records, settings)), backend


def test_answers_are_judged_after_the_references(tmp_path):
    both = task(item(), item("add/1"), item("other/0"))
    answers = {
        "add/0": ["\n    return a + b\n\nprint(add(1, 2))", "\n    return a - b"],
        "add/1": ["\n    # to do", "\n    return a +"],
        "other/0": ["\n    return b + a", "\n    raise KeyError(a)"],
    }
    items, facts, backend = run(both, answers, tmp_path)
    assert items.select("item", "sample", "cluster", "outcome", "score").rows() == [
        ("add/0", 0, "add", "passed", 1.0),
        ("add/0", 1, "add", "wrong", 0.0),
        ("add/1", 0, "add", "empty", 0.0),
        ("add/1", 1, "add", "syntax_error", 0.0),
        ("other/0", 0, "other", "passed", 1.0),
        ("other/0", 1, "other", "exception", 0.0),
    ]
    assert items["stream"].unique().to_list() == ["problems"]
    assert items["judge"].to_list() == ["apart", "apart", None, "apart", "apart", "apart"]
    assert items["language"].unique().to_list() == ["python"]
    assert items["prompt"][0] == PROMPT.rstrip() == backend.asked[0].prompt
    assert json.loads(items["detail"][1]) == {"why": "failed: assert candidate(1, 2) == 3"}
    level = facts.pop("sandbox_level")
    assert level == items["sandbox_level"].max() == containment.best().level
    assert facts == {
        "reference_pass_rate": 1.0, "references_failed": [], "own_references": 0, "prompts_cut": 0, "answers_cut": 0,
        "max_new_tokens": 96, "max_new_tokens_asked": 96,
    }  # fmt: skip
    again, facts_again, _ = run(both, answers, tmp_path)
    assert again.equals(items)
    assert facts_again == {**facts, "sandbox_level": level}


def test_what_is_on_record_is_not_judged_again(tmp_path, monkeypatch):
    run(task(), {"add/0": ["\n    return a + b"]}, tmp_path)
    monkeypatch.setattr("codesieve.eval.kinds.execution.judge_all", lambda *_: pytest.fail("judged again"))
    items, *_ = run(task(), {"add/0": ["\n    return a + b"]}, tmp_path)
    assert items["outcome"].to_list() == ["passed"]


def test_references_that_fail_are_all_named_before_anything_is_asked(tmp_path):
    broken = task(item(), item("add/1", reference="    return 5\n"), item("add/2", reference="    return c\n"))
    backend = Scripted({})
    with Records(tmp_path) as records, pytest.raises(ReferencesFail) as error:
        code.run(broken, Session(backend, records, EvalConfig(sandbox_level=1)))
    assert "33.3% of the references pass, 100.0% are required" in str(error.value)
    assert "add/1: wrong: failed: assert candidate(1, 2) == 3" in str(error.value)
    assert "add/2: exception: NameError: name 'c' is not defined (line 3)" in str(error.value)
    assert not backend.asked
    lenient = task(*broken.items, min_reference_pass_rate=0.3)
    assert calibrate(lenient, lenient.items).rate == pytest.approx(1 / 3)


def test_a_task_without_references_can_declare_that():
    bare = task(item(reference=""), min_reference_pass_rate=0.0)
    assert calibrate(bare, bare.items).rate is None
    with pytest.raises(ReferencesFail, match="there are none"):
        calibrate(task(item(reference="")), bare.items)


def test_a_missing_toolchain_is_said_before_anything_is_asked(tmp_path):
    cobol = task(language="cobol", tests={"form": "program"})
    with Records(tmp_path) as records, pytest.raises(ConfigError, match='unknown language "cobol"'):
        code.run(cobol, Session(Scripted({}), records, EvalConfig(sandbox_level=1)))


def test_limits_follow_the_reference_between_a_floor_and_a_cap():
    seconds = [limits_for(each).cpu_seconds for each in (0.0, 0.5, 2.0, 1000.0)]
    assert seconds == [FLOOR_SECONDS, FLOOR_SECONDS, 8.0, CAP_SECONDS]


def test_each_form_of_tests_makes_its_trial():
    assert trial_of(task(), item(), "x").tests == CheckTests("add", CHECK, PROMPT)
    part = item(prompt="def add(a,")
    assert trial_of(task(), part, "x").tests.setup == "def add(a," + REFERENCE
    asserts = task(tests={"form": "asserts", "weak": ["add/0"]})
    statements = item(tests=["assert add(1, 2) == 3"], setup="x = 1")
    made = trial_of(asserts, statements, "x")
    assert (made.tests, made.weak) == (AssertTests(("assert add(1, 2) == 3",), "x = 1"), True)
    assert trial_of(asserts, item("add/1", tests=[]), "x").weak is False
    lines = item(tests=[{"stdin": "1", "stdout": "2"}], language="js")
    trial = trial_of(task(tests={"form": "stdio"}), lines, "x")
    assert (type(trial.tests), trial.language) == (StdioTests, "javascript")
    assert trial_of(task(tests={"form": "program"}), item(tests="x"), "x").tests == ProgramTests("x")
    with pytest.raises(ConfigError, match=r"task t, item add/0: field tests: tests: expected a list"):
        trial_of(task(tests={"form": "calls"}), item(), "x")
    with pytest.raises(ConfigError, match="must be a list of statements"):
        trial_of(asserts, item(), "x")


def test_a_reference_that_is_named_like_a_function_of_python_is_the_candidate():
    assert shadowed_builtins("def sum(a, b):\r\n    return a\r\ndef f(): pass\n", ["assert sum(1, 2) == f()"]) == (
        "sum",
    )
    assert shadowed_builtins("def f(): pass\n", ["assert sum([1]) == f()"]) == ()


def test_details_hold_no_figures_of_this_machine():
    outcome = Outcome("timeout", "used more than 4.2 s", "", 1.0, 1.0, 3)
    assert verdict(outcome)["detail"] is None
    outcome = Outcome("wrong", "got <A at 0x7fffdeadbeef>", "", 1.0, 1.0, 3)
    assert json.loads(verdict(outcome)["detail"]) == {"why": "got <A at 0x…>"}


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("    return 1\n\n\ndef other():\n    pass\n", "    return 1"),
        ("    return 1\nprint(f(1))\n", "    return 1"),
        ("    a = 1\n\n    return a\n", "    a = 1\n\n    return a"),
        ("    a = 1\n# why\n    return a\n# end\n", "    a = 1\n# why\n    return a"),
        ("    return 1\n```\nSo it is.", "    return 1"),
        (" return 1\nx = 2", " return 1"),
        ("return 1 # goes on with the prompt's line\nclass A:", "return 1 # goes on with the prompt's line"),
        ("\n    return 1\n", "\n    return 1"),
        ("\r\n    return 'é'\r\nprint(1)\r\n", "\r\n    return 'é'\r"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_a_completion_ends_where_code_starts_at_column_0(completion, kept):
    assert function_part(completion) == kept


@given(st.text(alphabet=" \n#ab"))
def test_extraction_keeps_a_beginning_and_does_not_cut_twice(completion):
    kept = function_part(completion)
    assert completion.startswith(kept)
    assert function_part(kept) == kept


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("So:\n```python\ndef f(): pass\n```\nDone.", "def f(): pass\n"),
        ("```\nx = 1\n```\nand\n```py\ndef f(): pass\n```", "def f(): pass\n"),
        ("```\nx = 1\n```\nand\n```\ny = 2\n```", "x = 1\n"),
        ("```python\ndef f():\n    return 'é'", "def f():\n    return 'é'"),
        ("def f(): pass\n```\nSo it is.", "def f(): pass\n"),
        ("def f(): pass\n", "def f(): pass\n"),
        ("~~~\r\ndef f(): pass\r\n~~~\r\n", "def f(): pass\r\n"),
        (
            "```\n# f is fine, functional is not\nfunctional = 1\n```\n",
            "# f is fine, functional is not\nfunctional = 1\n",
        ),
        ("", ""),
    ],
)
def test_of_fenced_blocks_the_first_with_the_entry_point_counts(answer, kept):
    assert fenced_part(answer, "f") == kept


def test_all_of_an_answer_is_all_of_it():
    assert extracted(" x\n\n", "all") == " x\n\n"
    assert extracted("x\ny", "function") == "x"
    assert [has_code(each) for each in ("", " \n# a", "# a\nx", "é")] == [False, False, True, True]


def written(folder, *lines, name="samples.jsonl"):
    path = folder / name
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_samples_of_others_are_judged_as_they_are(tmp_path):
    lines = [
        {"task_id": "add/0", "completion": REFERENCE},
        {"task_id": "add/1", "completion": "    return 1\n"},
        {"task_id": "add/0", "solution": "def add(a, b): return a + b\n", "other": 1},
        {"task_id": "add/1", "samples": [REFERENCE + "print(add(1, 2))\n"]},
    ]
    samples = read_samples(written(tmp_path, *lines, name="samples.jsonl.gz"))
    done = []
    found = replay(task(item(), item("add/1"), item("add/2")), samples, progress=done.append)
    assert {key: value for key, value in found.items() if key != "sandbox_level"} == {
        "title": "t",
        "task": "t",
        "items": 2,
        "samples": 4,
        "passed": 3,
        "pass_at_k": {"pass@1": 0.75},
        "outcomes": {"passed": 3, "wrong": 1},
        "missing": 1,
        "missing_items": ["add/2"],
        "reference_pass_rate": 1.0,
        "judge": {"apart": 4},
        "data": {"file": None, "sha256": None, "verified": None, "notes": []},
    }
    assert sorted(done)[-1] == 1.0


def test_the_title_of_a_replay_says_how_much_of_the_task_it_is_and_of_which_file():
    some = task(item(), item("add/1"), item("add/2"))
    facts = {"items": 3, "of": 4, "file": "t.jsonl", "sha256": "0", "verified": False}
    found = replay(replace(some, facts=facts), [Sample("add/1", REFERENCE)])
    assert found["title"] == "t (1 of 4 items; not the published file)"
    assert (found["missing_items"], found["data"]["verified"]) == (["add/0", "add/2"], False)


def test_the_fenced_block_of_a_chat_model_is_judged_only_where_that_is_asked_for():
    answer = f"Here it is:\n```python\n{PROMPT}{REFERENCE}```\nIt adds.\n"
    assert replay(task(), [Sample("add/0", answer)])["outcomes"] == {"syntax_error": 1}
    assert replay(task(), [Sample("add/0", answer)], extract_fenced=True)["passed"] == 1


OPEN = item("open/0", prompt=PROMPT + "    ", reference="return a + b\n")
"""Its prompt ends inside a line, so an answer to it as it is differs from an answer to it without its last blanks."""


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ({"completion": "return a + b\n"}, "passed"),
        ({"completion": "return a + b\n\ndef helper():\n    return 1\n"}, "passed"),
        ({"solution": PROMPT + REFERENCE}, "passed"),
        ({"samples": ["return a - b\n"]}, "wrong"),
        ({"completion": "# nothing\n"}, "empty"),
    ],
)
def test_samples_of_others_mean_the_same_to_an_evaluation_as_to_a_replay(line, outcome, tmp_path):
    asked = task(OPEN)
    path = written(tmp_path, {"task_id": "open/0", **line})
    assert replay(asked, read_samples(path))["outcomes"] == {outcome: 1}
    with Records(tmp_path / "out") as records:
        items, _ = code.run(asked, Session(ReplayBackend(path), records, EvalConfig(sandbox_level=1)))
    assert items["outcome"].to_list() == [outcome]


def test_a_models_own_answer_continues_the_prompt_without_its_last_blanks(tmp_path):
    items, _, backend = run(task(OPEN), {"open/0": ["\n    return a + b"]}, tmp_path)
    assert (backend.asked[0].prompt, items["outcome"][0]) == (PROMPT.rstrip(), "passed")


def test_a_prompt_that_was_cut_is_kept_as_the_model_saw_it(tmp_path):
    class Cut(Scripted):
        def generate(self, requests, sampling, done=None, known=()):
            found = [Generated("\n    return a - b", 3, "length", 7, '"""Return the sum."""') for _ in requests]
            done(range(len(requests)), found)
            return found

    with Records(tmp_path) as records:
        items, facts = code.run(task(), Session(Cut({}), records, EvalConfig(sandbox_level=1)))
    assert items["prompt"][0] == '"""Return the sum."""'
    assert json.loads(items["detail"][0]) == {"why": "failed: assert candidate(1, 2) == 3", "prompt_tokens_cut": 7}
    assert (facts["prompts_cut"], facts["answers_cut"]) == (1, 1)


def test_references_of_the_tasks_own_come_before_those_of_the_data(tmp_path):
    bare = task(item(reference=""), min_reference_pass_rate=0.0)
    assert calibrated(replace(bare, calibration=(item("own"),)), bare.items).rate is None
    broken = replace(bare, calibration=(item("own"), item("own/1", reference="    return 3\n")))
    backend = Scripted({})
    with (
        Records(tmp_path) as records,
        pytest.raises(ReferencesFail, match=r"50.0% of the references.*\n.*own/1: wrong"),
    ):
        code.run(broken, Session(backend, records, EvalConfig(sandbox_level=1)))
    assert not backend.asked
    with pytest.raises(ReferencesFail, match="own/1: wrong"):
        replay(broken, [Sample("add/0", REFERENCE)])


def test_a_sample_of_an_unknown_item_is_an_error_with_the_nearest():
    with pytest.raises(ConfigError, match=r'f: line 2: task t has no item "ad/0" \(did you mean "add/0"\?\)'):
        replay(task(), [Sample("ad/0", "", where="f: line 2")])


def test_the_number_of_workers_changes_nothing():
    trials = [trial_of(task(), item(), PROMPT + f"    return a + b + {number % 3}\n") for number in range(9)]
    one, three = (judge_all(trials, workers) for workers in (1, 3))
    assert [each.status for each in one] == [each.status for each in three] == ["passed", "wrong", "wrong"] * 3
