"""Which language a file is in, and which stream that language belongs to.

`identify` takes a path and the first bytes and answers with Linguist's name in lower case: by file name, then by the
longest known extension (where several languages share it, the content decides), then by `#!` line, then by how the
content starts. `configs/languages.yaml` holds all of it as data; reading and checking it once a process costs
0.1 s, a call 2 µs, or up to 60 µs where content decides.

What cannot be named is `unknown` and of kind `markup`, like the other data formats: the code and text streams hold only
what is known to be code or text.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from ..config import Kind
from ..strict import CONFIGS, Config, ConfigError, nearest, parse, read_yaml

UNKNOWN = "unknown"
UNKNOWN_KIND: Kind = "markup"

HEAD_BYTES = 16_000
"""Content decides on this much: licence headers of 5 kB come before the first `class` in real C++ headers."""

_SHEBANG = re.compile(rb"#![ \t]*(\S+)[ \t]*([^\r\n]*)")
_VERSION = re.compile(r"[-\d.]+$")

Extension = Annotated[str, Field(pattern=r"^\.[^/A-Z]+$", description="with the dot, in lower case")]


class _Language(Config):
    kind: Kind
    extensions: tuple[Extension, ...] = ()
    names: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()


class _Choice(Config):
    language: str
    pattern: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern.encode(), re.MULTILINE)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class _File(Config):
    languages: dict[str, _Language]
    ambiguous: dict[Extension, tuple[_Choice, ...]]
    templates: tuple[Extension, ...]
    content: tuple[_Choice, ...]


_Rules = tuple[tuple[str, re.Pattern[bytes]], ...]
_NamePatterns = tuple[tuple[str, re.Pattern[str]], ...]


@dataclass(frozen=True)
class _Table:
    kinds: Mapping[str, Kind]
    extensions: Mapping[str, _Rules]
    names: Mapping[str, str]
    whole_names: _NamePatterns
    stems: _NamePatterns
    interpreters: Mapping[str, str]
    templates: tuple[str, ...]
    content: _Rules


def identify(path: str, head: bytes) -> str:
    """The language of a file, or `unknown`.

    Args:
        path: with `/`; only the last part counts.
        head: the first bytes of the file; up to `HEAD_BYTES` are looked at.
    """
    table = _table()
    head = head[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    name = path.rpartition("/")[2].lower()
    return (
        table.names.get(name)
        or _by_pattern(table.whole_names, name)
        or _by_extension(table, name, head)
        or _by_pattern(table.stems, name)
        or _by_interpreter(table, head)
        or _first_match(table.content, head)
        or UNKNOWN
    )


def kind_of(language: str) -> Kind:
    """The stream of a language; of `unknown` and languages outside the table it is `markup`."""
    return _table().kinds.get(language, UNKNOWN_KIND)


def languages() -> dict[str, Kind]:
    """All languages that `identify` can name, with their kind."""
    return dict(_table().kinds)


def load_languages(path: Path) -> _Table:
    """The table in the YAML file.

    Raises:
        ConfigError: if it is not of the right form, names an unknown language, or an extension, name or interpreter
            stands in two languages without a rule that decides.
    """
    file = parse(_File, read_yaml(path), where=str(path))
    for where, choices in (*file.ambiguous.items(), ("content", file.content)):
        for choice in choices:
            if choice.language not in file.languages:
                known = nearest(choice.language, file.languages)
                raise ConfigError(f'{path}: {where}: unknown language "{choice.language}"{known}')
    extensions = {one: _compiled(choices) for one, choices in file.ambiguous.items()}
    names: dict[str, str] = {}
    interpreters: dict[str, str] = {}
    anything = re.compile(b"")
    for language, entry in file.languages.items():
        for extension in entry.extensions:
            if extension in file.ambiguous:
                if language not in {choice.language for choice in file.ambiguous[extension]}:
                    raise ConfigError(f'{path}: "{language}" has {extension}, but no rule in `ambiguous` leads to it')
            elif extension in extensions:
                other = extensions[extension][0][0]
                raise ConfigError(f'{path}: {extension} is in "{other}" and "{language}"; decide under `ambiguous`')
            else:
                extensions[extension] = ((language, anything),)
        for what, values, into in (("name", entry.names, names), ("interpreter", entry.interpreters, interpreters)):
            for value in values:
                if into.setdefault(value, language) != language:
                    raise ConfigError(f'{path}: {what} "{value}" is in "{into[value]}" and "{language}"')
    return _Table(
        kinds={language: entry.kind for language, entry in file.languages.items()},
        extensions=extensions,
        names={name: language for name, language in names.items() if "*" not in name},
        # `requirements*.txt` knows better than `.txt`; `readme.*` leaves README.md to `.md`.
        whole_names=tuple(_globs((name, language) for name, language in names.items() if not name.endswith("*"))),
        stems=tuple(_globs((name, language) for name, language in names.items() if name.endswith("*"))),
        interpreters=interpreters,
        templates=file.templates,
        content=_compiled(file.content),
    )


@cache
def _table() -> _Table:
    return load_languages(CONFIGS / "languages.yaml")


def _compiled(choices: tuple[_Choice, ...]) -> _Rules:
    return tuple((choice.language, re.compile(choice.pattern.encode(), re.MULTILINE)) for choice in choices)


def _globs(names: Iterable[tuple[str, str]]) -> Iterator[tuple[str, re.Pattern[str]]]:
    return ((language, re.compile(fnmatch.translate(name))) for name, language in names if "*" in name)


def _by_pattern(patterns: _NamePatterns, name: str) -> str | None:
    return next((language for language, pattern in patterns if pattern.match(name)), None)


def _by_extension(table: _Table, name: str, head: bytes) -> str | None:
    dot = name.find(".", 1)
    while dot != -1:
        rules = table.extensions.get(name[dot:])
        if rules:
            return _first_match(rules, head)
        if name[dot:] in table.templates:
            inner = name[:dot]
            return table.names.get(inner) or _by_extension(table, inner, head)
        dot = name.find(".", dot + 1)
    return None


def _by_interpreter(table: _Table, head: bytes) -> str | None:
    """From `#!/usr/bin/python3.11`, `#!/usr/bin/env -S node --flag`, `#!/usr/bin/env X=1 bash`."""
    match = _SHEBANG.match(head)
    if not match:
        return None
    program, arguments = (part.decode("latin-1") for part in match.groups())
    words = [program.rpartition("/")[2]]
    if words == ["env"]:
        words = [word for word in arguments.split() if not word.startswith("-") and "=" not in word] or [""]
    program = words[0].rpartition("/")[2].lower()
    return table.interpreters.get(program) or table.interpreters.get(_VERSION.sub("", program))


def _first_match(rules: _Rules, head: bytes) -> str | None:
    return next((language for language, pattern in rules if pattern.search(head)), None)
