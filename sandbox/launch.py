"""The program that contains a candidate: sets up the level that is asked for, starts it, watches it, clears up.

Started by `process.py` in a process of its own, with pipes for requests, answers and its report, and with its settings
as arguments. It refuses if any part of the level fails: the level is never lowered here. It is the parent (at level 3
through the first process of the new process namespace), so it sees how the candidate ends, takes its CPU time, and
afterwards no descendant is left. Standard library only.

Report, one line each: `ready`, then `end <how> <code> <cpu seconds> <wall seconds> <peak bytes> <processes left>`; or
`failed <why>`.
"""

from __future__ import annotations

import fcntl
import math
import os
import resource
import sys
import time

from . import kernel, landlock, namespaces, seccomp, worker

TYPE_CHECKING = False  # for type checkers: importing typing would cost every run 5 ms, signal with its enums 6 ms
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn
else:
    import _signal as signal

LEFT_SECONDS = 0.1
"""Children of a candidate that is done get this long to end by themselves before they count as left behind."""

USER_IDS = 2000
"""Unused user ids that the runs of a machine share; see `containment.spare_user_id`."""

_REPORT = 5
_DESCRIPTORS = 64
"""Above all that this program opens: its parent passes on only what it names."""

_SWEEP_SECONDS = 10.0
_SIGNALS = {signal.SIGCHLD, signal.SIGTERM}


def main(arguments: list[str]) -> None:
    """Run one candidate with settings `name=value`; see `process.py`, which writes them."""
    settings: dict[str, str] = {}
    paths: dict[str, list[str]] = {"readable": [], "packages": [], "ours": []}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in paths:
            paths[name].append(value)
        else:
            settings[name] = value
    _place_descriptors(int(settings["requests"]), int(settings["answers"]), int(settings["report"]))
    launcher = _Launcher(settings, paths)
    try:
        kernel.die_with_parent(signal.SIGTERM)  # which makes us end the candidate first
        if os.getppid() != int(settings["parent"]):
            return  # it ended before we asked to end with it
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        launcher.run()
    except Exception as error:
        launcher.report(_failure(error))


