"""Trials as the tests of the judge make them: one function `f`, and a `check` of it."""

from codesieve.sandbox.judge import CheckTests, Trial, judge_all
from codesieve.sandbox.limits import Limits

SHORT = Limits(cpu_seconds=0.5, wall_seconds=1.5)
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(10) == 11, 'ten'\n"
RIGHT = "def f(x):\n    return x + 1\n"


def outcomes(*trials, **settings):
    return judge_all(trials, rerun_timeouts=False, **{"workers": 1 + (len(trials) > 4), **settings})


def checked(source, check=CHECK, setup="", limits=SHORT, weak=False):
    return Trial(source, CheckTests("f", check, setup), limits=limits, weak=weak)
