"""Every attack of the research notes, at every level that this host gives: none passes, none leaves anything behind."""

import os
import secrets
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from codesieve.sandbox.containment import describe, plan_of_level
from codesieve.sandbox.judge import Test, Trial, judge
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call
from codesieve.sandbox.talk import SandboxError

LIMITS = Limits(
    cpu_seconds=0.5, wall_seconds=1.2, memory_bytes=128 * 2**20, processes=8, file_bytes=2**20, output_bytes=2**20
)
TESTS = [Test([1], 2), Test([10], 11), Test([-1], 0)]
REFERENCE = "def solve(x):\n    return x + 1\n"


def levels():
    for level in (3, 2, 1):
        try:
            plan_of_level(level)
        except SandboxError as error:
            yield pytest.param(level, marks=pytest.mark.skip(reason=str(error)))
        else:
            yield level


LEVELS = list(levels())
LEVEL_REACHED = max((level for level in LEVELS if isinstance(level, int)), default=0)

ATTACKS = {
    "fork_bomb": (
        "import os\ndef solve(x):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass\n",
        {"timeout", "violation"},
    ),
    "memory_bomb": (
        "def solve(x):\n    hoard = []\n    while True:\n        hoard.append(bytearray(10**7))\n",
        {"memory"},
    ),
    "prints_a_gigabyte": (
        "import sys\ndef solve(x):\n    for _ in range(1000):\n        sys.stdout.write('x' * 10**6)\n    return x + 1\n",
        {"output_flood"},
    ),
    "writes_a_gigabyte_to_descriptor_1": (
        "import os\ndef solve(x):\n    for _ in range(1000):\n        os.write(1, b'x' * 10**6)\n    return x + 1\n",
        {"output_flood"},
    ),
    "loop_that_catches_everything": (
        "def solve(x):\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass\n",
        {"timeout"},
    ),
    "loop_that_ignores_signals": (
        "import signal\nfor number in range(1, 65):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "def solve(x):\n    while True:\n        pass\n",
        {"timeout"},
    ),
    "sleeps": ("import time\ndef solve(x):\n    time.sleep(3600)\n", {"timeout"}),
    "hard_exit": ("import os\ndef solve(x):\n    os._exit(0)\n", {"violation"}),
    "hard_exit_when_loaded": ("import os\nos._exit(0)\n", {"violation"}),
    "exit": ("import sys\ndef solve(x):\n    sys.exit(0)\n", {"exception"}),
    "exit_when_loaded": ("raise SystemExit(0)\n", {"exception"}),
    "equal_to_everything": (
        "class Evil:\n    def __eq__(self, other):\n        return True\n    def __hash__(self):\n        return 0\n"
        "def solve(x):\n    return Evil()\n",
        {"wrong"},
    ),
    "integer_equal_to_everything": (
        "class Evil(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
        "def solve(x):\n    return Evil(77)\n",
        {"wrong"},
    ),
    "lies_about_its_class": (
        "class Evil:\n    __class__ = int\n    def __eq__(self, other):\n        return True\n    def __repr__(self):\n"
        "        return '2'\n    def __index__(self):\n        return 2\ndef solve(x):\n    return Evil()\n",
        {"wrong"},
    ),
    "reduces_to_code": (
        "import os\nclass Evil:\n    def __reduce__(self):\n        return (os.system, ('touch /tmp/codesieve-owned',))\n"
        "def solve(x):\n    return Evil()\n",
        {"wrong"},
    ),
    "evil_message": (
        "class Evil(Exception):\n    def __str__(self):\n        raise SystemExit(0)\n    __repr__ = __str__\n"
        "def solve(x):\n    raise Evil\n",
        {"exception"},
    ),
    "forged_answers_on_every_descriptor": (
        "import os\ndef solve(x):\n    for number in range(256):\n        for nonce in ('', '0', '0' * 16):\n            try:\n"
        '                os.write(number, b\'{"nonce":"%s","value":2}\\n\' % nonce.encode())\n'
        "            except OSError:\n                pass\n    return 2\n",
        {"violation"},
    ),
    "forged_answers_in_advance": (
        "import sys, os\ndef solve(x):\n    frame = sys._getframe()\n    while frame and 'nonce' not in frame.f_locals:\n"
        "        frame = frame.f_back\n    nonce = frame.f_locals['nonce']\n"
        '    os.write(4, (b\'{"nonce":"%s","value":2}\\n\' % nonce.encode()) * 3)\n    os._exit(0)\n',
        {"violation"},
    ),
    "forged_report": (
        "import os\ndef solve(x):\n    for number in range(5, 256):\n        try:\n"
        "            os.write(number, b'end exit 0 0.0 0.0 0 0\\n')\n        except OSError:\n            pass\n    os._exit(0)\n",
        {"violation"},
    ),
    "garbage_for_an_answer": (
        "import os\ndef solve(x):\n    os.write(4, b'\\xff\\x00' * 5000 + b'\\n')\n",
        {"violation"},
    ),
    "deeply_nested_answer": (
        "import os\ndef solve(x):\n    os.write(4, b'[' * 100000 + b'\\n')\n    return x + 1\n",
        {"violation"},
    ),
    "endless_answer": (
        "import os\ndef solve(x):\n    while True:\n        os.write(4, b'[' * 10**6)\n",
        {"output_flood"},
    ),
    "daemon_that_outlives": (
        "import os, time\ndef solve(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        "            for number in range(3):\n                os.close(number)\n            time.sleep(3600)\n        os._exit(0)\n"
        "    return x + 1\n",
        {"violation", "exception"},
    ),
    "children_that_hold_the_pipes": (
        "import os, time\ndef solve(x):\n    for _ in range(3):\n        if os.fork() == 0:\n            time.sleep(3600)\n"
        "    os._exit(0)\n",
        {"violation", "exception"},
    ),
    "endless_recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef solve(x):\n    return solve(x + 1) + 1\n",
        {"memory", "exception", "timeout"},
    ),
    "recursion_in_c": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef solve(x):\n    nested = []\n    for _ in range(10**6):\n"
        "        nested = [nested]\n    return repr(nested)\n",
        {"memory", "exception", "timeout"},
    ),
    "huge_return_value": ("def solve(x):\n    return 'x' * 10**7\n", {"output_flood"}),
    "huge_integer": ("def solve(x):\n    return 1 << 10**7\n", {"output_flood"}),
    "nested_return_value": (
        "def solve(x):\n    nested = []\n    for _ in range(10**5):\n        nested = [nested]\n    return nested\n",
        {"wrong"},
    ),
    "closes_all_descriptors": (
        "import os\ndef solve(x):\n    os.closerange(0, 256)\n    return x + 1\n",
        {"violation"},
    ),
    "stops_itself": ("import os, signal\ndef solve(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n", {"violation"}),
    "kills_all_it_can": (
        "import os, signal\ndef solve(x):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
        {"violation"},
    ),
    "crashes": ("import ctypes\ndef solve(x):\n    ctypes.string_at(0)\n", {"exception"}),
    "patches_the_worker": (
        "import sys, os, builtins\nbuiltins.len = lambda x: 0\nos.write = lambda *x: 0\nos.read = lambda *x: b''\n"
        "def solve(x):\n    return x\n",
        {"violation", "wrong", "timeout"},
    ),
    "fills_the_work_folder": (
        "def solve(x):\n    with open('big', 'wb') as file:\n        file.write(b'x' * 10**8)\n    return x + 1\n",
        {"exception"},
    ),
    "opens_all_files": ("def solve(x):\n    return [open('f%d' % i, 'w') for i in range(1000)]\n", {"exception"}),
}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(temporary_folder, monkeypatch, contained_by):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_folder))
    yield
    assert list(temporary_folder.iterdir()) == []
    assert contained_by(os.getpid()) == []
    assert not Path("/tmp/codesieve-owned").exists()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_pass_and_leaves_nothing(name, level):
    source, allowed = ATTACKS[name]
    outcome = judge(Trial(source, "solve", TESTS), LIMITS, level=level)
    assert outcome.status in allowed, outcome
    assert outcome.level == level
    assert outcome.wall_seconds < LIMITS.wall + 1


