"""Starts a contained process: the launcher with its settings and pipes, and a work folder where one is needed.

The launcher gets an environment of its own, no descriptor that is not named, and a session of its own. Whatever
happens here, it and all that it started have ended when `converse` returns, and the work folder is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .limits import Limits
from .talk import BACKSTOP_SECONDS, Descriptor, Talk, Transcript

_LIBRARIES = "LD_LIBRARY_PATH"

_HERE = Path(__file__).resolve().parent
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
            talk = Talk(process, limits, requests, unfed=stdin)
            talk.run(requests_write, answers_read, report_read, input_write)
        finally:
            _end(process)
    return talk.transcript()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the launcher; if it still runs (an error or an interrupt here), have it end what it started first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(BACKSTOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # the program is set to end with it
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


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


def _pipe(stack: contextlib.ExitStack) -> tuple[Descriptor, Descriptor]:
    read_end, write_end = (Descriptor(fd) for fd in os.pipe())
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
