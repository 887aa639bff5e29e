"""Control groups: a bound on memory and number of processes of a candidate and all its descendants together.

Limits of a process (`Limits.memory_bytes` as RLIMIT_AS) do not add up over its children; a control group does. It is
used where it is offered, and nothing is taken that was not given:

* `CODESIEVE_CGROUP` names a folder that was delegated to us (several with `:` in between, one for each controller, in
  version 1), or
* in version 2, our own group has the controllers `memory` and `pids` enabled for its children.

Each launcher has a group below that and enters it first; a warm server keeps its group for all its candidates. What a
judge that was killed left is removed by the next one. A folder that was named and is of no use is an error: who names
one counts on the bound.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from functools import cache
from pathlib import Path

from .endings import SandboxError
from .limits import Limits

VARIABLE = "CODESIEVE_CGROUP"
OWN_BYTES = 64 * 2**20
"""Room for the launcher, a server and the fork that a candidate is at first."""
OWN_PROCESSES = 4

_ROOT = Path("/sys/fs/cgroup")
_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max", "pids.max")}
_KILLS = ("memory.events", "memory.oom_control")
_REMOVAL_SECONDS = 2.0


class Group:
    """One control group (in version 1, one for each controller), empty at first."""

    def __init__(self, parents: tuple[Path, ...]):
        name = f"{_prefix()}{os.getpid()}-{secrets.token_hex(8)}"
        self._folders = [parent / name for parent in parents]
        self._limits: tuple[int, int] | None = None
        made: list[Path] = []
        try:
            for folder in self._folders:
                folder.mkdir()
                made.append(folder)
        except OSError:
            for folder in made:
                folder.rmdir()
            raise

    def limit(self, limits: Limits) -> None:
        """Bound all processes in it together, from now on."""
        bounds = limits.memory_bytes + limits.file_bytes + OWN_BYTES, limits.processes + OWN_PROCESSES
        if bounds != self._limits:
            for controller, bound in zip(_FILES, bounds, strict=True):
                for path in self._files(*_FILES[controller]):
                    path.write_text(str(bound), encoding="ascii")
            for path in self._files("memory.swap.max"):
                path.write_text("0", encoding="ascii")
            self._limits = bounds

    def doors(self) -> list[int]:
        """Descriptors for a process to enter by writing its id (0: its own); to be closed by the caller."""
        return [os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self._folders]

    def kills(self) -> int:
        """How often a process was ended because there was no memory left."""
        for path in self._files(*_KILLS):
            for line in path.read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def remove(self) -> None:
        """To be called when all its processes have ended; the kernel may need a moment to agree."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        for folder in self._folders:
            while folder.is_dir():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break  # an empty group, which harms nobody
                    time.sleep(0.01)

    def _files(self, *names: str) -> list[Path]:
        return [folder / name for folder in self._folders for name in names if (folder / name).exists()]


def new_group(limits: Limits | None = None) -> Group | None:
    """A group of its own for one launcher, or None where there is no place for one.

    Raises:
        SandboxError: if a place was named, and is of no use.
    """
    if fault_of_named():
        raise SandboxError(fault_of_named())
    parents, _ = places()
    if not parents:
        return None
    try:
        group = Group(parents)
        if limits is not None:
            group.limit(limits)
    except OSError as error:
        raise SandboxError(f"control groups: {error}") from error
    return group


def fault_of_named() -> str:
    """Why the folders that were named are of no use, or ""."""
    named = os.environ.get(VARIABLE, "")
    parents, why = places()
    if parents or not named:
        return ""
    return f"{VARIABLE}={named}: {why}; name a group that was delegated to you, or unset it"


@cache
def places() -> tuple[tuple[Path, ...], str]:
    """(folders to make groups in, why there are none or ""); groups that nobody needs any more are removed there."""
    named = os.environ.get(VARIABLE, "")
    if named:
        parents = tuple(Path(each) for each in named.split(":") if each)
    else:
        own = _own_group()
        if own is None:
            return (), f"no control groups of version 2 with memory and pids; {VARIABLE} can name delegated ones"
        parents = (own,)
    fault = _fault(parents)
    if fault:
        return (), fault
    for parent in parents:
        _sweep(parent)
    return parents, ""


def _prefix() -> str:
    """Of the names of groups: with the process namespace, whose ids are in the rest."""
    return f"codesieve-{Path('/proc/self/ns/pid').stat().st_ino}-"


def _sweep(parent: Path) -> None:
    """Remove the groups of judges that have ended; the kernel keeps those in which something still runs."""
    for folder in parent.glob(f"{_prefix()}*"):
        pid = folder.name.removeprefix(_prefix()).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _own_group() -> Path | None:
    """Our own group of version 2, if it has the controllers for its children or can have them."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            group = _ROOT / line[3:].lstrip("/")
            needed = set(_FILES)
            if not needed <= set(_read(group / "cgroup.controllers").split()):
                return None
            if not needed <= set(_read(group / "cgroup.subtree_control").split()):
                with contextlib.suppress(OSError):  # refused where processes are in it: in most containers
                    (group / "cgroup.subtree_control").write_text("+memory +pids", encoding="ascii")
            return group if needed <= set(_read(group / "cgroup.subtree_control").split()) else None
    return None


def _fault(parents: tuple[Path, ...]) -> str:
    """Why groups in `parents` are of no use; found out by making one."""
    try:
        group = Group(parents)
    except OSError as error:
        return f"control groups: {error}"
    try:
        for names in _FILES.values():
            if not group._files(*names):
                return f"control groups: no {names[0]} in {', '.join(map(str, parents))}"
        group.limit(Limits())
    except OSError as error:
        return f"control groups: {error}"
    finally:
        group.remove()
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
