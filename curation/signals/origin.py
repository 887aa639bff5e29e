"""Origin signals: who or what made a document, and what for; from its path, its first lines and its literals.

Comes in: text, path, language and a few text signals. Goes out: statements (`is_generated`, `is_test`, …), amounts of
encoded data and of number literals, and `content_type`, which names the first that applies and is the stratum beside
language in which scores are ranked. `configs/origin.yaml` holds names, folders and phrases as data.

Price: 1.5 ns a byte for encoded data, and 30 µs a document. What names and folders say is remembered, and phrases are
tried only where one of their hints is in the head.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from ...strict import CONFIGS, Config, ConfigError, nearest, parse, read_yaml
from ..buffers import utf8
from ..languages import UNKNOWN, kind_of, languages
from ..steps import STEP_ERRORS, map_documents
from .encoded import load, measure_batch
from .signal import Signal, dtypes

CONTENT_TYPES = (
    "generated",
    "vendored",
    "data",
    "test",
    "example",
    "config",
    "documentation",
    "script",
    "library",
)
"""In order of precedence: `content_type` is the first that applies."""

XML_HEAD = 100
"""StarCoder looks for an XML declaration in the first 100 characters."""

HEAD_BYTES = 2_000
"""No phrase stands further in, however long the first lines are."""

REMEMBERED = 65_536
"""Folders and file names whose statements are kept: they repeat, and files come in path order."""


def _origin(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str, source: str) -> Signal:
    return Signal(name, dtype, unit, values, meaning, source, "origin")


_LINGUIST = "Linguist (generated.rb, vendor.yml)"

ORIGIN_SIGNALS: tuple[Signal, ...] = (
    _origin(
        "is_generated",
        pl.Boolean(),
        "statement",
        "true | false",
        "a marker phrase in the first 5 lines, or a name or folder that tools write",
        f"Stack v2 section 3.3; Aryabumi 2024 App. A.1; {_LINGUIST}",
    ),
    _origin("is_vendored", pl.Boolean(), "statement", "true | false", "a copy inside another project", _LINGUIST),
    _origin(
        "is_minified",
        pl.Boolean(),
        "statement",
        "true | false",
        "by name, or a script or style sheet with a mean line over 110 characters",
        _LINGUIST,
    ),
    _origin("is_test", pl.Boolean(), "statement", "true | false", "by name or folder", "data-prep-kit; own"),
    _origin("is_example", pl.Boolean(), "statement", "true | false", "by name or folder", "own"),
    _origin("is_config", pl.Boolean(), "statement", "true | false", "settings and builds", "data-prep-kit; own"),
    _origin("is_documentation", pl.Boolean(), "statement", "true | false", "by language, name or folder", "own"),
    _origin(
        "is_data",
        pl.Boolean(),
        "statement",
        "true | false",
        "a data format that is no settings file, or 40 % of the visible characters are digits",
        "own; OpenCoder's document types",
    ),
    _origin(
        "has_xml_declaration",
        pl.Boolean(),
        "statement",
        "true | false",
        f"<?xml in the first {XML_HEAD} bytes; speaks against other languages",
        "StarCoder; OpenCoder",
    ),
    _origin(
        "longest_encoded_run",
        pl.UInt32(),
        "bytes",
        "0 and up",
        "base64, hexadecimal, escapes or byte lists; joined over lines",
        "Stack v2 section 3.3 (over 1024)",
    ),
    _origin("encoded_fraction", pl.Float64(), "of bytes", "0..1", "in such runs", "Stack v2 section 3.3 (over 0.5)"),
    _origin("hexadecimal_literal_count", pl.UInt32(), "literals", "0 and up", "0x…", "Aryabumi 2024 App. A.1"),
    _origin(
        "float_literal_count",
        pl.UInt32(),
        "literals",
        "0 and up",
        "digit, point, digit; 1e5 and 1. are not counted, 1.2.3 once",
        "Aryabumi 2024 App. A.1",
    ),
    _origin(
        "is_build",
        pl.Boolean(),
        "statement",
        "true | false",
        "says how a project is built, packaged or tested: Makefile, CMakeLists.txt, setup.py, pom.xml, Dockerfile",
        "data-prep-kit; own",
    ),
    _origin(
        "is_lock_file", pl.Boolean(), "statement", "true | false", "pinned dependencies that a tool wrote", _LINGUIST
    ),
    _origin(
        "is_template",
        pl.Boolean(),
        "statement",
        "true | false",
        "text with holes for a template engine: by name or folder, or by directives in the head of what is no code",
        "own",
    ),
    _origin("content_type", pl.String(), "name", " | ".join(CONTENT_TYPES), "the first that applies", "own"),
)


class _Marks(Config):
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


class _Phrases(_Marks):
    hints: tuple[str, ...]
    phrases: tuple[str, ...]

    @field_validator("phrases")
    @classmethod
    def _compile(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        for phrase in phrases:
            try:
                re.compile(phrase)
            except re.error as error:
                raise ValueError(f"{phrase}: not a regular expression: {error}") from error
        return phrases


class _Minified(_Marks):
    mean_line_length: int


class _Data(_Marks):
    visible_digits: float = Field(gt=0, le=1)


class _File(Config):
    head_lines: int = Field(gt=0)
    generated: _Phrases
    vendored: _Marks
    minified: _Minified
    test: _Marks
    example: _Marks
    config: _Marks
    documentation: _Marks
    data: _Data
    script: _Marks
    build: _Marks
    lock_file: _Marks
    template: _Phrases


class _Table:
    """The file, compiled: what a name, a folder and a language say, as the sections that they speak for."""

    def __init__(self, file: _File):
        self.file = file
        marks = [(section, value) for section, value in file if isinstance(value, _Marks)]
        self._names = _Names([(pattern, section) for section, value in marks for pattern in value.names])
        self._folders = _Names([(pattern, section) for section, value in marks for pattern in value.folders])
        self._languages = _inverted((language, section) for section, value in marks for language in value.languages)
        self._phrases = {
            section: (
                tuple(hint.encode() for hint in value.hints),
                re.compile("|".join(f"(?:{phrase})" for phrase in value.phrases), re.I | re.M),
            )
            for section, value in marks
            if isinstance(value, _Phrases)
        }
        self.by_name = lru_cache(REMEMBERED)(self._names.sections)
        self.by_folders = lru_cache(REMEMBERED)(self._by_folders)

    def by_language(self, language: str) -> frozenset[str]:
        """Sections that the language speaks for."""
        return self._languages.get(language, frozenset())

    def has_phrase(self, section: str, lowered: bytes, head: bytes) -> bool:
        """Whether one of the section's phrases is in `head`; `lowered` is the same in lower case."""
        hints, phrases = self._phrases[section]
        return any(hint in lowered for hint in hints) and phrases.search(head.decode("utf-8", "replace")) is not None

    def _by_folders(self, folders: str) -> frozenset[str]:
        """Sections that any of the folders, joined by `/`, speaks for."""
        return frozenset().union(*(self._folders.sections(folder) for folder in folders.split("/")))


