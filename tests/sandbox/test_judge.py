"""The judge: five forms of tests, what each outcome means, and what a candidate cannot forge."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from codesieve.sandbox import judge as judging
from codesieve.sandbox import process, relay
from codesieve.sandbox.containment import best
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.judge import (
    AssertTests,
    CallTests,
    CheckTests,
    ProgramTests,
    Test,
    Trial,
    judge_all,
)
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.relay import free_names
from judged import CHECK, RIGHT, checked, outcomes

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
    "exit": ("def f(x):\n    raise SystemExit(0)\n", "exception", "SystemExit: 0 (line 2)"),
    "exit_of_site": ("def f(x):\n    exit(0)\n", "exception", "SystemExit: 0 (line 2)"),
    "exit_when_loaded": ("exit(0)\n", "exception", "SystemExit: 0 (line 1)"),
    "equal_to_all": (
        "class Evil:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x):\n    return Evil()\n",
        "wrong",
        "not plain data: returned a value of type Evil",
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
    "an exception of its own has its name and Python's nearest": (
        "class Mine(LookupError): pass\nclass Yours(Mine): pass\ndef f(x):\n    raise Yours('no')\n",
        "def check(candidate):\n    try:\n        candidate(1)\n    except LookupError as error:\n"
        "        assert repr(error) == \"Yours('no')\" and not isinstance(error, KeyError)\n    else:\n"
        "        assert False\n",
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
    "what a call changes in its arguments comes back": (
        "def f(x):\n    x.append(1)\n",
        "def check(candidate):\n    x = []\n    candidate(x)\n    assert x == [1]\n",
        "passed",
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
    assert "have them judged weakly" in found[list(CHECKS).index("an argument that is no plain value is said")].detail


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
            CHECKS["what a call changes in its arguments comes back"][1],
            weak=True,
        ),
    )
    assert [each.status for each in found] == ["exception", "passed", "wrong", "violation", "violation", "passed"]
    assert [each.judge for each in found] == ["apart"] + ["weak"] * 5


def test_tests_behind_a_python_program_are_judged_weakly():
    tests = ProgramTests("def test():\n    assert f(1) == 2\ntest()\n")
    leaves = ("exit(0)", "import os; os._exit(0)")
    found = outcomes(
        Trial(RIGHT, tests, "py"), Trial("def f(x): return 0", tests), *(Trial(each, tests) for each in leaves)
    )
    assert [each.status for each in found] == ["passed", "wrong", "violation", "violation"]
    assert [each.detail for each in found[2:]] == [
        "left before the last test",
        "ended its process before the last test",
    ]
    assert {each.judge for each in found} == {"weak"}


def test_a_judge_that_fails_is_no_verdict(monkeypatch):
    with pytest.raises(SandboxError, match="without a verdict"):
        outcomes(checked(RIGHT, "import os\nos._exit(0)\n"))
    monkeypatch.setattr(relay, "TESTS_CPU_SECONDS", 1)
    with pytest.raises(SandboxError, match="without a verdict: timeout"):
        outcomes(checked(RIGHT, "def check(candidate):\n    while True: pass\n"))


def test_an_answer_that_makes_the_tests_end_their_process_is_an_outcome_and_others_are_judged():
    evaluates = "def check(candidate):\n    assert eval(candidate(1)) == 2\n"
    ends, speaks = "__import__('os')._exit(0)", "__import__('os').write(4, b'no answer' + bytes([10]))"
    found = outcomes(*(checked(f"def f(x): return {each!r}\n", evaluates) for each in (ends, "1 + 1", speaks, "3")))
    assert [each.status for each in found] == ["exception", "passed", "exception", "wrong"]
    assert found[0].detail == found[2].detail == "the tests ended their process, driven there by its answers"


def test_tests_whose_process_died_by_chance_are_run_again(monkeypatch):
    died = []
    real = relay._event

    def once(process, *arguments):
        if not died and arguments[0] == "resume":
            died.append(process)
            raise relay._Garbled
        return real(process, *arguments)

    monkeypatch.setattr(relay, "_event", once)
    assert [each.status for each in outcomes(checked(RIGHT), checked("def f(x): return 2\n"))] == ["passed", "wrong"]
    assert died


def test_keys_that_would_be_none_on_the_other_side_are_said():
    check = "class H(list):\n    def __hash__(self): return 1\ndef check(candidate):\n    candidate({H([1]): 2})\n"
    found = outcomes(checked(RIGHT, check))[0]
    assert (found.status, "a key of type H" in found.detail) == ("exception", True)


def test_a_judges_process_keeps_no_values():
    with process.contained(best(), Limits()) as candidate:
        candidate.ask({"module": "solution", "source": "def f(x): return x"})
        for _ in range(3):
            assert candidate.ask({"entry_point": "f", "args": [[1]], "kwargs": {}, "kept": False}) == [1]
        transcript = candidate.finish()
    assert (transcript.values, transcript.answered) == ((None,), 4)


def test_each_answer_has_the_room_of_one_and_all_have_more():
    small = Limits(output_bytes=10**5)
    many = "def check(candidate):\n    for n in range(12): assert len(candidate(n)) == 9 * 10**4\n"
    endless = "def check(candidate):\n    while True: candidate(1)\n"
    answer = "def f(x): return 'x' * 90000\n"
    found = outcomes(*(checked(answer, check, limits=small) for check in (many, endless)))
    assert [each.status for each in found] == ["passed", "output_flood"]
    assert found[1].detail == "sent more than 1600000 bytes of answers"


def test_ctrl_c_ends_running_trials_at_once():
    program = (
        "from codesieve.sandbox.judge import *\nfrom codesieve.sandbox.limits import Limits\n"
        "tests = CheckTests('f', 'def check(candidate):\\n    assert candidate(1) == 2\\n')\n"
        "source = 'import time\\ndef f(x):\\n    time.sleep(60)\\n#'\n"
        "limits = Limits(wall_seconds=60)\n"
        "trials = [Trial(source + str(n), tests, limits=limits) for n in range(3)]\n"
        "trials += [Trial('sleep 60', StdioTests((Exchange('', ''),)), 'sh', limits)] * SHELL\n"
        "judge_all(trials[::-1], workers=2, done=print)\n"
    ).replace("SHELL", str(int(not best().no_processes)))
    judging = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    time.sleep(4)
    assert judging.poll() is None
    started = time.monotonic()
    judging.send_signal(signal.SIGINT)
    _, said = judging.communicate(timeout=50)
    assert time.monotonic() - started < 5
    assert said.rstrip().endswith(b"KeyboardInterrupt"), said


def test_an_error_of_ours_ends_the_other_trials_at_once():
    slow = checked("import time\ndef f(x):\n    time.sleep(60)\n", limits=Limits(wall_seconds=60))
    started = time.monotonic()
    with pytest.raises(SandboxError, match="without a verdict"):
        judge_all([slow, checked(RIGHT, "import os\nos._exit(0)\n")], workers=2)
    assert time.monotonic() - started < 20


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


def test_forms_that_are_pythons_are_refused_for_other_languages():
    with pytest.raises(ValueError, match="CheckTests are Python's"):
        outcomes(Trial("x", CheckTests("f", CHECK), "bash"))
    with pytest.raises(ValueError, match="never judged weakly"):
        outcomes(Trial("x = 1", CallTests("f", (Test([], 1),)), weak=True))
