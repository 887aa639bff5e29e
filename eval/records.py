"""What a model answered and what a judge found, on disk as soon as it is known: one JSON line a result, append-only.

A record's key is a hash of all that decides the result (task and its data, item, prompt, settings, sample, model), so
a run that goes on finds its own answers, and another model, prompt or seed never meets them. Lines of one batch are
written in one go and flushed; a torn last line, as a killed process leaves it, is dropped when the file is opened
again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

RECORDS_FILE = "records.jsonl"


class Records:
    """An open store of records.

    Raises:
        ValueError: on opening, if a line before the last is no record (the file was damaged or is another).
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / RECORDS_FILE
        self._found = self._read()
        self._file = self.path.open("ab", buffering=0)

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
        data = ("\n".join(lines) + "\n").encode("ascii")
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._found |= new

    def sync(self) -> None:
        """Wait until the disk has all."""
        os.fsync(self._file.fileno())

    def _read(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        found: dict[str, Any] = {}
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                record = json.loads(line)
                found[record["key"]] = record["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}: line {number} is no record; move the file away to start anew"
                ) from error
        if whole < len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return found
