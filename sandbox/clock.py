"""The wall clock of a candidate, which counts only the time that the candidate takes: load does not change a verdict.

It stands still while nothing is asked of the candidate (its judge or its tests are at work), which the judge notes in
a file of 16 bytes without a name; and while the candidate waits for a core that others use, which the kernel counts
for every thread (`schedstat`). Waiting for cores that its own threads and children use is its own affair: time counts
at least as fast as they compute. At most `MOST_WAITING_SECONDS` are left out, so that nothing lasts for ever on a
machine that gives a program no time. Price: two writes a request, and at a look, of which short runs have none, some
50 µs a thread. Where the kernel or the host hides these numbers, all time counts. Standard library only.
"""

from __future__ import annotations

import os
import struct
import time

MOST_WAITING_SECONDS = 20.0
"""Less than `talk.BACKSTOP_SECONDS`, after which the judge gives up."""

_LOOK_SECONDS = 0.02
"""Looks are no closer than that."""

_FORMAT = "dd"  # seconds without a request so far; since when there is none, or 0
_NANO = 1e-9


class Requests:
    """The judge's side: when a request is out. Not to be shared by threads; to be closed."""

    def __init__(self) -> None:
        import tempfile  # slow to import, and the supervisor does not need it

        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.fd = self._file.fileno()
        """For the supervisor, see `WallClock`."""
        self._own = _open("/proc/thread-self/schedstat")
        self._idle_seconds = 0.0
        self._waited = 0.0
        self._idle_since = time.monotonic()
        self._note()

    def begin(self) -> None:
        """A request goes out."""
        if self._idle_since:
            self._idle_seconds += time.monotonic() - self._idle_since
            self._idle_since = 0.0
            self._waited = _times(self._own)[1]
            self._note()

    def end(self) -> None:
        """It has been answered. What we waited for a core before we saw the answer is not the candidate's."""
        self._idle_seconds += max(0.0, _times(self._own)[1] - self._waited)
        self._idle_since = time.monotonic()
        self._note()

    def close(self) -> None:
        self._file.close()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def _note(self) -> None:
        if not self._file.closed:
            os.pwrite(self.fd, struct.pack(_FORMAT, self._idle_seconds, self._idle_since), 0)


class WallClock:
    """The supervisor's side.

    Args:
        candidate: a child of this process.
        limit: seconds.
        requests: `Requests.fd` of the judge.
        proc: a descriptor of the host's /proc; it may be closed.
    """

    def __init__(self, candidate: int, limit: float, requests: int, proc: int):
        self._candidate, self._limit, self._requests, self._proc = candidate, limit, requests, proc
        self._started = self._looked = time.monotonic()
        self._cores = len(os.sched_getaffinity(0))
        self._seen: dict[str, tuple[float, float]] = {}
        self._idle = self._waited = 0.0
        self._idle_before = self._noted(self._started)
        self._outside = ""  # the candidate's process id as `proc` has it

    def left(self) -> float:
        """Seconds left; they may last longer."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            idle = max(self._idle, self._noted(now) - self._idle_before)
            self._waited += self._waiting(now - self._looked - (idle - self._idle))
            self._idle, self._looked = idle, now
        return self._limit - (now - self._started) + min(self._idle + self._waited, MOST_WAITING_SECONDS)

    def _noted(self, now: float) -> float:
        """Seconds without a request until `now`."""
        total, since = struct.unpack(_FORMAT, os.pread(self._requests, struct.calcsize(_FORMAT), 0))
        return float(total + (max(0.0, now - since) if since else 0.0))

    def _waiting(self, seconds: float) -> float:
        """How much of the latest `seconds` it waited for cores that others used."""
        found = self._threads()
        computed = waited = 0.0
        for thread, (used, delayed) in found.items():
            used_before, delayed_before = self._seen.get(thread, (0.0, 0.0))
            computed += used - used_before
            waited = max(waited, delayed - delayed_before)
        self._seen = found
        return max(0.0, min(waited, seconds - computed / self._cores))

    def _threads(self) -> dict[str, tuple[float, float]]:
        """Thread id → (seconds that it computed, that it waited for a core), of the candidate and its descendants."""
        if not self._outside:
            self._outside = _outside(self._proc, self._candidate)
        found, todo = {}, [self._outside] if self._outside else []
        while todo:
            process = todo.pop()
            for thread in _names(self._proc, f"{process}/task"):
                place = f"{process}/task/{thread}"
                found[thread] = _parsed(_read(self._proc, f"{place}/schedstat"))
                todo += _read(self._proc, f"{place}/children").decode("ascii").split()
        return found


def _outside(proc: int, child: int) -> str:
    """The id in `proc` of a child of this process, which may be numbered otherwise in a namespace; "" if none."""
    try:
        own = os.readlink("self", dir_fd=proc)
    except OSError:
        return ""
    level = len(_ids(proc, own)) - 1
    for each in _read(proc, f"{own}/task/{own}/children").decode("ascii").split():
        ids = _ids(proc, each)
        if len(ids) > level >= 0 and ids[level] == str(child):
            return each
    return ""


def _ids(proc: int, process: str) -> list[str]:
    """Its ids in all process namespaces, from that of `proc` inwards."""
    for line in _read(proc, f"{process}/status").splitlines():
        if line.startswith(b"NSpid:"):
            return line.decode("ascii").split()[1:]
    return []


def _names(proc: int, path: str) -> list[str]:
    descriptor = _open(path, proc, os.O_DIRECTORY)
    if descriptor < 0:
        return []
    try:
        return os.listdir(descriptor)  # noqa: PTH208
    except OSError:
        return []  # it has ended meanwhile
    finally:
        os.close(descriptor)


def _read(proc: int, path: str) -> bytes:
    descriptor = _open(path, proc)
    if descriptor < 0:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""  # it has ended meanwhile
    finally:
        os.close(descriptor)


def _times(descriptor: int) -> tuple[float, float]:
    return _parsed(os.pread(descriptor, 100, 0) if descriptor >= 0 else b"")


def _parsed(schedstat: bytes) -> tuple[float, float]:
    """(seconds that a thread computed, that it waited for a core)."""
    fields = schedstat.split()
    return (int(fields[0]) * _NANO, int(fields[1]) * _NANO) if len(fields) == 3 else (0.0, 0.0)


def _open(path: str, folder: int | None = None, more: int = 0) -> int:
    """A descriptor for reading, -1 where there is nothing to read."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | more, dir_fd=folder)
    except OSError:
        return -1
