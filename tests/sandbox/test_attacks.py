"""Every attack of the research notes, at every level that this host gives, in a process of its own and through a warm
server: none passes, none leaves anything behind, and afterwards the same server still runs a correct solution."""

import json
import os
import secrets
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from attack_corpus import ATTACKS, NOT_AT
from codesieve.sandbox.containment import plan_of_level
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call
from codesieve.sandbox.server import Servers
from codesieve.sandbox.values import canonical, encode

LIMITS = Limits(
    cpu_seconds=2.0, wall_seconds=8.0, memory_bytes=128 * 2**20, processes=8, file_bytes=2**20, output_bytes=2**20
)
SHORT = replace(LIMITS, cpu_seconds=0.25, wall_seconds=0.5)
"""For attacks that only a time limit ends."""
TESTS = [(1, 2), (10, 11), (-1, 0)]
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


@pytest.fixture(scope="module", params=list(LEVELS))
def level(request):
    return request.param


@pytest.fixture(scope="module")
def servers(level):
    with Servers(1, level=level) as servers:
        yield servers


@pytest.fixture(params=["own start", "server"])
def start(request):
    """What to pass to `call`: nothing, or the warm servers of the level."""
    return {} if request.param == "own start" else {"servers": request.getfixturevalue("servers")}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(temporary_folder, monkeypatch, contained_by, start, level):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_folder))
    if start:
        returned(REFERENCE, [1], level, start)  # the server has started all that it keeps
    own = len(contained_by(os.getpid()))
    yield
    assert list(temporary_folder.iterdir()) == []
    if start:
        assert returned(REFERENCE, [1], level, start) == 2  # by the same server, which replaces what was ended
    assert len(contained_by(os.getpid())) == own
    assert not Path("/tmp/codesieve-owned").exists()


def verdict(source, level, start, limits):
    """As a judge of calls decides: the outcome of the process, or `wrong`, or `passed`."""
    called = call(source, "solve", [([x], {}) for x, _ in TESTS], limits, level=level, **start)
    if called.outcome.status in {"output_flood", "violation"}:
        return called.outcome
    for (_, expected), answer in zip(TESTS, called.returned, strict=False):
        if canonical(answer) != canonical(json.loads(encode(expected))):
            return replace(called.outcome, status="wrong")
    return replace(called.outcome, status="passed") if called.outcome.status == "ok" else called.outcome


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_does_not_pass_and_leaves_nothing(name, level, start):
    if level in NOT_AT.get(name, ()):
        pytest.skip("this level does not promise that")
    source, allowed = ATTACKS[name]
    limits = SHORT if "timeout" in allowed else LIMITS
    outcome = verdict(source, level, start, limits)
    assert outcome.status in allowed, outcome
    assert outcome.level == level
    assert outcome.wall_seconds < limits.wall + 1


def test_the_reference_still_passes(level, start):
    outcome = verdict(REFERENCE, level, start, LIMITS)
    assert outcome.status == "passed", outcome


def returned(source, arguments, level, start, limits=LIMITS):
    called = call(source, "solve", [(arguments, {})], limits, level=level, **start)
    assert called.outcome.status == "ok", called.outcome
    return called.returned[0]


READ_EVERYTHING = """
import gc, os, sys
gc.unfreeze()
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


def test_the_expected_values_are_out_of_reach(level, start):
    if level == 1:
        pytest.skip("at level 1 a program reads what its user reads")
    secret = secrets.token_hex(16)
    holder = {"expected": secret + "!"}
    limits = replace(LIMITS, cpu_seconds=5.0, wall_seconds=15.0)
    looked_at, hits = returned(READ_EVERYTHING, [secret[::-1], os.getpid()], level, start, limits)
    assert looked_at > 100
    assert hits == 0
    assert holder["expected"].startswith(secret)


def test_files_outside_can_be_neither_read_nor_written(level, start, tmp_path_factory):
    if level == 1:
        pytest.skip("at level 1 a program reads what its user reads")
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
    found = returned(source, [str(planted), str(folder / "beside"), ours], level, start)
    private, readable_by_all = found[:5], found[5:]
    assert private == [None] * 5
    plan = plan_of_level(level)
    if plan.namespaces or plan.landlock:  # a user of its own alone cannot hide what all users may read
        assert readable_by_all == [None] * 3
    assert [path.name for path in folder.iterdir()] == ["planted"]
    assert planted.read_text() == "secret"


def test_there_is_no_network(level, start):
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
        assert returned(source, [listener.getsockname()[1]], level, start) == []


def test_nothing_is_inherited_and_hashes_are_fixed(level, start, monkeypatch):
    monkeypatch.setenv("CODESIEVE_TEST_SECRET", "token")
    secret_fd = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret_fd, True)
    source = (
        "import os\ndef is_open(number):\n    try:\n        os.fstat(number)\n        return True\n    except OSError:\n"
        "        return False\ndef solve():\n    return [sorted(os.environ), [n for n in range(256) if is_open(n)], hash('a'),"
        " os.getcwd() == os.environ['HOME'], os.listdir('.')]\n"
    )
    try:
        first, second = returned(source, [], level, start), returned(source, [], level, start)
    finally:
        os.close(secret_fd)
    assert first == second
    names, descriptors, _, at_home, files = first
    assert "CODESIEVE_TEST_SECRET" not in names
    assert "PATH" not in names
    assert descriptors == [0, 1, 2, 3, 4]
    assert at_home
    assert files == []


def test_the_number_of_processes_is_limited(level, start):
    plan = plan_of_level(level)
    source = (
        "import os, time\ndef solve():\n    started = 0\n    try:\n        while started < 50:\n            if os.fork() == 0:\n"
        "                time.sleep(60)\n            started += 1\n    except OSError:\n        pass\n"
        "    print(started)\n    return started\n"
    )
    outcome = call(source, "solve", [((), {})], LIMITS, level=level).outcome
    assert int(outcome.stdout) <= LIMITS.processes
    assert plan.no_processes == (int(outcome.stdout) == 0)
