"""Grammars: `configs/syntax.yaml` made into parsers and queries, one of each per language and process.

The file says which node types of a tree-sitter grammar are functions, branches, comments and so on; `grammar` compiles
that into one query with a capture for each. A node type that the grammar does not have is an error that names language
and type, so that a new version of the grammars cannot silently measure nothing. Grammars load on first use (2–60 ms
each) and stay; trees never do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import Field, field_validator
from tree_sitter import Language, Parser, Query, QueryCursor, QueryError
from tree_sitter_language_pack import SupportedLanguage, get_language

from ...config import CONFIGS, Config, ConfigError, nearest, parse, read_yaml
from ..languages import languages

NODE_LISTS = ("functions", "classes", "branches", "calls", "imports", "comments", "strings", "visible_text")
"""Keys of a language in the file, which are the captures of its query."""

DOCSTRINGS = "docstrings"


class Hinted(Config):
    """A regular expression, and words of which every match holds at least one."""

    pattern: str
    hints: tuple[str, ...] = Field(min_length=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern.encode())
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class LanguageSyntax(Config):
    """One language in the file: node types by meaning; None where the language has no such thing."""

    grammar: str
    functions: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    branches: tuple[str, ...] | None = None
    calls: tuple[str, ...] | None = None
    imports: tuple[str, ...] | None = None
    comments: tuple[str, ...] | None = None
    strings: tuple[str, ...] | None = None
    visible_text: tuple[str, ...] | None = None
    docstrings: tuple[str, ...] | None = None
    identifiers: bool = False
    assertions: Hinted | None = None


class Retry(Config):
    """When to parse a document again as another language."""

    language: str
    extension: str
    as_: str = Field(alias="as")
    above: float = Field(gt=0, lt=1)


class SyntaxFile(Config):
    """The whole file."""

    placeholders: Hinted
    assertions: Hinted
    retry: Retry
    languages: dict[str, LanguageSyntax]


@dataclass(frozen=True)
class HintedPattern:
    """`Hinted`, compiled."""

    pattern: re.Pattern[bytes]
    hints: tuple[bytes, ...]


@dataclass(frozen=True)
class Grammar:
    """What is needed to measure documents of one language."""

    language: str
    parser: Parser
    cursor: QueryCursor
    captures: frozenset[str]
    keywords: frozenset[bytes]
    has_identifiers: bool
    assertions: HintedPattern
    placeholders: HintedPattern


@cache
def syntax_file() -> SyntaxFile:
    """The file that comes with codesieve."""
    return load_syntax(CONFIGS / "syntax.yaml")


@cache
def grammar(language: str) -> Grammar | None:
    """The grammar of a language, None if there is none in the file."""
    entry = syntax_file().languages.get(language)
    return None if entry is None else build_grammar(language, entry, syntax_file())


def load_syntax(path: Path) -> SyntaxFile:
    """The file at `path`; the node types are checked when a grammar is built.

    Raises:
        ConfigError: if it is not of the right form or names an unknown language.
    """
    file = parse(SyntaxFile, read_yaml(path), where=str(path))
    for language in (*file.languages, file.retry.language, file.retry.as_):
        if language not in languages():
            raise ConfigError(f'{path}: unknown language "{language}"{nearest(language, languages())}')
    return file


def build_grammar(language: str, entry: LanguageSyntax, file: SyntaxFile) -> Grammar:
    """Parser and query of one language.

    Raises:
        ConfigError: if the grammar or one of the node types does not exist, or a docstring pattern is wrong.
    """
    try:
        grammar_language: Language = get_language(cast(SupportedLanguage, entry.grammar))
    except LookupError as error:
        raise ConfigError(f'syntax.yaml: {language}: tree-sitter-language-pack has no "{entry.grammar}"') from error
    named = {
        kind
        for index in range(grammar_language.node_kind_count)
        if grammar_language.node_kind_is_named(index) and (kind := grammar_language.node_kind_for_id(index))
    }
    patterns = []
    captures = set()
    for capture in NODE_LISTS:
        kinds: tuple[str, ...] | None = getattr(entry, capture)
        if kinds is None:
            continue
        for kind in kinds:
            if kind not in named:
                raise ConfigError(
                    f'syntax.yaml: {language}: {capture}: grammar "{entry.grammar}" has no node type "{kind}"'
                    f"{nearest(kind, named)}"
                )
        captures.add(capture)
        patterns.append(f"[{' '.join(f'({kind})' for kind in kinds)}] @{capture}")
    if entry.docstrings:
        captures.add(DOCSTRINGS)
        patterns += entry.docstrings
    try:
        query = Query(grammar_language, "\n".join(patterns))
    except QueryError as error:
        raise ConfigError(f"syntax.yaml: {language}: {DOCSTRINGS}: {error}") from error
    return Grammar(
        language=language,
        parser=Parser(grammar_language),
        cursor=QueryCursor(query),
        captures=frozenset(captures),
        keywords=_keywords(grammar_language),
        has_identifiers=entry.identifiers,
        assertions=_compiled(entry.assertions or file.assertions),
        placeholders=_compiled(file.placeholders),
    )


def _compiled(hinted: Hinted) -> HintedPattern:
    return HintedPattern(re.compile(hinted.pattern.encode()), tuple(hint.encode() for hint in hinted.hints))


def _keywords(language: Language) -> frozenset[bytes]:
    """The grammar's own words: anonymous tokens that read like identifiers. Id 0 is the end of the file."""
    kinds = (
        language.node_kind_for_id(index)
        for index in range(1, language.node_kind_count)
        if language.node_kind_is_visible(index) and not language.node_kind_is_named(index)
    )
    return frozenset(kind.encode() for kind in kinds if kind and kind.isidentifier() and len(kind) > 1)
