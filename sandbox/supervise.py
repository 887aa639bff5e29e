"""The supervisor of a candidate: starts it with all rights taken away, watches it, ends all that is left of it.

Part of the launcher (for one candidate) and of a warm server (for one after the other). It is the parent of the
candidate, so it sees how the candidate ends, takes its CPU time, and afterwards no descendant is left. Standard
library only.

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

from . import folders, kernel, landlock, namespaces, seccomp, worker
from .clock import WallClock

TYPE_CHECKING = False  # for type checkers: importing typing would cost every run 5 ms, signal with its enums 6 ms
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn
else:
    import _signal as signal

LEFT_SECONDS = 0.1
"""Children of a candidate that is done get this long to end by themselves before they count as left behind."""

REPORT, CONTROL = 5, 6
"""Descriptors beside 0 to 4: the report, and a server's orders."""

PROC, CLOCK = 8, 9
"""The host's /proc and the judge's notes for `clock.py`; 7 is of `namespaces.py`. A candidate has none above 4."""

DESCRIPTORS = 64
"""Above all that this program opens: its parent passes on only what it names."""

USER_IDS = 2000
"""Unused user ids that the runs of a machine share; see `containment.spare_user_id`."""

SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGIO}

_SWEEP_SECONDS = 10.0
_REMOVAL_SECONDS = 10.0  # with the sweep less than `talk.BACKSTOP_SECONDS`
_LOOK_SECONDS = 2.0


class Host:
    """What is the same for all candidates of one launcher: the means of containment and the paths."""

    def __init__(self, settings: dict[str, str], paths: dict[str, list[str]]):
        self.in_namespaces = "namespaces" in settings
        self.has_landlock = "landlock" in settings
        self.has_proc = "proc" in settings
        self.user_id = int(settings["user_id"]) if "user_id" in settings else None
        self.base = settings["base"]
        self.judge = int(settings["parent"])
        existing = {name: [path for path in each if os.path.exists(path)] for name, each in paths.items()}  # noqa: PTH110
        self.readable, self.packages, self.ours = existing["readable"], existing["packages"], existing["ours"]
        self.filter: kernel.Filter | None = None
        if "seccomp" in settings:
            program = seccomp.program(
                kernel.machine(),
                new_processes="no_processes" not in settings,
                # What Landlock leaves open to the owner of a file, and before version 3 to all who may write it.
                keeps_attributes=self.has_landlock and self.user_id is None,
                keeps_contents=self.has_landlock and landlock.version() < landlock.TRUNCATE_VERSION,
            )
            assert program is not None
            self.filter = kernel.Filter(program)

    def is_orphan(self) -> bool:
        """Whether the judge has gone; in namespaces the launcher outside looks for that."""
        return not self.in_namespaces and os.getppid() != self.judge


