"""What a source lists before anything is read: files with their origin, and what was skipped, by name and reason.

`units` cuts a listing into pieces of work in path order; `sample` thins one out by a hash of the path, so that the
same files are taken on every machine. A path is kept as text (undecodable bytes shown as \\xNN) beside the name that
opens the file.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from ...config import KINDS

IGNORED_FOLDERS = frozenset({".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
"""Never source: version control data and caches that tools make. Counted as one skip a folder."""

MAX_UNIT_FILES = 20_000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file to read. `file` opens it; `path` is its name in the corpus."""

    source: str
    file: str
    path: str
    size_bytes: int
    repository: str = ""
    revision: str = ""
    license: str = ""
    kind: str | None = None
    form: str = "file"
    """How the file becomes documents: `file`, `metadata` (a package's METADATA) or `problems` (JSONL)."""

    def __post_init__(self) -> None:
        assert self.kind is None or self.kind in KINDS


@dataclass(frozen=True)
class Skip:
    """A file that is not a document, and why."""

    source: str
    path: str
    reason: str
    size_bytes: int = 0


@dataclass
class Listing:
    """What a source found."""

    entries: list[Entry] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    def extend(self, other: Listing) -> None:
        self.entries += other.entries
        self.skips += other.skips


def text_of(name: str) -> str:
    """A file name as valid text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def walk(root: Path, exclude: Sequence[str] = ()) -> Iterator[tuple[str, os.stat_result | None, str | None]]:
    """Files below `root` in path order as (name relative to root, stat, reason to skip).

    Folder links are not followed, so there are no loops; links to files are followed once.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            yield folder or ".", None, f"unreadable: {error.strerror}"
            continue
        deeper = []
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if any(fnmatch.fnmatch(name, pattern) for pattern in exclude):
                yield name, None, "excluded"
            elif entry.is_dir(follow_symlinks=False):
                if entry.name in IGNORED_FOLDERS:
                    yield name, None, "ignored_folder"
                else:
                    deeper.append(name)
            else:
                yield name, *_examine(entry)
        folders += reversed(deeper)


def sample(entries: Sequence[Entry], most_bytes: int) -> tuple[list[Entry], list[Skip]]:
    """Whole files up to `most_bytes`, chosen by a hash of their path; the others are skips named `not_sampled`."""
    kept: set[str] = set()
    total = 0
    for entry in sorted(entries, key=lambda entry: xxhash.xxh3_64_intdigest(entry.path.encode())):
        if total + entry.size_bytes <= most_bytes:
            total += entry.size_bytes
            kept.add(entry.path)
    return (
        [entry for entry in entries if entry.path in kept],
        [
            Skip(entry.source, entry.path, "not_sampled", entry.size_bytes)
            for entry in entries
            if entry.path not in kept
        ],
    )


def units(entries: Sequence[Entry], unit_bytes: int) -> list[dict[str, Any]]:
    """Pieces of work in the order given: plain data, with `marks` that hold no path of this machine."""
    pieces: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if pieces[-1] and (size + entry.size_bytes > unit_bytes or len(pieces[-1]) >= MAX_UNIT_FILES):
            pieces.append([])
            size = 0
        pieces[-1].append(entry)
        size += entry.size_bytes
    return [
        {
            "files": [asdict(entry) for entry in piece],
            "marks": [[entry.source, entry.path, entry.size_bytes] for entry in piece],
            "bytes": sum(entry.size_bytes for entry in piece),
        }
        for piece in pieces
    ]


def _examine(entry: os.DirEntry[str]) -> tuple[os.stat_result | None, str | None]:
    try:
        status = entry.stat()
    except OSError as error:
        reason = "broken_link" if entry.is_symlink() else f"unreadable: {error.strerror}"
        return None, reason
    if entry.is_symlink() and stat.S_ISDIR(status.st_mode):
        return None, "folder_link"
    if not stat.S_ISREG(status.st_mode):
        return None, "not_a_file"
    return status, None
