"""Every attack of the corpus, with every plan that this host can do, in a process of its own and through a warm server:
none passes, none leaves anything behind, and afterwards the same server still runs a correct solution."""

import json
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from attack_corpus import ATTACKS, NOT_AT
from codesieve.sandbox.clock import MOST_WAITING_SECONDS
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call
from codesieve.sandbox.values import canonical, encode

LIMITS = Limits(
    cpu_seconds=2.0, wall_seconds=8.0, memory_bytes=128 * 2**20, processes=8, file_bytes=2**20, output_bytes=2**20
)
SHORT = replace(LIMITS, cpu_seconds=0.25, wall_seconds=0.5)
"""For attacks that only a time limit ends."""
TESTS = [(1, 2), (10, 11), (-1, 0)]
REFERENCE = "def solve(x):\n    return x + 1\n"


@pytest.fixture
def plan(offer):
    return offer.plan


@pytest.fixture(scope="module")
def level(offer):
    return offer.plan.level


@pytest.fixture(params=["own start", "server"])
def start(request):
    """What to pass to `call`: nothing, or the warm servers of the plan."""
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
def test_an_attack_does_not_pass_and_leaves_nothing(name, offer, level, start):
    if offer.name in NOT_AT.get(name, ()):
        pytest.skip("this plan does not promise that")
    source, allowed = ATTACKS[name]
    limits = SHORT if "timeout" in allowed else LIMITS
    outcome = verdict(source, level, start, limits)
    assert outcome.status in allowed, outcome
    assert outcome.level == level
    assert outcome.wall_seconds < limits.wall + MOST_WAITING_SECONDS + 1


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


def test_files_outside_can_be_neither_read_nor_written(level, plan, start, tmp_path_factory):
    if level == 1 and plan.user_id is None:
        pytest.skip("at level 1 a program of our own user reads what that reads")
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
    if level >= 2:  # a user of its own alone cannot hide what all users may read
        assert readable_by_all == [None] * 3
    assert [path.name for path in folder.iterdir()] == ["planted"]
    assert planted.read_text() == "secret"


REPLACES = """
import os
def solve(outside):
    here = os.getcwd()
    os.chdir("/")
    try:
        os.rename(here, here + "-moved")
        os.symlink(outside, here)
        return "replaced"
    except OSError:
        return "refused"
"""


def test_who_replaces_the_work_folder_by_a_link_changes_nothing_behind_it(level, plan, start, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "folder").mkdir(mode=0o750)
    (outside / "folder" / "file").write_text("kept")
    outside.chmod(0o751)
    found = returned(REPLACES, [str(outside)], level, start)
    assert found == "refused" or (level == 1 and plan.user_id is None)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o751
    assert stat.S_IMODE((outside / "folder").stat().st_mode) == 0o750
    assert (outside / "folder" / "file").read_text() == "kept"


def test_folders_that_all_may_write_are_not_written(level, start):
    if level == 1:
        pytest.skip("level 1 does not keep a program from them")
    name = f"codesieve-test-{secrets.token_hex(8)}"
    source = (
        "import os\ndef solve(folders, name):\n    for folder in folders:\n        if os.path.realpath(folder) != os.getcwd():\n"
        "            try:\n                open(folder + '/' + name, 'w').close()\n            except OSError:\n                pass\n"
    )
    folders = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/var/crash"]
    returned(source, [folders, name], level, start)
    assert [folder for folder in folders if Path(folder, name).exists()] == []


def test_a_local_socket_of_our_user_cannot_be_reached(level, start):
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # paths of sockets must be short
    source = (
        "import socket\ndef solve(path):\n    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n        try:\n"
        "            with socket.socket(socket.AF_UNIX, kind) as one:\n                one.connect(path)\n            return 'reached'\n"
        "        except OSError:\n            pass\n    try:\n        one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "        one.sendto(b'x', path)\n        return 'reached'\n    except OSError:\n        return 'refused'\n"
    )
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_UNIX, kind) as listener:
                path = folder / str(int(kind))
                listener.bind(str(path))
                path.chmod(0o777)
                folder.chmod(0o755)
                if kind == socket.SOCK_STREAM:
                    listener.listen()
                assert returned(source, [str(path)], level, start) == "refused"
    finally:
        shutil.rmtree(folder)


BY_NUMBER = """
import ctypes, errno, os
def solve():
    c = ctypes.CDLL(None, use_errno=True)
    def number(function, *arguments):
        ctypes.set_errno(0)
        function(*arguments)
        return ctypes.get_errno()
    calls = [(c.shmat, 0, None, 0), (c.shmctl, 0, 2, None), (c.semctl, 0, 0, 12, 0), (c.msgrcv, 0, None, 0, 0, 0),
             (c.msgsnd, 0, b"12345678x", 1, 0), (c.mq_open, b"/codesieve", 0), (c.klogctl, 3, ctypes.create_string_buffer(99), 99)]
    return [number(*call) == errno.EPERM for call in calls]
"""


def test_memory_and_queues_cannot_be_reached_by_number_nor_the_log_of_the_kernel(level, plan, start):
    if not plan.seccomp:
        pytest.skip("no filter is known for this machine")
    assert returned(BY_NUMBER, [], level, start) == [True] * 7


HONEST = """
import asyncio, dbm.dumb, os, pathlib, shelve, shutil, sqlite3, tarfile, tempfile, zipfile
def solve():
    pathlib.Path("a").write_text("text")
    for copy in (shutil.copy, shutil.copy2, shutil.copyfile):
        copy("a", copy.__name__)
    os.makedirs("tree/below")
    shutil.copytree("tree", "tree2")
    shutil.move("copy", "tree/moved")
    pathlib.Path("a").touch()
    os.utime("a", (10**9, 10**9))
    os.chmod("a", 0o600)
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w") as file:
        pathlib.Path(folder, "x").write_text("x")
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.write("a")
    with zipfile.ZipFile("z.zip") as archive:
        archive.extractall("unzipped")
    with tarfile.open("t.tar", "w") as archive:
        archive.add("tree")
    with tarfile.open("t.tar") as archive:
        archive.extractall("untarred")
    with dbm.dumb.open("d", "c") as table:
        table["k"] = "v"
    with sqlite3.connect("q.db") as table:
        table.execute("create table t (x)")
    os.truncate("a", 1)
    os.nice(1)
    asyncio.run(asyncio.sleep(0))
    return sorted(os.listdir("untarred/tree")) + [pathlib.Path("unzipped/a").read_text(), pathlib.Path("a").read_text()]
"""


def test_what_honest_programs_do_with_files_works(level, start):
    assert returned(HONEST, [], level, start) == ["below", "moved", "text", "t"]


def test_there_is_no_network(level, plan, start):
    if level < 3 and not plan.seccomp:
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


def test_the_number_of_processes_is_limited(level, plan, start):
    source = (
        "import os, time\ndef solve():\n    started = 0\n    try:\n        while started < 50:\n            if os.fork() == 0:\n"
        "                time.sleep(60)\n            started += 1\n    except OSError:\n        pass\n"
        "    print(started)\n    return started\n"
    )
    outcome = call(source, "solve", [((), {})], LIMITS, level=level).outcome
    counts_all_of_our_user = plan.user_id is None and not plan.namespaces
    assert int(outcome.stdout) <= LIMITS.processes or (counts_all_of_our_user and not plan.no_processes)
    assert plan.no_processes == (int(outcome.stdout) == 0)
