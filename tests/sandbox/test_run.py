import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from codesieve.sandbox import containment, landlock, process, seccomp
from codesieve.sandbox.containment import best, describe, plan_of_level
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call, run_program, run_script
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
        ("import os; os._exit(0)", "ok", ""),
        ("import os; os._exit(3)", "exception", "exit status 3"),
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
    for name, value in (("memory_bytes", 2**63), ("cpu_seconds", float("inf")), ("processes", 10**20)):
        with pytest.raises(ValueError, match=f"{name} is larger than any machine can give"):
            Limits(**{name: value})


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


SELF_TESTS = """
from codesieve.sandbox import containment
print("ready", flush=True)
while True:
    for offer in containment.offers():
        containment._fault.cache_clear()
        offer.why_not or containment._fault(offer.plan)
"""


def test_a_self_test_that_is_interrupted_leaves_nothing(temporary_folder, contained_by):
    environment = {
        **os.environ,
        "TMPDIR": str(temporary_folder),
        "PYTHONPATH": str(ROOT / ".cache") + ":" + ":".join(sys.path),
    }
    for number, delay in (
        (signal.SIGTERM, 0.08),
        (signal.SIGKILL, 0.16),
        (signal.SIGTERM, 0.24),
        (signal.SIGKILL, 0.32),
    ):
        judge = subprocess.Popen([sys.executable, "-c", SELF_TESTS], env=environment, stdout=subprocess.PIPE)
        assert judge.stdout.readline() == b"ready\n"
        time.sleep(delay)
        judge.send_signal(number)
        judge.wait()
        judge.stdout.close()
        wait_until(lambda pid=judge.pid: not contained_by(pid) and not list(temporary_folder.iterdir()))


def test_each_plan_that_is_not_used_says_why_and_what_to_do(monkeypatch):
    real = containment._fault
    monkeypatch.setattr(landlock, "why_missing", lambda: "no Landlock: this kernel has none")
    refused = ("containment could not be set up: unshare: Operation not permitted", {})
    monkeypatch.setattr(containment, "_fault", lambda plan: refused if plan.namespaces else real(plan))
    found = describe()
    assert found["level"] == 1
    assert {"level 3", "level 2"} <= found["why_not_higher"].keys()
    assert all("; see docs/security.md" in reason for reason in found["why_not_higher"].values())
    assert "unshare" in found["why_not_higher"]["level 3"]
    assert "sysctl" in found["why_not_higher"]["level 3"] or "Docker" in found["why_not_higher"]["level 3"]
    assert "no Landlock" in found["why_not_higher"]["level 2"]
    with pytest.raises(SandboxError, match="no Landlock"):
        best(2)


def test_a_self_test_that_breaks_a_promise_is_seen():
    plan = best()
    good = containment._fault(plan)[1]
    assert containment._broken_promise(plan, good) == ""
    for name in ("read_files_outside", "write_outside", "change_modes_outside"):
        assert name in containment._broken_promise(process.Plan(2, landlock=True, seccomp=True), {**good, name: "done"})
    for name in ("local_socket", "datagram_pair", "limits_of_judge", "cores_of_judge", "connect"):
        assert name in containment._broken_promise(process.Plan(1, seccomp=True), {**good, name: "done"})


def test_processes_of_our_user_that_come_later_do_not_make_a_program_fail():
    if os.geteuid() == 0:
        pytest.skip("the kernel does not count root's processes")
    source = (
        "import threading, time\ndef f():\n    threads = [threading.Thread(target=time.sleep, args=(0.3,)) for _ in range(4)]\n"
        "    for each in threads: each.start()\n    for each in threads: each.join()\n    return 1\n"
    )
    for level in (2, 1):
        try:
            plan = plan_of_level(level)
        except SandboxError:
            continue
        with process.contained(plan, Limits()) as contained:
            contained.ask({"module": "solution", "source": source})
            others = [subprocess.Popen(["sleep", "30"]) for _ in range(40)]
            try:
                assert contained.ask({"entry_point": "f", "args": [], "kwargs": {}}) == 1
            finally:
                for other in others:
                    other.kill()
                    other.wait()


BEFORE_LANDLOCK_3 = """
import os, sys
from codesieve.sandbox import kernel, seccomp
kernel.forbid_new_privileges()
kernel.install_filter(seccomp.program(kernel.machine(), new_processes=True, keeps_attributes=True, keeps_contents=True))
name = sys.argv[1]
for action in (
    lambda: os.truncate(name, 0),
    lambda: os.open(name, os.O_RDONLY | os.O_TRUNC),
    lambda: os.open(name, os.O_ACCMODE | os.O_TRUNC),
    lambda: os.setxattr(name, "user.x", b"1"),
    lambda: os.chown(name, os.getuid(), os.getgid()),
):
    try:
        action()
    except PermissionError:
        continue
    print("it could")
before = os.stat(name).st_mode, os.stat(name).st_mtime_ns
os.chmod(name, 0o777), os.utime(name, (1, 1)), os.fchmod(os.open(name, os.O_RDONLY), 0o777)
print(before == (os.stat(name).st_mode, os.stat(name).st_mtime_ns), os.path.getsize(name))
with open(name, "w") as file:
    print(file.write("new"))
"""


def test_files_stay_whole_where_landlock_does_not_keep_them_so(tmp_path):
    if seccomp.program(os.uname().machine, True) is None:
        pytest.skip("no filter is known for this machine")
    (tmp_path / "file").write_text("kept")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache") + ":" + ":".join(sys.path)}
    command = [sys.executable, "-c", BEFORE_LANDLOCK_3, str(tmp_path / "file")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "4", "3"]


def test_a_script_runs_as_python_runs_a_file():
    source = (
        b"# coding: latin-1\nimport sys\nprint(input(), '\xe9', __file__[-9:])\nsys.stderr.write('aside\\n')\n1/0\n"
    )
    ran = run_script(source, b"\xff", name="script.py", required_level=1)
    assert ran.stdout.splitlines() == ["\udcff é script.py".encode("utf-8", "surrogateescape")]
    assert ran.stderr.startswith("aside\nTraceback")
    assert (ran.outcome.status, ran.outcome.detail) == ("exception", "ZeroDivisionError: division by zero")
    assert ran.exit_status == 1
    for source, status in (
        (b"def f(:", "syntax_error"),
        (b"x = bytearray(10**10)", "memory"),
        (b"\xff", "syntax_error"),
    ):
        assert run_script(source, required_level=1).outcome.status == status
    assert run_script(b"raise SystemExit(3)", required_level=1).outcome.detail == "exit status 3"
    assert run_script(b"print(1)", required_level=1, name="-c").stdout == b"1\n"


def test_a_launcher_that_cannot_start_is_an_error_of_ours(monkeypatch):
    plan = best()
    monkeypatch.setattr(process, "_interpreter", lambda: "/bin/false")
    with pytest.raises(SandboxError, match="failed before the program started"):
        process.converse(plan, Limits(), [{"module": "solution", "source": ""}])
