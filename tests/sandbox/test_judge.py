"""The judge: five forms of tests, what each outcome means, and what a candidate cannot forge."""

import threading

import pytest
from codesieve.sandbox import judge as judging
from codesieve.sandbox import relay
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.judge import (
    AssertTests,
    CallTests,
    CheckTests,
    Exchange,
    ProgramTests,
    StdioTests,
    Test,
    Trial,
    judge_all,
    parse_exchanges,
)
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.programs import same_output
from codesieve.sandbox.relay import free_names
from hypothesis import given
from hypothesis import strategies as st

SHORT = Limits(cpu_seconds=0.5, wall_seconds=1.5)
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(10) == 11, 'ten'\n"
RIGHT = "def f(x):\n    return x + 1\n"
# Right only if a test's own words stand in some frame; put together so that they do not stand in this source
# or its constants. (The word `check` would be found in the path of a checkout that lies below such a folder.)
READS_FRAMES = (
    "import sys\n"
    "def f(x):\n"
    "    frame, seen = sys._getframe(), []\n"
    "    while frame:\n"
    "        seen += [repr(frame.f_locals), repr(frame.f_globals), repr(frame.f_code.co_consts)]\n"
    "        frame = frame.f_back\n"
    "    return x + 1 if 'candidate({})'.format(10) in ''.join(seen) else 0\n"
)


def outcomes(*trials, **settings):
    return judge_all(trials, rerun_timeouts=False, **{"workers": 1 + (len(trials) > 4), **settings})


def checked(source, check=CHECK, setup="", limits=SHORT, weak=False):
    return Trial(source, CheckTests("f", check, setup), limits=limits, weak=weak)


ANSWERS = {
    "right": (RIGHT, "passed", ""),
    "wrong": ("def f(x):\n    return 2\n", "wrong", "failed: assert candidate(10) == 11, 'ten' (ten)"),
    "raises": ("def f(x):\n    return {}[x]\n", "exception", "KeyError: 1 (line 2)"),
    "no_function": ("g = 1\n", "exception", "AttributeError"),
    "syntax": ("def f(x:\n", "syntax_error", ""),
    "loop": ("def f(x):\n    while True: pass\n", "timeout", ""),
    "memory": ("def f(x):\n    return [0] * 10**10\n", "memory", ""),
    "flood": ("def f(x):\n    print('x' * 10**7)\n    return x + 1\n", "output_flood", ""),
    "huge": ("def f(x):\n    return 'x' * 10**7\n", "output_flood", ""),
    "empty": ("\n# nothing\n", "empty", ""),
    "hard_exit": ("import os\ndef f(x):\n    os._exit(0)\n", "violation", ""),
    "hard_exit_when_loaded": ("import os\nos._exit(0)\n", "violation", ""),
    "exit": ("def f(x):\n    raise SystemExit(0)\n", "exception", "SystemExit"),
    "equal_to_all": (
        "class Evil:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x):\n    return Evil()\n",
        "wrong",
        "not plain data",
    ),
    "equal_int": (
        "class Evil(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x):\n    return Evil(7)\n",
        "wrong",
        "failed: assert candidate(1) == 2",
    ),
    "reads_frames": (READS_FRAMES, "wrong", "failed: assert candidate(1) == 2"),
    "patches_python": (
        "import builtins, atexit\nbuiltins.AssertionError = ValueError\nbuiltins.isinstance = lambda *_: True\n"
        "def f(x):\n    return x\n",
        "wrong",
        "",
    ),
}


def test_every_outcome_of_a_check_is_told_apart():
    found = outcomes(*(checked(source) for source, _, _ in ANSWERS.values()))
    for (name, (_, status, detail)), outcome in zip(ANSWERS.items(), found, strict=True):
        assert (name, outcome.status) == (name, status), outcome
        assert detail in outcome.detail, name
        assert outcome.judge == "apart"
        assert (outcome.level == 0) == (name == "empty")


