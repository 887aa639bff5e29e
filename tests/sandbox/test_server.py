"""Warm servers: nothing of one candidate reaches the next, and a server that dies is replaced."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from codesieve.sandbox.containment import best, plan_of_level
from codesieve.sandbox.endings import Ended, SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.process import contained
from codesieve.sandbox.run import call, run_program
from codesieve.sandbox.server import ServerDied, Servers

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=8.0, processes=8)
ROOT = Path(sys.modules["codesieve"].__path__[0]).resolve()


def levels():
    found = []
    for level in (3, 2, 1):
        try:
            plan_of_level(level)
        except SandboxError:
            continue
        found.append(level)
    return found


@pytest.fixture(scope="module", params=levels())
def servers(request):
    with Servers(1, level=request.param) as servers:
        yield servers


def test_it_runs_programs_and_calls_as_the_one_shot_start_does(servers):
    program = "import sys\nprint(sum(map(int, sys.stdin)))\nprint(sorted(n for n in sys.modules if 'contained' in n))"
    for start in ({"servers": servers}, {"level": servers.plan.level}):
        outcome = run_program(program, "1\n2\n", LIMITS, **start)
        assert (outcome.status, outcome.stdout) == ("ok", "3\n[]\n")
        assert outcome.level == servers.plan.level
        assert 0 < outcome.cpu_seconds < outcome.wall_seconds + 0.1


def test_streams_names_and_identity_are_those_of_the_one_shot_start(servers):
    source = (
        "import os, sys, __main__\ndef f():\n    return [[s.encoding, s.line_buffering, s.isatty(), s.seekable()] for s in "
        "(sys.stdin, sys.stdout)] + [sys.argv, sys.path, sys.flags.hash_randomization, hash('a'), os.getcwd() == os.environ['HOME'],"
        " sorted(os.environ), os.getuid() != 0, os.umask(0), sys.getrecursionlimit(), sorted(vars(__main__))]\n"
    )
    warm = call(source, "f", [([], {})], LIMITS, servers=servers)
    fresh = call(source, "f", [([], {})], LIMITS, level=servers.plan.level)
    assert warm.outcome.status == "ok", warm.outcome
    assert warm.returned == fresh.returned


LEAVES = """
import os, socket, sys
def f():
    open("left", "w").close()
    os.mkdir("folder")
    os.symlink("/", "folder/link")
    sys.modules["left"] = sys
    os.environ["LEFT"] = "1"
    os.umask(0)
    os.nice(5)
    sys.left = socket.socketpair()
    return os.getpid()
"""
FINDS = """
import os, sys
def f():
    found = os.listdir(".") + [name for name in ("left",) if name in sys.modules] + [os.environ.get("LEFT", "")]
    return found + [os.nice(0), os.umask(0)]
