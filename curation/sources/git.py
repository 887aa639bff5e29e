"""Git source: the files of a repository at a revision, from its object store; no working tree is needed or read.

git's own plumbing does the reading: `ls-tree` lists, one `cat-file --batch` a unit gives the content, one `log` gives
the date of each file's last change. Prices: a blob costs what a file costs; the dates walk the history until every
file is met, minutes for a history of a million commits (`history: false` leaves them out).

The repository may be hostile: git runs without hooks, filters, pagers, signatures, textconv and any transport, with
no configuration but the repository's own, and what that could start is overridden. Names that come from the user or
from the repository never stand where an option could.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from ...config import SourceConfig
from ...strict import ConfigError
from .directory import existing
from .documents import Document, documents_of, skip
from .listing import Entry, Listing, Skip, Wanted, text_of

OVERRIDES = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.pager=cat",
    "core.quotePath=false",
    "diff.external=",
    "diff.renames=false",
    "gpg.program=false",
    "log.mailmap=false",
    "log.showSignature=false",
    "safe.directory=*",
)
"""Settings of a repository that could start a program, or change what is listed."""

ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # what a git before 2.44, which does not know the line above, would fetch with
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}

DATE = re.compile(rb"\x01(\d{4}-\d\d-\d\dT[\d:]+(?:Z|[+-]\d\d:\d\d))")
ASKED_AHEAD = 256
"""Blobs asked for at once: 17 kB of ids at most, well within what a pipe holds, so neither side waits for the other."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
LFS_POINTER_BYTES = 1_024
"""A pointer is shorter, says the specification of git-lfs."""


def repository_at(path: Path) -> Path | None:
    """The git directory of a folder that is a bare repository or has one at its top."""
    for folder in (path / ".git", path):
        if folder.is_file() and folder.name == ".git":
            return folder  # a linked working tree or a submodule: git follows it
        if (folder / "HEAD").exists() and (folder / "objects").is_dir():
            return folder
    return None


def commit_of(repository: Path, revision: str, name: str) -> str:
    """The commit that a revision stands for.

    Raises:
        ConfigError: if git is missing or there is no such revision.
    """
    if "\0" in revision:
        raise ConfigError(f'source "{name}": revision {revision!r}: not a name')
    arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    done = subprocess.run(
        _command(repository, *arguments), capture_output=True, env=_environment(), stdin=subprocess.DEVNULL, check=False
    )
    commit = done.stdout.decode("ascii", "replace").strip()
    if done.returncode or not commit:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(f'source "{name}": {repository}: no commit {revision!r}{": " + said if said else ""}')
    return commit


def list_git(config: SourceConfig) -> Listing:
    """The files of the commit that `config.revision` stands for.

    Raises:
        ConfigError: if there is no repository, no such revision, or no git.
    """
    root = existing(config)
    repository = repository_at(root)
    if repository is None:
        raise ConfigError(f'source "{config.name}": {root}: not a git repository (neither .git at its top nor bare)')
    repository = repository.absolute()
    commit = commit_of(repository, config.revision, config.name)
    listing = Listing()
    wanted = Wanted(config.name, config.exclude, config.max_file_bytes)
    found: dict[str, tuple[str, int]] = {}
    for mode, blob, size, name in _tree(repository, commit):
        reason = {"120000": "link", "160000": "submodule"}.get(mode)
        if reason is None and not size.isdecimal():
            reason = "missing_object"
        if reason:
            listing.skips.append(Skip(config.name, text_of(name), reason))
        elif wanted(name, int(size), listing.skips):
            found[name] = (blob, int(size))
    dates = _last_changes(repository, commit, found) if config.history else {}
    url = _url(repository) or _folder_name(root)
    listing.entries = [
        Entry(
            source=config.name,
            file=str(repository),
            path=text_of(name),
            size_bytes=size,
            repository=url,
            revision=commit,
            kind=config.kind,
            form="git",
            key=blob,
            extra=json.dumps({"changed": dates[name]}) if name in dates else "{}",
        )
        for name, (blob, size) in found.items()
    ]
    return listing


