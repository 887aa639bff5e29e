"""What a model answered and what a judge found, on disk as soon as it is known: one JSON line a result, append-only.

A record's key is a hash of all that decides the result (task and its data, item, prompt, settings, sample, model), so
a run that goes on finds its own answers, and another model, prompt or seed never meets them. Lines of one batch are
written in one go and flushed; a torn last line, as a killed process leaves it, is dropped when the file is opened
again. A line that is damaged otherwise is put aside, and what it recorded is asked again. One process at a time: the
file is locked while it is open.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..files import TEMPORARY
from ..strict import ConfigError

RECORDS_FILE = "records.jsonl"
ASIDE_FILE = "records.damaged.jsonl"


class Records:
    """An open store of records.

    Attributes:
        damaged: numbers of the lines that were no records; they are in `ASIDE_FILE` now.

    Raises:
        ConfigError: on opening, if another process has the file open.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / RECORDS_FILE
        self.damaged: tuple[int, ...] = ()
        self._file = _locked(self.path)
        try:
            self._found = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> Any | None:
        """The value of a key, or None."""
        return self._found.get(key)

    def put(self, keys: Sequence[str], values: Sequence[Mapping[str, Any]]) -> None:
        """Write records; known keys are left as they are.

        Raises:
            OSError: that names the file, if the disk is full; what was recorded before stays.
        """
        new = {key: dict(value) for key, value in zip(keys, values, strict=True) if key not in self._found}
        if not new:
            return
        lines = [json.dumps({"key": key, "value": value}, ensure_ascii=True) for key, value in new.items()]
        try:
            _write(self._file, ("\n".join(lines) + "\n").encode("ascii"))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._found |= new

    def _read(self) -> dict[str, Any]:
        # Through the open file: a lock of this kind ends when any other handle of the process to it is closed.
        self._file.seek(0)
        data = self._file.readall() or b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        found: dict[str, Any] = {}
        lines = data[:whole].split(b"\n")[:-1]
        bad = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                found[record["key"]] = record["value"]
            except (ValueError, KeyError, TypeError, RecursionError):
                bad.append(number)
        if bad:
            self._put_aside(lines, bad)
        return found

    def _put_aside(self, lines: Sequence[bytes], bad: Sequence[int]) -> None:
        """The bad lines into a file of their own first, then the others in place of all."""
        with (self.path.parent / ASIDE_FILE).open("ab", buffering=0) as aside:
            _write(aside, b"".join(lines[number - 1] + b"\n" for number in bad))
            os.fsync(aside.fileno())
        temporary = self.path.with_name(f"{TEMPORARY}{os.getpid()}-{self.path.name}")
        temporary.unlink(missing_ok=True)
        file = _locked(temporary)
        left = set(bad)
        _write(file, b"".join(line + b"\n" for number, line in enumerate(lines, start=1) if number not in left))
        os.fsync(file.fileno())
        temporary.replace(self.path)
        self._file.close()
        self._file = file
        self.damaged = tuple(bad)


def _locked(path: Path) -> FileIO:
    """The file, open for reading and appending, as long as no other process has it.

    A lock of the process (`lockf`), not of the open file: one that forked children inherit would outlive a killed run.
    """
    while True:
        file = path.open("a+b", buffering=0)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise ConfigError(
                f"{path}: another process is recording there; wait until it has ended, or give another --out"
            ) from error
        except OSError:
            return file  # a file system without locks
        try:
            is_same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except FileNotFoundError:
            is_same = False
        if is_same:
            return file
        file.close()  # it was replaced in between


def _write(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) or 0 :]
