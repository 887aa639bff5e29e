"""What a source lists before anything is read: entries with their origin, and what was skipped, by name and reason.

An entry is one thing to open (a file, a blob, a member of an archive, rows of a table); `form` says how it becomes
documents. `units` cuts a listing into pieces of work in path order; `sample` thins one out by a hash of the path, so
that the same files are taken on every machine; `Wanted` says which names a source leaves out. A path is kept as text
(undecodable bytes shown as \\xNN) beside the name that opens the file.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from ...config import KINDS

IGNORED_FOLDERS = frozenset({".git", ".hg", ".svn", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
"""Never source: version control data and caches that tools make. Counted as one skip a folder."""

MAX_UNIT_FILES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing to open: `file` (a path or a URL) opens it, `path` is its name in the corpus."""

    source: str
    file: str
    path: str
    size_bytes: int
    repository: str = ""
    revision: str = ""
    license: str = ""
    kind: str | None = None
    form: str = "file"
    """How it becomes documents: a key of `files.OPENERS`."""
    key: str = ""
    """Which part of `file` it is: a blob, a member, rows. Part of what identifies the input, so no path."""
    extra: str = "{}"
    """What only this source knows about the document, as JSON."""
    options: Mapping[str, Any] | None = None
    """Plain data that the opener needs, the same for all entries of a source."""

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


class Wanted:
    """Which names inside a repository, an archive or a bucket are read; what is not becomes a skip.

    Patterns meet the name and each folder above it, as in a walk of a directory; a folder that is left out is one skip.
    """

    def __init__(self, source: str, exclude: Sequence[str], max_file_bytes: int, prefix: str = ""):
        self.source = source
        self.prefix = prefix  # of the names in skips
        self.exclude = exclude
        self.max_file_bytes = max_file_bytes
        self.seen: dict[str, bool] = {}

    def __call__(self, name: str, size_bytes: int, skips: list[Skip]) -> bool:
        """Whether the file is wanted; if not, the reason is among `skips` afterwards."""
        folder, _, _ = name.rpartition("/")
        if not self._folder(folder, skips):
            return False
        if any(fnmatch.fnmatch(name, pattern) for pattern in self.exclude):
            skips.append(Skip(self.source, self.prefix + text_of(name), "excluded", size_bytes))
            return False
        if size_bytes > self.max_file_bytes:
            skips.append(Skip(self.source, self.prefix + text_of(name), "over_max_file_bytes", size_bytes))
            return False
        return True

    def _folder(self, folder: str, skips: list[Skip]) -> bool:
        if not folder:
            return True
        if folder not in self.seen:
            above, _, last = folder.rpartition("/")
            reason = None
            if any(fnmatch.fnmatch(folder, pattern) for pattern in self.exclude):
                reason = "excluded"
            elif last in IGNORED_FOLDERS:
                reason = "ignored_folder"
            self.seen[folder] = self._folder(above, skips) and reason is None
            if reason and self.seen.get(above, True):
                skips.append(Skip(self.source, self.prefix + text_of(folder), reason))
        return self.seen[folder]


def text_of(name: str) -> str:
    """A file name as valid text."""
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone surrogate that no file name gives, but an archive or a table may
        return name.encode("utf-8", "backslashreplace").decode()


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
            "marks": [_marks(entry) for entry in piece],
            "bytes": sum(entry.size_bytes for entry in piece),
        }
        for piece in pieces
    ]


def _marks(entry: Entry) -> list[Any]:
    """What identifies an entry: names and sizes, and for a part of something bigger which part of which revision."""
    marks = [entry.source, entry.path, entry.size_bytes]
    return [*marks, entry.revision, entry.key] if entry.key else marks


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