def test_reading_frames_finds_the_tests_only_where_they_share_a_process():
    apart, weak = outcomes(checked(READS_FRAMES), checked(READS_FRAMES, weak=True))
    assert (apart.status, apart.judge) == ("wrong", "apart")
    assert (weak.status, weak.judge) == ("passed", "weak")  # why a weak verdict says so


CHECKS = {
    "an expected exception of Python's reaches the test": (
        "def f(x):\n    raise ValueError('no')\n",
        "def check(candidate):\n    try:\n        candidate(1)\n    except ValueError as error:\n"
        "        assert str(error) == 'no'\n    else:\n        assert False\n",
        "passed",
    ),
    "and the candidate can be asked again": (
        "def f(x):\n    return 1 // x\n",
        "def check(candidate):\n    try:\n        candidate(0)\n    except ZeroDivisionError:\n        pass\n"
        "    assert candidate(1) == 1\n",
        "passed",
    ),
    "an exception of its own is some exception": (
        "class Mine(Exception): pass\ndef f(x):\n    raise Mine('no')\n",
        "def check(candidate):\n    try:\n        candidate(1)\n    except Exception as error:\n"
        "        assert type(error).__name__ == 'CandidateError'\n",
        "passed",
    ),
    "a candidate's own assertion is no verdict": (
        "def f(x):\n    assert x > 5\n    return x + 1\n",
        CHECK,
        "exception",
    ),
    "the name of the entry point stands for the candidate too": (
        RIGHT,
        "def check(candidate):\n    assert f(1) == candidate(1) == 2\n",
        "passed",
    ),
    "what a call changes in its arguments does not come back": (
        "def f(x):\n    x.append(1)\n",
        "def check(candidate):\n    x = []\n    candidate(x)\n    assert x == [1]\n",
        "wrong",
    ),
    "tuples, sets and keyword arguments travel": (
        "def f(x, y=0):\n    return {(x, y)}, b'', 1j, {1: None}\n",
        "def check(candidate):\n    assert candidate(1, y=2) == ({(1, 2)}, b'', 1j, {1: None})\n",
        "passed",
    ),
    "tests that are broken are an exception in the tests": (
        RIGHT,
        "def check(candidate):\n    assert candidate(1) == two\n",
        "exception",
    ),
    "an argument that is no plain value is said": (
        RIGHT,
        "def check(candidate):\n    assert candidate(lambda: 1) == 2\n",
        "exception",
    ),
    "tests that catch everything cannot hide it": (
        RIGHT,
        "def check(candidate):\n    try:\n        candidate(object())\n    except Exception:\n        pass\n",
        "exception",
    ),
    "printing tests say nothing": (RIGHT, "print('x' * 10**6)\ndef check(candidate):\n    pass\n", "passed"),
}


def test_what_a_check_sees_of_the_candidate():
    found = outcomes(*(checked(source, check) for source, check, _ in CHECKS.values()))
    for (name, (_, _, status)), outcome in zip(CHECKS.items(), found, strict=True):
        assert (name, outcome.status) == (name, status), outcome
    assert "have them judged weakly" in found[8].detail


def test_helpers_of_the_set_up_are_the_judges_own():
    setup = 'def double(x):\n    return 2 * x\ndef f(x):\n    """Halve."""\n'
    check = "def check(candidate):\n    assert candidate(double(4)) == 4\n"
    cheat = "def double(x):\n    return x\ndef f(x):\n    return x\n"
    honest = setup + "    return x // 2\n"
    found = outcomes(checked(honest, check, setup), checked(cheat, check, setup))
    assert [each.status for each in found] == ["passed", "wrong"]


def test_assertions_are_judged_one_after_the_other():
    tests = AssertTests(("assert f(1) == 2", "assert math.isclose(f(0.5), 1.5)", "assert g(2)(3) == 5"), "limit = 3")
    three = AssertTests(tests.statements[:2])
    found = outcomes(Trial(RIGHT, three), Trial("def f(x): return 2", three), Trial(RIGHT, tests))
    assert [each.status for each in found] == ["passed", "wrong", "exception"]
    assert found[1].detail == "failed: assert math.isclose(f(0.5), 1.5)"