@pytest.mark.parametrize("level", LEVELS)
def test_the_reference_still_passes(level):
    outcome = judge(Trial(REFERENCE, "solve", TESTS), LIMITS, level=level)
    assert outcome.status == "passed", outcome


def returned(source, arguments, level, limits=LIMITS):
    called = call(source, "solve", [(arguments, {})], limits, level=level)
    assert called.outcome.status == "ok", called.outcome
    return called.returned[0]


READ_EVERYTHING = """
import gc, os, sys
def solve(backwards, judge):
    found = []
    frame = sys._getframe()
    while frame:
        found.append(repr(frame.f_locals) + repr(frame.f_globals))
        frame = frame.f_back
    found += [repr(each) for each in gc.get_objects() if type(each) in (dict, list, tuple)]
    for pid in (os.getppid(), judge):
        for name in ("environ", "cmdline", "maps"):
            try:
                found.append(open(f"/proc/{pid}/{name}", "rb").read().decode("latin-1"))
            except OSError:
                pass
        try:
            with open(f"/proc/{pid}/mem", "rb") as memory:
                for line in open(f"/proc/{pid}/maps"):
                    first, last = (int(each, 16) for each in line.split()[0].split("-"))
                    if last - first < 2**24 and line.split()[1].startswith("rw"):
                        try:
                            memory.seek(first)
                            found.append(memory.read(last - first).decode("latin-1"))
                        except (OSError, ValueError):
                            pass
        except OSError:
            pass
    return [len(found), sum(backwards in each[::-1] for each in found)]
"""


