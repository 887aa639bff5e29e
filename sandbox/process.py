"""Starts a contained process: the launcher with its settings and pipes, and a work folder where one is needed.

The launcher gets an environment of its own, no descriptor that is not named, and a session of its own. Whatever
happens here, it and all that it started have ended when a block of `contained` is left, and the work folder is gone.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import secrets
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from . import endings, folders
from .cgroups import Group, new_group
from .clock import Requests
from .limits import Limits
from .talk import BACKSTOP_SECONDS, Channels, Descriptor, Ended, Talk, Transcript

OTHERS_MARGIN = 64
"""Where the kernel counts a program's processes with all others of our user, so many of those may come to be meanwhile,
and one more for each second that the program may live, up to `_MOST_OTHERS`. Else an honest program fails because its
user opened a browser; the price is that a program can start so many more."""

_MOST_OTHERS = 4096
_LIBRARIES = "LD_LIBRARY_PATH"

_HERE = Path(__file__).resolve().parent
_FLAGS = ("-P", "-s")
"""With an environment of our own all that -I does, except that -I ignores PYTHONHASHSEED."""

_START = (
    "import sys, types; package = types.ModuleType('contained'); package.__path__ = [sys.argv[1]]; "
    "sys.modules['contained'] = package; from contained.launch import main; main(sys.argv[2:])"
)


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
class Command:
    """A program to run in place of Python.

    Attributes:
        argv: the first is the path of an executable inside.
        environment: beside HOME, TMPDIR (both the work folder) and LANG.
        keep: patterns for names of files in the work folder that are handed out in the end.
    """

    argv: list[str]
    environment: dict[str, str]
    keep: list[str]


class Contained:
    """One contained process that is alive: asked as often as one likes, then finished.

    Not to be shared by threads. Made by `contained` here, or by `server.Servers.contained` in a few milliseconds.
    """

    def __init__(self, talk: Talk, plan: Plan, clock: Requests, group: Group | None = None):
        self.plan = plan
        self._talk = talk
        self._clock = clock
        self._group = group
        self._kills = 0 if group is None else group.kills()
        self._transcript: Transcript | None = None

    def ask(self, request: Mapping[str, Any]) -> Any:
        """The answer to one request of `worker.py`, as a tree in the form of `values.py`. Nothing in it is trusted.

        Raises:
            Ended: if the answer is no value (then `alive` says whether it can be asked again), or the process was
                stopped by a limit, broke the rules, or ended.
            SandboxError: if the containment could not be set up, or the supervisor failed.
        """
        self._clock.begin()
        try:
            return self._talk.ask(request)
        except Ended as ended:
            if ended.alive or self._group is None:
                raise
            raise Ended(*endings.status(self._talk.limits, self.finish(), self._talk.asked)) from None
        finally:
            self._clock.end()

    def start(self, files: Mapping[str, bytes]) -> None:
        """Have a command start, with these files in its work folder."""
        self._clock.begin()
        data = marshal.dumps({"files": dict(files)})
        self._talk.send(len(data).to_bytes(8, "little") + data)

    def files(self) -> dict[str, bytes]:
        """Once a command has finished: the files that it was to keep."""
        data, found = bytes(self._talk.collected), {}
        while len(data) >= 16:
            title, content = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
            found[os.fsdecode(data[16 : 16 + title])] = data[16 + title : 16 + title + content]
            data = data[16 + title + content :]
        return found

    def finish(self) -> Transcript:
        """Let it end if it has not, clear up, and say what happened.

        Raises:
            SandboxError: as for `ask`.
        """
        if self._transcript is None:
            self._clock.begin()
            self._talk.finish()
            transcript = self._talk.transcript()
            if self._group is not None and transcript.end.how == "signal" and self._group.kills() > self._kills:
                transcript = replace(transcript, end=replace(transcript.end, how="memory"))
            self._transcript = transcript
        return self._transcript


class Start(Protocol):
    """Starts a contained process of Python."""

    def __call__(self, limits: Limits, stdin: bytes = b"") -> AbstractContextManager[Contained]: ...


def python_command(script: str) -> tuple[Command, list[str]]:
    """Our interpreter as a command that runs a file in its work folder, and what it has to be able to read."""
    interpreter = _interpreter()  # it finds its library by this name, which may be a link
    command = Command([interpreter, *_FLAGS, "--", script], _environment(), [])
    return command, [interpreter, str(Path(interpreter).resolve())]


@contextlib.contextmanager
def contained(
    plan: Plan, limits: Limits, stdin: bytes = b"", command: Command | None = None, readable: Sequence[str] = ()
) -> Iterator[Contained]:
    """A fresh contained process that answers requests; costs two starts of the interpreter.

    When the block is left, however that happens, the process and all that it started have ended.

    Args:
        stdin: its standard input.
        command: become this program instead; then there is no `ask`, but `start` and `files`.
        readable: paths that it may read (and a command may execute) beside Python's own.
    """
    with (
        group_for(limits) as group,
        contextlib.closing(Requests()) as clock,
        _launched(plan, limits, command, readable, clock, group) as channels,
    ):
        talk = Talk(channels, limits, stdin, command is not None)
        try:
            yield Contained(talk, plan, clock, group)
        finally:
            talk.close()


def converse(plan: Plan, limits: Limits, requests: Sequence[Mapping[str, Any]], stdin: bytes = b"") -> Transcript:
    """Run one contained process and put `requests` to it, one after the other, until one is not answered by a value.

    Raises:
        SandboxError: if the containment of `plan` could not be set up, or the launcher failed.
    """
    with contained(plan, limits, stdin) as process:
        with contextlib.suppress(Ended):
            for request in requests:
                process.ask(request)
        return process.finish()


@contextlib.contextmanager
def _launched(
    plan: Plan, limits: Limits, command: Command | None, readable: Sequence[str], clock: Requests, group: Group | None
) -> Iterator[Channels]:
    """A launcher with its pipes; at the end of the block it has ended, and the work folder is gone."""
    with work_folder(plan) as folder, contextlib.ExitStack() as stack:
        ours, theirs = pipes(stack)
        run = run_settings(plan, limits, folder, command)
        settings = {
            **dict(zip(("requests", "answers", "report"), (each.fd for each in theirs), strict=False)),
            "clock": clock.fd,
            "run": marshal.dumps(run).hex(),
            **({} if command is None else {"proc": 1}),
        }
        passed = tuple(each.fd for each in theirs)
        process = launch(plan, settings, (*passed[:3], clock.fd), passed[3:], group, readable)
        try:
            for each in theirs:
                each.close()
            yield Channels.over(ours, process.terminate)
        finally:
            _end(process)


def launch(
    plan: Plan,
    settings: Mapping[str, object],
    passed: Sequence[int],
    standard: Sequence[int],
    group: Group | None,
    readable: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start `launch.py` with `settings` and those of `plan`, the descriptors `passed`, and `standard` as 0, 1, 2."""
    stdin, stdout, stderr = standard
    doors = [] if group is None else group.doors()
    static: dict[str, object] = {"base": tempfile.gettempdir(), "parent": os.getpid()}
    static |= {name: 1 for name in ("namespaces", "landlock", "seccomp", "no_processes") if getattr(plan, name)}
    if plan.user_id is not None:
        static["user_id"] = plan.user_id
    arguments = [f"{name}={value}" for name, value in (static | dict(settings)).items()]
    arguments += [*_path_arguments(), *(f"readable={path}" for path in readable), *(f"cgroup={fd}" for fd in doors)]
    try:
        return subprocess.Popen(
            # -S: no site-packages, and a faster start
            [_interpreter(), *_FLAGS, "-S", "-c", _START, str(_HERE), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd="/",
            env=_environment(),
            pass_fds=(*passed, *doors),
            start_new_session=True,
        )
    finally:
        for door in doors:
            os.close(door)


@contextlib.contextmanager
def group_for(limits: Limits) -> Iterator[Group | None]:
    """A control group with these limits, where there are control groups; removed in the end."""
    group = new_group(limits)
    try:
        yield group
    finally:
        if group is not None:
            group.remove()


def run_settings(
    plan: Plan, limits: Limits, folder: str, command: Command | None = None, supervisors: int = 2
) -> dict[str, object]:
    """What a supervisor is told of one run.

    Args:
        supervisors: processes of ours that run as the same user in the same user namespace as the program.
    """
    return {
        "cpu_seconds": limits.cpu_seconds,
        "wall_seconds": limits.wall,
        "memory_bytes": limits.memory_bytes,
        "memory_kind": "RLIMIT_AS" if limits.memory_counts == "address_space" else "RLIMIT_DATA",
        "processes": limits.processes + _other_processes(plan, limits, supervisors),
        "file_bytes": limits.file_bytes,
        "output_bytes": limits.output_bytes,
        "open_files": limits.open_files,
        "folder": folder,
        "command": None if command is None else asdict(command),
    }


def pipes(stack: contextlib.ExitStack) -> tuple[list[Descriptor], list[Descriptor]]:
    """Our ends and theirs of the pipes of one run: requests, answers, report, and 0, 1, 2."""
    ours, theirs = [], []
    for we_write in (True, False, False, True, False, False):
        read_end, write_end = (Descriptor(fd) for fd in os.pipe())
        stack.callback(read_end.close)
        stack.callback(write_end.close)
        ours.append(write_end if we_write else read_end)
        theirs.append(read_end if we_write else write_end)
    return ours, theirs


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the launcher; if it still runs (an error or an interrupt here), have it end what it started first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(BACKSTOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # the program is set to end with it
            process.wait()


def _other_processes(plan: Plan, limits: Limits, supervisors: int) -> int:
    """Processes and threads that the kernel counts, or may come to count, beside those of the program."""
    if plan.user_id is not None or os.geteuid() == 0:
        return 0
    if plan.namespaces:
        return supervisors
    own = os.geteuid()
    total = OTHERS_MARGIN + int(min(limits.wall, _MOST_OTHERS))
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and folder.stat().st_uid == own:
                total += sum(1 for _ in (folder / "task").iterdir())
    return total


def _environment() -> dict[str, str]:
    """All of it: nothing of ours is inherited. Every run hashes alike and computes on one thread."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    libraries = os.environ.get(_LIBRARIES)  # some interpreters do not start without
    return {
        **({} if libraries is None else {_LIBRARIES: libraries}),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
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
    packages += [
        f"/usr/{place}/{name}/dist-packages" for place in ("lib", "local/lib") for name in ("python3", version)
    ]
    readable = dict.fromkeys([*standard, f"{sys.base_prefix}/lib", *system])
    return (
        *(f"readable={path}" for path in readable),
        *(f"packages={path}" for path in packages),
        f"ours={_HERE.parent}",
    )


@contextlib.contextmanager
def work_folder(plan: Plan) -> Iterator[str]:
    """The name of a folder for the supervisor to make and to remove (`folders.py`); it is gone when the block is left.

    At level 3 there is none: the work folder lies in memory inside the namespaces.
    """
    if plan.namespaces:
        yield ""
        return
    folder = f"{tempfile.gettempdir()}/codesieve-sandbox-{secrets.token_hex(8)}"
    try:
        yield folder
    finally:
        folders.remove(folder)  # if the supervisor was killed