class _Names:
    """Patterns by their form: whole names in a dictionary, the others in one expression."""

    def __init__(self, patterns: Sequence[tuple[str, str]]):
        self._whole = _inverted((pattern, section) for pattern, section in patterns if "*" not in pattern)
        globs = [(pattern, section) for pattern, section in patterns if "*" in pattern]
        self._any = re.compile("|".join(fnmatch.translate(pattern) for pattern, _ in globs) or r"(?!)")
        self._globs = [(re.compile(fnmatch.translate(pattern)), section) for pattern, section in globs]

    def sections(self, name: str) -> frozenset[str]:
        """Sections that a name speaks for."""
        said = self._whole.get(name, frozenset())
        if self._any.match(name):
            said |= {section for pattern, section in self._globs if pattern.match(name)}
        return said


def _inverted(pairs: Iterator[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for key, section in pairs:
        found[key] = found.get(key, frozenset()) | {section}
    return found


class OriginSignals:
    """Step: adds `ORIGIN_SIGNALS`."""

    name = "origin"
    requires: tuple[str, ...] = (
        "text",
        "path",
        "language",
        "mean_line_length",
        "digit_fraction",
        "whitespace_fraction",
    )
    provides: Mapping[str, pl.DataType] = dtypes(ORIGIN_SIGNALS)

    def setup(self) -> None:
        """Load the table and the kernel."""
        _table()
        load()

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the origin columns."""
        data, offsets = utf8(batch["text"])
        longest, total, hexadecimals, floats = measure_batch(data, offsets)
        sizes = np.diff(offsets)
        view, bounds = data.data, offsets.tolist()
        heads = [bytes(view[start : min(start + HEAD_BYTES, end)]) for start, end in itertools.pairwise(bounds)]
        inputs = batch.select(pl.Series("head", heads, dtype=pl.Binary), *self.requires[1:])
        if STEP_ERRORS in batch.columns:
            inputs = inputs.with_columns(batch[STEP_ERRORS])
        said = map_documents(inputs, self.name, measure_origin, inputs.columns[:6], _STATEMENTS)
        share = pl.Series("encoded_fraction", total / np.maximum(sizes, 1)).set(pl.Series(sizes == 0), None)
        columns = {
            "longest_encoded_run": pl.Series("longest_encoded_run", longest, dtype=pl.UInt32),
            "encoded_fraction": share,
            "hexadecimal_literal_count": pl.Series("hexadecimal_literal_count", hexadecimals, dtype=pl.UInt32),
            "float_literal_count": pl.Series("float_literal_count", floats, dtype=pl.UInt32),
        }
        return batch.with_columns(
            *(columns[name] if name in columns else said[name] for name in self.provides), said[STEP_ERRORS]
        )


_ENCODED = ("longest_encoded_run", "encoded_fraction", "hexadecimal_literal_count", "float_literal_count")
_STATEMENTS = {name: dtype for name, dtype in OriginSignals.provides.items() if name not in _ENCODED}


def measure_origin(
    head: bytes,
    path: str,
    language: str,
    mean_line_length: float | None,
    digit_fraction: float | None,
    whitespace_fraction: float | None,
) -> tuple[bool | str, ...]:
    """What path, language, the first `HEAD_BYTES` and a few numbers say of one document, in the order of the table."""
    table = _table()
    folders, _, name = path.lower().rpartition("/")
    named = table.by_name(name)
    by_path = named | table.by_folders(folders)
    by_language = table.by_language(language)
    said = by_path | by_language
    is_code = kind_of(language) == "code"
    visible = 1 - (whitespace_fraction or 0.0)
    is_config = "config" in said
    lowered = head.lower()
    first = _lines(head, table.file.head_lines)
    says = {
        "generated": "generated" in by_path or table.has_phrase("generated", lowered[:first], head[:first]),
        "vendored": "vendored" in by_path,
        "data": ("data" in by_language and not is_config)
        or (visible > 0 and (digit_fraction or 0.0) / visible >= table.file.data.visible_digits),
        "test": "test" in by_path,
        "example": "example" in by_path,
        "config": is_config,
        "documentation": "documentation" in by_language or (not is_code and "documentation" in by_path),
        "script": head.startswith(b"#!") or "script" in by_language,
        "library": True,
    }
    is_minified = "minified" in named or (
        "minified" in by_language and (mean_line_length or 0.0) > table.file.minified.mean_line_length
    )
    return (
        says["generated"],
        says["vendored"],
        is_minified,
        says["test"],
        says["example"],
        is_config,
        says["documentation"],
        says["data"],
        b"<?xml" in head[:XML_HEAD],
        "build" in said,
        "lock_file" in by_path,
        "template" in said or (not is_code and table.has_phrase("template", lowered, head)),
        next(kind for kind in CONTENT_TYPES if says[kind]),
    )


def _lines(head: bytes, count: int) -> int:
    """Where the first `count` lines end."""
    end = 0
    for _ in range(count):
        end = head.find(b"\n", end) + 1
        if end == 0:
            return len(head)
    return end - 1


def load_origin(path: Path) -> _Table:
    """The table in the YAML file.

    Raises:
        ConfigError: if it is not of the right form or names an unknown language.
    """
    file = parse(_File, read_yaml(path), where=str(path))
    known = {*languages(), UNKNOWN}
    for section, marks in file:
        for language in marks.languages if isinstance(marks, _Marks) else ():
            if language not in known:
                raise ConfigError(f'{path}: {section}: unknown language "{language}"{nearest(language, known)}')
    return _Table(file)


@cache
def _table() -> _Table:
    return load_origin(CONFIGS / "origin.yaml")
