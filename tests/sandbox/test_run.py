import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from codesieve.sandbox import process, seccomp
from codesieve.sandbox.containment import best, describe, plan_of_level
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call, run_program
from codesieve.sandbox.values import decode

SHORT = Limits(cpu_seconds=0.3, wall_seconds=2)
ROOT = Path(sys.modules["codesieve"].__path__[0]).resolve()


def test_a_program_reads_its_input_and_prints():
    outcome = run_program("import sys\nprint(sum(map(int, sys.stdin)))\nprint('é')", "1\n2\n3\n")
    assert (outcome.status, outcome.stdout) == ("ok", "6\né\n")
    assert outcome.level == describe()["level"]
    assert 0 < outcome.cpu_seconds < outcome.wall_seconds + 0.1


def test_a_program_that_does_not_read_a_large_input_is_not_stuck():
    outcome = run_program("print('done')", "x" * 3_000_000)
    assert (outcome.status, outcome.stdout) == ("ok", "done\n")


def test_three_megabytes_of_output_are_a_talkative_program_and_no_timeout():
    outcome = run_program("for _ in range(3000): print('x' * 999)")
    assert (outcome.status, len(outcome.stdout)) == ("ok", 3_000_000)


@pytest.mark.parametrize(
    ("source", "status", "detail"),
    [
        ("import sys; sys.exit(0)", "ok", ""),
        ("import sys; sys.exit(3)", "exception", "SystemExit: 3 (line 1)"),
        ("\n\n1/0", "exception", "ZeroDivisionError: division by zero (line 3)"),
        ("def f(:", "syntax_error", "invalid syntax, line 1"),
        ("x = 1\0", "syntax_error", "null bytes"),
        ("x = '\ud800'", "syntax_error", "surrogates not allowed"),
        ("import os; os._exit(0)", "violation", "exit status 0"),
        ("while True: pass", "timeout", "0.3 s of CPU"),
        ("import time; time.sleep(60)", "timeout", "within 2 s"),
        ("x = bytearray(10**10)", "memory", "MemoryError"),
        ("assert __name__ == '__main__'\nimport __main__\nassert __main__.__name__", "ok", ""),
        ("import worker", "exception", "ModuleNotFoundError: No module named 'worker'"),
        ("import numpy", "exception", "ModuleNotFoundError: No module named 'numpy'"),
        ("import hashlib, sqlite3, ssl, decimal, zoneinfo; zoneinfo.ZoneInfo('UTC')", "ok", ""),
        ("import asyncio\nasync def main():\n    await asyncio.sleep(0)\nasyncio.run(main())", "ok", ""),
        ("import threading as t\nx = t.Thread(target=print)\nx.start(); x.join()", "ok", ""),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'x')", "ok", ""),
    ],
)
def test_how_a_program_ended_is_told_apart(source, status, detail):
    outcome = run_program(source, limits=SHORT)
    assert outcome.status == status, outcome
    assert detail in outcome.detail


def test_calls_take_and_return_plain_values():
    arguments = [1, 2**200, 1.5, "é\ud800", b"\0", [1], (1,), {1: 2}, {1, 2}, None, float("inf"), {"$set": 1}]
    called = call("def same(*args, **kwargs):\n    return args, kwargs", "same", [(arguments, {"k": (1,)})])
    assert called.outcome.status == "ok"
    assert decode(called.returned[0]) == (tuple(arguments), {"k": (1,)})


def test_calls_share_a_process_and_stop_at_the_first_failure():
    source = "seen = []\ndef f(x):\n    seen.append(x)\n    return 10 // x + len(seen)"
    called = call(source, "f", [([5], {}), ([2], {}), ([0], {}), ([1], {})])
    assert called.returned == (3, 7)
    assert called.outcome.status == "exception"
    assert called.outcome.detail == "ZeroDivisionError: integer division or modulo by zero (line 4)"


def test_an_argument_that_is_no_plain_value_is_our_error():
    with pytest.raises(ValueError, match="type object"):
        call("def f(x): pass", "f", [([object()], {})])


