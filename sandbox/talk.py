"""The conversation with a contained process: asks, listens, and keeps what came out.

One request is out at a time, each with a fresh nonce, so a candidate never sees a later argument and an answer that
was written in advance belongs to nothing. All pipes are read while we wait; too much in one ends the process. Nothing
that arrives is trusted: text is parsed as JSON, and anything that is not the answer to the request that is out is a
violation.

A request may say that its answer is not `kept` for the transcript, which then holds no more than one at a time.
"""

from __future__ import annotations

import json
import marshal
import os
import secrets
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .endings import End, Ended, SandboxError, Transcript, printable, status
from .limits import Limits

__all__ = [
    "BACKSTOP_SECONDS", "Channels", "Descriptor", "End", "Ended", "Interrupt", "SandboxError", "Talk", "Transcript",
]  # fmt: skip

BACKSTOP_SECONDS = 30.0
"""The launcher keeps the limits; if it has not ended this long after the wall limit, the machine is in trouble."""

WORKER_ERRORS = frozenset({"exception", "memory", "syntax_error", "wrong", "output_flood"})

ANSWERS_FACTOR = 16
"""All answers of a conversation that are not kept may have so many times the room of one. The time limits bound them
more tightly; this is for a candidate that answers by forgery, at the speed of the pipe."""

_FRAME_BYTES = 256
"""Of an answer beside its value, at most."""

_CHUNK_BYTES = 1 << 16
_COMPLAINT_BYTES = 8 << 10


@dataclass
class Descriptor:
    """One end of a pipe; -1 when it is closed."""

    fd: int

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True)
class Channels:
    """Our ends of the pipes to a contained process and its supervisor, and the way to have it ended.

    Attributes:
        report: closed by the other side when the process and all that it started have ended.
        complaints: standard error, of a command or of a launcher that fails.
        stop: has the supervisor end the process at once; may be called at any time.
        settle: called once the report is closed; raises SandboxError if what contained the process has failed.
    """

    requests: Descriptor
    answers: Descriptor
    report: Descriptor
    stdin: Descriptor
    stdout: Descriptor
    complaints: Descriptor
    stop: Callable[[], None]
    settle: Callable[[], None]

    @classmethod
    def over(
        cls, ends: Sequence[Descriptor], stop: Callable[[], None], settle: Callable[[], None] = lambda: None
    ) -> Channels:
        """With our ends in the order of the attributes."""
        requests, answers, report, stdin, stdout, complaints = ends
        return cls(requests, answers, report, stdin, stdout, complaints, stop, settle)

    def close(self) -> None:
        for each in (self.requests, self.answers, self.report, self.stdin, self.stdout, self.complaints):
            each.close()


class Interrupt:
    """Ends the conversations of other threads at once: of those that have said `covers_this_thread`."""

    def __init__(self) -> None:
        self.is_set = False
        self._talks: set[Talk] = set()
        self._lock = threading.Lock()

    def covers_this_thread(self) -> None:
        """From now on."""
        _thread.interrupt = self

    def set(self) -> None:
        """Have all processes end; whoever talks to one gets a SandboxError."""
        self.is_set = True
        with self._lock:
            for talk in self._talks:
                talk.channels.stop()

    def add(self, talk: Talk) -> None:
        """Once its process runs."""
        with self._lock:
            self._talks.add(talk)

    def remove(self, talk: Talk) -> None:
        """Before what its channels stop is gone."""
        with self._lock:
            self._talks.discard(talk)


_thread = threading.local()


