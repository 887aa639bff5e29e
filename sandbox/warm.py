"""The contained side of a warm server: one candidate at a time, each forked from an interpreter that has started.

Orders come over a socket from `server.py`: a marshalled dict of settings with the descriptors of the run, or `stop`.
The server supervises the candidate itself, and says `done` when nothing of it is left.

At level 3 candidates live in a process namespace below the server's, in which they cannot see it, with mount and IPC
namespaces and an empty work folder of their own. The first process of that namespace, the keeper, is a fork of the
server that only collects orphans. If any process is left, or the keeper was tampered with, the whole namespace is
killed and the next candidate gets a new one; this costs a fork (1 ms), which others are spared.

The server holds nothing that a candidate may not know: a candidate can read the copy that it is forked from.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import marshal
import os
import time
from _socket import AF_UNIX, CMSG_SPACE, MSG_DONTWAIT, SOCK_SEQPACKET, socket, socketpair

from . import kernel, namespaces, worker
from .supervise import (
    CONTROL,
    LEFT_SECONDS,
    REPORT,
    USER_IDS,
    Host,
    Supervisor,
    as_child,
    failure,
    hide_modules,
    place_descriptors,
    reap_until,
    report,
    set_environment,
)

TYPE_CHECKING = False  # for type checkers; see supervise.py
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

PRELOADED = (
    "bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "operator", "re", "string", "typing",
)  # fmt: skip
"""What solutions import most. Each module makes every fork dearer by the memory that it takes: measured 0.46 ms without
these and 0.55 ms with them, of which `typing` alone saves the many solutions that import it 5 ms; `random`, `json`,
`datetime` and `statistics` would make it 0.7 to 1 ms, and are rare."""

_MESSAGE_BYTES = 1 << 16
_MOST_DESCRIPTORS = 16
_KEEPER_SECONDS = 5.0


class Server:
    """The state of a server between its runs."""

    def __init__(self, host: Host):
        self.host = host
        self.control = socket(fileno=CONTROL)
        self.judge_is_gone = False
        self.runs = 0
        self.keeper: _Keeper | None = None

    def serve(self) -> None:
        """Contain candidates until the judge has gone."""
        for name in PRELOADED:
            importlib.import_module(name)
        exec(
            compile("pass", worker.NAME, "exec"), {}
        )  # the first compilation builds the types of the syntax tree: 4 ms
        if not self.host.in_namespaces:
            kernel.adopt_orphans()
        fcntl.fcntl(CONTROL, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(CONTROL, fcntl.F_SETFL, fcntl.fcntl(CONTROL, fcntl.F_GETFL) | os.O_ASYNC)
        if self.host.in_namespaces:
            set_environment(namespaces.WORK_FOLDER)
        hide_modules()
        gc.collect()
        gc.freeze()  # so that a collection in a child does not touch, and copy, all pages
        self.control.send(b"up")
        while not self.judge_is_gone:
            data, descriptors = self._receive()
            if not data:
                return
            if data == b"stop":
                continue  # for a run that was over already
            self._contain(marshal.loads(data), descriptors)
            if not self.judge_is_gone:
                self.control.send(b"done")

    def _contain(self, run: dict[str, Any], descriptors: list[int]) -> None:
        os.dup2(descriptors[2], REPORT)
        try:
            if self.host.in_namespaces and self.keeper is None:
                self.keeper = _Keeper()
            if self.host.user_id is not None:
                run["user_id"] = self.host.user_id + (os.getpid() + self.runs) % USER_IDS
            self.runs += 1
            _Supervisor(self, run, descriptors).supervise()
        except Exception as error:
            self.dismiss_keeper()
            report(failure(error))
        finally:
            os.dup2(2, REPORT)
            for each in descriptors:
                os.close(each)

    def has_stop(self) -> bool:
        """Whether the judge has said `stop`, or has gone."""
        try:
            self.judge_is_gone = not self.control.recv(_MESSAGE_BYTES, MSG_DONTWAIT)
        except BlockingIOError:
            self.judge_is_gone = self.host.is_orphan()
            return self.judge_is_gone
        return True

    def dismiss_keeper(self) -> None:
        """End the namespace of the candidates, with all that is in it."""
        if self.keeper is not None:
            keeper, self.keeper = self.keeper, None
            keeper.dismiss()

    def _receive(self) -> tuple[bytes, list[int]]:
        data, ancillary, _, _ = self.control.recvmsg(_MESSAGE_BYTES, CMSG_SPACE(4 * _MOST_DESCRIPTORS))
        raw = b"".join(content for _, _, content in ancillary)
        return data, [int.from_bytes(raw[at : at + 4], "little", signed=True) for at in range(0, len(raw), 4)]


class _Supervisor(Supervisor):
    """The server as the supervisor of one run."""

    def __init__(self, server: Server, run: dict[str, Any], descriptors: list[int]):
        super().__init__(server.host, run, clock=descriptors[-1])
        self.server = server
        self.descriptors = descriptors[:-1]

    def prepare(self) -> None:
        requests, answers, told, *standard = self.descriptors
        for place, number in enumerate(standard):
            os.dup2(number, place)
        place_descriptors({worker.REQUESTS: requests, worker.ANSWERS: answers, REPORT: told}, REPORT + 1)
        if self.host.in_namespaces:
            kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC)
            namespaces.mount_work_folder(self.settings["file_bytes"])

    def wants_end(self, received: int) -> bool:
        return received != signal.SIGCHLD and self.server.has_stop()

    def clear_up(self, candidate: int) -> int:
        if self.server.keeper is None:
            return super().clear_up(candidate)
        if self.server.keeper.has_nothing():
            return 0
        self.server.dismiss_keeper()
        return 1


class _Keeper:
    """The first process of the namespace in which candidates live, as the server sees it."""

    def __init__(self) -> None:
        """Start it; all that the caller forks from now on is in its namespace."""
        self.socket, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self.socket.settimeout(_KEEPER_SECONDS)
        namespaces.return_to_own_process_namespace()  # from the namespace of an earlier keeper
        kernel.unshare(kernel.CLONE_NEWPID)
        self.pid = os.fork()
        if self.pid == 0:
            as_child(lambda: _keep(theirs))
        theirs.close()

    def has_nothing(self) -> bool:
        """Whether no process is left in the namespace, after a short grace."""
        try:
            self.socket.send(b"?")
            return self.socket.recv(1) == b"0"
        except OSError:  # it has ended, or is too slow
            return False

    def dismiss(self) -> None:
        """The kernel ends all processes of a namespace whose first process ends, before `waitpid` returns."""
        self.socket.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return  # it was collected while the candidate was watched


def _keep(orders: socket) -> None:
    """In the keeper: collect orphans when asked, and say whether any are still alive."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    kernel.die_with_parent(signal.SIGKILL)
    kept = orders.detach()
    place_descriptors({CONTROL: kept}, 0)
    orders = socket(fileno=CONTROL)
    while orders.recv(1):
        orders.send(b"0" if reap_until(time.monotonic() + LEFT_SECONDS) else b"1")
