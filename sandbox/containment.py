"""What this host can enforce, found out by trying: the level of containment, and why not a higher one.

* level 3: namespaces (no network, no other processes, a file tree of the interpreter alone, read-only) + limits
* level 2: Landlock and seccomp (files, sockets and other processes out of reach) + limits
* level 1: limits, and a user of its own where we are root: protects against accidents, not against intent

Seccomp is added at every level where the architecture is known. Each candidate plan runs a self-test in the sandbox
(read and write files outside, change their modes, reach sockets and other processes, start processes, take memory),
about 60 ms, once a process; a plan whose promises do not hold is not used. Nothing is lowered silently: the level is
in every result, `describe` gives the reasons and what to do, and a required level that is not reached is an error.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from . import cgroups, kernel, landlock, seccomp
from .endings import SandboxError, Transcript
from .limits import Limits
from .process import Plan, converse
from .supervise import USER_IDS

SELF_TEST_LIMITS = Limits(cpu_seconds=5.0, memory_bytes=256 * 2**20, processes=8, file_bytes=2**20)

SELF_TEST = """
import os, resource, socket
def attempt(action):
    try:
        return action() or "done"
    except BaseException as error:
        return type(error).__name__
def read(path):
    with open(path, "rb") as file:
        file.read(1)
def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
def any_of(action, paths):
    found = [attempt(lambda: action(path)) for path in paths]
    return "done" if "done" in found else ", ".join(sorted(set(found)))
def change_mode():
    before = os.stat("..").st_mode
    try:
        os.chmod("..", 0o755)
    finally:
        if os.stat("..").st_mode == before:
            return "no effect"
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
reading, writing = os.pipe()
def probe(files, folders, name, port, judge):
    outside = [folder for folder in [*folders, ".."] if os.path.realpath(folder) != os.getcwd()]
    return {
        "read_files_outside": any_of(read, files),
        "write_outside": any_of(write, [folder + "/" + name for folder in outside]),
        "change_modes_outside": attempt(change_mode),
        "write_work_folder": attempt(lambda: write("own")),
        "connect": attempt(lambda: connect(port)),
        "local_socket": attempt(lambda: socket.socket(socket.AF_UNIX).close()),
        "datagram_pair": attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) and None),
        "stream_pair": attempt(lambda: socket.socketpair() and None),
        "signal_judge": attempt(lambda: os.kill(judge, 0)),
        "limits_of_judge": attempt(lambda: resource.prlimit(judge, resource.RLIMIT_CPU) and None),
        "cores_of_judge": attempt(lambda: os.sched_setaffinity(judge, os.sched_getaffinity(judge))),
        "memory": attempt(lambda: len(bytearray(10**9)) and None),
        "big_file": attempt(lambda: os.posix_fallocate(os.open("big", os.O_CREAT | os.O_WRONLY), 0, 10**8)),
        "processes": start_processes(),
    }
