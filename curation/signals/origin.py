"""Origin signals: who or what made a document, and what for; from its path, its first lines and its literals.

Comes in: text, path, language and a few text signals. Goes out: statements (`is_generated`, `is_test`, …), amounts of
encoded data and of number literals, and `content_type`, which names the first that applies and is the stratum beside
language in which scores are ranked. `configs/origin.yaml` holds names, folders and phrases as data.

Price: a fifteenth of a bare parse (110 MB/s a core).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import polars as pl
from pydantic import Field, field_validator

from ...config import CONFIGS, Config, ConfigError, nearest, parse, read_yaml
from ..languages import UNKNOWN, kind_of, languages
from ..steps import map_documents
from .encoded import measure_encoded
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

_ANY_DIGIT = bytes.maketrans(b"123456789", b"000000000")
# The boundary is looked for behind the 0: a search for a pattern that starts with a literal is many times as fast.
_HEXADECIMAL = re.compile(rb"0(?<!\w0)[xX][0-9a-fA-F]+")


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
    _origin("content_type", pl.String(), "name", " | ".join(CONTENT_TYPES), "the first that applies", "own"),
)


class _Marks(Config):
    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


class _Generated(_Marks):
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
    generated: _Generated
    vendored: _Marks
    minified: _Minified
    test: _Marks
    example: _Marks
    config: _Marks
    documentation: _Marks
    data: _Data
    script: _Marks


class _Table:
    """The file, compiled."""

    def __init__(self, file: _File):
        self.file = file
        self.phrases = re.compile("|".join(f"(?:{phrase})" for phrase in file.generated.phrases), re.I | re.M)
        self._marks = {
            name: (
                re.compile("|".join(fnmatch.translate(pattern) for pattern in marks.names) or r"(?!)"),
                frozenset(marks.folders),
                frozenset(marks.languages),
            )
            for name, marks in file
            if isinstance(marks, _Marks)
        }

    def has_phrase(self, data: bytes) -> bool:
        """Whether one of the first lines says that it was generated."""
        lines = data[:HEAD_BYTES].decode("utf-8", "replace").split("\n", self.file.head_lines)
        head = "\n".join(lines[: self.file.head_lines])
        lowered = head.lower()
        return any(hint in lowered for hint in self.file.generated.hints) and self.phrases.search(head) is not None

    def by_path(self, what: str, name: str, folders: set[str]) -> bool:
        """Whether the file's name or one of its folders says so."""
        names, wanted, _ = self._marks[what]
        return not wanted.isdisjoint(folders) or names.match(name) is not None

    def by_language(self, what: str, language: str) -> bool:
        """Whether the language says so."""
        return language in self._marks[what][2]


class OriginSignals:
    """Step: adds `ORIGIN_SIGNALS`."""

    name = "origin"
    requires: tuple[str, ...] = (
        "text",
        "path",
        "language",
        "mean_line_length",
        "longest_token_length",
        "digit_fraction",
        "whitespace_fraction",
    )
    provides: Mapping[str, pl.DataType] = dtypes(ORIGIN_SIGNALS)

    def setup(self) -> None:
        """Load the table."""
        _table()

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the origin columns."""
        as_bytes = batch.with_columns(pl.col("text").cast(pl.Binary))
        measured = map_documents(as_bytes, self.name, measure_origin, self.requires, self.provides)
        return measured.with_columns(batch["text"])


def measure_origin(
    data: bytes,
    path: str,
    language: str,
    mean_line_length: float | None,
    longest_token_length: int,
    digit_fraction: float | None,
    whitespace_fraction: float | None,
) -> tuple[bool | int | float | str | None, ...]:
    """The values of `ORIGIN_SIGNALS` for one document, in that order."""
    table = _table()
    *parts, name = path.lower().split("/")
    folders = set(parts)
    visible = 1 - (whitespace_fraction or 0.0)
    is_config = table.by_path("config", name, folders) or table.by_language("config", language)
    says = {
        "generated": table.by_path("generated", name, folders) or table.has_phrase(data),
        "vendored": table.by_path("vendored", name, folders),
        "data": (table.by_language("data", language) and not is_config)
        or (visible > 0 and (digit_fraction or 0.0) / visible >= table.file.data.visible_digits),
        "test": table.by_path("test", name, folders),
        "example": table.by_path("example", name, folders),
        "config": is_config,
        "documentation": table.by_language("documentation", language)
        or (kind_of(language) != "code" and table.by_path("documentation", name, folders)),
        "script": data.startswith(b"#!") or table.by_language("script", language),
        "library": True,
    }
    is_minified = table.by_path("minified", name, set()) or (
        table.by_language("minified", language) and (mean_line_length or 0.0) > table.file.minified.mean_line_length
    )
    hexadecimals, floats = _literals(data)
    encoded = measure_encoded(data, longest_token_length, hexadecimals)
    return (
        says["generated"],
        says["vendored"],
        is_minified,
        says["test"],
        says["example"],
        is_config,
        says["documentation"],
        says["data"],
        b"<?xml" in data[:XML_HEAD],
        encoded.longest,
        encoded.total / len(data) if data else None,
        hexadecimals,
        floats,
        next(kind for kind in CONTENT_TYPES if says[kind]),
    )


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


def _literals(data: bytes) -> tuple[int, int]:
    """How many hexadecimal and float literals."""
    return sum(1 for _ in _HEXADECIMAL.finditer(data)), data.translate(_ANY_DIGIT).count(b"0.0")
