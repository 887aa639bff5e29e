"""The conversation with a launcher and the worker behind it: asks, listens, and keeps what came out.

One request is out at a time, each with a fresh nonce, so a candidate never sees a later argument and an answer that
was written in advance belongs to nothing. All pipes are read while the process runs; more than `output_bytes` ends
it. Nothing that arrives is trusted: text is parsed as JSON, and anything that is not the answer to the request that
is out is a violation.
"""

from __future__ import annotations

import json
import marshal
import os
import secrets
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .limits import Limits

BACKSTOP_SECONDS = 30.0
"""The launcher keeps the limits; if it has not ended this long after the wall limit, the machine is in trouble."""

WORKER_ERRORS = frozenset({"exception", "memory", "syntax_error", "wrong", "output_flood"})

_CHUNK_BYTES = 1 << 16


class SandboxError(RuntimeError):
    """The sandbox itself failed, or this host cannot give the level that is required. Never a verdict."""


@dataclass(frozen=True)
class End:
    """How a contained process ended: by exit or signal, or because of cpu, wall, stopped, asked."""

    how: str
    code: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0
    processes_left: int = 0


@dataclass(frozen=True)
class Transcript:
    """What came out of one contained process.

    Attributes:
        values: parsed trees (see `values.py`), one for each request that was answered with a value.
        error: (status, detail) of the answer that was not a value.
        trouble: (status, detail) where the judge ended it: output_flood or violation.
        stdout: what it printed.
        end: how it ended.
    """

    values: tuple[Any, ...]
    error: tuple[str, str] | None
    trouble: tuple[str, str] | None
    stdout: bytes
    end: End


@dataclass
class Descriptor:
    """One end of a pipe; -1 when it is closed."""

    fd: int

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass
class Talk:
    """The state of one conversation."""

    process: subprocess.Popen[bytes]
    limits: Limits
    requests: Sequence[Mapping[str, Any]]
    unfed: bytes
    nonce: str = ""
    unsent: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    answer_bytes: int = 0
    stdout: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    complaints: bytearray = field(default_factory=bytearray)
    values: list[Any] = field(default_factory=list)
    error: tuple[str, str] | None = None
    trouble: tuple[str, str] | None = None

    def run(self, requests: Descriptor, answers: Descriptor, report: Descriptor, stdin: Descriptor) -> None:
        """Talk until the launcher and all that it started have ended."""
        process = self.process
        assert process.stdout and process.stderr
        deadline = time.monotonic() + self.limits.wall + BACKSTOP_SECONDS
        readers = {
            process.stdout.fileno(): self.hear_output,
            answers.fd: self.hear_answers,
            report.fd: self.report.extend,
            process.stderr.fileno(): self.complaints.extend,
        }
        for fd in (*readers, requests.fd, stdin.fd):
            os.set_blocking(fd, False)
        self.ask()
        with selectors.DefaultSelector() as selector:
            for fd in readers:
                selector.register(fd, selectors.EVENT_READ)
            while report.fd in selector.get_map():
                self.unfed = _feed(stdin, self.unfed, selector, more=False)
                # The end of the requests tells the worker to end.
                self.unsent = _feed(requests, b"" if self.is_done() else self.unsent, selector, more=not self.is_done())
                events = selector.select(max(0.0, deadline - time.monotonic()))
                if not events and time.monotonic() >= deadline:
                    raise SandboxError(f"the launcher did not end {BACKSTOP_SECONDS:.0f} s after the wall limit")
                for key, mask in events:
                    if mask & selectors.EVENT_READ and not _read(key.fd, readers[key.fd]):
                        selector.unregister(key.fd)
            for fd in readers.keys() & selector.get_map().keys():
                while _read(fd, readers[fd], wait=False):
                    pass

    def ask(self) -> None:
        """Make the next request the one that is out."""
        request = self.requests[len(self.values)]
        self.nonce = secrets.token_hex(8)
        data = marshal.dumps({**request, "nonce": self.nonce})
        self.unsent = len(data).to_bytes(8, "little") + data

    def is_done(self) -> bool:
        return bool(self.error or self.trouble) or len(self.values) == len(self.requests)

    def hear_output(self, data: bytes) -> None:
        room = self.limits.output_bytes - len(self.stdout)
        self.stdout += data[:room]
        if len(data) > room:
            self.stop("output_flood", f"printed more than {self.limits.output_bytes} bytes")

    def hear_answers(self, data: bytes) -> None:
        self.answer_bytes += len(data)
        if self.answer_bytes > self.limits.output_bytes:
            self.stop("output_flood", f"sent more than {self.limits.output_bytes} bytes of answers")
            return
        self.heard += data
        if b"\n" not in data:
            return
        *lines, self.heard = self.heard.split(b"\n")
        for line in lines:
            if not self.trouble:
                self.hear_answer(line)

    def hear_answer(self, line: bytearray) -> None:
        answer = None if self.is_done() else _parse(line, self.nonce)
        if answer is None:
            shown = ascii(line[:40].decode("ascii", "replace"))
            self.stop("violation", f"wrote to the channel of answers what is no answer: {shown}")
        elif "value" in answer:
            self.values.append(answer["value"])
            if not self.is_done():
                self.ask()
        else:
            self.error = answer["error"], _printable(answer["detail"])

    def stop(self, status: str, detail: str) -> None:
        """End the process because of what it did; the first reason counts."""
        if self.trouble is None:
            self.trouble = status, detail
            self.process.terminate()  # the launcher ends the whole tree

    def transcript(self) -> Transcript:
        lines = self.report.decode("utf-8", "replace").splitlines()
        failed = [line.removeprefix("failed ") for line in lines if line.startswith("failed ")]
        if failed:
            raise SandboxError(f"containment could not be set up: {failed[0]}")
        if "ready" not in lines:
            complaint = self.complaints[-800:].decode("utf-8", "replace").strip()
            raise SandboxError(f"the launcher failed before the program started: {complaint or 'it was killed'}")
        if self.heard and not self.trouble and not self.error:
            self.trouble = "violation", "ended in the middle of an answer"
        end = next((line.split()[1:] for line in lines if line.startswith("end ")), None)
        if end is None:
            ending = End("asked" if self.trouble else "lost")
        else:
            how, code, cpu, wall, peak, left = end
            ending = End(how, int(code), float(cpu), float(wall), int(peak), int(left))
        return Transcript(tuple(self.values), self.error, self.trouble, bytes(self.stdout), ending)


def _feed(pipe: Descriptor, data: bytes, selector: selectors.BaseSelector, more: bool) -> bytes:
    """Write what the pipe takes; returns the rest. Watches the pipe while there is a rest; closes it if no `more`."""
    if pipe.fd < 0:
        return b""
    try:
        data = data[os.write(pipe.fd, data) :] if data else b""
    except BlockingIOError:
        pass
    except BrokenPipeError:
        data = b""
    watched = pipe.fd in selector.get_map()
    if data and not watched:
        selector.register(pipe.fd, selectors.EVENT_WRITE)
    elif not data and watched:
        selector.unregister(pipe.fd)
    if not data and not more:
        pipe.close()
    return data


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


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:500])
