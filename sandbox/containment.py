"""What this host can enforce, found out by trying: the level of containment, and why not a higher one.

* level 3: namespaces (no network, no other processes, a file tree of the interpreter alone, read-only) + limits
* level 2: Landlock (files out of reach) or a user of its own (private files out of reach) + limits
* level 1: limits and process group only: protects against accidents, not against intent

Seccomp is added at every level where the architecture is known. Each candidate plan runs a self-test in the sandbox
(read a planted file, write beside it, connect to a listening socket, start processes, take memory), about 60 ms, once
a process; a plan whose promises do not hold is not used. Nothing is lowered silently: the level is in every result,
`describe` gives the reasons, and a required level that is not reached is an error.
"""

from __future__ import annotations

import os
import socket
import stat
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from . import cgroups, kernel, landlock, seccomp
from .endings import SandboxError, Transcript
from .launch import USER_IDS
from .limits import Limits
from .process import Plan, converse

SELF_TEST_LIMITS = Limits(cpu_seconds=5.0, memory_bytes=256 * 2**20, processes=8, file_bytes=2**20)

SELF_TEST = """
import os, socket
def attempt(action):
    try:
        return action() or "done"
    except BaseException as error:
        return type(error).__name__
def read(path):
    with open(path) as file:
        return "read " + file.read()
def write(path):
    with open(path, "w") as file:
        file.write("x")
def connect(port):
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
def start_processes():
    children = []
    try:
        while len(children) < 40:
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            children.append(child)
    except OSError:
        pass
    os.close(writing)
    for child in children:
        os.waitpid(child, 0)
    return str(len(children))
def see_parent(judge):
    os.kill(judge, 0)
reading, writing = os.pipe()
def probe(planted, beside, port, judge):
    return {
        "read_planted_file": attempt(lambda: read(planted)),
        "write_outside": attempt(lambda: write(beside)),
        "write_work_folder": attempt(lambda: write("own")),
        "connect": attempt(lambda: connect(port)),
        "signal_judge": attempt(lambda: see_parent(judge)),
        "memory": attempt(lambda: len(bytearray(10**9)) and None),
        "big_file": attempt(lambda: os.posix_fallocate(os.open("big", os.O_CREAT | os.O_WRONLY), 0, 10**8)),
        "processes": start_processes(),
    }
"""


def best(required_level: int = 1) -> Plan:
    """The plan of the highest level that this host gives.

    Raises:
        SandboxError: if that is below `required_level`, with the reason for each level.
    """
    plan, reasons, _ = _tried()
    if plan is None or plan.level < required_level:
        reached = "none" if plan is None else str(plan.level)
        why = "; ".join(f"level {level}: {reason}" for level, reason in reasons)
        raise SandboxError(f"sandbox level {required_level} is required, this host gives {reached} ({why})")
    return plan


def plan_of_level(level: int) -> Plan:
    """The first plan of exactly that level that this host gives.

    Raises:
        SandboxError: if there is none.
    """
    candidates = [plan for plan in plans() if plan.level == level]
    for plan in candidates:
        if not _fault(plan)[0]:
            return plan
    reasons = "; ".join(f"{_name(plan)}: {_fault(plan)[0]}" for plan in candidates) or "no such means"
    raise SandboxError(f"sandbox level {level} is not to be had here ({reasons})")


def describe() -> dict[str, Any]:
    """What this host enforces: `level`, the means in use, what the self-test found, and why no higher level."""
    plan, reasons, found = _tried()
    return {
        "level": 0 if plan is None else plan.level,
        "means": {} if plan is None else asdict(plan),
        "self_test": found,
        "why_not_higher": dict(reasons),
        "cgroups": [str(parent) for parent in cgroups.places()[0]],
        "why_no_cgroups": cgroups.places()[1],
        "landlock_version": landlock.version(),
        "seccomp": seccomp.program(kernel.machine(), True) is not None,
        "root": os.geteuid() == 0,
        "kernel": os.uname().release,
        "machine": kernel.machine(),
    }


