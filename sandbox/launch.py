"""The program that contains candidates: sets up the level that is asked for, then supervises one or serves many.

Started by `process.py` (one candidate) or `server.py` (one after the other) in a process of its own, with its
settings as arguments. It refuses if any part of the level fails: the level is never lowered here. Standard library
only.
"""

from __future__ import annotations

import marshal
import os

from . import kernel, namespaces, worker
from .supervise import (
    CLOCK,
    CONTROL,
    DESCRIPTORS,
    PROC,
    REPORT,
    SIGNALS,
    USER_IDS,
    Host,
    Supervisor,
    as_child,
    failure,
    place_descriptors,
    report,
)

TYPE_CHECKING = False  # for type checkers: importing typing would cost every run 5 ms, signal with its enums 6 ms
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

_ORPHAN_SECONDS = 2.0
"""How often we look whether the judge is still there, for the case that nothing else tells us."""


def main(arguments: list[str]) -> None:
    """Contain with settings `name=value`; see `process.launch_arguments`, which writes them."""
    settings: dict[str, str] = {}
    paths: dict[str, list[str]] = {"readable": [], "packages": [], "ours": []}
    doors = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in paths:
            paths[name].append(value)
        elif name == "cgroup":
            doors.append(int(value))
        else:
            settings[name] = value
    for door in doors:
        os.write(door, b"0")  # enter the control group, before anything is forked
    if "control" in settings:
        place_descriptors({CONTROL: int(settings["control"])}, worker.REQUESTS)
        for place in (worker.REQUESTS, worker.ANSWERS, REPORT):
            os.dup2(2, place, inheritable=False)  # taken, so that no descriptor of a run arrives there
    else:
        places = {worker.REQUESTS: "requests", worker.ANSWERS: "answers", REPORT: "report", CLOCK: "clock"}
        place_descriptors({place: int(settings[name]) for place, name in places.items()}, REPORT + 1)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        _keep_proc()
        host = Host(settings, paths)
        if "control" in settings:
            from . import warm

            _in_namespaces(host, lambda: warm.Server(host).serve())
            return
        # The signal comes when the judge's thread ends, which may be before its process does.
        kernel.die_with_parent(signal.SIGTERM)  # which makes us end the candidate first
        if os.getppid() != host.judge:
            return  # it ended before we asked to end with it
        run = marshal.loads(bytes.fromhex(settings["run"]))
        if host.user_id is not None:
            run["user_id"] = host.user_id + os.getpid() % USER_IDS
        _in_namespaces(host, lambda: _supervise(host, run))
    except Exception as error:
        report(failure(error))
        raise SystemExit(f"codesieve sandbox: {failure(error)}") from None  # for a server's judge


def _supervise(host: Host, run: dict[str, object]) -> None:
    if host.in_namespaces:
        namespaces.mount_work_folder(int(str(run["file_bytes"])))
    else:
        kernel.adopt_orphans()
    Supervisor(host, run).supervise()


def _keep_proc() -> None:
    """Keep the host's /proc, for us alone: inside the namespaces there is none."""
    try:
        descriptor = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    os.dup2(descriptor, PROC, inheritable=False)
    os.close(descriptor)


def _in_namespaces(host: Host, work: Callable[[], None]) -> None:
    """Do `work` here, or at level 3 as the first process of new namespaces, which all end with this process."""
    if not host.in_namespaces:
        work()
        return

    def first_process() -> None:
        """Process 1 of the namespace; when it ends, the kernel ends all others."""
        kernel.die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores from inside what it does not handle
        namespaces.keep_own_process_namespace()
        namespaces.build_root(host.base, host.readable, [*host.packages, *host.ours], host.has_proc)
        kernel.forbid_inspection()
        work()

    # A user of its own for every launcher, so that the kernel counts its processes apart from those of others.
    namespaces.enter(None if host.user_id is None else host.user_id + os.getpid() % USER_IDS)
    first = os.fork()
    if first == 0:
        as_child(first_process)
    kernel.forbid_inspection()
    os.closerange(3, REPORT)
    os.closerange(REPORT + 1, DESCRIPTORS)  # in particular the control socket, whose end the server notices
    while os.waitpid(first, os.WNOHANG) == (0, 0):
        received = signal.sigtimedwait(SIGNALS, _ORPHAN_SECONDS)
        if (received is not None and received.si_signo == signal.SIGTERM) or os.getppid() != host.judge:
            os.kill(first, signal.SIGKILL)