def test_a_function_named_like_one_of_pythons_is_the_candidates_if_declared():
    shadowing = Trial("def sum(a, b):\n    return a - b\n", AssertTests(("assert sum(10, 4) == 6",), "", ("sum",)))
    assert outcomes(shadowing)[0].status == "passed"


def test_the_names_that_statements_leave_open():
    tests = AssertTests(
        ("assert f(x for x in rows) == sorted(g(1))", "assert math.pi < h(node.left)", "y = k"), "rows = [1]"
    )
    assert free_names(tests) == (["f", "g", "h", "k", "node"], ["math"])


def test_a_weak_trial_says_so_and_needs_its_end():
    uses_class = AssertTests(("assert size(root) == 1",), "root = Node()")
    source = "class Node:\n    pass\ndef size(node):\n    return 1\n"
    leaves = "import sys\n" + source + "sys.exit(0)\n"
    found = outcomes(
        Trial(source, uses_class),
        *(Trial(each, uses_class, weak=True) for each in (source, source.replace("1", "2"), leaves)),
        Trial("import os\n" + source + "os._exit(0)\n", uses_class, weak=True),
        checked(
            "def f(x):\n    x.append(1)\n",
            CHECKS["what a call changes in its arguments does not come back"][1],
            weak=True,
        ),
    )
    assert [each.status for each in found] == ["exception", "passed", "wrong", "violation", "violation", "passed"]
    assert [each.judge for each in found] == ["apart"] + ["weak"] * 5


def test_tests_behind_a_python_program_are_judged_weakly():
    tests = ProgramTests("def test():\n    assert f(1) == 2\ntest()\n")
    found = outcomes(Trial(RIGHT, tests, "py"), Trial("def f(x): return 0", tests), Trial("exit(0)", tests))
    assert [each.status for each in found] == ["passed", "wrong", "exception"]
    assert {each.judge for each in found} == {"weak"}


def test_a_judge_that_fails_is_no_verdict(monkeypatch):
    with pytest.raises(SandboxError, match="without a verdict"):
        outcomes(checked(RIGHT, "import os\nos._exit(0)\n"))
    monkeypatch.setattr(relay, "TESTS_CPU_SECONDS", 1)
    with pytest.raises(SandboxError, match="without a verdict: timeout"):
        outcomes(checked(RIGHT, "def check(candidate):\n    while True: pass\n"))


def test_tests_that_an_answer_keeps_busy_are_a_timeout_of_the_answer(monkeypatch):
    monkeypatch.setattr(relay, "TESTS_CPU_SECONDS", 1)
    check = "def check(candidate):\n    n = candidate(1)\n    while n: pass\n"
    assert [each.status for each in outcomes(checked(RIGHT, check), checked("def f(x): return 0", check))] == [
        "timeout",
        "passed",
    ]


def test_an_answer_that_the_tests_blow_up_is_a_flood():
    blows_up = "def check(candidate):\n    big = candidate(1)\n    candidate(big * 5)\n"
    found = outcomes(checked("def f(x):\n    return 'x' * (7 * 10**6) + 'é' * 10**5\n", blows_up, limits=Limits()))
    assert [each.status for each in found] == ["output_flood"]
    assert "in the tests" in found[0].detail


@pytest.mark.parametrize("level", [3, 2, 1])
def test_tests_that_are_code_run_at_every_level(level):
    try:
        found = judge_all([checked(RIGHT, limits=Limits())], level=level)
    except SandboxError as error:
        pytest.skip(str(error))
    assert (found[0].status, found[0].level) == ("passed", level)


def test_one_trial_does_not_see_another_ones_tests():
    leaves_a_trace = "import math\nmath.pi = 3\nleft = 1\ndef check(candidate):\n    assert candidate(1) == 2\n"
    looks = "import math\ndef check(candidate):\n    assert math.pi != 3 and 'left' not in globals()\n"
    found = judge_all([checked(RIGHT, leaves_a_trace), checked(RIGHT, looks)])
    assert [each.status for each in found] == ["passed", "passed"]