def plans() -> Iterator[Plan]:
    """Candidate plans, the strongest first."""
    has_seccomp = seccomp.program(kernel.machine(), True) is not None
    has_landlock = landlock.version() > 0
    is_root = os.geteuid() == 0
    user_id = spare_user_id() if is_root else None
    if user_id is not None or not is_root:
        yield Plan(3, namespaces=True, seccomp=has_seccomp, user_id=user_id)
    if user_id is not None and _others_may_read():
        yield Plan(2, landlock=has_landlock, seccomp=has_seccomp, user_id=user_id)
    if has_landlock:
        # The kernel does not count root's processes: without a user of its own, the program may not start any.
        yield Plan(2, landlock=True, seccomp=has_seccomp, no_processes=is_root and has_seccomp)
    yield Plan(1, seccomp=has_seccomp, no_processes=is_root and has_seccomp)


def spare_user_id() -> int | None:
    """First of `USER_IDS` user ids that nobody uses: far above all that are given out, within what this host maps."""
    highest = min(_highest_mapped(Path("/proc/self/uid_map")), _highest_mapped(Path("/proc/self/gid_map")))
    if highest > 2_000_000_000 + USER_IDS:
        return 2_000_000_000
    return highest - 2 * USER_IDS if highest > 4 * USER_IDS else None


def _tried() -> tuple[Plan | None, tuple[tuple[str, str], ...], dict[str, str]]:
    reasons: list[tuple[str, str]] = []
    for plan in plans():
        fault, found = _fault(plan)
        if not fault:
            return plan, tuple(reasons), found
        reasons.append((_name(plan), fault))
    return None, tuple(reasons), {}


@cache
def _fault(plan: Plan) -> tuple[str, dict[str, str]]:
    """(why `plan` cannot be used or "", what the self-test found)."""
    return self_test(plan, lambda requests: converse(plan, SELF_TEST_LIMITS, requests))


def self_test(plan: Plan, start: Callable[[Sequence[Mapping[str, Any]]], Transcript]) -> tuple[str, dict[str, str]]:
    """(which promise of `plan` a process that `start` contained could break or "", what it found)."""
    with tempfile.TemporaryDirectory(prefix="codesieve-self-test-") as name, _listening_port() as port:
        planted, beside = Path(name, "planted"), Path(name, "beside")
        planted.write_text("secret", encoding="utf-8")
        planted.chmod(stat.S_IRUSR | stat.S_IWUSR)
        arguments = [str(planted), str(beside), port, os.getpid()]
        load = {"module": "probe", "source": SELF_TEST}
        call = {"entry_point": "probe", "args": arguments, "kwargs": {}}
        try:
            transcript = start([load, call])
        except (SandboxError, OSError) as error:
            return str(error), {}
    if len(transcript.values) != 2:
        return f"the self-test did not run: {transcript.error or transcript.trouble or transcript.end}", {}
    found: dict[str, str] = transcript.values[1]
    return _broken_promise(plan, found), found


@contextmanager
def _listening_port() -> Iterator[int]:
    """A port of this machine that takes connections; port 0 where not even we may open one."""
    try:
        listener = socket.create_server(("127.0.0.1", 0))
    except OSError:
        yield 0
        return
    with listener:
        yield int(listener.getsockname()[1])


def _broken_promise(plan: Plan, found: dict[str, str]) -> str:
    """What `plan` should have prevented (or allowed) and did not."""
    promises = {"memory": "MemoryError", "write_work_folder": "done"}
    for name, expected in promises.items():
        if found.get(name) != expected:
            return f"self-test: {name}: {found.get(name)} instead of {expected}"
    if plan.level >= 2:
        for name in ("read_planted_file", "write_outside"):
            if found[name] == "done" or found[name].startswith("read "):
                return f"self-test: {name}: it could"
    if plan.level >= 3:
        for name in ("connect", "signal_judge", "big_file"):
            if found[name] == "done":
                return f"self-test: {name}: it could"
    counted = plan.user_id is not None or plan.no_processes or plan.namespaces
    if counted and int(found["processes"]) > SELF_TEST_LIMITS.processes:
        return f"self-test: it started {found['processes']} processes"
    return ""


def _name(plan: Plan) -> str:
    means = [name for name in ("namespaces", "landlock", "seccomp", "no_processes") if getattr(plan, name)]
    return f"{plan.level} ({', '.join([*means, *(['own user'] if plan.user_id is not None else [])]) or 'limits'})"


def _highest_mapped(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return max((int(first) + int(count) - 1 for first, _, count in map(str.split, lines)), default=0)


def _others_may_read() -> bool:
    """Whether another user can reach the standard library and the folder for temporary files."""
    for path in (Path(sysconfig.get_path("stdlib")).resolve(), Path(tempfile.gettempdir()).resolve()):
        if not all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents)):
            return False
    return True