"""


def test_nothing_is_left_for_the_next_candidate(servers):
    before = call(FINDS, "f", [([], {})], LIMITS, servers=servers).returned
    assert call(LEAVES, "f", [([], {})], LIMITS, servers=servers).outcome.status == "ok"
    assert call(FINDS, "f", [([], {})], LIMITS, servers=servers).returned == before == (["", os.nice(0), 0o22],)


def test_a_daemon_does_not_live_to_see_the_next_candidate(servers):
    if servers.plan.no_processes:
        pytest.skip("at this level a program may not start processes on this host")
    daemon = "import os, time\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n        os.fork()\n        time.sleep(60)\n    return 1\n"
    assert call(daemon, "f", [([], {})], LIMITS, servers=servers).outcome.detail == "left processes behind"
    alone = "import os\ndef f():\n    try:\n        os.kill(-1, 0)\n    except ProcessLookupError:\n        return 'alone'\n"
    if servers.plan.namespaces:
        assert call(alone, "f", [([], {})], LIMITS, servers=servers).returned == ("alone",)


def test_candidates_in_parallel_each_have_a_server(servers):
    def one(number):
        source = "import os, time\ndef f(x):\n    open(str(x), 'w').close()\n    time.sleep(0.02)\n    return [x, os.listdir('.')]"
        return call(source, "f", [([number], {})], LIMITS, servers=servers).returned[0]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(9))) == [[number, [str(number)]] for number in range(9)]


def test_an_exception_is_an_answer_and_the_process_can_be_asked_again(servers):
    for start in (servers.contained(LIMITS), contained(servers.plan, LIMITS)):
        with start as process:
            process.ask(
                {"module": "solution", "source": "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen) // x"}
            )
            with pytest.raises(Ended) as ended:
                process.ask({"entry_point": "f", "args": [0], "kwargs": {}})
            assert (ended.value.status, ended.value.alive) == ("exception", True)
            assert process.ask({"entry_point": "f", "args": [1], "kwargs": {}}) == 2
            assert process.finish().values == (None, 2)


def test_the_end_of_a_process_says_why(servers):
    sources = {
        "timeout": "def f():\n    while True: pass",
        "violation": "import os\ndef f(): os._exit(0)",
        "output_flood": "def f(): print('x' * 10**7)",
    }
    limits = Limits(cpu_seconds=0.2, wall_seconds=2.0, output_bytes=10**6)
    for status, source in sources.items():
        with servers.contained(limits) as process:
            process.ask({"module": "solution", "source": source})
            with pytest.raises(Ended) as ended:
                process.ask({"entry_point": "f", "args": [], "kwargs": {}})
            assert (ended.value.status, ended.value.alive) == (status, False)


def test_a_block_that_is_left_early_ends_its_candidate(servers):
    started = time.monotonic()
    for start in (servers.contained(LIMITS), contained(servers.plan, LIMITS)):
        with pytest.raises(RuntimeError, match="ours"), start as process:
            process.ask(
                {
                    "module": "solution",
                    "source": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
                }
            )
            raise RuntimeError("ours")
    assert time.monotonic() - started < 5
    assert call("def f(): return 1", "f", [([], {})], LIMITS, servers=servers).returned == (1,)


def test_no_descriptor_of_ours_is_left_open(servers):
    call("def f(): return 1", "f", [([], {})], LIMITS, servers=servers)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        call("def f(): return 1", "f", [([], {})], LIMITS, servers=servers)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_an_idle_server_that_died_is_replaced(contained_by):
    with Servers(1) as servers:
        kill(contained_by(os.getpid()))
        assert call("def f(): return 1", "f", [([], {})], LIMITS, servers=servers).returned == (1,)
    assert contained_by(os.getpid()) == []


def test_a_server_that_dies_during_a_run_is_an_error_of_ours_and_the_run_is_repeated(contained_by):
    with Servers(1) as servers:
        with pytest.raises(ServerDied), servers.contained(LIMITS) as process:
            process.ask({"module": "solution", "source": "x = 1"})
            kill(contained_by(os.getpid()))
            process.finish()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(
                call,
                "import time\ndef f():\n    time.sleep(0.5)\n    return 1",
                "f",
                [([], {})],
                LIMITS,
                servers=servers,
            )
            time.sleep(0.25)
            kill(contained_by(os.getpid()))
            assert run.result().outcome.status in {"ok", "violation"}  # the latter: we killed the second start too
    assert contained_by(os.getpid()) == []


def test_servers_that_do_not_start_are_an_error_of_ours(monkeypatch):
    best()
    monkeypatch.setattr("codesieve.sandbox.process._interpreter", lambda: "/bin/false")
    with pytest.raises(ServerDied, match="did not start"):
        Servers(1)


KILLED = """
import sys, threading
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call
from codesieve.sandbox.server import Servers
level, own = int(sys.argv[1]), sys.argv[2] == "own"
servers = Servers(2, level=level)
start = {"level": level} if own else {"servers": servers}
source = "import time\\nopen('started', 'w').close()\\ntime.sleep(60)"
runs = [threading.Thread(target=call, args=(source, "f", [], Limits(cpu_seconds=20)), kwargs=start) for _ in range(2)]
for run in runs: run.start()
print("ready", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("own", ["own", "server"])
@pytest.mark.parametrize("level", [3, 2, 1])
def test_however_the_judge_ends_its_processes_end_and_nothing_is_left(
    level, own, number, temporary_folder, contained_by
):
    if level not in levels():
        pytest.skip("not to be had here")
    environment = {
        **os.environ,
        "TMPDIR": str(temporary_folder),
        "PYTHONPATH": str(ROOT / ".cache") + ":" + ":".join(sys.path),
    }
    command = [sys.executable, "-c", KILLED, str(level), own]
    judge = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        assert judge.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        assert len(contained_by(judge.pid)) >= 3
    finally:
        judge.send_signal(number)
        judge.wait()
        judge.stdout.close()
    deadline = time.monotonic() + 15
    while contained_by(judge.pid) or list(temporary_folder.iterdir()):
        assert time.monotonic() < deadline, "it did not happen in 15 s"
        time.sleep(0.02)
