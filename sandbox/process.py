"""The judge's side of one contained process: starts the launcher, asks, listens, and keeps what came out.

One request is out at a time, each with a fresh nonce, so a candidate never sees a later argument and an answer that
was written in advance belongs to nothing. All pipes are read while the process runs; more than `output_bytes` ends
it. Nothing that arrives is trusted: text is parsed as JSON, and anything that is not the answer to the request that
is out is a violation.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import marshal
import os
import secrets
import selectors
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .limits import Limits

OWNER_VARIABLE = "CODESIEVE_SANDBOX"
"""In the environment of every contained process: the process id of its judge. To find them, never to match by name."""

WORKER_ERRORS = frozenset({"exception", "memory", "syntax_error", "wrong", "output_flood"})

_HERE = Path(__file__).resolve().parent
_START = (
    "import sys, types; package = types.ModuleType('contained'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['contained'] = package; from contained.launch import main; main(sys.argv[2:])"
)
_BACKSTOP_SECONDS = 30.0
"""The launcher keeps the limits; if it has not ended this long after the wall limit, the machine is in trouble."""

_CHUNK_BYTES = 1 << 16


class SandboxError(RuntimeError):
    """The sandbox itself failed, or this host cannot give the level that is required. Never a verdict."""


@dataclass(frozen=True)
class Plan:
    """What is done to contain a process. `containment.best` finds the most that a host gives."""

    level: int
    namespaces: bool = False
    landlock: bool = False
    seccomp: bool = False
    user_id: int | None = None
    """First of a range of unused user ids to run as (root only)."""
    no_processes: bool = False
    """The program may not start processes, because nothing else would limit their number."""


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


def converse(plan: Plan, limits: Limits, requests: Sequence[Mapping[str, Any]], stdin: bytes = b"") -> Transcript:
    """Run one contained process and put `requests` to it, one after the other, until one is not answered by a value.

    Raises:
        SandboxError: if the containment of `plan` could not be set up, or the launcher failed.
    """
    with _work_folder(plan) as folder, contextlib.ExitStack() as stack:
        requests_read, requests_write = _pipe(stack)
        answers_read, answers_write = _pipe(stack)
        report_read, report_write = _pipe(stack)
        input_read, input_write = _pipe(stack)
        settings = {
            **_settings(plan, limits),
            "folder": folder,
            "base": tempfile.gettempdir(),
            "parent": os.getpid(),
            "requests": requests_read.fd,
            "answers": answers_write.fd,
            "report": report_write.fd,
        }
        arguments = [f"{name}={value}" for name, value in settings.items()]
        process = subprocess.Popen(
            # -P and -s with an environment of our own are all that -I does, except that -I ignores PYTHONHASHSEED.
            [_interpreter(), "-P", "-s", "-S", "-c", _START, str(_HERE), *arguments, *_path_arguments()],
            stdin=input_read.fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            pass_fds=(requests_read.fd, answers_write.fd, report_write.fd),
            start_new_session=True,
        )
        try:
            for theirs in (requests_read, answers_write, report_write, input_read):
                theirs.close()
            talk = _Talk(process, limits, requests, unfed=stdin)
            talk.run(requests_write, answers_read, report_read, input_write)
        finally:
            _end(process)
    return talk.transcript()


@dataclass
class _Descriptor:
    """One end of a pipe; -1 when it is closed."""

    fd: int

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass
class _Talk:
    """The state of one conversation."""

    process: subprocess.Popen[bytes]
    limits: Limits
    requests: Sequence[Mapping[str, Any]]
    unfed: bytes
    nonce: str = ""
    unsent: bytes = b""
    heard: bytes = b""
    answer_bytes: int = 0
    stdout: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    complaints: bytearray = field(default_factory=bytearray)
    values: list[Any] = field(default_factory=list)
    error: tuple[str, str] | None = None
    trouble: tuple[str, str] | None = None

    def run(self, requests: _Descriptor, answers: _Descriptor, report: _Descriptor, stdin: _Descriptor) -> None:
        """Talk until the launcher and all that it started have ended."""
        process = self.process
        assert process.stdout and process.stderr
        deadline = time.monotonic() + self.limits.wall + _BACKSTOP_SECONDS
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
                    raise SandboxError(f"the launcher did not end {_BACKSTOP_SECONDS:.0f} s after the wall limit")
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
        if self.answer_bytes > 2 * self.limits.output_bytes:
            self.stop("output_flood", f"sent more than {2 * self.limits.output_bytes} bytes of answers")
            return
        *lines, self.heard = (self.heard + data).split(b"\n") if b"\n" in data else ([self.heard + data])
        for line in lines:
            if not self.trouble:
                self.hear_answer(line)

    def hear_answer(self, line: bytes) -> None:
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


def _feed(pipe: _Descriptor, data: bytes, selector: selectors.BaseSelector, more: bool) -> bytes:
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


def _read(fd: int, hear: Any, wait: bool = True) -> bool:
    """Pass on what there is to read; False at the end, and without `wait` also when there is nothing now."""
    try:
        data = os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return wait
    if data:
        hear(data)
    return bool(data)


def _parse(line: bytes, nonce: str) -> dict[str, Any] | None:
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


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the launcher; if it still runs (an error or an interrupt here), have it end what it started first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_BACKSTOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # the program is set to end with it
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:500])


def _settings(plan: Plan, limits: Limits) -> dict[str, object]:
    settings: dict[str, object] = {
        "cpu_seconds": limits.cpu_seconds,
        "wall_seconds": limits.wall,
        "memory_bytes": limits.memory_bytes,
        "processes": limits.processes + _other_processes(plan),
        "file_bytes": limits.file_bytes,
        "output_bytes": limits.output_bytes,
        "open_files": limits.open_files,
    }
    if plan.user_id is not None:
        settings["user_id"] = plan.user_id
    settings |= {name: 1 for name in ("namespaces", "landlock", "seccomp", "no_processes") if getattr(plan, name)}
    return settings


def _other_processes(plan: Plan) -> int:
    """Processes and threads that the kernel counts for the same user beside those of the program."""
    if plan.user_id is not None or os.geteuid() == 0:
        return 0
    if plan.namespaces:
        return 2  # the launcher and the first process of the namespace
    own = os.geteuid()
    total = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and folder.stat().st_uid == own:
                total += sum(1 for _ in (folder / "task").iterdir())
    return total


def _environment() -> dict[str, str]:
    """All of it: nothing is inherited. Every run hashes alike and computes on one thread."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        OWNER_VARIABLE: str(os.getpid()),
        **dict.fromkeys(threads, "1"),
    }


