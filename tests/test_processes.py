"""Work in processes ends in a result, an error or an interruption, and leaves no process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from codesieve.processes import WorkerDiedError, run_processes


def double(number: int) -> int:
    return number * 2


def fail(number: int) -> int:
    raise ValueError(f"cannot do {number}")


def die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def wait_beside(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(120)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_come_in_the_order_of_the_arguments() -> None:
    polls: list[int] = []
    found = run_processes(double, [(n,) for n in range(5)], list("abcde"), workers=2, poll=lambda: polls.append(1))
    assert found == [0, 2, 4, 6, 8]
    assert polls


def test_an_error_in_a_worker_is_the_error_of_the_work() -> None:
    with pytest.raises(ValueError, match="cannot do 0"):
        run_processes(fail, [(0,)], ["a"], workers=1)


def test_a_killed_worker_is_named_by_what_it_made() -> None:
    with pytest.raises(WorkerDiedError, match="while it made c"):
        run_processes(die, [(n,) for n in range(4)], list("abcd"), workers=1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path: Path, how: signal.Signals) -> None:
    marker = tmp_path / "pid"
    (tmp_path / "main.py").write_text(
        "import signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from codesieve.processes import run_processes\n"
        "from test_processes import wait_beside\n"
        "def stop(*_):\n    raise KeyboardInterrupt\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, stop)\n"
        f"    run_processes(wait_beside, [({str(marker)!r},)], ['a'], workers=1)\n"
    )
    command = [sys.executable, str(tmp_path / "main.py")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int(marker.read_text())
    assert is_alive(worker)
    process.send_signal(how)
    process.wait(timeout=30)
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)
