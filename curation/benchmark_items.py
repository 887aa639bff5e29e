"""Items of benchmarks as passages: the texts that no training document should hold.

In: JSONL (also .gz, .zst, .bz2) or Parquet, one item a row, in any layout: every field that holds text is a passage of
its own (prompt, solution, tests …), nested ones too, because a document may hold one without the others. A field of
fewer tokens than two n-grams says too little by itself: among 17,652 files of the standard library and of installed
packages, the only ones that held a field of HumanEval, MBPP or our own problems held Euclid's algorithm or the rule for
leap years, in 14 and 23 tokens. An item that has only such fields is one passage, all of them in a row. Equal passages
of several items or files are one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ..strict import CONFIGS, ConfigError, nearest
from .sources.sources import BESIDE_CONFIGS

LABELS = ("task_id", "id", "name", "item_id", "native_id", "question_id")
"""Fields that name an item, the first that is there; without one the row's number does."""

NO_EVIDENCE = (*LABELS, "entry_point")
TABLES = (".parquet",)
LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2")

MIN_TOKENS = 8
"""An item of fewer tokens is no evidence (`return x + y` has four); DeepSeek-Coder (arXiv:2401.14196) stops at three
words. Such items are counted, not searched for."""


@dataclass(frozen=True)
class Passage:
    """A text and the items (`file#item`) that hold it."""

    text: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Items:
    """All passages of all files, how many items each file has, and how many are too short to be evidence."""

    passages: tuple[Passage, ...]
    files: Mapping[str, int]
    too_short: int


def read_items(against: Sequence[str], columns: Sequence[str], ngram: int) -> Items:
    """Read the items of all files and folders in `against`.

    Raises:
        ConfigError: a missing file, one that cannot be read, or one without text in `columns`.
    """
    from .dedup.matches import count_tokens

    labels = _labels(item_files(against))
    by_text: dict[str, dict[str, None]] = {}
    files: dict[str, int] = {}
    too_short = 0
    for path, file in labels.items():
        has_text = False
        for number, row in enumerate(_rows(path), start=1):
            files[file] = number
            texts = list(_chosen(row, columns).values())
            has_text |= bool(texts)
            long = [text for text in texts if count_tokens(text) >= 2 * ngram] or ["\n".join(texts)]
            if count_tokens(long[0]) < MIN_TOKENS:
                too_short += 1
                continue
            label = next((str(row[key]) for key in LABELS if row.get(key) is not None), str(number))
            for text in long:
                by_text.setdefault(text, {})[f"{file}#{label}"] = None
        if not has_text:
            wanted = f"in the columns {', '.join(columns)}" if columns else "in any column"
            raise ConfigError(f"decontaminate: {path}: no text {wanted}{_hint(path, columns)}")
    return Items(tuple(Passage(text, tuple(items)) for text, items in by_text.items()), files, too_short)


def item_files(against: Sequence[str]) -> list[Path]:
    """The files that `against` names, folders opened.

    Raises:
        ConfigError: if it names nothing, or something that is no such file or folder.
    """
    if not against:
        raise ConfigError("decontaminate: against: names no file; give files or folders of benchmark items")
    return [path for name in against for path in _paths(name)]


def _paths(name: str) -> list[Path]:
    path = CONFIGS / name.removeprefix(BESIDE_CONFIGS) if name.startswith(BESIDE_CONFIGS) else Path(name).expanduser()
    endings = (*LINES, *TABLES)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.name.endswith(endings) and file.is_file())
        if not found:
            raise ConfigError(f"decontaminate: against: {path}: no file that ends in {', '.join(endings)}")
        return found
    if not path.is_file():
        raise ConfigError(f"decontaminate: against: {path}: no such file")
    if not path.name.endswith(endings):
        raise ConfigError(f"decontaminate: against: {path}: must end in {', '.join(endings)}")
    return [path]


def _labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Path → its name, with the folder in front where two files share one."""
    unique = list(dict.fromkeys(path.resolve() for path in paths))
    names = [path.name for path in unique]
    return {p: p.name if names.count(p.name) == 1 else f"{p.parent.name}/{p.name}" for p in unique}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.name.endswith(TABLES):
            yield from pl.read_parquet(path).iter_rows(named=True)
            return
        with pa.input_stream(str(path), compression="detect") as stream:
            text = stream.read().decode("utf-8")
    except (OSError, UnicodeDecodeError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"decontaminate: {path}: cannot be read: {str(error).splitlines()[0]}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"decontaminate: {path}, line {number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"decontaminate: {path}, line {number}: expected an object, got {line[:40]!r}")
        yield row


def _chosen(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    texts = dict(_texts(row, ""))
    if columns:
        return {name: texts[name] for name in columns if name in texts}
    return {name: text for name, text in texts.items() if name.rpartition(".")[2] not in NO_EVIDENCE}


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Dotted name and text of every field below; a list of texts is one text, one a line."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and all(isinstance(inner, str) for inner in value):
        yield name, "\n".join(value)


def _hint(path: Path, columns: Sequence[str]) -> str:
    row = next(_rows(path), {})
    known = [name for name, _ in _texts(row, "")]
    if not known:
        return ""
    return f"; known: {', '.join(known)}" + (nearest(columns[0], known) if columns else "")
