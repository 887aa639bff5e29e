"""The wall clock: load does not change a verdict, and a program that waits by itself is ended all the same."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from codesieve.sandbox.clock import MOST_WAITING_SECONDS
from codesieve.sandbox.endings import Ended
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.process import contained
from codesieve.sandbox.run import call

HOGS = 5
LIMITS = Limits(cpu_seconds=5.0, wall_seconds=1.0, processes=8)
COMPUTES = "import time\ndef f():\n    while time.process_time() < 0.4:\n        pass\n    return 1\n"


@pytest.fixture
def start(servers, request):
    return {"own start": {"level": servers.plan.level}, "server": {"servers": servers}}[request.param]


@pytest.fixture
def busy_core(servers):
    """All that this thread starts runs on one core, which busy loops of other sessions keep."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not say how long a process waited for a core")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(HOGS)]
    os.sched_setaffinity(0, cores)
    for child in servers_processes():
        os.sched_setaffinity(child, {max(cores)})
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)
    for hog in hogs:
        hog.kill()
        hog.wait()


def servers_processes():
    """Process ids of the warm servers of this process: also those in process namespaces, as we number them."""
    mark = f"parent={os.getpid()}".encode()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and mark in (folder / "cmdline").read_bytes().split(b"\0"):
                yield int(folder.name)


@pytest.mark.parametrize("start", ["own start", "server"], indirect=True)
def test_a_program_that_gets_no_core_is_not_out_of_time(start, busy_core):
    outcome = call(COMPUTES, "f", [([], {})], LIMITS, **start).outcome
    if outcome.status == "ok" and outcome.wall_seconds < LIMITS.wall:
        pytest.skip("this machine gave it a core all the same")
    assert outcome.status == "ok", outcome


@pytest.mark.parametrize("start", ["own start", "server"], indirect=True)
def test_a_program_that_waits_by_itself_is_out_of_time_on_a_busy_core_too(start, busy_core):
    outcome = call("import time\ndef f():\n    time.sleep(60)", "f", [([], {})], LIMITS, **start).outcome
    assert (outcome.status, outcome.detail) == ("timeout", "did not end within 1 s")
    assert outcome.wall_seconds < LIMITS.wall + MOST_WAITING_SECONDS + 1


def test_programs_that_wait_for_their_own_processes_are_out_of_time(servers):
    if servers.plan.no_processes:
        pytest.skip("at this level a program may not start processes on this host")
    crowd = "import os\ndef f():\n    for _ in range(3): os.fork()\n    while True: pass\n"
    limits = Limits(cpu_seconds=60, wall_seconds=1.0, processes=16)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        outcome = call(crowd, "f", [([], {})], limits, level=servers.plan.level).outcome
    finally:
        os.sched_setaffinity(0, cores)
    assert (outcome.status, outcome.detail) == ("timeout", "did not end within 1 s")


def test_the_clock_stands_still_while_nothing_is_asked(servers):
    limits = Limits(wall_seconds=0.5)
    for start in (servers.contained(limits), contained(servers.plan, limits)):
        with start as process:
            process.ask(
                {"module": "solution", "source": "import time\ndef f(seconds):\n    time.sleep(seconds)\n    return 1"}
            )
            time.sleep(1.0)
            assert process.ask({"entry_point": "f", "args": [0.01], "kwargs": {}}) == 1
            time.sleep(1.0)
            with pytest.raises(Ended, match="did not end within"):
                process.ask({"entry_point": "f", "args": [60], "kwargs": {}})


def test_a_program_that_waits_for_a_question_that_nobody_asked_is_out_of_time(servers):
    source = "import os\ndef f():\n    return os.read(3, 1)"
    outcome = call(source, "f", [([], {})], Limits(wall_seconds=0.5), servers=servers).outcome
    assert (outcome.status, outcome.detail) == ("timeout", "did not end within 0.5 s")
