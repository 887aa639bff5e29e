"""Writing files so that a reader never sees half of one.

Everything that codesieve writes gets a temporary name in its own folder first and is renamed when it is complete and
on disk; an interrupted run leaves at most temporary files, which `remove_temporary` sweeps at the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"
MARK = "fingerprint.json"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write in place of `path`; it replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill in place of `path`; it replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(temporary: Path, final: Path) -> None:
    """Put `temporary` in the place of `final`; what was there goes."""
    if final.exists():
        shutil.rmtree(final)
    temporary.replace(final)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as JSON with sorted keys, so that equal data gives equal bytes."""
    write_atomic(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The parsed file; a broken one is named.

    Raises:
        ValueError: if the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def mark_of(folder: Path) -> str | None:
    """The fingerprint that `write_mark` left in a finished folder, if any."""
    path = folder / MARK
    return str(read_json(path)["fingerprint"]) if path.exists() else None


def write_mark(folder: Path, fingerprint: str) -> None:
    """Mark a folder as finished, made from what `fingerprint` stands for."""
    write_json(folder / MARK, {"fingerprint": fingerprint})


def remove_temporary(folder: Path) -> None:
    """Delete what an interrupted run left anywhere below `folder`."""
    for path in sorted(folder.rglob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it may have been inside a folder that just went