@pytest.mark.parametrize("level", [level for level in LEVELS if level != 1])
def test_the_expected_values_are_out_of_reach(level):
    secret = secrets.token_hex(16)
    holder = {"expected": secret + "!"}
    limits = replace(LIMITS, cpu_seconds=5.0, wall_seconds=15.0)
    looked_at, hits = returned(READ_EVERYTHING, [secret[::-1], os.getpid()], level, limits)
    assert looked_at > 100
    assert hits == 0
    assert holder["expected"].startswith(secret)


@pytest.mark.parametrize("level", [level for level in LEVELS if level != 1])
def test_files_outside_can_be_neither_read_nor_written(level, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    planted = folder / "planted"
    planted.write_text("secret")
    planted.chmod(0o600)
    source = (
        "import os\ndef attempt(action):\n    try:\n        return action()\n    except OSError as error:\n        return None\n"
        "def solve(planted, beside, ours):\n    return [\n        attempt(lambda: open(planted).read()),\n"
        "        attempt(lambda: open(planted, 'w').close() or 1),\n        attempt(lambda: open(beside, 'w').close() or 1),\n"
        "        attempt(lambda: os.unlink(planted) or 1),\n        attempt(lambda: open(os.__file__, 'a').close() or 1),\n"
        "        attempt(lambda: os.listdir(ours) or None),\n"
        "        attempt(lambda: open(ours + '/sandbox/judge.py').read()),\n"
        "        attempt(lambda: open('/etc/passwd').read()),\n    ]\n"
    )
    ours = str(Path(sys.modules["codesieve"].__path__[0]).resolve())
    found = returned(source, [str(planted), str(folder / "beside"), ours], level)
    private, readable_by_all = found[:5], found[5:]
    assert private == [None] * 5
    plan = plan_of_level(level)
    if plan.namespaces or plan.landlock:  # a user of its own alone cannot hide what all users may read
        assert readable_by_all == [None] * 3
    assert [path.name for path in folder.iterdir()] == ["planted"]
    assert planted.read_text() == "secret"


@pytest.mark.parametrize("level", LEVELS)
def test_there_is_no_network(level):
    if level < 3 and not plan_of_level(level).seccomp:
        pytest.skip("below level 3 the network is cut off by seccomp, which is not known for this machine")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        source = (
            "import socket\ndef solve(port):\n    reached = []\n"
            "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n        try:\n"
            "            with socket.socket(socket.AF_INET, kind) as s:\n                s.connect(('127.0.0.1', port))\n"
            "                reached.append(int(kind))\n        except OSError:\n            pass\n    return reached\n"
        )
        assert returned(source, [listener.getsockname()[1]], level) == []


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_inherited_and_hashes_are_fixed(level, monkeypatch):
    monkeypatch.setenv("CODESIEVE_TEST_SECRET", "token")
    secret_fd = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret_fd, True)
    source = (
        "import os\ndef is_open(number):\n    try:\n        os.fstat(number)\n        return True\n    except OSError:\n"
        "        return False\ndef solve():\n    return [sorted(os.environ), [n for n in range(256) if is_open(n)], hash('a'),"
        " os.getcwd() == os.environ['HOME'], os.listdir('.')]\n"
    )
    try:
        first, second = returned(source, [], level), returned(source, [], level)
    finally:
        os.close(secret_fd)
    assert first == second
    names, descriptors, _, at_home, files = first
    assert "CODESIEVE_TEST_SECRET" not in names
    assert "PATH" not in names
    assert descriptors == [0, 1, 2, 3, 4]
    assert at_home
    assert files == []


@pytest.mark.parametrize("level", LEVELS)
def test_the_number_of_processes_is_limited(level):
    plan = plan_of_level(level)
    source = (
        "import os, time\ndef solve():\n    started = 0\n    try:\n        while started < 50:\n            if os.fork() == 0:\n"
        "                time.sleep(60)\n            started += 1\n    except OSError:\n        pass\n"
        "    print(started)\n    return started\n"
    )
    outcome = call(source, "solve", [((), {})], LIMITS, level=level).outcome
    assert int(outcome.stdout) <= LIMITS.processes
    assert plan.no_processes == (int(outcome.stdout) == 0)


def test_the_level_that_was_reached_is_stated_with_reasons():
    found = describe()
    assert found["level"] == LEVEL_REACHED
    assert bool(found["why_not_higher"]) == (found["level"] < 3)
    assert found["self_test"]["memory"] == "MemoryError"
