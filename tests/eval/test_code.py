import pytest
from codesieve.eval.code import ReferencesFail, check_references, extract_completion, judge, judge_all
from codesieve.eval.tasks import Problem, load_task
from codesieve.sandbox.containment import describe
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import OUTCOMES
from hypothesis import given
from hypothesis import strategies as st

TASK = load_task("problems")
BY_NAME = {problem.name: problem for problem in TASK.problems}
VOWELS = BY_NAME["count_vowels"]
SHORT = Limits(cpu_seconds=0.5, wall_seconds=1.5)


def test_all_references_pass():
    assert check_references(TASK.problems, workers=2) == 1.0


def test_the_problems_are_in_three_steps_and_well_tested():
    difficulties = [problem.difficulty for problem in TASK.problems]
    assert len(difficulties) == 14
    assert difficulties == sorted(difficulties, key=["easy", "medium", "hard"].index)
    assert set(difficulties) == {"easy", "medium", "hard"}
    assert all(len(problem.tests) >= 5 for problem in TASK.problems)


@pytest.mark.parametrize("answer", ["pass", "return True", "return 0", "return []"])
def test_a_constant_answer_passes_nothing(answer):
    sources = [f"{problem.prompt}    {answer}\n" for problem in TASK.problems]
    outcomes = judge_all(TASK.problems, sources, workers=2)
    assert {outcome.status for outcome in outcomes} == {"wrong"}


def test_the_example_in_each_prompt_is_one_of_its_tests():
    for problem in TASK.problems:
        example = problem.prompt.split(">>> ")[1].split("\n")
        call, shown = example[0], example[1].strip()
        source = f"{problem.prompt}{problem.reference}\ndef example():\n    return repr({call})\n"
        as_problem = problem.model_copy(update={"entry_point": "example", "tests": [{"args": [], "expected": shown}]})
        assert judge(as_problem, source).status == "passed", problem.name


def test_a_broken_reference_refuses_the_task_and_is_named():
    broken = VOWELS.model_copy(update={"reference": "    return 5\n"})
    with pytest.raises(
        ReferencesFail, match=r"50.0% of the references pass, 100.0% are required:\n  count_vowels: wrong"
    ):
        check_references([broken, BY_NAME["clamp"]])
    assert check_references([broken, BY_NAME["clamp"]], min_pass_rate=0.5) == 0.5


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (VOWELS.reference, "passed"),
        ("    return 5\n", "wrong"),
        ("    return text.vowels\n", "exception"),
        ("    while True: pass\n", "timeout"),
        ("    return [0] * 10**10\n", "memory"),
        ("    print('x' * 10**7)\n    return 5\n", "output_flood"),
        ("    import os\n    os._exit(0)\n", "violation"),
        ("    return (\n", "syntax_error"),
        ("", "empty"),
        ("\n    # to do\n", "empty"),
    ],
)
def test_every_outcome_is_told_apart(answer, status):
    outcome = judge(VOWELS, VOWELS.prompt + answer, SHORT)
    assert outcome.status == status, outcome
    assert outcome.status in OUTCOMES
    assert outcome.level == (0 if status == "empty" else describe()["level"])


def test_equal_solutions_run_once_and_all_get_the_outcome(monkeypatch):
    seen = []

    def counted(trials, *arguments):
        seen.extend(trials)
        return run(trials, *arguments)

    from codesieve.sandbox import judge as module

    run = module.judge_all
    monkeypatch.setattr(module, "judge_all", counted)
    right, wrong = VOWELS.prompt + VOWELS.reference, VOWELS.prompt + "    return 5\n"
    outcomes = judge_all([VOWELS] * 4, [right, wrong, right, right])
    assert [outcome.status for outcome in outcomes] == ["passed", "wrong", "passed", "passed"]
    assert len(seen) == 2


def test_solutions_that_do_not_match_the_problems_are_refused():
    with pytest.raises(ValueError, match="1 problems, but 0 solutions"):
        judge_all([VOWELS], [])


def test_a_test_in_the_wrong_form_is_named():
    problem = Problem(name="p", prompt="", entry_point="f", tests=[{"args": 1, "expected": 1}], reference="")
    with pytest.raises(ValueError, match='problem "p": tests: 0: args must be a list'):
        judge(problem, "x = 1")


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
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_a_completion_ends_where_code_starts_at_column_0(completion, kept):
    assert extract_completion(completion) == kept


@given(st.text(alphabet=" \n#ab"))
def test_extraction_keeps_a_beginning_and_does_not_cut_twice(completion):
    kept = extract_completion(completion)
    assert completion.startswith(kept)
    assert extract_completion(kept) == kept


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_extraction_keeps_a_reference_whole(name):
    problem = BY_NAME[name]
    assert extract_completion(problem.reference + "\n\ndef other():\n    pass\n") == problem.reference.rstrip("\n")