def test_outcomes_keep_their_order_and_come_one_by_one_in_this_thread():
    trials = [checked(f"def f(x): return x + {number % 2}", limits=Limits()) for number in range(8)]
    seen = []
    found = judge_all(trials, 3, done=lambda *each: seen.append((threading.get_ident(), *each)))
    assert [outcome.status for outcome in found] == ["wrong", "passed"] * 4
    assert sorted(position for _, position, _ in seen) == list(range(8))
    assert all(found[position] == outcome for _, position, outcome in seen)
    assert {thread for thread, _, _ in seen} == {threading.get_ident()}


def test_equal_trials_run_once_and_a_timeout_twice(monkeypatch):
    asked = []
    real = judging._judge
    monkeypatch.setattr(
        judging, "_judge", lambda trial, processes: asked.append(trial.source) or real(trial, processes)
    )
    loop = "def f(x):\n    while True: pass\n"
    found = judge_all([checked(RIGHT), checked(loop), checked(RIGHT), checked(RIGHT + "\n")], 2)
    assert [each.status for each in found] == ["passed", "timeout", "passed", "passed"]
    assert sorted(asked) == sorted([RIGHT, loop, RIGHT + "\n", loop])
    assert asked[-1] == loop
    assert judge_all([]) == []


def test_calls_are_compared_by_value():
    tests = CallTests("f", (Test([1], 2), Test([10], 11)))
    found = outcomes(Trial(RIGHT, tests), Trial("def f(x): return 2", tests))
    assert [each.status for each in found] == ["passed", "wrong"]
    assert found[1].detail == "test 1: expected 11, got 2"


def test_what_a_program_prints_is_compared_here():
    tests = StdioTests((Exchange("1 2\n", "3\n"), Exchange("5 5", "10")))
    adds = "a, b = map(int, input().split())\nprint(a + b)\n"
    found = outcomes(
        *(Trial(each, tests) for each in (adds, adds + "raise SystemExit(1)", "print(3)", "import os; os._exit(0)"))
    )
    assert [each.status for each in found] == ["passed", "exception", "wrong", "violation"]
    assert found[2].detail == r"test 1: expected '10', printed '3\n'"


def test_forms_that_are_pythons_are_refused_for_other_languages():
    with pytest.raises(ValueError, match="CheckTests are Python's"):
        outcomes(Trial("x", CheckTests("f", CHECK), "bash"))
    with pytest.raises(ValueError, match="never judged weakly"):
        outcomes(Trial("x = 1", CallTests("f", (Test([], 1),)), weak=True))


@pytest.mark.parametrize(
    ("expected", "printed", "tolerance", "same"),
    [
        ("a\nb\n", "a  \nb", 0, True),
        ("a\n\nb", "a\nb", 0, False),
        ("Yes", "yes", 0, False),
        ("0.30", "0.3", 0, False),
        ("0.30 x", "0.3000001 x", 1e-6, True),
        ("1e9", "1000000001", 1e-6, True),
        ("1", "2", 1e-6, False),
        ("1 2", "1", 1e-6, False),
        ("nan", "nan", 1e-6, True),
        ("a\r\nb", "a\nb", 0, True),
    ],
)
def test_outputs_are_equal_but_for_white_space_at_ends(expected, printed, tolerance, same):
    assert same_output(expected, printed, tolerance) is same


@given(st.text(), st.sampled_from(["", " ", "\n", " \n\n", "\r\n"]))
def test_an_output_equals_itself_with_more_white_space_behind_it(text, space):
    assert same_output(text, text + space)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one test"),
        ([{"stdin": ""}], "0: field"),
        ([{"stdin": 1, "stdout": ""}], "must be text"),
        ([{"in": 1}], "unknown"),
    ],
)
def test_a_bad_exchange_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        parse_exchanges(data, "file")