def read_blobs(entries: Sequence[Entry]) -> Iterator[Document | Skip]:
    """The documents in blobs of one repository, from one `cat-file`."""
    command = _command(Path(entries[0].file), "cat-file", "--batch")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number, entry in enumerate(entries):
            if number % ASKED_AHEAD == 0:
                _ask(process.stdin, entries[number : number + ASKED_AHEAD])
            data = _blob(process.stdout, entry)
            if data is None:
                yield skip(entry, "missing_object")
            elif len(data) < LFS_POINTER_BYTES and data.startswith(LFS_POINTER):
                yield skip(entry, "lfs_pointer")
            else:
                yield from documents_of(entry, data)


def _ask(requests: IO[bytes], entries: Sequence[Entry]) -> None:
    with contextlib.suppress(BrokenPipeError):  # said when the answer does not come
        requests.write(b"".join(entry.key.encode() + b"\n" for entry in entries))
        requests.flush()


def _blob(answers: IO[bytes], entry: Entry) -> bytes | None:
    try:
        header = answers.readline().split()
        if len(header) == 2 and header[1] == b"missing":
            return None
        size = int(header[2])
        data = answers.read(size)
        if len(data) == size and answers.read(1) == b"\n":
            return data
    except (IndexError, ValueError):
        pass
    raise RuntimeError(
        f"{entry.file}: git cat-file ended at {entry.path} ({entry.key}); `git fsck` says what is broken there"
    )


def _tree(repository: Path, commit: str) -> Iterator[tuple[str, str, str, str]]:
    """(mode, object, size, name) of every file."""
    output = _output(repository, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
    for line in output.split(b"\0"):
        facts, tab, name = line.partition(b"\t")
        if tab:
            mode, _, blob, size = facts.decode("ascii").split()
            yield mode, blob, size, os.fsdecode(name)


def _last_changes(repository: Path, commit: str, wanted: Iterable[str]) -> dict[str, str]:
    """Name → ISO date of the last commit that changed it; the walk ends when every name is met."""
    missing = set(wanted)
    dates: dict[str, str] = {}
    command = _command(
        repository, "log", "--format=%x01%cI", "-z", "--name-only", "--no-renames", "--no-show-signature",
        "--no-ext-diff", "--no-textconv", "--ignore-submodules=all", "--no-color", commit, "--",
    )  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as process:
        assert process.stdout is not None
        date = ""
        for item in _items(process.stdout):
            if stated := DATE.fullmatch(item):
                # With -z the date ends with the NUL, and the first name stands behind a newline.
                date = stated.group(1).decode()
                continue
            name = os.fsdecode(item.removeprefix(b"\n"))
            if name in missing:
                missing.remove(name)
                dates[name] = date
                if not missing:
                    process.kill()
                    break
    return dates


def _items(stream: IO[bytes]) -> Iterator[bytes]:
    """What stands between NULs."""
    rest = b""
    while chunk := stream.read(1 << 16):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
    if rest:
        yield rest


def _url(repository: Path) -> str:
    """The URL of origin without what it may hold of a password; a path of this machine gives its last part."""
    done = subprocess.run(
        _command(repository, "config", "--local", "--get", "remote.origin.url"),
        capture_output=True, env=_environment(), stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    url = text_of(os.fsdecode(done.stdout.strip()))
    if "://" not in url:  # `git@host:owner/name` names no secret
        return url if ":" in url and not url.startswith((".", "/")) else _last(url)
    parts = urlsplit(url)
    if parts.scheme == "file":
        return _last(parts.path)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _last(path: str) -> str:
    return path.rstrip("/").removesuffix("/.git").rpartition("/")[2]


def _folder_name(root: Path) -> str:
    whole = root.resolve()
    return text_of(whole.parent.name if whole.name == ".git" else whole.name)


def _output(repository: Path, *arguments: str) -> bytes:
    done = subprocess.run(
        _command(repository, *arguments), capture_output=True, env=_environment(), stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConfigError(f"{repository}: git {arguments[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout


def _command(repository: Path, *arguments: str) -> list[str]:
    settings = [part for one in OVERRIDES for part in ("-c", one)]
    return [_git(), "--no-pager", f"--git-dir={repository}", *settings, *arguments]


def _git() -> str:
    found = shutil.which("git")
    if found is None:
        raise ConfigError("git: no such program; a git source needs it (the folder as `type: directory` does not)")
    return found


def _environment() -> dict[str, str]:
    """Ours, without what the caller's GIT_* variables would change."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, **ENVIRONMENT}