class _Launcher:
    """One run. At level 3 the supervising half lives inside the process namespace."""

    def __init__(self, settings: dict[str, str], paths: dict[str, list[str]]):
        self.settings = settings
        existing = {name: [path for path in each if os.path.exists(path)] for name, each in paths.items()}  # noqa: PTH110
        self.readable, self.packages, self.ours = existing["readable"], existing["packages"], existing["ours"]
        # A user of its own for every run, so that the kernel counts its processes apart from those of other runs.
        self.user_id = int(settings["user_id"]) + os.getpid() % USER_IDS if "user_id" in settings else None
        self.in_namespaces = "namespaces" in settings
        self.started = time.monotonic()

    def run(self) -> None:
        if not self.in_namespaces:
            kernel.adopt_orphans()
            self.supervise()
            if os.getppid() != int(self.settings["parent"]):
                import shutil  # rarely needed, slow to import

                shutil.rmtree(self.settings["folder"], ignore_errors=True)  # the judge would have, but was killed
            return
        namespaces.enter(self.user_id)
        first = os.fork()
        if first == 0:
            self.as_child(self.first_process)
        kernel.forbid_inspection()
        while os.waitpid(first, os.WNOHANG) == (0, 0):
            if signal.sigwait(_SIGNALS) == signal.SIGTERM:
                os.kill(first, signal.SIGKILL)

    def first_process(self) -> None:
        """Process 1 of the namespace; when it ends, the kernel ends all others."""
        kernel.die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores from inside what it does not handle
        hidden = [*self.packages, *self.ours]
        namespaces.build_root(self.settings["base"], self.readable, hidden, int(self.settings["file_bytes"]))
        kernel.forbid_inspection()
        self.supervise()

    def supervise(self) -> None:
        """Start the candidate, watch it until it ends or must end, then end all that is left of it."""
        self.started = time.monotonic()
        candidate = os.fork()
        if candidate == 0:
            self.as_child(self.become_candidate)
        how, code, usage = self.watch(candidate)
        wall_seconds = time.monotonic() - self.started
        left = self.clear_up(candidate)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        if how in {"exit", "signal"} and cpu_seconds > float(self.settings["cpu_seconds"]):
            how = "cpu"
        self.report(f"end {how} {code} {cpu_seconds:.6f} {wall_seconds:.6f} {usage.ru_maxrss * 1024} {left}")

    def watch(self, candidate: int) -> tuple[str, int, resource.struct_rusage]:
        """How the candidate ended: exit or signal by itself; cpu, wall, stopped or asked if we ended it."""
        cpu_limit, wall_limit = float(self.settings["cpu_seconds"]), float(self.settings["wall_seconds"])
        clock = (~candidate << 3) | 2  # its CPU clock: MAKE_PROCESS_CPUCLOCK in linux/posix-timers_types.h
        cores = len(os.sched_getaffinity(0))
        why = ""
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG | os.WUNTRACED)
            if pid == candidate and os.WIFSTOPPED(status):
                why = why or "stopped"
                os.kill(candidate, signal.SIGKILL)
            elif pid == candidate:
                return _ending(status, why), _code(status), usage
            if pid:
                continue
            wall_left = wall_limit - (time.monotonic() - self.started)
            cpu_left = cpu_limit - _seconds(clock)
            if not why and min(wall_left, cpu_left) <= 0:
                why = "cpu" if cpu_left <= 0 else "wall"
                os.kill(candidate, signal.SIGKILL)
            # CPU time cannot run faster than all cores together, so nothing is missed by sleeping this long.
            pause = 1.0 if why else max(min(wall_left, cpu_left / cores), 0.005)
            received = signal.sigtimedwait(_SIGNALS, pause)
            if received is not None and received.si_signo == signal.SIGTERM:
                why = "asked"
                os.kill(candidate, signal.SIGKILL)

    def clear_up(self, candidate: int) -> int:
        """End all descendants; returns 1 if there were any after a short grace, else 0."""
        if _reap_until(time.monotonic() + LEFT_SECONDS):
            return 0
        if self.in_namespaces:
            return 1  # they end with this process, which is process 1
        until = time.monotonic() + _SWEEP_SECONDS
        while time.monotonic() < until:
            for pid in (-candidate, *_children()):  # its process group, then what left that and came to us
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
            if _reap_until(time.monotonic() + 0.002):
                return 1
        raise OSError(f"could not end all processes of the candidate within {_SWEEP_SECONDS} s")

    def become_candidate(self) -> None:
        """In the child: give up every right that the level takes away, then run what the judge sends."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 2)
        os.closerange(_REPORT + 1, _DESCRIPTORS)
        folder = namespaces.WORK_FOLDER if self.in_namespaces else self.settings["folder"]
        if self.user_id is not None:
            user_id = namespaces.CONTAINED_ID if self.in_namespaces else self.user_id
            if not self.in_namespaces:
                os.chown(folder, user_id, user_id)
            os.setgroups([])
            os.setresgid(user_id, user_id, user_id)
            os.setresuid(user_id, user_id, user_id)
        kernel.die_with_parent(signal.SIGKILL)  # after the change of user, which resets it
        os.chdir(folder)
        os.environ.update(HOME=folder, TMPDIR=folder)
        os.environ.pop("LD_LIBRARY_PATH", None)  # the interpreter's own need, if it has one
        self.set_limits()
        if "landlock" in self.settings:
            devices = [f"/dev/{name}" for name in ("zero", "random", "urandom")]
            real = [os.path.realpath(path) for path in [*self.readable, *devices]]
            ours = [os.path.realpath(path) for path in self.ours]
            landlock.restrict(real, ours, [os.path.realpath(folder), "/dev/null"])
        kernel.forbid_new_privileges()
        kernel.drop_capabilities()
        if "seccomp" in self.settings:
            program = seccomp.program(kernel.machine(), new_processes="no_processes" not in self.settings)
            assert program is not None
            kernel.install_filter(program)
        self.report("ready")
        os.close(_REPORT)
        for name in [name for name in sys.modules if name.startswith(__name__.rpartition(".")[0])]:
            del sys.modules[name]  # the candidate imports by its own names
        worker.serve(int(self.settings["output_bytes"]))

    def set_limits(self) -> None:
        limits = {
            resource.RLIMIT_AS: int(self.settings["memory_bytes"]),
            # Whole seconds, and a program can ignore the signal: `watch` decides, this is for children.
            resource.RLIMIT_CPU: math.ceil(float(self.settings["cpu_seconds"])) + 1,
            resource.RLIMIT_FSIZE: int(self.settings["file_bytes"]),
            resource.RLIMIT_NOFILE: int(self.settings["open_files"]),
            resource.RLIMIT_NPROC: int(self.settings["processes"]),
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        for kind, value in limits.items():
            hard = resource.getrlimit(kind)[1]
            least = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (least, least))

    def as_child(self, work: Callable[[], None]) -> NoReturn:
        """Run `work` and end; a failure is reported, and nothing returns into the parent's code."""
        status = 1
        try:
            work()
            status = 0
        except Exception as error:
            self.report(_failure(error))
        finally:
            os._exit(status)

    def report(self, line: str) -> None:
        try:
            os.write(_REPORT, f"{line}\n".encode())
        except OSError:
            return  # the judge has gone; so shall we


def _place_descriptors(requests: int, answers: int, report: int) -> None:
    """Requests to 3, answers to 4, the report to 5, whatever numbers they came with."""
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD, _DESCRIPTORS // 2) for each in (requests, answers, report)]
    for each, number in zip(moved, (worker.REQUESTS, worker.ANSWERS, _REPORT), strict=True):
        os.dup2(each, number)
    os.closerange(_REPORT + 1, _DESCRIPTORS)


def _failure(error: Exception) -> str:
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return "failed " + text.replace("\n", " ")


def _seconds(clock: int) -> float:
    """The clock's time; 0 where it cannot be read, and then the usage at the end and the wall limit decide."""
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


def _ending(status: int, why: str) -> str:
    return why or ("signal" if os.WIFSIGNALED(status) else "exit")


def _code(status: int) -> int:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _reap_until(until: float) -> bool:
    """Collect children that have ended; True when there are none left, False at the time `until`."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            if time.monotonic() >= until:
                return False
            time.sleep(0.001)


def _children() -> list[int]:
    """Process ids of this process's children."""
    own = str(os.getpid())
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                parent = file.read().rpartition(b")")[2].split()[1]
        except OSError:
            continue  # it has ended meanwhile
        if parent.decode() == own:
            found.append(int(name))
    return found
