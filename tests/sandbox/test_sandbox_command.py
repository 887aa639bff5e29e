"""`codesieve sandbox` as a user meets it."""

import json
import subprocess
import sys


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
    assert result.stderr.startswith("exception: ValueError")
    (tmp_path / "long.py").write_text("while True: pass\n")
    result = sandbox("run", str(tmp_path / "long.py"), "--cpu-seconds", "0.3", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["status"] == "timeout"


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = sandbox("run", str(tmp_path / "nothing.py"))
    assert result.returncode == 1
    assert "nothing.py" in result.stderr