def test_a_missing_function_is_an_exception():
    assert call("x = 1", "f", [([], {})]).outcome.detail.startswith("AttributeError")


def test_cpu_time_of_children_counts():
    if plan_of_level(best().level).no_processes:
        pytest.skip("at this level a program may not start processes on this host")
    source = (
        "import os, time\ndef burn(seconds):\n    while time.process_time() < seconds: pass\n"
        "for _ in range(3):\n    child = os.fork()\n    if child == 0:\n        burn(0.3)\n        os._exit(0)\n    os.waitpid(child, 0)\n"
    )
    outcome = run_program(source, limits=Limits(cpu_seconds=0.6, wall_seconds=20))
    assert outcome.status == "timeout"
    assert outcome.cpu_seconds > 0.6


def test_a_level_that_the_host_does_not_give_is_an_error_and_never_lowered():
    with pytest.raises(SandboxError, match="sandbox level 4 is required, this host gives"):
        run_program("pass", required_level=4)


def test_a_wrong_limit_is_named():
    with pytest.raises(ValueError, match=r"memory_bytes must be greater than 0 \(got 0\)"):
        Limits(memory_bytes=0)


def test_runs_in_parallel_do_not_disturb_each_other():
    def one(number):
        return call("import os\ndef f(x):\n    return [x, os.listdir('.')]", "f", [([number], {})]).returned[0]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(12))) == [[number, []] for number in range(12)]


KILLED = """
import sys
from codesieve.sandbox.containment import plan_of_level
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call
source = "import os, time\\nprint('up', flush=True)\\n"
source += "for _ in range(3):\\n    try:\\n        if os.fork() == 0: os.setsid(); time.sleep(60)\\n    except OSError: pass\\n"
source += "open('started', 'w').close()\\ntime.sleep(60)\\n"
plan_of_level(int(sys.argv[1]))  # the self-test is over
print("ready", flush=True)
call(source, "f", [], Limits(cpu_seconds=20), level=int(sys.argv[1]))
"""


@pytest.mark.parametrize("level", [3, 2, 1])
def test_when_the_judge_is_killed_all_that_it_contained_ends(level, temporary_folder, contained_by):
    try:
        plan_of_level(level)
    except SandboxError as error:
        pytest.skip(str(error))
    environment = {
        **os.environ,
        "TMPDIR": str(temporary_folder),
        "PYTHONPATH": str(ROOT / ".cache") + ":" + ":".join(sys.path),
    }
    judge_process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(level)], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert judge_process.stdout.readline() == b"ready\n"
        wait_until(lambda: len(contained_by(judge_process.pid)) >= (2 if plan_of_level(level).no_processes else 4))
    finally:
        judge_process.send_signal(signal.SIGKILL)
        judge_process.wait()
        judge_process.stdout.close()
    wait_until(lambda: not contained_by(judge_process.pid) and not list(temporary_folder.iterdir()))


def wait_until(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 15 s"
        time.sleep(0.02)


WITHOUT_NAMESPACES = """
import json
from codesieve.sandbox import containment, kernel, seccomp
kernel.forbid_new_privileges()
kernel.install_filter(seccomp.program(kernel.machine(), new_processes=True))
print(json.dumps(containment.describe()))
"""


def test_in_a_container_without_namespaces_the_level_falls_and_says_why():
    if seccomp.program(os.uname().machine, True) is None:
        pytest.skip("this test takes the rights away by seccomp, whose call numbers are not known for this machine")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache") + ":" + ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMESPACES], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["level"] in {1, 2}
    assert "unshare: Operation not permitted" in str(found["why_not_higher"])


def test_a_launcher_that_cannot_start_is_an_error_of_ours(monkeypatch):
    plan = best()
    monkeypatch.setattr(process, "_interpreter", lambda: "/bin/false")
    with pytest.raises(SandboxError, match="failed before the program started"):
        process.converse(plan, Limits(), [{"module": "solution", "source": ""}])
