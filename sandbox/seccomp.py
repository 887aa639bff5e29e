"""The system calls that a contained program may not make, as a seccomp filter (classic BPF).

Denied: sockets, but for pairs of connected local ones (asyncio wakes itself by one); looking into or steering other
processes; mounts and namespaces; kernel interfaces with a long history of faults (bpf, perf, keyctl, userfaultfd,
io_uring); memory and queues that are found by a number or a name; the kernel's log, and what happens to files. A denied
call fails with an error, so that the program sees an ordinary exception. No privilege is needed. Known for x86-64 and
64-bit ARM; on others `program` returns None and the level says so.

A filter sees numbers and no paths. So where the program runs as our own user and Landlock alone keeps files from it,
what Landlock does not cover is denied everywhere, in the work folder too (`keeps_attributes`, `keeps_contents`).
"""

from __future__ import annotations

import errno
import struct
import sys

# (x86-64, 64-bit ARM), None where there is no such call; calls from number 424 on are the same everywhere.
_Numbers = dict[str, tuple[int | None, int | None]]
_DENIED: _Numbers = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "ioprio_set": (251, 30),
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
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "connect": (42, 203),
    "syslog": (103, 116),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
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
_FOR_ITSELF: _Numbers = {
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "prlimit64": (302, 261),
}
"""Calls whose first argument is a process: 0, the caller, is allowed, others are not, its own number neither."""

_ATTRIBUTES: _Numbers = {
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
_WITHOUT_EFFECT: _Numbers = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
"""Modes and times: these seem to succeed. As an error they break what honest programs do by the way (`shutil.copy`,
`copytree`, `touch`, compilers), and hardly any program looks whether they worked."""

_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
_SETPRIORITY = (141, 140)
_IOCTL = (16, 29)
_TRUNCATE, _OPEN, _OPENAT, _OPENAT2 = (76, 45), (2, None), (257, 56), 437
_CLONE = (56, 220)
_CLONE3 = 435
_FORK_AND_VFORK = (57, 58)  # x86-64 only; elsewhere they are clone
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000  # user, pid, net, ipc, uts, cgroup and mount
_CLONE_PARENT = 0x00008000  # a sibling instead of a child: it would belong to our supervisor
_AF_UNIX = 1
_STREAM, _SEQPACKET = 1, 5
_TYPE_OF_SOCKET = 0xF  # less SOCK_NONBLOCK and SOCK_CLOEXEC
_IOCTL_FAMILY = 0xFF00
_IOCTLS_OF_FILES = (0x6600, 0x5800, 0x9400)  # flags, verity, encryption; of XFS; of btrfs
_TRUNCATES, _TRUNCATES_OR_WRITES = 0o1000, 0o1003  # O_TRUNC, alone or with an access mode

# Offsets in struct seccomp_data; arguments are 64 bits, of which the low half comes first.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_WITHOUT_ERROR = 0


def program(
    machine: str, new_processes: bool, keeps_attributes: bool = False, keeps_contents: bool = False
) -> bytes | None:
    """The filter for `struct sock_filter[]`, or None where the architecture is not known.

    Args:
        machine: as `uname -m` names it.
        new_processes: whether the program may start processes; threads it may always start.
        keeps_attributes: of all files owner, mode, times and the like stay as they are.
        keeps_contents: files can only be truncated by who has opened them for writing.
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
    code += _each(_DENIED, column, _fail(errno.EPERM))
    if keeps_attributes:
        code += _each(_ATTRIBUTES, column, _fail(errno.EPERM))
        code += _each(_WITHOUT_EFFECT, column, _fail(_WITHOUT_ERROR))
        kinds = [step for kind in _IOCTLS_OF_FILES for step in _when(_EQUAL, kind, _fail(errno.EOPNOTSUPP))]
        code += _call(_IOCTL[column], [_argument(1), _step(_AND, _IOCTL_FAMILY), *kinds, _step(_RETURN, _ALLOW)])
    if keeps_contents:
        code += _when(_EQUAL, _TRUNCATE[column], _fail(errno.EPERM))
        code += _when(_EQUAL, _OPENAT2, _fail(errno.ENOSYS))  # whose flags are in memory
        for number, flags in ((_OPEN[column], 1), (_OPENAT[column], 2)):
            block = [_argument(flags), _step(_AND, _TRUNCATES_OR_WRITES)]
            for denied in (_TRUNCATES, _TRUNCATES_OR_WRITES):  # for reading, and for neither
                block += _when(_EQUAL, denied, _fail(errno.EPERM))
            code += _call(number, [*block, _step(_RETURN, _ALLOW)])
    # clone3 passes its flags in memory that a filter cannot read; the C library falls back to clone.
    code += _when(_EQUAL, _CLONE3, _fail(errno.ENOSYS))
    for numbers in _FOR_ITSELF.values():
        code += _call(numbers[column], [_argument(0), *_when(_EQUAL, 0, _ALLOW), _step(_RETURN, _fail(errno.EPERM))])
    itself = [step for number in (0, 1) for step in (_argument(number), *_unless(_EQUAL, 0, _fail(errno.EPERM)))]
    code += _call(_SETPRIORITY[column], [*itself, _step(_RETURN, _ALLOW)])
    code += _when(_EQUAL, _SOCKET[column], _fail(errno.EACCES))
    pair = [_argument(0), *_unless(_EQUAL, _AF_UNIX, _fail(errno.EACCES)), _argument(1), _step(_AND, _TYPE_OF_SOCKET)]
    # A pair of datagram sockets could send to any socket of the host that has a name.
    pair += [step for kind in (_STREAM, _SEQPACKET) for step in _when(_EQUAL, kind, _ALLOW)]
    code += _call(_SOCKETPAIR[column], [*pair, _step(_RETURN, _fail(errno.EACCES))])
    clone = [_argument(0), *_when(_ANY_BIT, _CLONE_NAMESPACES | _CLONE_PARENT, _fail(errno.EPERM))]
    if not new_processes:
        clone += [*_when(_ANY_BIT, _CLONE_THREAD, _ALLOW), _step(_RETURN, _fail(errno.EAGAIN))]
    code += _call(_CLONE[column], [*clone, _step(_RETURN, _ALLOW)])
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _each(calls: _Numbers, column: int, result: int) -> list[bytes]:
    numbers = [each[column] for each in calls.values()]
    return [step for number in numbers if number is not None for step in _when(_EQUAL, number, result)]


def _call(number: int | None, block: list[bytes]) -> list[bytes]:
    """`block`, which must return, for one call."""
    return [] if number is None else [_step(_EQUAL, number, skip_false=len(block)), *block]


def _argument(position: int) -> bytes:
    """Load the lower half of an argument; it has as many bits as the kernel reads of those that are looked at here."""
    return _step(_LOAD, _ARGUMENTS + 8 * position)


def _when(test: int, value: int, result: int) -> list[bytes]:
    return [_step(test, value, skip_false=1), _step(_RETURN, result)]


def _unless(test: int, value: int, result: int) -> list[bytes]:
    return [_step(test, value, skip_true=1), _step(_RETURN, result)]


def _fail(number: int) -> int:
    return _ERRNO | number


def _step(operation: int, value: int, skip_true: int = 0, skip_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, skip_true, skip_false, value)