"""

_NEEDED = {"memory": "MemoryError", "write_work_folder": "done", "stream_pair": "done"}
"""What must come out at every level."""

_PREVENTED = {
    2: ("read_files_outside", "write_outside", "change_modes_outside"),
    3: ("connect", "signal_judge", "limits_of_judge", "cores_of_judge", "big_file"),
}
"""What must not be possible from a level on."""

_PREVENTED_BY_SECCOMP = ("connect", "local_socket", "datagram_pair", "limits_of_judge", "cores_of_judge")
"""What must not be possible at any level with a filter."""

_WRITABLE_BY_ALL = ("/tmp", "/var/tmp", "/dev/shm")


@dataclass(frozen=True)
class Offer:
    """A plan, and why this host cannot even try it ("" if it can)."""

    plan: Plan
    name: str
    why_not: str = ""


def best(required_level: int = 1) -> Plan:
    """The plan of the highest level that this host gives.

    Raises:
        SandboxError: if that is below `required_level`, with the reasons and what to do.
    """
    plan, reasons, _ = _tried()
    if plan is None or plan.level < required_level:
        reached = "none" if plan is None else str(plan.level)
        why = "".join(f"\n  {name}: {reason}" for name, reason in reasons)
        raise SandboxError(f"sandbox level {required_level} is required, this host gives {reached}{why}")
    return plan


def plan_of_level(level: int) -> Plan:
    """The first plan of exactly that level that this host gives.

    Raises:
        SandboxError: if there is none.
    """
    reasons = []
    for offer in offers():
        if offer.plan.level == level:
            fault = offer.why_not or _fault(offer.plan)[0]
            if not fault:
                return offer.plan
            reasons.append(f"{offer.name}: {fault}")
    raise SandboxError(f"sandbox level {level} is not to be had here ({'; '.join(reasons) or 'no such level'})")


def describe() -> dict[str, Any]:
    """What this host enforces: `level`, the means in use, what the self-test found, and why no stronger plan."""
    plan, reasons, found = _tried()
    return {
        "level": 0 if plan is None else plan.level,
        "means": {} if plan is None else asdict(plan),
        "self_test": found,
        "why_not_higher": dict(reasons),
        "cgroups": [str(parent) for parent in cgroups.places()[0]],
        "why_no_cgroups": cgroups.places()[1],
        "landlock_version": landlock.version(),
        "seccomp": _has_seccomp(),
        "root": os.geteuid() == 0,
        "kernel": os.uname().release,
        "machine": kernel.machine(),
    }


def plans() -> Iterator[Plan]:
    """Plans that this host may be able to do, the strongest first."""
    return (offer.plan for offer in offers() if not offer.why_not)


def offers() -> Iterator[Offer]:
    """All plans for this user, the strongest first."""
    has_seccomp, is_root = _has_seccomp(), os.geteuid() == 0
    user_id = spare_user_id() if is_root else None
    no_user = "" if user_id is not None else "no user id is free for programs in /proc/self/uid_map"
    no_filter = "" if has_seccomp else f"no seccomp filter is known for {kernel.machine()}"
    no_landlock = landlock.why_missing() or no_filter
    # The kernel does not count root's processes: without a user of its own, the program may not start any.
    no_processes = is_root and has_seccomp
    yield Offer(Plan(3, namespaces=True, seccomp=has_seccomp, user_id=user_id), "level 3", no_user if is_root else "")
    if is_root:
        own_user = Plan(2, landlock=True, seccomp=True, user_id=user_id)
        yield Offer(own_user, "level 2 with a user of its own", no_landlock or no_user or _out_of_reach())
    yield Offer(Plan(2, landlock=True, seccomp=True, no_processes=no_processes), "level 2", no_landlock)
    if is_root:
        own_user = Plan(1, seccomp=has_seccomp, user_id=user_id)
        yield Offer(own_user, "level 1 with a user of its own", no_user or _out_of_reach())
    yield Offer(Plan(1, seccomp=has_seccomp, no_processes=no_processes), "level 1")


def spare_user_id() -> int | None:
    """First of `USER_IDS` user ids that nobody uses: far above all that are given out, within what this host maps."""
    highest = min(_highest_mapped(Path("/proc/self/uid_map")), _highest_mapped(Path("/proc/self/gid_map")))
    if highest > 2_000_000_000 + USER_IDS:
        return 2_000_000_000
    return highest - 2 * USER_IDS if highest > 4 * USER_IDS else None


def _tried() -> tuple[Plan | None, tuple[tuple[str, str], ...], dict[str, str]]:
    if cgroups.fault_of_named():
        return None, (("control groups", cgroups.fault_of_named()),), {}
    reasons: list[tuple[str, str]] = []
    for offer in offers():
        fault, found = (offer.why_not, {}) if offer.why_not else _fault(offer.plan)
        if not fault:
            return offer.plan, tuple(reasons), found
        is_refused = offer.plan.namespaces and not offer.why_not and "self-test" not in fault
        reasons.append((offer.name, f"{fault}{_remedy() if is_refused else ''}; see docs/security.md"))
    return None, tuple(reasons), {}


@cache
def _fault(plan: Plan) -> tuple[str, dict[str, str]]:
    """(why `plan` cannot be used or "", what the self-test found)."""
    return self_test(plan, lambda requests: converse(plan, SELF_TEST_LIMITS, requests))


def self_test(plan: Plan, start: Callable[[Sequence[Mapping[str, Any]]], Transcript]) -> tuple[str, dict[str, str]]:
    """(which promise of `plan` a process that `start` contained could break or "", what it found).

    Makes no file: it reads one of ours and one of the system's, and removes what it could write where it may not.
    """
    name = f"codesieve-self-test-{secrets.token_hex(8)}"
    folders = dict.fromkeys([*_WRITABLE_BY_ALL, tempfile.gettempdir()]) if plan.level >= 2 else {}
    with _listening_port() as port:
        arguments = [[__file__, "/etc/passwd"], list(folders), name, port, os.getpid()]
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
    for name, expected in _NEEDED.items():
        if found.get(name) != expected:
            return f"self-test: {name}: {found.get(name)} instead of {expected}"
    prevented = [name for level, names in _PREVENTED.items() if level <= plan.level for name in names]
    prevented += _PREVENTED_BY_SECCOMP if plan.seccomp else ()
    if plan.user_id is not None or (plan.landlock and landlock.version() >= landlock.SIGNAL_VERSION):
        prevented.append("signal_judge")
    for name in prevented:
        if found[name] == "done":
            return f"self-test: {name}: it could"
    counted = plan.user_id is not None or plan.no_processes or plan.namespaces
    if counted and int(found["processes"]) > SELF_TEST_LIMITS.processes:
        return f"self-test: it started {found['processes']} processes"
    return ""


def _has_seccomp() -> bool:
    return seccomp.program(kernel.machine(), True) is not None


def _remedy() -> str:
    """How namespaces are to be had here."""
    if os.geteuid() == 0:
        return "; in Docker: --cap-add SYS_ADMIN, and --security-opt apparmor=unconfined where AppArmor forbids mounts"
    for name, forbidding, allowing in (
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
    ):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", *name.split(".")).read_text(encoding="ascii").strip() == forbidding:
                return f"; sudo sysctl {name}={allowing}"
    return "; in Docker: --security-opt seccomp=unconfined"


def _highest_mapped(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return max((int(first) + int(count) - 1 for first, _, count in map(str.split, lines)), default=0)


def _out_of_reach() -> str:
    """Which folder that a program needs another user cannot reach, or ""."""
    for path in (Path(sysconfig.get_path("stdlib")).resolve(), Path(tempfile.gettempdir()).resolve()):
        for folder in (path, *path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return f"another user cannot reach {path}: {folder} is private; use an interpreter for all users"
    return ""
