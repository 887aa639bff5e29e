"""`codesieve sandbox` as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from codesieve.cli_sandbox import harmless


def sandbox(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codesieve", "sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_doctor_says_what_this_host_enforces():
    found = json.loads(sandbox("doctor", "--json").stdout)
    assert found["level"] in (1, 2, 3)
    assert found["self_test"]


def test_a_program_runs_with_its_input_and_its_output_comes_through(tmp_path):
    (tmp_path / "twice.py").write_text("print(2 * int(input()))\n")
    (tmp_path / "number").write_text("21\n")
    result = sandbox("run", str(tmp_path / "twice.py"), "--stdin", str(tmp_path / "number"))
    assert (result.returncode, result.stdout) == (0, "42\n")
    assert result.stderr.startswith("ok (")


def test_a_program_that_fails_or_takes_too_long_exits_with_1(tmp_path):
    (tmp_path / "bad.py").write_text("print('before')\nraise ValueError('no')\n")
    result = sandbox("run", str(tmp_path / "bad.py"))
    assert (result.returncode, result.stdout) == (1, "before\n")
    assert "Traceback" in result.stderr
    assert 'bad.py", line 2' in result.stderr
    assert result.stderr.splitlines()[-1].startswith("exception: ValueError: no (")
    (tmp_path / "long.py").write_text("while True: pass\n")
    result = sandbox("run", str(tmp_path / "long.py"), "--cpu-seconds", "0.3", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["status"] == "timeout"


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = sandbox("run", str(tmp_path / "nothing.py"))
    assert result.returncode == 1
    assert "nothing.py" in result.stderr


def test_what_it_writes_to_standard_error_is_shown(tmp_path):
    (tmp_path / "talks.py").write_text("import sys\nsys.stderr.write('aside\\n')\nprint('said')\n")
    result = sandbox("run", str(tmp_path / "talks.py"))
    assert (result.returncode, result.stdout) == (0, "said\n")
    assert result.stderr.startswith("aside\nok (")
    assert json.loads(sandbox("run", str(tmp_path / "talks.py"), "--json").stdout)["stderr"] == "aside\n"


def test_programs_and_input_need_not_be_utf8(tmp_path):
    (tmp_path / "latin.py").write_bytes(b"# coding: latin-1\nimport sys\nprint('\xe9', sys.stdin.buffer.read())\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    result = sandbox("run", str(tmp_path / "latin.py"), "--stdin", str(tmp_path / "bytes"))
    assert (result.returncode, result.stdout) == (0, "é b'\\xff\\xfe'\n")
    (tmp_path / "undeclared.py").write_bytes(b"print('\xe9')\n")
    result = sandbox("run", str(tmp_path / "undeclared.py"))
    assert result.returncode == 1
    assert "undeclared.py" in result.stderr


def test_a_limit_that_no_machine_can_give_is_named(tmp_path):
    (tmp_path / "one.py").write_text("print(1)\n")
    result = sandbox("run", str(tmp_path / "one.py"), "--memory-mb", "99999999999999")
    assert result.returncode == 1
    assert "memory_bytes is larger than any machine can give" in result.stderr


LEVEL_1 = """
import sys
from codesieve.sandbox import kernel, landlock, seccomp
kernel.forbid_new_privileges()
kernel.install_filter(seccomp.program(kernel.machine(), new_processes=True))
landlock.why_missing = lambda: "no Landlock: this kernel has none"
from codesieve.cli import main
main()
"""


def test_a_host_that_gives_level_1_only_refuses_unless_told_otherwise(tmp_path):
    (tmp_path / "one.py").write_text("print(1)\n")
    root = str(Path(sys.modules["codesieve"].__path__[0]).resolve() / ".cache")
    environment = {**os.environ, "PYTHONPATH": ":".join([root, *sys.path])}
    command = [sys.executable, "-c", LEVEL_1, "sandbox", "run", str(tmp_path / "one.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert "sandbox level 2 is required, this host gives 1" in result.stderr
    assert "no Landlock" in result.stderr
    assert "docs/security.md" in result.stderr
    command += ["--required-level", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (result.returncode, result.stdout) == (0, "1\n")
    assert "level 1" in result.stderr


def test_a_program_does_not_steer_the_terminal():
    assert harmless("\x1b]52;c;aGk=\x07é\r\n\t\x9b31m") == "\ufffd]52;c;aGk=\ufffdé\ufffd\n\t\ufffd31m"
