"""What reaches the tests of a candidate's answers: values, exceptions, and changes in the arguments."""

from judged import checked, outcomes

GIVEN_BACK = {
    "a generator": ("def f(n):\n    for i in range(n): yield i\n", "list(candidate(3)) == [0, 1, 2]"),
    "a map": ("def f(n): return map(str, range(n))\n", "list(candidate(2)) == ['0', '1']"),
    "an iterator in a list": ("def f(n): return [zip('ab', range(n))]\n", "dict(candidate(2)[0]) == {'a': 0, 'b': 1}"),
    "an iterator is no list": ("def f(n): return iter([n])\n", "candidate(1) != [1] and next(candidate(1)) == 1"),
    "an iterator runs out": ("def f(n): return iter([n])\n", "(lambda x: list(x) + list(x))(candidate(1)) == [1]"),
    "the beginning of an endless one": (
        "def f(n):\n    while True:\n        yield n\n        n *= 3\n",
        "next(candidate(2)) == 2 and [x for x, _ in zip(candidate(1), range(3))] == [1, 3, 9]",
    ),
    "a range": ("def f(n): return range(n)\n", "candidate(3) == range(3) and list(candidate(2)) == [0, 1]"),
    "views": ("def f(d): return d.keys(), d.items()\n", "candidate({1: 2}) == ({1}, {(1, 2)})"),
    "a view of values": ("def f(d): return d.values()\n", "sorted(candidate({1: 2, 3: 1})) == [1, 2]"),
    "a deque": (
        "import collections\ndef f(n): return collections.deque([n])\n",
        "list(candidate(1)) == [1] and candidate(1) != [1]",
    ),
    "a decimal": ("import decimal\ndef f(n): return decimal.Decimal(n) / 4\n", "candidate(1) == 0.25"),
    "a fraction": ("import fractions\ndef f(n): return fractions.Fraction(n, 4)\n", "candidate(1) == 0.25"),
    "a date": (
        "import datetime\ndef f(n): return datetime.date(n, 1, 2), datetime.timedelta(n)\n",
        "str(candidate(2020)) == '(datetime.date(2020, 1, 2), datetime.timedelta(days=2020))'",
    ),
    "deep nesting": ("def f(n):\n    r = None\n    for i in range(n): r = i, r\n    return r\n", "candidate(150)[0] == 149"),
    "a byte array": ("def f(n): return bytearray(n)\n", "type(candidate(2)) is bytearray and candidate(2) == b'\\0\\0'"),
    "arguments too": ("def f(*x): return [list(each) for each in x]\n", "candidate(range(1), iter([2])) == [[0], [2]]"),
}  # fmt: skip


def test_what_is_nearly_plain_comes_back_as_what_it_is():
    found = outcomes(
        *(checked(source, f"def check(candidate):\n    assert {test}\n") for source, test in GIVEN_BACK.values())
    )
    assert {name: each.detail or each.status for name, each in zip(GIVEN_BACK, found, strict=True)} == dict.fromkeys(
        GIVEN_BACK, "passed"
    )


def test_no_iterator_passes_for_what_it_yields_and_none_is_read_for_ever():
    endless = "def f(n):\n    while True: yield n\n"
    swallows = "def check(candidate):\n    try:\n        list(candidate(1))\n    except Exception:\n        pass\n"
    nested = "def f(x):\n    a = []\n    for _ in range(300): a = [a]\n    return a\n"
    found = outcomes(checked("def f(x): yield x + 1\n"), checked(endless, swallows), checked(nested))
    assert [each.status for each in found] == ["wrong", "exception", "wrong"]
    assert "more than the 10000 items" in found[1].detail
    assert found[2].detail == "not plain data: returned a value nested deeper than 200"


