"""The Linux system calls that containment needs and Python 3.11 does not offer, by ctypes.

Every function either does what it says or raises OSError with the name of the call. Nothing here decides anything.
Standard library only: the launcher runs it with no packages in reach.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_SYS_MOUNT_SETATTR = 442  # from 424 on a call has the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def machine() -> str:
    """The architecture as the kernel names it."""
    return os.uname().machine


def system_call(name: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Result of a system call; integers are passed as 64-bit values.

    Raises:
        OSError: with `name` in front of the reason.
    """
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(name, int(_libc.syscall(ctypes.c_long(number), *wide)))


def die_with_parent(signal_number: int) -> None:
    """The kernel sends this process `signal_number` when its parent ends. A change of user resets that."""
    _prctl("prctl(PDEATHSIG)", _PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process, so that none can slip away."""
    _prctl("prctl(CHILD_SUBREAPER)", _PR_SET_CHILD_SUBREAPER, 1)


def forbid_inspection() -> None:
    """Processes of the same user cannot attach to this one or open its files in /proc."""
    _prctl("prctl(DUMPABLE)", _PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """No program that is started from here gains rights by a set-user-id bit or file capabilities."""
    _prctl("prctl(NO_NEW_PRIVS)", _PR_SET_NO_NEW_PRIVS, 1)


class Filter:
    """A seccomp filter (classic BPF, 8 bytes an instruction), laid out once, for any number of installations."""

    def __init__(self, program: bytes):
        self._code = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(self._code))
        self._header = ctypes.create_string_buffer(header, len(header))

    def install(self) -> None:
        """Put it on this process and all that it starts."""
        _prctl("seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._header)


def install_filter(program: bytes) -> None:
    """Put a filter on this process and all that it starts."""
    Filter(program).install()


def drop_capabilities() -> None:
    """Give up all capabilities; with no new privileges they cannot come back."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    number = _SYS_CAPSET.get(machine())
    if number is None:
        raise OSError(f"capset: no system call number for {machine()}")
    system_call("capset", number, header, b"\0" * 24)


def unshare(flags: int) -> None:
    """Move this process (and, for process ids, its future children) into new namespaces."""
    _checked("unshare", _libc.unshare(ctypes.c_int(flags)))


def set_namespace(descriptor: int, kind: int) -> None:
    """Enter the namespace behind a descriptor (for process ids: this process's future children do)."""
    _checked("setns", _libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Put a file system, or with MS_BIND a part of the tree, at `target`, as the system call does."""
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _checked(f"mount {target}", _libc.mount(*names, ctypes.c_ulong(flags), options.encode() or None))


def mount_attributes(target: str, attributes: int) -> None:
    """Add attributes (read-only, no devices, ..) to a mount and all below it; needs Linux 5.12."""
    packed = struct.pack("QQQQ", attributes, 0, 0, 0)
    system_call(
        f"mount_setattr {target}",
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        os.fsencode(target),
        _AT_RECURSIVE,
        packed,
        len(packed),
    )


def unmount(target: str) -> None:
    """Detach a mount and all below it."""
    _checked(f"umount2 {target}", _libc.umount2(os.fsencode(target), MNT_DETACH))


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace; the old one appears at `put_old`."""
    number = _SYS_PIVOT_ROOT.get(machine())
    if number is None:
        raise OSError(f"pivot_root: no system call number for {machine()}")
    system_call("pivot_root", number, os.fsencode(new_root), os.fsencode(put_old))


def _prctl(name: str, option: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> None:
    wide = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))
    _checked(name, _libc.prctl(ctypes.c_int(option), *wide))


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
