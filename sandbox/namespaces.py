"""A process of its own world (level 3): no network, no other processes, and a file tree of what Python needs.

`enter` moves the caller into new user, mount, process, network, IPC and host-name namespaces; `build_root` gives that
mount namespace a new root with the readable folders (read-only, with empty folders over the hidden ones) and four
devices; `mount_work_folder` adds an empty, size-limited work folder in memory. There is no /home and no /tmp of the
host. All of it disappears with the last process, whatever happens to us.
"""

from __future__ import annotations

import os

from . import kernel

TYPE_CHECKING = False  # for type checkers; see launch.py
if TYPE_CHECKING:
    from collections.abc import Sequence

WORK_FOLDER = "/contained"
CONTAINED_ID = 65534
"""User and group id inside, `nobody` by custom."""

_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
_OWN_PROCESS_NAMESPACE = 7  # a descriptor, see supervise.py
_DEVICES = ("null", "zero", "random", "urandom")
_LINKS = {"fd": "/proc/self/fd", **{f"std{name}": f"/proc/self/fd/{n}" for n, name in enumerate(("in", "out", "err"))}}
"""Of /dev, into /proc: a shell's `<(command)` is a file below /dev/fd."""
_WORK_FILES = 4096
"""Files in the work folder; each costs kernel memory that `file_bytes` does not count."""


def enter(outside_id: int | None) -> None:
    """Enter new namespaces; the caller's next child is the first process of the new process namespace.

    Args:
        outside_id: the host's user and group id behind `CONTAINED_ID`. None: the caller's own, which is all that an
            ordinary user may map. Given (by root): an unused one, and inside, root is root until the setup is done.
    """
    user, group = os.geteuid(), os.getegid()
    if outside_id is None:
        kernel.unshare(_NAMESPACES)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"{CONTAINED_ID} {group} 1\n")
        _write("/proc/self/uid_map", f"{CONTAINED_ID} {user} 1\n")
        return
    # Only a process outside may map an id that is not the caller's own: a short-lived helper, forked before.
    mapping = f"0 0 1\n{CONTAINED_ID} {outside_id} 1\n"
    target = os.getpid()
    read_end, write_end = os.pipe()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(write_end)
            if os.read(read_end, 1):
                _write(f"/proc/{target}/gid_map", mapping)
                _write(f"/proc/{target}/uid_map", mapping)
                status = 0
        finally:
            os._exit(status)
    os.close(read_end)
    try:
        kernel.unshare(_NAMESPACES)
        os.write(write_end, b"x")
    finally:
        os.close(write_end)
        status = os.waitpid(helper, 0)[1]
    if status:
        raise OSError(f"uid_map: the mapping of user {outside_id} was refused")


def keep_own_process_namespace() -> None:
    """Keep a way back for `return_to_own_process_namespace`, while there is still a /proc to take it from."""
    descriptor = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    if descriptor != _OWN_PROCESS_NAMESPACE:
        os.dup2(descriptor, _OWN_PROCESS_NAMESPACE, inheritable=False)
        os.close(descriptor)


def return_to_own_process_namespace() -> None:
    """Children that are started from now on share the caller's process namespace again, whatever was unshared."""
    kernel.set_namespace(_OWN_PROCESS_NAMESPACE, kernel.CLONE_NEWPID)


def mount_work_folder(size_bytes: int) -> None:
    """Put an empty folder in memory, with that much room for all files together, at `WORK_FOLDER`, and go there."""
    options = f"mode=700,uid={CONTAINED_ID},gid={CONTAINED_ID},size={size_bytes},nr_inodes={_WORK_FILES}"
    kernel.mount("tmpfs", WORK_FOLDER, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    os.chdir(WORK_FOLDER)


def build_root(base: str, readable: Sequence[str], hidden: Sequence[str], has_proc: bool = False) -> None:
    """Make a new root and enter it.

    Args:
        base: any folder that exists; it is covered in this mount namespace only.
        readable: existing paths, shown read-only at the same place; a link is shown as a link.
        hidden: existing folders that are shown empty, if they lie below a readable one.
        has_proc: show the processes of this namespace in /proc, and nothing else there, if the host lets us (most
            containers do not): Java and Rust find their own folder by it.
    """
    real = [os.path.realpath(path) for path in readable]
    covered = [os.path.realpath(path) for path in hidden]
    covered = [path for path in covered if not any(f"{each}/".startswith(f"{path}/") for each in real)]
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    os.mkdir(f"{base}/old")  # noqa: PTH102 (here and below: pathlib costs a contained start 5 ms)
    os.mkdir(f"{base}/new")  # noqa: PTH102
    kernel.pivot_root(base, f"{base}/old")
    os.chdir("/new")
    kernel.mount("tmpfs", "/new", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    for path in sorted(real):  # a folder comes before what is below it
        _bind(path, kernel.MOUNT_ATTR_NODEV)
    for path, target in zip(readable, real, strict=True):
        if not os.path.lexists(f"/new{path}"):
            os.makedirs(os.path.dirname(f"/new{path}"), exist_ok=True)  # noqa: PTH103, PTH120
            os.symlink(target, f"/new{path}")  # noqa: PTH211
    for path in covered:
        if os.path.isdir(f"/new{path}"):  # noqa: PTH112
            kernel.mount("tmpfs", f"/new{path}", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=4k")
    for name in _DEVICES:
        _bind(f"/dev/{name}", 0)
    os.mkdir(f"/new{WORK_FOLDER}")  # noqa: PTH102
    if has_proc:
        os.mkdir("/new/proc")  # noqa: PTH102
        try:
            kernel.mount("proc", "/new/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV, "subset=pid")
        except OSError:
            os.rmdir("/new/proc")  # noqa: PTH106
        else:
            for name, target in _LINKS.items():
                os.symlink(target, f"/new/dev/{name}")  # noqa: PTH211
    if not os.path.lexists("/new/tmp"):
        os.symlink(WORK_FOLDER, "/new/tmp")  # noqa: PTH211
    kernel.mount_attributes("/new", kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID)
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")


def _bind(path: str, attributes: int) -> None:
    """Show `path` of the old root at the same place in the new one."""
    target = f"/new{path}"
    if os.path.lexists(target):
        return  # below a folder that is shown already
    if os.path.isdir(f"/old{path}"):  # noqa: PTH112
        os.makedirs(target)  # noqa: PTH103
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    kernel.mount(f"/old{path}", target, None, kernel.MS_BIND | kernel.MS_REC)
    if attributes:
        kernel.mount_attributes(target, attributes)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