CAUGHT = {
    "its own below ValueError": ("class Bad(ValueError): pass\ndef f(x): raise Bad('no')\n", "ValueError", "str(error) == 'no'"),
    "two of Python's at once": (
        "class Bad(KeyError, AttributeError): pass\ndef f(x): raise Bad('k')\n",
        "AttributeError",
        "isinstance(error, KeyError) and error.args == ('k',) and str(error) == \"'k'\"",
    ),
    "with words of its own": (
        "class Bad(Exception):\n    def __str__(self): return 'own'\ndef f(x): raise Bad(1)\n",
        "Exception",
        "str(error) == 'own' and error.args == (1,)",
    ),
    "of json, as ValueError": ("import json\ndef f(x): json.loads('{')\n", "ValueError", "'line 1' in str(error)"),
    "of json, as itself": ("import json\ndef f(x): json.loads('{')\n", "json.JSONDecodeError", "'line 1' in str(error)"),
    "of decoding": ("def f(x): b'\\xff'.decode()\n", "UnicodeDecodeError", "error.start == 0 and error.reason"),
    "of decimal": ("from decimal import *\ndef f(x): Decimal('x')\n", "ArithmeticError", "True"),
    "with two arguments": ("def f(x): raise ValueError('a', 2)\n", "ValueError", "error.args == ('a', 2)"),
    "of an operating system": ("def f(x): open('/none')\n", "FileNotFoundError", "error.errno == 2"),
    "with no words": ("def f(x): raise ValueError\n", "ValueError", "error.args == () and str(error) == ''"),
    "with many": ("def f(x): raise ValueError('a\\n' * 600 + '(line 3)')\n", "ValueError", "str(error) == 'a\\n' * 600 + '(line 3)'"),
    "with what does not travel": ("def f(x): raise ValueError(object)\n", "ValueError", "'object' in str(error)"),
    "a group": ("def f(x): raise ExceptionGroup('g', [ValueError()])\n", "Exception", "'g' in str(error)"),
    "an exit": ("def f(x): exit(2)\n", "SystemExit", "error.code == 2"),
}  # fmt: skip


def test_exceptions_of_the_candidate_keep_their_kind_and_their_words():
    check = "import json\ndef check(candidate):\n    try:\n        candidate(1)\n    except {} as error:\n        assert {}\n"
    check += "    else:\n        assert False, 'nothing was raised'\n"
    found = outcomes(*(checked(source, check.format(kind, test)) for source, kind, test in CAUGHT.values()))
    assert {name: each.detail or each.status for name, each in zip(CAUGHT, found, strict=True)} == dict.fromkeys(
        CAUGHT, "passed"
    )


def test_no_exception_passes_for_one_that_it_is_not():
    check = "def check(candidate):\n    try:\n        candidate(1)\n    except {}:\n        pass\n"
    lies = "class Bad(ValueError): pass\nBad.__name__ = Bad.__qualname__ = 'KeyError'\ndef f(x): raise Bad\n"
    found = outcomes(
        checked("def f(x): raise ValueError('no')\n", check.format("KeyError")),
        checked("def f(x): exit()\n", check.format("Exception")),
        checked(lies, check.format("KeyError")),
    )
    assert [each.status for each in found] == ["exception"] * 3
    assert [each.detail for each in found] == [
        "ValueError: no (line 1)",
        "SystemExit: None (line 1)",
        "KeyError (line 3)",
    ]


