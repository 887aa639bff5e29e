"""What a path on the command line is: a repository, an archive, a table, or a folder of files.

The name decides, and for folders whether a repository is at their top; the content of a file is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...strict import ConfigError
from .archive import is_archive, stem
from .git import commit_of, repository_at
from .remote import is_url
from .tables import SUFFIXES, is_table

BESIDE_TABLES = frozenset({"README.md", "LICENSE", "manifest.json", "dataset_infos.json"})


@dataclass(frozen=True)
class Guess:
    """A source without its name: fields of its configuration, a stem for a name, and what to tell the user."""

    fields: dict[str, Any]
    stem: str
    note: str = ""


def guess(path: str) -> Guess:
    """The source that a path means. `PATH@REVISION` is a repository at a revision, unless a file has that name.

    Raises:
        ConfigError: if `PATH` of `PATH@REVISION` is no repository, or has no such revision.
    """
    if is_url(path):
        last = path.rstrip("/").rpartition("/")[2]
        return Guess({"type": _by_name(last), "path": path}, _stem(last))
    local = Path(path)
    if not local.expanduser().exists() and "@" in path:
        before, _, revision = path.rpartition("@")
        folder = Path(before)
        if before and folder.expanduser().is_dir():
            if repository_at(folder.expanduser()) is None:
                raise ConfigError(f"{path}: {before} is not a git repository, so it has no revision {revision!r}")
            return _repository(folder, revision)
    if local.expanduser().is_dir():
        if repository_at(local.expanduser()) is not None:
            return _repository(local, "HEAD")
        return Guess({"type": "table" if _holds_tables(local) else "directory", "path": path}, local.resolve().name)
    return Guess({"type": _by_name(local.name), "path": path}, _stem(local.resolve().name))


def _holds_tables(folder: Path) -> bool:
    """Whether there are tables in a folder and nothing else but what lies beside a data set."""
    names = {entry.name for entry in folder.expanduser().iterdir() if not entry.name.startswith(".")} - BESIDE_TABLES
    return bool(names) and all(is_table(name) for name in names)


def _by_name(name: str) -> str:
    return "archive" if is_archive(name) else "table" if is_table(name) else "directory"


def _stem(name: str) -> str:
    """Without the suffix of an archive or a table."""
    suffix = max((one for one in SUFFIXES if name.lower().endswith(one)), key=len, default="")
    return stem(name[: len(name) - len(suffix)] or name)


def _repository(folder: Path, revision: str) -> Guess:
    whole = folder.expanduser()
    repository = repository_at(whole)
    assert repository is not None
    commit = commit_of(repository.absolute(), revision, str(folder))
    note = f"{folder}: repository at commit {commit[:12]}, working tree not read; type: directory in a recipe reads it"
    # The commit, not its name: a run that is continued tomorrow means the same.
    return Guess({"type": "git", "path": str(folder), "revision": commit}, whole.resolve().name, note)
