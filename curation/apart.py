"""Documents measured in a child process, so that one that crashes it or does not end costs itself only.

A parser is compiled code that cannot be stopped from inside. Where a text ends in the middle of many things,
tree-sitter's recovery takes memory with the square of their number and calls nobody back: 60 kB of `a<a<` as Java take
12 GB, 3.6 kB of `a=>a=>` as C 0.6 GB, and a kernel that runs out of memory ends the worker. So a forked child measures,
with limits on memory and time for each document. When it dies, the document it was at is marked, and another child goes
on behind it.

The child lives as long as its owner: a fork for every batch cost 16 % of a parse, for page faults on cold memory.
Documents are handed over through a pipe, some ahead of what is being measured: 3 % of measuring syntax. Where
there is no fork, documents are measured here.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import marshal
import os
import pickle
import resource
import signal
import struct
import warnings
import weakref
from collections.abc import Callable, Sequence
from io import BufferedReader
from typing import Any, BinaryIO, NoReturn

from .steps import Outcome, measured, measured_here

MEMORY_BYTES = 3_000_000_000
"""That one document may take. The most that files of 1 MB, the largest that are parsed by default, took was 0.3 GB, and
50 MB on one line 1.2 GB."""

CPU_SECONDS = 60
"""For one document, should it not end otherwise: twelve times what one parse may take (`signals.parsing`)."""

AHEAD = 16
"""Documents handed over before their results are read. Results of so many, some hundred bytes each, fit into a pipe, so
that parent and child never both wait to write."""

PIPE_BYTES = 1 << 20
"""As large as an ordinary user may have it on Linux."""

_SIZE = struct.Struct("<I")

Function = Callable[..., Sequence[Any] | None]


class Apart:
    """Measures documents as `steps.measured_here` does, in a child.

    Documents and results are plain values: numbers, text, bytes, None and tuples of them. Not for several threads.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._child: _Child | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_function": self._function, "_child": None}

    def __call__(self, documents: Sequence[Sequence[Any]]) -> list[Outcome]:
        """The outcome of each.

        Raises:
            MemoryError: if the child was killed from outside, as happens when the machine's memory runs out; half of
                the documents may do.
        """
        if not hasattr(os, "fork"):
            return measured_here(self._function, documents)
        if self._child is not None and self._child.owner != os.getpid():
            self._child = None  # we were forked: it is our parent's
        outcomes: list[Outcome] = []
        try:
            while len(outcomes) < len(documents):
                self._child = self._child or _Child(self._function)
                if not self._child.measure(documents[len(outcomes) :], outcomes):
                    child, self._child = self._child, None
                    outcomes.append((None, child.how_it_ended()))
        except BaseException:
            if self._child is not None:
                self._child.end()
                self._child = None
            raise
        return outcomes


class _Child:
    def __init__(self, function: Function) -> None:
        requests, our_requests = os.pipe()
        with contextlib.suppress(OSError, AttributeError):  # a larger pipe wakes the child less often
            fcntl.fcntl(our_requests, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        our_answers, answers = os.pipe()
        with warnings.catch_warnings():
            # Python warns of threads, whose locks a child may find held. Ours calls nothing that has any.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(our_requests)
            os.close(our_answers)
            _work(function, os.fdopen(requests, "rb"), answers)
        os.close(requests)
        os.close(answers)
        self._requests, self._answers = os.fdopen(our_requests, "wb"), os.fdopen(our_answers, "rb")
        self.owner = os.getpid()
        self.end = weakref.finalize(self, _end, self.pid, self.owner, self._requests, self._answers)

    def measure(self, documents: Sequence[Sequence[Any]], outcomes: list[Outcome]) -> bool:
        """Append the outcomes of all documents, or of those before the one that the child died at; whether of all."""
        sent = 0
        for position in range(len(documents)):
            try:
                while sent < min(position + AHEAD, len(documents)):
                    pickle.dump(tuple(documents[sent]), self._requests, pickle.HIGHEST_PROTOCOL)
                    sent += 1
                self._requests.flush()
            except BrokenPipeError:
                sent = len(documents)  # it has died; what it has told before that is still to be read
            body = _get(self._answers)
            if body is None:
                return False
            outcomes.append(marshal.loads(body))
        return True

    def how_it_ended(self) -> str:
        """Waits for a child that has died, and says why."""
        _, status = os.waitpid(self.pid, 0)
        self.end.detach()
        _close(self._requests, self._answers)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number == signal.SIGPROF:
            return f"TimeoutError: not done after {CPU_SECONDS} s of CPU time"
        if number in (signal.SIGKILL, signal.SIGTERM):
            raise MemoryError(f"the process that measures was killed ({signal.Signals(number).name})")
        how = signal.Signals(number).name if number else f"exit code {os.WEXITSTATUS(status)}"
        return (
            f"ChildProcessError: the process that measured it crashed ({how}), as compiled code does at more than "
            f"{MEMORY_BYTES / 1e9:g} GB of memory"
        )


def _end(pid: int, owner: int, requests: BinaryIO, answers: BinaryIO) -> None:
    _close(requests, answers)
    if owner != os.getpid():
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _close(requests: BinaryIO, answers: BinaryIO) -> None:
    answers.close()
    with contextlib.suppress(BrokenPipeError):  # of what was still buffered
        requests.close()


def _work(function: Function, requests: BufferedReader, answers: int) -> NoReturn:
    """In the child: measure until there are no more requests, and tell each result as soon as it is there."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends its child
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the words that an allocator dies with say nothing of a document
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        memory = _Memory()
        while requests.peek(1):
            values = pickle.load(
                requests
            )  # from our parent; answers, which a parser's fault may spoil, are not pickled
            memory.limit()
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            body = marshal.dumps(measured(function, *values))  # type: ignore[arg-type]
            signal.setitimer(signal.ITIMER_PROF, 0)
            data = _SIZE.pack(len(body)) + body
            while data:
                data = data[os.write(answers, data) :]
        code = 0
    finally:
        os._exit(code)


class _Memory:
    """Lets this process have `MEMORY_BYTES` more than it has; where the kernel does not tell what it has, any."""

    def __init__(self) -> None:
        self._file = None
        with contextlib.suppress(OSError):
            self._file = os.open("/proc/self/statm", os.O_RDONLY)
        self._highest = resource.getrlimit(resource.RLIMIT_DATA)[1]
        self._page = os.sysconf("SC_PAGE_SIZE")

    def limit(self) -> None:
        if self._file is None:
            return
        data_pages = int(os.pread(self._file, 200, 0).split()[5])
        most = data_pages * self._page + MEMORY_BYTES
        if self._highest != resource.RLIM_INFINITY:
            most = min(most, self._highest)
        resource.setrlimit(resource.RLIMIT_DATA, (most, self._highest))


def _get(file: BinaryIO) -> bytes | None:
    """One answer; None at the end, also where the end tears one."""
    head = file.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (size,) = _SIZE.unpack(head)
    body = file.read(size)
    return body if len(body) == size else None
