"""The rows of a task's data file: found, verified by its published hash, read, and loud about damage.

In: the names under which a file is known, and the files and folders that the user names. Out: rows with the place of
each, for messages. A file is looked for beside the task's YAML first, then in each folder down to two levels, then
among the files given by themselves. Nothing is downloaded here; see `fetch.py`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...strict import ConfigError
from .schema import DataConfig

LEVELS = ("", "*/", "*/*/")
"""How deep a folder is searched."""

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Row:
    """A row and where it stands, as `file: line 3`."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """A data file.

    Attributes:
        sha256: of its bytes as they lie on disk.
        verified: is it the published file? None: no hash is known for one of this name. False: it has the name of a
            published one whose hash is another.
    """

    path: Path
    sha256: str
    verified: bool | None


class NotFound(ConfigError):
    """The file is nowhere; the message says where it was looked for."""


def find(
    config: DataConfig, names: Sequence[str], own: Path, data: Sequence[Path], strangers: Callable[[], frozenset[str]]
) -> Path:
    """The file of one of `names`.

    Args:
        config: for the hashes that decide between several files.
        names: in order of preference.
        own: folder of the task's YAML.
        data: files, or folders of files.
        strangers: names of other tasks' files; a file given by itself that is named so is theirs.

    Raises:
        NotFound: if there is none.
        ConfigError: if a path does not exist, or two different files have the name.
    """
    for path in data:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
    if found := _in_folder(config, names, own, LEVELS[:1]):
        return found
    for folder in (path for path in data if path.is_dir()):
        if found := _in_folder(config, names, folder, LEVELS):
            return found
    given = [path for path in data if path.is_file()]
    for name in names:
        if named := [path for path in given if path.name == name]:
            return _only(config, named)
    free = [path for path in given if path.name not in strangers()] if given else []
    if len(free) == 1:
        return free[0]
    if free:
        raise ConfigError(
            f"which of {', '.join(str(path) for path in free)} is it? Name the file {names[0]}, or give it alone"
        )
    looked = ", ".join(str(path) for path in (own, *data))
    raise NotFound(f"no file named {' or '.join(names)} in {looked}")


def identify(config: DataConfig, path: Path) -> Found:
    """The file with its hash."""
    digest = hashlib.sha256(_bytes(path)).hexdigest()
    if digest in config.sha256.values():
        return Found(path, digest, True)
    return Found(path, digest, False if path.name in config.sha256 else None)


def read(path: Path) -> list[Row]:
    """All rows of a file; its name says of what form it is.

    Raises:
        ConfigError: if it is empty, damaged or of no known form; with the line.
    """
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in READERS:
        raise ConfigError(f"{path}: of no known form; known: {', '.join(READERS)}, each also with .gz")
    raw = _bytes(path)
    if path.name.endswith(".gz") or raw.startswith(GZIP_MAGIC):
        raw = _unzipped(raw, path)
    if not raw.strip():
        raise ConfigError(f"{path}: the file is empty")
    rows = READERS[suffix](raw, path)
    if not rows:
        raise ConfigError(f"{path}: no rows")
    return rows


def _in_folder(config: DataConfig, names: Sequence[str], folder: Path, levels: Sequence[str]) -> Path | None:
    for name in names:
        for level in levels:
            if found := sorted(path for path in folder.glob(level + name) if path.is_file()):
                return _only(config, found)
    return None


def _only(config: DataConfig, paths: Sequence[Path]) -> Path:
    """The first of files that are all the same, or the published one."""
    if len(paths) > 1:
        found = [identify(config, path) for path in paths]
        if verified := [each.path for each in found if each.verified]:
            return verified[0]
        if len({each.sha256 for each in found}) > 1:
            raise ConfigError(f"{', '.join(map(str, paths))}: different files of one name; give the one that is meant")
    return paths[0]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _unzipped(raw: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: broken gzip file: {error}") from error


def _text(raw: bytes, path: Path) -> str:
    if b"\0" in raw:
        raise ConfigError(f"{path}: line {_line(raw, raw.index(0))}: a NUL byte: this is no text file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line(raw, error.start)
        raise ConfigError(f"{path}: line {line}: not valid UTF-8 (byte 0x{error.object[error.start]:02x})") from error


def _line(raw: bytes, position: int) -> int:
    return raw.count(b"\n", 0, position) + 1


def _jsonl(raw: bytes, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_text(raw, path).split("\n"), start=1):
        if line.strip():
            where = f"{path}: line {number}"
            rows.append(Row(where, _mapping(_parsed(line, where), where)))
    return rows


def _json(raw: bytes, path: Path) -> list[Row]:
    """A list of rows, or an object that holds one under the only key that leads to a list (`data`, `Data`, …)."""
    data = _parsed(_text(raw, path), str(path))
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        if len(lists) != 1:
            raise ConfigError(f"{path}: expected a list of objects, or an object with one list")
        data = lists[0]
    if not isinstance(data, list):
        raise ConfigError(f"{path}: expected a list of objects (got {type(data).__name__})")
    places = [f"{path}: entry {number}" for number in range(1, len(data) + 1)]
    return [Row(where, _mapping(value, where)) for where, value in zip(places, data, strict=True)]


def _csv(raw: bytes, path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_text(raw, path), newline=""), strict=True)
    rows = []
    try:
        for values in reader:
            if None in values or None in values.values():
                raise ConfigError(f"{path}: line {reader.line_num}: another number of cells than in the head")
            rows.append(Row(f"{path}: line {reader.line_num}", values))
    except csv.Error as error:
        raise ConfigError(f"{path}: line {reader.line_num}: {error}") from error
    return rows


def _parquet(raw: bytes, path: Path) -> list[Row]:
    import polars as pl

    try:
        values = pl.read_parquet(io.BytesIO(raw)).to_dicts()
    except Exception as error:  # polars has several kinds, some of them not its own
        raise ConfigError(f"{path}: not a readable Parquet file: {error}") from error
    return [Row(f"{path}: row {number}", each) for number, each in enumerate(values, start=1)]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object (got {type(value).__name__})")
    return value


READERS: dict[str, Callable[[bytes, Path], list[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": _csv,
}
