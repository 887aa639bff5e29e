"""Programs that are not Python, in the same containment."""

import shutil

import pytest
from codesieve.sandbox.containment import best, plan_of_level
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import run_command

LIMITS = Limits(
    cpu_seconds=2, wall_seconds=8, memory_bytes=2**29, memory_counts="data", file_bytes=2**22, open_files=256
)
SHELL = ["/bin/sh", "/bin/ls", "/bin/ln", "/usr/bin/mkfifo"]


def levels():
    for level in (3, 2, 1):
        try:
            plan_of_level(level)
        except SandboxError as error:
            yield pytest.param(level, marks=pytest.mark.skip(reason=str(error)))
        else:
            yield level


@pytest.fixture(params=list(levels()))
def level(request):
    return request.param


def shell(script, level, stdin=b"", files=None, keep=(), limits=LIMITS):
    return run_command(
        ["/bin/sh", "-c", script], files or {}, stdin, limits, SHELL, {"GREETING": "hello"}, keep, level=level
    )


def test_input_output_errors_and_exit_status_come_through(level):
    ran = shell("read x; echo $GREETING $x; echo trouble >&2; exit 3", level, b"you\n")
    assert (ran.stdout, ran.stderr, ran.exit_status) == (b"hello you\n", "trouble\n", 3)
    assert (ran.outcome.status, ran.outcome.detail) == ("exception", "exit status 3")
    assert ran.outcome.level == level
    assert shell(":", level).outcome.status == "ok"


def test_files_go_in_and_chosen_ones_come_out(level):
    ran = shell("read x < in/a; echo $x-out > b; echo y > c.txt", level, files={"in/a": b"line\n"}, keep=["b", "*.txt"])
    assert ran.files == {"b": b"line-out\n", "c.txt": b"y\n"}


def test_only_plain_files_of_its_own_come_out(level, tmp_path):
    if plan_of_level(level).no_processes:
        pytest.skip("at this level a program may not start processes on this host")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    ran = shell(
        f"ln -s {secret} link; ln -s /bin/sh shell; echo x > x; ln x y; mkfifo pipe; echo ok > ok", level, keep=["*"]
    )
    assert ran.files == {"ok": b"ok\n"}


def test_what_is_too_large_does_not_come_out(level):
    limits = Limits(cpu_seconds=2, file_bytes=2**20)
    script = (
        "x=1234567890; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do x=$x$x; echo $x > big || exit 1; done"
    )
    ran = shell(script, level, keep=["big"], limits=limits)
    assert len(ran.files.get("big", b"")) <= 2**20
    assert ran.outcome.status != "ok"


def test_nothing_is_inherited_but_what_is_named(level, monkeypatch):
    monkeypatch.setenv("CODESIEVE_TEST_SECRET", "token")
    assert b"token" not in shell("set", level).stdout
    assert (
        shell("echo $HOME; echo $TMPDIR; pwd", level).stdout.split()[1:] == [shell("pwd", level).stdout.strip()] * 2
        or level < 3
    )


def test_floods_and_loops_are_stopped(level):
    small = Limits(cpu_seconds=0.3, wall_seconds=1, output_bytes=10**5)
    assert shell("while :; do :; done", level, limits=small).outcome.status == "timeout"
    assert (
        shell("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", level, limits=small).outcome.status
        == "output_flood"
    )
    noisy = shell("i=0; while [ $i -lt 9000 ]; do echo complaint $i >&2; i=$((i+1)); done", level)
    assert (noisy.outcome.status, len(noisy.stderr) < 50_000) == ("ok", True)
    assert noisy.stderr.startswith("complaint 0\n")
    assert noisy.stderr.endswith("complaint 8999\n")


def test_a_signal_is_told(level):
    ran = shell("kill -SEGV $$", level)
    assert (ran.outcome.status, ran.exit_status) == ("exception", 139)


def test_a_program_that_is_not_there_is_an_error_of_ours():
    with pytest.raises(SandboxError, match="/usr/bin/nothing: No such file"):
        run_command(["/usr/bin/nothing"], {}, b"", LIMITS)


def test_a_compiler_that_may_not_start_processes_is_an_error_of_ours():
    for level in (1, 2):
        try:
            plan = plan_of_level(level)
        except SandboxError:
            continue
        if plan.no_processes:
            with pytest.raises(SandboxError, match="starts processes"):
                run_command(["/bin/true"], {}, b"", LIMITS, level=level, starts_processes=True)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_a_compiled_program_goes_from_one_run_to_the_next():
    if best().level < 3:
        pytest.skip("the paths are those of level 3")
    source = b'#include <stdio.h>\nint main(void) { int x; scanf("%d", &x); printf("%d\\n", 2 * x); return 0; }\n'
    tools = ["/usr/bin", "/usr/lib/gcc", "/usr/libexec", "/usr/include", "/lib", "/bin"]
    compiled = run_command(
        ["/usr/bin/gcc", "main.c", "-o", "main"],
        {"main.c": source},
        b"",
        LIMITS,
        tools,
        {"PATH": "/usr/bin"},
        ["main"],
        starts_processes=True,
    )
    assert compiled.outcome.status == "ok", compiled
    assert run_command(["./main"], compiled.files, b"21", LIMITS).stdout == b"42\n"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_a_program_that_reserves_gigabytes_runs_when_memory_counts_as_data():
    node = shutil.which("node") or ""
    script = {"a.js": b"console.log(6 * 7)"}
    ran = run_command([node, "a.js"], script, b"", LIMITS, [node, "/usr/share/nodejs", "/etc/ssl/openssl.cnf"])
    assert ran.stdout == b"42\n", ran
    hoard = {"a.js": b"const a = []; while (true) a.push(Buffer.alloc(1e7, 1))"}
    ran = run_command([node, "a.js"], hoard, b"", LIMITS, [node, "/usr/share/nodejs", "/etc/ssl/openssl.cnf"])
    assert ran.outcome.status != "ok"
