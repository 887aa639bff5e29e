"""Whole programs, judged by what they print: how they end, and when two outputs are equal."""

import pytest
from codesieve.sandbox import judge as judging
from codesieve.sandbox.judge import Exchange, StdioTests, Trial, parse_exchanges
from codesieve.sandbox.programs import same_output
from hypothesis import given
from hypothesis import strategies as st
from judged import SHORT, outcomes


def test_what_a_program_prints_is_compared_here():
    tests = StdioTests((Exchange("1 2\n", "3\n"), Exchange("5 5", "10")))
    adds = "a, b = map(int, input().split())\nprint(a + b)\n"
    found = outcomes(
        *(Trial(each, tests) for each in (adds, adds + "raise SystemExit(1)", "print(3)", "import os; os._exit(0)"))
    )
    assert [each.status for each in found] == ["passed", "exception", "wrong", "wrong"]
    assert found[2].detail == r"test 1: expected '10', printed '3\n'"


# Programs that print 42, as Python runs them
WHOLE = {
    "exit": "print(42); exit()",
    "quit": "print(42); quit(0)",
    "exit with a word that is none": "import sys\nprint(42); sys.exit(False)",
    "exit status of eight bits": "import sys\nprint(42); sys.exit(256)",
    "a function for the exit": "import atexit\natexit.register(print, 42)",
    "a thread that is not joined": (
        "import threading, time\ndef main():\n    time.sleep(0.1)\n    print(42)\nthreading.Thread(target=main).start()"
    ),
    "a pool": "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(2).submit(print, 42)",
    "another stream in its place": "import io, sys\nprint(42)\nsys.stdout = io.StringIO()",
    "no stream in its place": "import sys\nprint(42)\nsys.stdout = None",
    "a stream of its own": (
        "import sys\nclass Stream:\n    def __init__(self, to): self.to = to\n"
        "    def write(self, text): self.to.write(text)\nsys.stdout = Stream(sys.stdout)\nprint(42)"
    ),
    "the stream that was there first": (
        "import io, sys\nsys.stdout = io.StringIO()\nprint(42)\nsys.__stdout__.write(sys.stdout.getvalue())"
    ),
    "a stream of bytes": "import sys\nsys.stdout.buffer.write(b'42')",
    "a file that is not closed": "out = open(1, 'w')\nout.write('42')",
    "an object that is let go": "class Last:\n    def __del__(self): print(42)\nlast = Last()",
    "a hard exit": "import os, sys\nprint(42)\nsys.stdout.flush()\nos._exit(0)",
    "a byte order mark": "\ufeffprint(42)",
    "its own name": "import os, sys\nassert os.path.isabs(__file__) and __file__ == os.path.abspath(sys.argv[0])\nprint(42)",
    "help": "help\nprint(42)",
    "a child that comes to the end": (
        "import os, sys\nif os.fork() == 0:\n    print(4, end='')\nelse:\n    os.wait()\n    print(2)"
    ),
}


@pytest.mark.parametrize("start", ["warm", "fresh"])
def test_a_whole_program_ends_as_one_of_pythons_does(start):
    trials = [Trial(source, StdioTests((Exchange("", "42"),))) for source in WHOLE.values()]
    found = outcomes(*trials) if start == "warm" else [judging.judge(each) for each in trials]
    assert {name: each.detail or each.status for name, each in zip(WHOLE, found, strict=True)} == dict.fromkeys(
        WHOLE, "passed"
    )


def test_a_program_that_does_not_end_well_is_told():
    endings = {
        "print(42); exit(3)": ("exception", "SystemExit: 3 (line 1)"),
        "print(42); exit('no')": ("exception", "SystemExit: no (line 1)"),
        "import os; print(42, flush=True); os._exit(3)": ("exception", "exit status 3"),
        "import atexit, os; print(42, flush=True); atexit.register(os._exit, 5)": ("exception", "exit status 5"),
        "import threading; threading.Thread(target=threading.Event().wait).start(); print(42, flush=True)": (
            "timeout",
            "did not end within 1.5 s",
        ),
    }
    tests = StdioTests((Exchange("", "42"),))
    found = outcomes(*(Trial(source, tests, limits=SHORT) for source in endings))
    assert [(each.status, each.detail.removeprefix("test 0: ")) for each in found] == list(endings.values())


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
        ("a\x1cb", "a\nb", 0, False),
        ("a\u2028b", "a\nb", 0, False),
        ("a\rb", "a\nb", 0, False),
        ("a\x85", "a", 0, False),
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
