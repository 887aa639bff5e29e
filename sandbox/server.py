"""Warm servers: contained processes for a few milliseconds each, instead of two starts of the interpreter.

A server is an interpreter that has started and entered its level of containment once, see `warm.py`; each candidate is
forked from it, with namespaces, user, work folder and limits of its own as in the one-shot start. One candidate at a
time uses a server, and afterwards nothing of it is left. A server that dies is replaced; its run is an error of ours
(`ServerDied`), which `converse` answers by running it again with the one-shot start.
"""

from __future__ import annotations

import contextlib
import marshal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import containment, process
from .cgroups import new_group
from .clock import Requests
from .endings import Ended, SandboxError, Transcript
from .limits import Limits
from .process import Contained, Plan
from .talk import BACKSTOP_SECONDS, Channels, Talk

_SUPERVISORS = 3
"""Launcher, server and supervisor, of the same user in the same user namespace where we are not root."""

_START_SECONDS = 30.0

_proved: set[Plan] = set()
"""Plans whose servers have passed the self-test."""


class ServerDied(SandboxError):
    """A server ended, or does not answer."""


class Servers:
    """A pool of warm servers of one level, for use by several threads; to be closed, or used in a `with` statement."""

    def __init__(self, workers: int = 1, required_level: int = 1, level: int | None = None):
        """Find the plan and start `workers` servers; more are started when more are in use at a time.

        Raises:
            SandboxError: if this host does not give the level, or a server does not start or not contain.
        """
        self.plan: Plan = containment.best(required_level) if level is None else containment.plan_of_level(level)
        self._lock = threading.Lock()
        self._idle: list[_Server] = []
        self._is_closed = False
        if not self.plan.seccomp:
            return
        try:
            for _ in range(workers):
                self._idle.append(_Server(self.plan))
            for server in self._idle:
                server.wait_until_up()
            self._prove()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all servers; those in use end with their candidate."""
        with self._lock:
            self._is_closed = True
            servers, self._idle = self._idle, []
        for server in servers:
            server.hang_up()
        for server in servers:
            server.close()

    @contextlib.contextmanager
    def contained(self, limits: Limits, stdin: bytes = b"") -> Iterator[Contained]:
        """A fresh contained process, as `process.contained` gives one.

        Raises:
            ServerDied: here or from its methods; then nothing is known of the candidate.
            SandboxError: if the containment could not be set up.
        """
        if not self.plan.seccomp:
            # Keys of a user and siblings of a process are ways from one candidate to the next that only seccomp closes.
            with process.contained(self.plan, limits, stdin) as candidate:
                yield candidate
            return
        with (
            process.work_folder(self.plan) as folder,
            contextlib.closing(Requests()) as clock,
            contextlib.ExitStack() as stack,
        ):
            ours, theirs = process.pipes(stack)
            run = marshal.dumps(process.run_settings(self.plan, limits, folder, supervisors=_SUPERVISORS))
            server = self._start(limits, run, [*(each.fd for each in theirs), clock.fd])
            for each in theirs:
                each.close()
            talk = Talk(Channels.over(ours, server.stop, server.settle), limits, stdin)
            try:
                yield Contained(talk, self.plan, clock, server.group)
            finally:
                if not talk.is_over:
                    server.stop()
                talk.close()
                self._give_back(server)

    def converse(self, limits: Limits, requests: Sequence[Mapping[str, Any]], stdin: bytes = b"") -> Transcript:
        """As `process.converse`, which does it over if the server dies."""
        try:
            return self._converse(limits, requests, stdin)
        except ServerDied:
            return process.converse(self.plan, limits, requests, stdin)

    def _converse(self, limits: Limits, requests: Sequence[Mapping[str, Any]], stdin: bytes = b"") -> Transcript:
        with self.contained(limits, stdin) as candidate:
            with contextlib.suppress(Ended):
                for request in requests:
                    candidate.ask(request)
            return candidate.finish()

    def _prove(self) -> None:
        """That processes of servers keep the promises of the plan, as the plan itself was found to; once a process."""
        if self.plan not in _proved:
            limits = containment.SELF_TEST_LIMITS
            fault, _ = containment.self_test(self.plan, lambda requests: self._converse(limits, requests))
            if fault:
                raise SandboxError(f"a server does not contain as a process of its own does: {fault}")
            _proved.add(self.plan)

    def _start(self, limits: Limits, run: bytes, descriptors: list[int]) -> _Server:
        """A server that has taken the run; one that died while it was idle is replaced."""
        while True:
            with self._lock:
                server = self._idle.pop() if self._idle else None
            is_new = server is None
            if server is None:
                server = _Server(self.plan)
            try:
                server.wait_until_up()
                server.start(limits, run, descriptors)
            except BaseException as error:
                server.close()
                if is_new or not isinstance(error, SandboxError):
                    raise
            else:
                return server

    def _give_back(self, server: _Server) -> None:
        try:
            server.settle()
        except SandboxError:
            server.close()
            return
        with self._lock:
            if not self._is_closed:
                self._idle.append(server)
                return
        server.close()


class _Server:
    """One server, with the socket for its orders."""

    def __init__(self, plan: Plan):
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_START_SECONDS)
        self._is_up = False
        self._is_busy = False
        self.group = new_group()
        with theirs:
            settings = {"control": theirs.fileno()}
            pipe = subprocess.PIPE  # as its candidates will have: streams of Python differ for files and pipes
            self._process = process.launch(plan, settings, [theirs.fileno()], [pipe, pipe, pipe], self.group)

    def wait_until_up(self) -> None:
        if self._is_up:
            return
        complaint = ""
        if self._received() != b"up":
            self._control.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                complaint = self._process.communicate(timeout=5)[1][-800:].decode("utf-8", "replace").strip()
            raise ServerDied(f"the server did not start: {complaint or 'it was killed'}")
        self._is_up = True
        self._close_streams()

    def start(self, limits: Limits, run: bytes, descriptors: list[int]) -> None:
        if self.group is not None:
            self.group.limit(limits)
        try:
            socket.send_fds(self._control, [run], descriptors)
        except OSError as error:
            raise ServerDied(f"the server takes no orders: {error}") from error
        self._is_busy = True

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it has died, which `settle` says
            self._control.send(b"stop")

    def settle(self) -> None:
        """Wait until nothing is left of the run."""
        if self._is_busy:
            if self._received() != b"done":
                raise ServerDied("the server died, or did not end its run")
            self._is_busy = False

    def hang_up(self) -> None:
        """Have it end, and what it runs."""
        self._control.close()

    def close(self) -> None:
        """Have it end, and wait until it has."""
        self.hang_up()
        self._close_streams()
        try:
            self._process.wait(BACKSTOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.group is not None:
            self.group.remove()

    def _received(self) -> bytes:
        try:
            return self._control.recv(16)
        except OSError:
            return b""

    def _close_streams(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