@cache
def _interpreter() -> str:
    """The interpreter behind a virtual environment, so that no site-packages come with it."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


@cache
def _path_arguments() -> tuple[str, ...]:
    """Paths for the launcher, by name.

    `readable`: the standard library and the system's shared libraries. `ours`: codesieve with its problems and their
    references. `packages`: installed ones, which a solution cannot count on.
    """
    base = {"platbase": sys.base_exec_prefix, "installed_base": sys.base_prefix}  # not the virtual environment
    standard = sorted({sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")})
    shared = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    system = ["/lib64", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", str(shared), str(shared)[4:]]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = [f"{folder}/{name}" for folder in standard for name in ("site-packages", "dist-packages")]
    packages += [f"/usr/{place}/{name}/dist-packages" for place in ("lib", "local/lib") for name in ("python3", version)]
    readable = dict.fromkeys([*standard, f"{sys.base_prefix}/lib", *system])
    return (
        *(f"readable={path}" for path in readable),
        *(f"packages={path}" for path in packages),
        f"ours={_HERE.parent}",
    )


def _pipe(stack: contextlib.ExitStack) -> tuple[_Descriptor, _Descriptor]:
    read_end, write_end = (_Descriptor(fd) for fd in os.pipe())
    stack.callback(read_end.close)
    stack.callback(write_end.close)
    return read_end, write_end


@contextlib.contextmanager
def _work_folder(plan: Plan) -> Iterator[str]:
    """A folder of its own for the program; at level 3 it lies in memory inside the namespaces instead."""
    if plan.namespaces:
        yield ""
        return
    folder = Path(tempfile.mkdtemp(prefix="codesieve-sandbox-"))
    try:
        yield str(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Delete a folder whose contents may have been made unreadable."""
    for path in itertools.chain([folder], _folders_below(folder)):
        with contextlib.suppress(OSError):
            path.chmod(stat.S_IRWXU)
    shutil.rmtree(folder)


def _folders_below(folder: Path) -> Iterator[Path]:
    for root, names, _ in os.walk(folder):  # top down: each is made readable before it is entered
        yield from (Path(root, name) for name in names if not Path(root, name).is_symlink())
