"""Grammars: `configs/syntax.yaml` made into parsers and queries, one of each per language and process.

The file says which node types of a tree-sitter grammar are functions, branches, comments and so on; `grammar` compiles
that into one query with a capture for each. A node type that the grammar does not have is an error that names language
and type, so that a new version of the grammars cannot silently measure nothing. Grammars load on first use (2–60 ms
each) and stay; trees never do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tree_sitter import Language, Parser, Query, QueryCursor, QueryError
from tree_sitter_language_pack import SupportedLanguage, get_language

from ...strict import CONFIGS, Config, ConfigError, nearest, parse, read_yaml
from ..languages import languages

NODE_LISTS = (
    "functions",
    "classes",
    "branches",
    "operators",
    "calls",
    "imports",
    "comments",
    "strings",
    "visible_text",
)
"""Keys of a language in the file, which are the captures of its query."""

DOCSTRINGS = "docstrings"


class LanguageSyntax(Config):
    """One language in the file: node types by meaning, words and signs; None or false where it has no such thing."""

    grammar: str
    functions: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    branches: tuple[str, ...] | None = None
    operators: tuple[str, ...] | None = None
    calls: tuple[str, ...] | None = None
    imports: tuple[str, ...] | None = None
    comments: tuple[str, ...] | None = None
    strings: tuple[str, ...] | None = None
    visible_text: tuple[str, ...] | None = None
    docstrings: tuple[str, ...] | None = None
    identifiers: bool = False
    any_case: bool = False
    keywords: str = ""
    assertions: tuple[str, ...] | None = None
    prints: tuple[str, ...] | None = None
    assignments: tuple[Literal["=", ":=", "<-", "<="], ...] | None = None
    equals: tuple[Literal["named_arguments", "no_space_before", "no_signs_around"], ...] = ()
    returns: bool = False
    passes: bool = False
    mains: bool = False
    preprocessor: bool = False
    bodies: Literal["braces", "indented"] | None = None


class Retry(Config):
    """When to parse a document again as another language."""

    language: str
    extension: str
    as_: str = Field(alias="as")
    above: float = Field(gt=0, lt=1)


class SyntaxFile(Config):
    """The whole file."""

    placeholders: tuple[str, ...] = Field(min_length=1)
    assertions: tuple[str, ...] = Field(min_length=1)
    values: str
    single_statements: str
    retry: Retry
    languages: dict[str, LanguageSyntax]


@dataclass(frozen=True)
class Patterns:
    """Words and phrases as the kernels read them: all bytes, rows of (begin, end, what follows, kind), first bytes."""

    blob: NDArray[np.uint8]
    rows: NDArray[np.int64]
    begins: NDArray[np.bool_]


@dataclass(frozen=True)
class Words:
    """The words of a language as the kernels read them: hashes with flags, patterns, and its style of assignment."""

    keys: NDArray[np.uint64]
    flags: NDArray[np.int64]
    patterns: Patterns
    placeholders: Patterns
    style: int


@dataclass(frozen=True)
class Grammar:
    """What is needed to measure documents of one language."""

    language: str
    entry: LanguageSyntax
    parser: Parser
    cursor: QueryCursor
    captures: frozenset[str]
    keywords: frozenset[bytes]
    words: Words
    assertions: tuple[str, ...]


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
            if "#" in kind:
                raise ConfigError(f"syntax.yaml: {language}: {capture}: predicates crash the binding: {kind}")
            if not kind.startswith("(") and kind not in named:
                raise ConfigError(
                    f'syntax.yaml: {language}: {capture}: grammar "{entry.grammar}" has no node type "{kind}"'
                    f"{nearest(kind, named)}"
                )
        captures.add(capture)
        patterns += [f"{kind} @{capture}" for kind in kinds if kind.startswith("(")]
        plain = " ".join(f"({kind})" for kind in kinds if not kind.startswith("("))
        patterns += [f"[{plain}] @{capture}"] if plain else []
    if entry.docstrings:
        captures.add(DOCSTRINGS)
        patterns += entry.docstrings
    try:
        query = Query(grammar_language, "\n".join(patterns))
    except QueryError as error:
        raise ConfigError(f"syntax.yaml: {language}: {DOCSTRINGS} or another pattern: {error}") from error
    keywords = _keywords(grammar_language) | {word.encode() for word in entry.keywords.split()}
    assertions = file.assertions if entry.assertions is None else entry.assertions
    return Grammar(
        language=language,
        entry=entry,
        parser=Parser(grammar_language),
        cursor=QueryCursor(query),
        captures=frozenset(captures),
        keywords=keywords,
        words=_words(entry, file, keywords, assertions),
        assertions=assertions,
    )


def _words(entry: LanguageSyntax, file: SyntaxFile, keywords: frozenset[bytes], assertions: tuple[str, ...]) -> Words:
    from .kernels import code
    from .kernels.hashing import hash_table

    flags: dict[bytes, int] = {}
    known = (
        (keywords, code.KEYWORD),
        ([b"return"] if entry.returns else [], code.RETURN),
        ([b"pass"] if entry.passes else [], code.PASS),
        ([b"main"] if entry.mains else [], code.MAIN),
        ([word.encode() for word in file.values.split()], code.LITERAL),
        ([word.encode() for word in file.single_statements.split()], code.ENDS),
    )
    for words, flag in known:
        for word in words:
            folded = word.lower() if entry.any_case else word
            flags[folded] = flags.get(folded, 0) | flag
    signs = {"=": code.EQUALS, ":=": code.COLON_EQUALS, "<-": code.ARROW, "<=": code.LESS_EQUALS}
    habits = {"named_arguments": code.NAMED, "no_space_before": code.TIGHT, "no_signs_around": code.STRICT}
    style = sum(signs[sign] for sign in set(entry.assignments or ())) + sum(habits[name] for name in set(entry.equals))
    style |= (code.FOLD if entry.any_case else 0) | (code.PREPROCESSOR if entry.preprocessor else 0)
    style |= {"braces": code.BRACES, "indented": code.INDENTED, None: 0}[entry.bodies]
    wanted = [(word, code.ASSERTION) for word in assertions] + [(word, code.PRINT) for word in entry.prints or ()]
    keys, values = hash_table(flags)
    return Words(
        keys, values, patterns(wanted, entry.any_case), patterns([(word, 0) for word in file.placeholders]), style
    )


def patterns(wanted: Iterable[tuple[str, int]], any_case: bool = False) -> Patterns:
    """Patterns with kinds: `x*` begins with x, `x[A-Z]*` goes on with a capital, anything else is the whole word."""
    from .kernels.code import ANY, BOUNDARY, UPPER

    blob, rows, begins = bytearray(), [], np.zeros(256, np.bool_)
    for pattern, kind in wanted:
        follows = UPPER if pattern.endswith("[A-Z]*") else ANY if pattern.endswith("*") else BOUNDARY
        fixed = pattern.removesuffix("[A-Z]*").removesuffix("*").encode()
        if not fixed:
            raise ConfigError(f'syntax.yaml: the pattern "{pattern}" fits every word')
        if follows == BOUNDARY and not (fixed[-1:].isalnum() or fixed[-1:] == b"_"):
            follows = ANY
        rows.append((len(blob), len(blob) + len(fixed), follows, kind))
        begins[[fixed[0], fixed[:1].upper()[0] if any_case else fixed[0]]] = True
        blob += fixed
    return Patterns(np.frombuffer(bytearray(blob), np.uint8), np.array(rows, np.int64).reshape(-1, 4), begins)


def _keywords(language: Language) -> frozenset[bytes]:
    """The grammar's own words: anonymous tokens that read like identifiers. Id 0 is the end of the file."""
    kinds = (
        language.node_kind_for_id(index)
        for index in range(1, language.node_kind_count)
        if language.node_kind_is_visible(index) and not language.node_kind_is_named(index)
    )
    words = {kind for kind in kinds if kind and kind.isidentifier() and len(kind) > 1}
    named = (language.node_kind_for_id(index) for index in range(1, language.node_kind_count))
    words |= {kind.removeprefix("keyword_") for kind in named if kind and kind.startswith("keyword_")}  # SQL
    return frozenset(word.encode() for word in words)
