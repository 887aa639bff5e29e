"""Work folders on disk (levels 2 and 1), which a candidate can neither replace nor leave behind.

A candidate may own its work folder, and whoever owns a folder in a sticky /tmp can put a link in its place. So there
are two: `<folder>`, which is ours and where others may only pass, and in it `work`, which is the candidate's. The
supervisor makes and removes both, so that they go whoever is killed; its judge removes what is left if the supervisor
was. No link is followed: each folder is opened without following and then used by its descriptor. Deep trees are
flattened, not walked, because a candidate may nest deeper than Python recurses. Standard library only.
"""

from __future__ import annotations

import os
import stat
import time

TYPE_CHECKING = False  # for type checkers; see launch.py
if TYPE_CHECKING:
    from collections.abc import Iterator

_WORK = "work"


def work_in(folder: str) -> str:
    """The candidate's part of `folder`."""
    return f"{folder}/{_WORK}"


def make(folder: str, user_id: int | None) -> None:
    """Make `folder`, which must not exist, and its work folder, which belongs to `user_id` or else to the caller."""
    os.mkdir(folder, 0o700)  # noqa: PTH102 (here and below: pathlib costs a contained start 5 ms)
    os.mkdir(work_in(folder), 0o700)  # noqa: PTH102
    if user_id is not None:
        os.chown(work_in(folder), user_id, user_id)
        os.chmod(folder, 0o711)  # noqa: PTH101


def remove(folder: str, until: float = float("inf")) -> None:
    """Delete what `make` made, whatever has become of it; nothing where there is nothing.

    Args:
        until: when to give up, as `time.monotonic` tells it. Removing a folder takes up to 0.4 ms, making one less.

    Raises:
        TimeoutError: if the time is up.
        OSError: if something of it stays.
    """
    try:
        top = _opened(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError:  # a program of our own user (level 1) can replace even this, by a link for instance
        os.unlink(folder)  # noqa: PTH108
        return
    try:
        _empty(top, until)
    finally:
        os.close(top)
    os.rmdir(folder)  # noqa: PTH106


def open_work(folder: str) -> int:
    """A descriptor of the work folder, made readable whatever the candidate did to it.

    Raises:
        OSError: if it is not a folder any more.
    """
    top = _opened(folder)
    try:
        return _opened(_WORK, top)
    finally:
        os.close(top)


def _empty(top: int, until: float) -> None:
    """Delete all that is in a folder; one level at a time, what is below is moved up."""
    fresh = os.urandom(8).hex()
    moved = 0
    while names := os.listdir(top):
        for name in names:
            if time.monotonic() > until:
                raise TimeoutError
            if not _is_folder(name, top):
                os.unlink(name, dir_fd=top)
                continue
            inner = _opened(name, top)
            try:
                for below in _files_deleted(inner):
                    os.close(_opened(below, inner))  # a folder that may not be written cannot be moved
                    moved += 1
                    os.rename(below, f"{fresh}-{moved}", src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _files_deleted(folder: int) -> Iterator[str]:
    """Delete the files in a folder, links as such; yields the folders."""
    for name in os.listdir(folder):
        if _is_folder(name, folder):
            yield name
        else:
            os.unlink(name, dir_fd=folder)


def _is_folder(name: str, folder: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _opened(name: str, folder: int | None = None) -> int:
    """A descriptor of a folder that its owner may have made unreadable; NotADirectoryError for anything else."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        link = f"/proc/self/fd/{place}"  # changes the mode of exactly this folder: fchmod wants more than O_PATH
        os.chmod(link, os.fstat(place).st_mode & 0o077 | 0o700)  # noqa: PTH101
        return os.open(link, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(place)