# (program, what a check does with it, outcome)
CHANGED = {
    "sorting in place": (
        "def f(x): x.sort()\n",
        "x = [3, 1, 2]\ncandidate(x)\nassert x == [1, 2, 3]",
        "passed",
    ),
    "a wrong change is seen": (
        "def f(x):\n    x.sort()\n    return x\n",
        "x = [3, 1, 2]\nassert candidate(x) == [1, 2, 3]\nassert x == [3, 1, 2]",
        "wrong",
    ),
    "no change leaves all as it is": (
        "def f(x): return sorted(x)\n",
        "x = [3, 1, 2]\nassert candidate(x) == [1, 2, 3]\nassert x == [3, 1, 2]",
        "passed",
    ),
    "dicts, sets and keyword arguments": (
        "def f(x, y, z):\n    x['b'] = x.pop('a')\n    y.add(2)\n    z += b'!'\n",
        "x, y, z = {'a': 1}, {1}, bytearray(b'z')\ncandidate(x, y, z=z)\nassert (x, y, z) == ({'b': 1}, {1, 2}, b'z!')",
        "passed",
    ),
    "a row of a grid is the test's own": (
        "def f(x):\n    x.reverse()\n    x[0].append(7)\n    x.append([8])\n",
        "a, b = [1], [2]\nx = [a, (b,)[0]]\ncandidate(x)\nassert x == [[2, 7], [1], [8]] and x[0] is b and x[1] is a",
        "passed",
    ),
    "what is returned is the argument": (
        "def f(x):\n    x.append(1)\n    return [x]\n",
        "x = []\nassert candidate(x)[0] is x",
        "passed",
    ),
    "one list twice is one list": (
        "def f(x, y):\n    x.append(1)\n    return len(y)\n",
        "x = []\nassert candidate(x, x) == 1\nassert x == [1]",
        "passed",
    ),
    "before an exception": (
        "def f(x):\n    x.clear()\n    raise ValueError\n",
        "x = [1]\ntry:\n    candidate(x)\nexcept ValueError:\n    pass\nassert x == []",
        "passed",
    ),
    "what cannot travel is not what was there": (
        "def f(x): x[0] = object()\n",
        "x = [1]\ncandidate(x)\nassert x == [1]",
        "wrong",
    ),
    "what cannot travel and nobody looks at": (
        "def f(x):\n    x.append(object())\n    return 1\n",
        "assert candidate([1]) == 1",
        "passed",
    ),
    "a dict may be iterated over meanwhile": (
        "def f(d, x): x.append(d.get(0))\n",
        "d, x = {0: 1, 1: 2}, []\nfor _ in d:\n    candidate(d, x)\nassert x == [1, 1]",
        "passed",
    ),
}


def test_what_a_call_changes_in_its_arguments_is_changed_in_the_tests():
    checks = ["def check(candidate):\n    " + body.replace("\n", "\n    ") + "\n" for _, body, _ in CHANGED.values()]
    found = outcomes(*(checked(source, check) for (source, _, _), check in zip(CHANGED.values(), checks, strict=True)))
    for (name, (_, _, status)), outcome in zip(CHANGED.items(), found, strict=True):
        assert (name, outcome.status) == (name, status), outcome


def test_a_reply_that_no_worker_writes_is_a_violation():
    forge = (
        "import os, sys, time\ndef f(x):\n    frame = sys._getframe()\n    while 'nonce' not in frame.f_locals: frame = frame.f_back\n"
        "    os.write(4, ('{\"nonce\":\"%s\",\"value\":' % frame.f_locals['nonce']).encode() + b'REPLY' + b'}\\n')\n"
        "    time.sleep(9)\n"
    )
    replies = (
        '2', '{"value":2}', '{"value":{"$none":[]},"changed":null}', '{"value":{"$same":5},"changed":null}',
        '{"value":2,"changed":[[1],[2]]}', '{"value":2,"changed":[{"a":1}]}', '{"value":{"$set":[[1]]},"changed":null}',
        '{"raised":[],"args":[],"text":"","detail":"","changed":null}',
        '{"raised":["builtins.ValueError"],"args":5,"text":"","detail":"","changed":null}',
    )  # fmt: skip
    check = "def check(candidate):\n    try:\n        candidate([1])\n    except Exception:\n        pass\n"
    found = outcomes(*(checked(forge.replace("REPLY", each), check) for each in replies))
    assert [each.status for each in found] == ["violation"] * len(replies), found


def test_a_forged_exception_takes_no_type_of_the_tests_own():
    named = "def f(x): raise type('Unfit', (BaseException,), {'__module__': 'judging.examiner'})('x')\n"
    check = (
        "class Unfit(Exception): pass\ndef check(candidate):\n    try:\n        candidate(1)\n    except Unfit: pass\n"
    )
    assert outcomes(checked(named, check))[0].detail == "Unfit: x (line 1)"
