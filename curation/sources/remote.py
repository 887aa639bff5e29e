"""Files behind a URL: anything that fsspec knows (`s3://`, `hf://`, `gs://`, `https://`, `memory://`, `file://`).

Local paths take the direct way; a URL is opened where it is read, in the worker. The file system's own package
(s3fs for `s3://`) must be installed; its credentials come from its own environment, never from a configuration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...strict import ConfigError

MANIFEST = "manifest.json"
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")

BY_RENAMING = frozenset({"file", "local", "memory", "sftp", "ssh", "smb", "ftp", "hdfs"})
"""File systems on which a file grows where others can see it; on object stores an object appears when it is whole."""


@dataclass(frozen=True)
class Found:
    """A file as a listing has it: what opens it, its name below the root, and its size."""

    file: str
    name: str
    size_bytes: int


def is_url(path: str) -> bool:
    """Whether it is read through fsspec."""
    return bool(URL.match(path))


def file_system(url: str, storage: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The URL's file system and the path inside it.

    Raises:
        ConfigError: if the protocol is unknown or its package is missing.
    """
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url, **dict(storage or {}))
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigError(f"{url}: {error}") from error
    return fs, path


def open_file(file: str, storage: Mapping[str, Any] | None = None) -> IO[bytes]:
    """A file or URL to read from, seekable where the file system is."""
    if not is_url(file):
        return Path(file).open("rb")
    fs, path = file_system(file, storage)
    opened: IO[bytes] = fs.open(path, "rb")
    return opened


def read_file(file: str, storage: Mapping[str, Any] | None = None) -> bytes:
    """All bytes of a file or URL."""
    if not is_url(file):
        return Path(file).read_bytes()
    fs, path = file_system(file, storage)
    data: bytes = fs.cat_file(path)
    return data


def find(url: str, source: str, storage: Mapping[str, Any] | None = None) -> list[Found]:
    """All files below a URL in the order of their names, or the one that it names.

    Raises:
        ConfigError: if nothing is there, or it cannot be listed.
    """
    fs, root = file_system(url, storage)
    try:
        if fs.isfile(root):
            return [Found(url, root.rstrip("/").rpartition("/")[2], int(fs.info(root).get("size") or 0))]
        details = fs.find(root, detail=True)
    except Exception as error:  # every file system has its own errors
        raise ConfigError(f'source "{source}": {url}: cannot be listed: {type(error).__name__}: {error}') from error
    if not details:
        raise ConfigError(f'source "{source}": {url}: nothing is there')
    top = root.rstrip("/")
    return [
        Found(fs.unstrip_protocol(path), path.removeprefix(top).lstrip("/"), int(info.get("size") or 0))
        for path, info in sorted(details.items())
        if info.get("type") == "file"
    ]


def upload(folder: Path, url: str, storage: Mapping[str, Any] | None = None) -> list[str]:
    """Copy the files of `folder` to a URL, the manifest last, so that whoever sees it sees all; returns the names.

    A manifest that is there goes first, and with it the files that it names and that are not in `folder`.
    """
    fs, root = file_system(url, storage)
    root = root.rstrip("/")
    names = sorted(path.name for path in folder.iterdir())
    names.sort(key=lambda name: name == MANIFEST)
    _withdraw(fs, root, names)
    fs.makedirs(root, exist_ok=True)
    renames = bool(BY_RENAMING & set(_protocols(fs)))
    for name in names:
        target = f"{root}/{name}"
        if renames:
            temporary = f"{root}/.tmp-{name}"
            fs.put_file(str(folder / name), temporary)
            fs.mv(temporary, target)
        else:
            fs.put_file(str(folder / name), target)
    return names


def _withdraw(fs: Any, root: str, names: list[str]) -> None:
    """Take away the corpus that is there, manifest first; files that it does not name stay."""
    manifest = f"{root}/{MANIFEST}"
    if not fs.exists(manifest):
        return
    try:
        stale = [str(file["file"]) for file in json.loads(fs.cat_file(manifest))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{fs.unstrip_protocol(manifest)}: not a manifest of ours; give another --out") from error
    fs.rm_file(manifest)
    for name in stale:
        if name not in names and "/" not in name and fs.exists(f"{root}/{name}"):
            fs.rm_file(f"{root}/{name}")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