class Supervisor:
    """One run, with the settings that `process.run_settings` made. A server overrides how it starts and ends."""

    def __init__(self, host: Host, run: dict[str, Any], clock: int = CLOCK):
        self.host = host
        self.settings = run
        self.clock = clock
        self.folder = namespaces.WORK_FOLDER if host.in_namespaces else folders.work_in(run["folder"])
        self.command: dict[str, Any] | None = run.get("command")
        self.started = time.monotonic()

    def prepare(self) -> None:
        """In the child, before anything else."""

    def wants_end(self, received: int) -> bool:
        """Whether the judge has asked for the end; called after a signal has come (0: after some time without)."""
        return received == signal.SIGTERM or (received == 0 and self.host.is_orphan())

    def supervise(self) -> None:
        """Start the candidate, watch it until it ends or must end, then end all that is left of it."""
        if self.host.in_namespaces:
            self.run()
            return
        # Whoever ends the judge: this process then ends the candidate and clears up, so that nothing stays.
        folder = self.settings["folder"]
        folders.make(folder, self.settings.get("user_id"))
        try:
            self.run()
        finally:
            self.remove(folder)

    def remove(self, folder: str) -> None:
        """Delete the work folder, or leave the rest to the judge, who does it over and says what went wrong."""
        while True:
            try:
                folders.remove(folder, time.monotonic() + _REMOVAL_SECONDS)
            except TimeoutError:
                if self.host.is_orphan():
                    continue
            except OSError:
                return
            return

    def run(self) -> None:
        """`supervise`, in a work folder that is there."""
        self.started = time.monotonic()
        candidate = os.fork()
        if candidate == 0:
            as_child(self.become_candidate)
        how, code, usage = self.watch(candidate)
        wall_seconds = time.monotonic() - self.started
        left = self.clear_up(candidate)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        if how in {"exit", "signal"} and cpu_seconds > self.settings["cpu_seconds"]:
            how = "cpu"
        if self.command is not None and self.command["keep"]:
            self.hand_out(self.command["keep"])
        report(f"end {how} {code} {cpu_seconds:.6f} {wall_seconds:.6f} {usage.ru_maxrss * 1024} {left}")

    def watch(self, candidate: int) -> tuple[str, int, resource.struct_rusage]:
        """How the candidate ended: exit or signal by itself; cpu, wall, stopped or asked if we ended it."""
        cpu_limit = self.settings["cpu_seconds"]
        wall = WallClock(candidate, self.settings["wall_seconds"], self.clock, PROC)
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
            wall_left = wall.left()
            cpu_left = cpu_limit - _seconds(clock)
            if not why and min(wall_left, cpu_left) <= 0:
                why = "cpu" if cpu_left <= 0 else "wall"
                os.kill(candidate, signal.SIGKILL)
            # CPU time cannot run faster than all cores together, so nothing is missed by sleeping this long.
            pause = 1.0 if why else max(min(wall_left, cpu_left / cores), 0.005)
            received = signal.sigtimedwait(SIGNALS, min(pause, _LOOK_SECONDS))
            if self.wants_end(0 if received is None else received.si_signo):
                why = why or "asked"
                os.kill(candidate, signal.SIGKILL)

    def clear_up(self, candidate: int) -> int:
        """End all descendants; returns 1 if there were any after a short grace, else 0."""
        if reap_until(time.monotonic() + LEFT_SECONDS):
            return 0
        if self.host.in_namespaces:
            end_namespace()
            return 1
        until = time.monotonic() + _SWEEP_SECONDS
        while time.monotonic() < until:
            for pid in (-candidate, *_children()):  # its process group, then what left that and came to us
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
            if reap_until(time.monotonic() + 0.002):
                return 1
        raise OSError(f"could not end all processes of the candidate within {_SWEEP_SECONDS} s")

    def become_candidate(self) -> None:
        """In the child: give up every right that the level takes away, then run what the judge sends."""
        host, folder = self.host, self.folder
        self.prepare()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Not a session: ours is the launcher's, without a terminal, and a new one is also a scheduling group, which was
        # measured to cost 2 to 3 ms on a busy machine.
        os.setpgid(0, 0)
        if self.command is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 2)
        os.closerange(REPORT + 1, DESCRIPTORS)
        if host.user_id is not None:
            user_id = namespaces.CONTAINED_ID if host.in_namespaces else self.settings["user_id"]
            for stream in (0, 1, 2) if self.command is not None else ():
                os.fchown(stream, user_id, user_id)  # /dev/stdin and the like open a pipe anew, as its owner may
            os.setgroups([])
            os.setresgid(user_id, user_id, user_id)
            os.setresuid(user_id, user_id, user_id)
        kernel.die_with_parent(signal.SIGKILL)  # after the change of user, which resets it
        os.chdir(folder)
        set_environment(folder)
        self.set_limits()
        if host.has_landlock:
            devices = [f"/dev/{name}" for name in ("zero", "random", "urandom")]
            real = [os.path.realpath(path) for path in [*host.readable, *devices]]
            ours = [os.path.realpath(path) for path in host.ours]
            own = [os.path.realpath(folder), "/dev/null"]
            landlock.restrict(real, ours, own, may_execute=self.command is not None)
        kernel.forbid_new_privileges()
        kernel.drop_capabilities()
        if host.filter is not None:
            host.filter.install()
        if self.command is not None:
            _execute(self.command)
        report("ready")
        os.close(REPORT)
        hide_modules()
        worker.serve(self.settings["output_bytes"])

    def hand_out(self, patterns: list[str]) -> None:
        """Send the files of the work folder that match, where there still is one."""
        folder = self.settings["folder"]
        try:
            work = folders.open_work(folder) if folder else os.open(self.folder, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return
        _hand_out(work, patterns, self.settings["file_bytes"])
        os.close(work)

    def set_limits(self) -> None:
        limits = {
            getattr(resource, self.settings["memory_kind"]): self.settings["memory_bytes"],
            # Whole seconds, and a program can ignore the signal: `watch` decides, this is for children.
            resource.RLIMIT_CPU: math.ceil(self.settings["cpu_seconds"]) + 1,
            resource.RLIMIT_FSIZE: self.settings["file_bytes"],
            resource.RLIMIT_NOFILE: self.settings["open_files"],
            resource.RLIMIT_NPROC: self.settings["processes"],
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        for kind, value in limits.items():
            hard = resource.getrlimit(kind)[1]
            least = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (least, least))


def as_child(work: Callable[[], None]) -> NoReturn:
    """Run `work` and end; a failure is reported, and nothing returns into the parent's code."""
    status = 1
    try:
        work()
        status = 0
    except Exception as error:
        report(failure(error))
    finally:
        os._exit(status)


def place_descriptors(places: dict[int, int], close_from: int) -> None:
    """Move each descriptor to its place, whatever number it came with, and close all others from `close_from` on."""
    moved = {place: fcntl.fcntl(number, fcntl.F_DUPFD, DESCRIPTORS // 2) for place, number in places.items()}
    for place in sorted(places):
        if place > close_from:
            os.closerange(close_from, place)
        close_from = max(close_from, place + 1)
    os.closerange(close_from, DESCRIPTORS // 2)
    for place, number in moved.items():
        os.dup2(number, place, inheritable=False)
    os.closerange(DESCRIPTORS // 2, DESCRIPTORS)


def set_environment(folder: str) -> None:
    """What depends on the work folder; a server does it once where the folder has the same name for all."""
    if os.environ.get("HOME") != folder:
        for name in ("HOME", "TMPDIR"):
            os.environ[name] = folder
        if "LD_LIBRARY_PATH" in os.environ:
            del os.environ["LD_LIBRARY_PATH"]  # the interpreter's own need


def hide_modules() -> None:
    """Forget these modules, which go on working: the candidate imports by its own names."""
    if __name__ not in sys.modules:
        return  # the server has; to look at every name would copy many a page of memory
    package = __name__.rpartition(".")[0]
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]


def end_namespace() -> None:
    """End all processes of this process namespace but the caller, which is its first; a way around that is an error."""
    if os.getpid() != 1:
        raise OSError("not the first process of its namespace")
    os.kill(-1, signal.SIGKILL)
    if not reap_until(time.monotonic() + _SWEEP_SECONDS):
        raise OSError(f"could not end all processes of the candidate within {_SWEEP_SECONDS} s")


def report(line: str) -> None:
    """Tell the judge; if it has gone, so shall we."""
    try:
        os.write(REPORT, f"{line}\n".encode())
    except OSError:
        return


def failure(error: Exception) -> str:
    """The line that says why a run could not be started or watched."""
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return "failed " + text.replace("\n", " ")


def _execute(command: dict[str, Any]) -> NoReturn:
    """Put the files into the work folder and become another program, with nothing open but 0, 1 and 2."""
    for descriptor in (worker.REQUESTS, worker.ANSWERS, REPORT):
        os.set_inheritable(descriptor, False)
    request = worker.read_request()
    for name, content in (request or {"files": {}})["files"].items():
        if os.path.dirname(name):  # noqa: PTH120
            os.makedirs(os.path.dirname(name), exist_ok=True)  # noqa: PTH103, PTH120
        descriptor = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o700)
        _write_all(descriptor, content)
        os.close(descriptor)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and programs would inherit
        signal.signal(number, signal.SIG_DFL)
    report("ready")
    environment = {name: value for name, value in os.environ.items() if name in ("HOME", "TMPDIR", "LANG")}
    try:
        os.execve(command["argv"][0], command["argv"], environment | command["environment"])
    except OSError as error:
        raise OSError(error.errno, f"{command['argv'][0]}: {error.strerror}") from error


def _hand_out(folder: int, patterns: list[str], most: int) -> None:
    """Send the files that match, once nothing of the candidate runs any more: length of name, of content, both.

    Only what is a file of its own in the folder: no link of any kind leads to something that this process may read
    and the candidate may not.
    """
    import fnmatch  # rarely needed, slow to import
    import stat

    for name in sorted(os.listdir(folder)):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            continue
        try:
            how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, how, dir_fd=folder)
        except OSError:
            continue
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= most:
            most -= found.st_size
            title = os.fsencode(name)
            content = b"".join(_chunks(descriptor, found.st_size))
            data = len(title).to_bytes(8, "little") + len(content).to_bytes(8, "little") + title + content
            _write_all(worker.ANSWERS, data)
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _chunks(descriptor: int, size: int) -> Iterator[bytes]:
    while size and (part := os.read(descriptor, min(size, 1 << 20))):
        size -= len(part)
        yield part


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


def reap_until(until: float) -> bool:
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