class Talk:
    """One conversation. The answers of a command are raw bytes (`collected`), those of Python are lines of JSON."""

    def __init__(self, channels: Channels, limits: Limits, stdin: bytes = b"", is_command: bool = False):
        self.channels = channels
        self.limits = limits
        self.values: list[Any] = []
        self.error: tuple[str, str] | None = None
        self.trouble: tuple[str, str] | None = None
        self.stdout = bytearray()
        self.collected = bytearray()
        self.asked = self.answered = 0
        self._is_command = is_command
        self._is_program = False
        self._nonce = ""  # of the request that is out
        self._keeps = True  # its answer
        self._answer: Any = None
        self._unfed = _Unsent(stdin)
        self._unsent = _Unsent(b"")
        self._heard = bytearray()
        self._kept_bytes = self._answers_bytes = 0
        self._report = bytearray()
        self._complaints = bytearray()
        self._is_over = False
        self._wants_end = False
        self._deadline = time.monotonic() + limits.wall + BACKSTOP_SECONDS
        self._readers: dict[int, Callable[[bytes], object]] = {
            channels.stdout.fd: self._hear_output,
            channels.answers.fd: self._collect if is_command else self._hear_answers,
            channels.report.fd: self._report.extend,
            channels.complaints.fd: self._hear_complaints,
        }
        self._selector = selectors.DefaultSelector()
        for fd in (*self._readers, channels.requests.fd, channels.stdin.fd):
            os.set_blocking(fd, False)
        for fd in self._readers:
            self._selector.register(fd, selectors.EVENT_READ)
        self._interrupt: Interrupt | None = getattr(_thread, "interrupt", None)
        if self._interrupt is not None:
            self._interrupt.add(self)

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The value that answers `request`, as a parsed tree.

        Raises:
            Ended: if there is none: the answer is an error, or the process was stopped or ended.
        """
        self._wants_end = False
        if self.asked == 0:
            self._is_program = request.get("module") == "__main__"
        self.asked += 1
        self._nonce = secrets.token_hex(8)
        self.error = self._answer = None
        self._keeps = request.get("kept", True)
        answered = self.answered
        data = marshal.dumps({**request, "nonce": self._nonce})
        self._unsent.add(len(data).to_bytes(8, "little") + data)
        while self._nonce and not self._is_over:
            self._step()
        if self.answered > answered and not self.trouble:
            answer, self._answer = self._answer, None
            return answer
        self._raise_error()
        self.finish()
        raise Ended(*status(self.limits, self.transcript(), self.asked))

    def _raise_error(self) -> None:
        if self.error and not self.trouble:
            raise Ended(*self.error, alive=True)

    def send(self, data: bytes) -> None:
        """Send bytes that nobody answers, before the end of the requests."""
        self._unsent.add(data)
        while self._unsent.rest and not self._is_over:
            self._step()

    def finish(self) -> None:
        """No more requests, which tells the worker to end; returns when all has ended."""
        self._wants_end = True
        while not self._is_over:
            self._step()
        self.channels.settle()

    @property
    def is_over(self) -> bool:
        """Whether all has ended."""
        return self._is_over

    def stop(self, word: str, detail: str) -> None:
        """End the process because of what it did; the first reason counts."""
        if self.trouble is None:
            self.trouble = word, detail
            self.channels.stop()  # the launcher ends the whole tree

    def close(self) -> None:
        if self._interrupt is not None:
            self._interrupt.remove(self)
        self._selector.close()
        self.channels.close()

    def _step(self) -> None:
        """Wait for something to happen, and handle it."""
        if self._interrupt is not None and self._interrupt.is_set:
            raise SandboxError("interrupted")
        channels, selector = self.channels, self._selector
        _feed(channels.stdin, self._unfed, selector, more=False)
        if self.trouble:
            self._unsent.rest = memoryview(b"")
        is_last = self._wants_end or self.trouble is not None
        _feed(channels.requests, self._unsent, selector, more=not is_last)
        events = selector.select(max(0.0, self._deadline - time.monotonic()))
        if not events and time.monotonic() >= self._deadline:
            raise SandboxError(f"the launcher did not end {BACKSTOP_SECONDS:.0f} s after the wall limit")
        for key, mask in events:
            if mask & selectors.EVENT_READ and not _read(key.fd, self._readers[key.fd]):
                selector.unregister(key.fd)
        if channels.report.fd not in selector.get_map():
            for fd in self._readers.keys() & selector.get_map().keys():
                while _read(fd, self._readers[fd], wait=False):
                    pass
            self._is_over = True

    def _hear_output(self, data: bytes) -> None:
        room = self.limits.output_bytes - len(self.stdout)
        self.stdout += data[:room]
        if len(data) > room:
            self.stop("output_flood", f"printed more than {self.limits.output_bytes} bytes")

    def _hear_complaints(self, data: bytes) -> None:
        self._complaints += data
        if len(self._complaints) > 4 * _COMPLAINT_BYTES:
            self._complaints[_COMPLAINT_BYTES:-_COMPLAINT_BYTES] = b"\n[...]\n"

    def _collect(self, data: bytes) -> None:
        self.collected += data

    def _hear_answers(self, data: bytes) -> None:
        self._answers_bytes += len(data)
        self._heard += data
        one = self.limits.output_bytes
        if len(self._heard) > one + _FRAME_BYTES:
            self.stop("output_flood", f"sent an answer of more than {one} bytes")
        elif self._answers_bytes > ANSWERS_FACTOR * one:
            self.stop("output_flood", f"sent more than {ANSWERS_FACTOR * one} bytes of answers")
        elif b"\n" in data:
            *lines, self._heard = self._heard.split(b"\n")
            for line in lines:
                if not self.trouble:
                    self._hear_answer(line)

    def _hear_answer(self, line: bytearray) -> None:
        answer = _parse(line, self._nonce) if self._nonce else None
        if answer is None:
            shown = ascii(line[:40].decode("ascii", "replace"))
            self.stop("violation", f"wrote to the channel of answers what is no answer: {shown}")
        elif "value" in answer:
            self.answered += 1
            self._answer = answer["value"]
            if self._keeps:
                self._keep(len(line))
        else:
            self.error = answer["error"], printable(answer["detail"])
        self._nonce = ""

    def _keep(self, size_bytes: int) -> None:
        self._kept_bytes += size_bytes
        if self._kept_bytes > self.limits.output_bytes + _FRAME_BYTES:
            self.stop("output_flood", f"sent more than {self.limits.output_bytes} bytes of answers")
        self.values.append(self._answer)

    def transcript(self) -> Transcript:
        """What came out, once `finish` has returned.

        Raises:
            SandboxError: if the program was not started, or not contained as planned.
        """
        lines = self._report.decode("utf-8", "replace").splitlines()
        failed = [line.removeprefix("failed ") for line in lines if line.startswith("failed ")]
        if failed:
            raise SandboxError(f"containment could not be set up: {failed[0]}")
        if "ready" not in lines:
            complaint = self._complaints[-800:].decode("utf-8", "replace").strip()
            raise SandboxError(f"the launcher failed before the program started: {complaint or 'it was killed'}")
        if self._heard and not self.trouble and not self.error:
            self.trouble = "violation", "ended in the middle of an answer"
        end = next((line.split()[1:] for line in lines if line.startswith("end ")), None)
        if end is None:
            ending = End("asked" if self.trouble else "lost")
        else:
            how, code, cpu, wall, peak, left = end
            ending = End(how, int(code), float(cpu), float(wall), int(peak), int(left))
        stderr = bytes(self._complaints) if self._is_command else b""
        out = bytes(self.stdout)
        return Transcript(
            tuple(self.values), self.error, self.trouble, out, stderr, ending, self.answered, self._is_program
        )


class _Unsent:
    """Bytes on their way into a pipe; what is left of them is never copied."""

    def __init__(self, data: bytes):
        self.rest = memoryview(data)

    def add(self, data: bytes) -> None:
        """Behind what is left, which is nothing unless the other side answers before it was asked."""
        self.rest = memoryview(bytes(self.rest) + data)


def _feed(pipe: Descriptor, unsent: _Unsent, selector: selectors.BaseSelector, more: bool) -> None:
    """Write what the pipe takes. Watches the pipe while there is a rest; closes it if there is none, and no `more`."""
    if pipe.fd < 0:
        unsent.rest = memoryview(b"")
        return
    try:
        if unsent.rest:
            unsent.rest = unsent.rest[os.write(pipe.fd, unsent.rest) :]
    except BlockingIOError:
        pass
    except BrokenPipeError:
        unsent.rest = memoryview(b"")
    watched = pipe.fd in selector.get_map()
    if unsent.rest and not watched:
        selector.register(pipe.fd, selectors.EVENT_WRITE)
    elif not unsent.rest and watched:
        selector.unregister(pipe.fd)
    if not unsent.rest and not more:
        pipe.close()


def _read(fd: int, hear: Callable[[bytes], object], wait: bool = True) -> bool:
    """Pass on what there is to read; False at the end, and without `wait` also when there is nothing now."""
    try:
        data = os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return wait
    if data:
        hear(data)
    return bool(data)


def _parse(line: bytearray, nonce: str) -> dict[str, Any] | None:
    """The answer to the request with that nonce, or None if `line` is anything else."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or answer.get("nonce") != nonce:
        return None
    if answer.keys() == {"nonce", "value"}:
        return answer
    is_error = answer.keys() == {"nonce", "error", "detail"} and answer["error"] in WORKER_ERRORS
    return answer if is_error and isinstance(answer["detail"], str) else None
