"""The system calls that a contained program may not make, as a seccomp filter (classic BPF).

Denied: sockets other than local ones; looking into or steering other processes; mounts and namespaces; kernel
interfaces with a long history of faults (bpf, perf, keyctl, userfaultfd, io_uring); memory outside the address-space
limit (memfd, System V). A denied call fails with an error, so that the program sees an ordinary exception. No
privilege is needed. Known for x86-64 and 64-bit ARM; on others `program` returns None and the level says so.
"""

from __future__ import annotations

import errno
import struct
import sys

# (x86-64, 64-bit ARM); calls from number 424 on are the same everywhere.
_DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "io_uring_setup": (425, 425),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
    "memfd_secret": (447, 447),
}
_SOCKET = (41, 198)
_CLONE = (56, 220)
_CLONE3 = 435
_FORK_AND_VFORK = (57, 58)  # x86-64 only; elsewhere they are clone
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000  # user, pid, net, ipc, uts, cgroup and mount
_CLONE_PARENT = 0x00008000  # a sibling instead of a child: it would belong to our supervisor
_AF_UNIX = 1

# Offsets in struct seccomp_data; arguments are 64 bits, of which the low half comes first.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def program(machine: str, new_processes: bool) -> bytes | None:
    """The filter for `struct sock_filter[]`, or None where the architecture is not known.

    Args:
        machine: as `uname -m` names it.
        new_processes: whether the program may start processes; threads it may always start.
    """
    if machine not in _AUDIT_ARCHITECTURE or sys.byteorder != "little":
        return None
    column = list(_AUDIT_ARCHITECTURE).index(machine)
    code = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, _AUDIT_ARCHITECTURE[machine], skip_true=1)]
    code += [_step(_RETURN, _KILL_PROCESS), _step(_LOAD, _NUMBER)]
    if machine == "x86_64":
        code += _when(_AT_LEAST, _X32_BIT, _fail(errno.EPERM))
        if not new_processes:
            code += [step for number in _FORK_AND_VFORK for step in _when(_EQUAL, number, _fail(errno.EAGAIN))]
    for numbers in _DENIED.values():
        code += _when(_EQUAL, numbers[column], _fail(errno.EPERM))
    # clone3 passes its flags in memory that a filter cannot read; the C library falls back to clone.
    code += _when(_EQUAL, _CLONE3, _fail(errno.ENOSYS))
    socket = [_step(_LOAD, _FIRST_ARGUMENT), *_when(_EQUAL, _AF_UNIX, _ALLOW), _step(_RETURN, _fail(errno.EACCES))]
    code += [_step(_EQUAL, _SOCKET[column], skip_false=len(socket)), *socket]
    clone = [_step(_LOAD, _FIRST_ARGUMENT), *_when(_ANY_BIT, _CLONE_NAMESPACES | _CLONE_PARENT, _fail(errno.EPERM))]
    if not new_processes:
        clone += [*_when(_ANY_BIT, _CLONE_THREAD, _ALLOW), _step(_RETURN, _fail(errno.EAGAIN))]
    code += [_step(_EQUAL, _CLONE[column], skip_false=len(clone)), *clone, _step(_RETURN, _ALLOW)]
    return b"".join(code)


def _when(test: int, value: int, result: int) -> list[bytes]:
    return [_step(test, value, skip_false=1), _step(_RETURN, result)]


def _fail(number: int) -> int:
    return _ERRNO | number


def _step(operation: int, value: int, skip_true: int = 0, skip_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, skip_true, skip_false, value)
