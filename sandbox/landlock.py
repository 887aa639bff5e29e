"""Landlock: which files a process may still reach, whatever its user may; also TCP and signals on newer kernels.

Needs Linux 5.13 and no privilege. Owners, modes and times of files, local sockets, and before version 3 truncating are
not covered: `seccomp.py` denies those. Rules can only be added to, never taken back, and hold for all descendants. A
folder that is allowed can have folders below it that are not: then its entries are allowed one by one.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from . import kernel

TYPE_CHECKING = False  # for type checkers; see launch.py
if TYPE_CHECKING:
    from collections.abc import Sequence

TRUNCATE_VERSION = 3
"""From this version on (Linux 6.2), files that may not be written cannot be truncated either."""

SIGNAL_VERSION = 6
"""From this version on (Linux 6.12), processes outside cannot be signalled."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_NEWEST_RIGHTS = (1 << 16) - 1  # from version 5 on
_TCP_BIND_AND_CONNECT = 3  # from version 4 on
_ABSTRACT_SOCKETS_AND_SIGNALS = 3  # from version SIGNAL_VERSION on


def version() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    try:
        return kernel.system_call("landlock", _CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def why_missing() -> str:
    """Why there is no Landlock here, or ""."""
    try:
        kernel.system_call("landlock", _CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return "no Landlock: this kernel has none (Linux 5.13 is the first that can)"
        if error.errno == errno.EOPNOTSUPP:
            return "no Landlock: it is switched off on this host; add landlock to lsm= on the kernel's command line"
        return f"no Landlock: {error}; a container's seccomp profile may have to allow it"
    return ""


def restrict(
    readable: Sequence[str], hidden: Sequence[str], writable: Sequence[str], may_execute: bool = False
) -> None:
    """From now on this process reads only below `readable` less `hidden`, and writes only below `writable`.

    The names (not the contents) in a readable folder with a hidden one below stay visible. Paths that do not exist
    are passed over, and links give no right to what they lead to: pass real paths.

    Args:
        may_execute: programs in all of these places may be executed; else none anywhere.
    """
    newest = version()
    if not newest:
        raise OSError("landlock: not offered by this kernel")
    rights = _ALL_RIGHTS.get(newest, _NEWEST_RIGHTS)
    attributes = struct.pack("Q", rights)
    if newest >= 4:
        attributes += struct.pack("Q", _TCP_BIND_AND_CONNECT)
    if newest >= SIGNAL_VERSION:
        attributes += struct.pack("Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = kernel.system_call("landlock_create_ruleset", _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow_reading(ruleset, path, hidden, _EXECUTE if may_execute else 0)
        for path in writable:
            _allow(ruleset, path, rights if may_execute else rights & ~_EXECUTE)
        kernel.forbid_new_privileges()
        kernel.system_call("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: str, hidden: Sequence[str], more_rights: int) -> None:
    if path in hidden:
        return
    if not any(each.startswith(path + "/") for each in hidden) or not os.path.isdir(path):  # noqa: PTH112
        _allow(ruleset, path, _READ_FILE | _READ_DIR | more_rights)
        return
    _allow(ruleset, path, _READ_DIR)
    for name in os.listdir(path):  # noqa: PTH208 (pathlib costs a contained start 5 ms)
        _allow_reading(ruleset, f"{path}/{name}", hidden, more_rights)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISDIR(mode):
            rights &= _FILE_RIGHTS
        if rights and not stat.S_ISLNK(mode):
            rule = struct.pack("=Qi", rights, descriptor)
            kernel.system_call("landlock_add_rule", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
