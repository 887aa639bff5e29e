"""Functions of a source text, and the small changes that make each of them wrong: `configs/mutations.yaml` at work.

In: a text and its language. Out: its functions, each with all its mutants: one place, and what stands there instead. A
function is taken whole, the outermost that is small enough, without the decorators or template heads before it; only
its body is changed. Nothing is run, so a mutant may by chance mean the same (`<` for `!=` in a loop that counts up);
`is_well_formed` parses the changed text again, which is what every caller should ask before it uses a mutant.

Price: two parses and one query a document; trees are dropped, only positions are kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Self

from pydantic import model_validator
from tree_sitter import Node, Parser, Query, QueryCursor, QueryError, Tree

from ..curation.signals import grammars
from ..curation.signals.parsing import find_errors
from ..curation.signals.parsing import parse as parse_source
from ..strict import CONFIGS, Config, ConfigError, parse, read_yaml

MAX_DOCUMENT_BYTES = 200_000
"""Larger texts have no functions here: most are generated, and each mutant costs a parse of the whole text."""

MAX_ERROR_CHILDREN = 5_000
"""A query over an ERROR node is quadratic in its children; see `curation/signals/parsing.py`."""

MAX_PARSE_SECONDS = 1.0
"""The median file of the standard library parses in 3 ms; one that takes longer than this has no functions here."""

DECIMAL = re.compile(rb"0|[1-9][0-9]{0,8}")
ACTIONS = ("swap", "integer", "wrap", "exchange", "variable")


class Rule(Config):
    """One entry of `rules`; the file's head says what the keys mean."""

    mutation: str
    find: tuple[str, ...]
    wrapped: tuple[str, ...] = ()
    swap: tuple[tuple[str, str], ...] = ()
    integer: bool = False
    wrap: str = ""
    exchange: bool = False
    unless: tuple[str, ...] = ()
    not_kinds: tuple[str, ...] = ()
    variable: bool = False

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        given = [name for name in ACTIONS if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"mutation {self.mutation}: give one of {', '.join(ACTIONS)} (got {given})")
        if bool(self.wrap) != bool(self.wrapped) or (self.wrap and self.wrap.count("{}") != 1):
            raise ValueError(f'mutation {self.mutation}: wrap needs one "{{}}" and patterns in wrapped')
        return self


class LanguageMutations(Config):
    """What can be changed in one language."""

    functions: tuple[str, ...]
    variables: tuple[str, ...]
    never: tuple[str, ...] = ()
    rules: tuple[Rule, ...]


class MutationsFile(Config):
    """The whole file."""

    languages: dict[str, LanguageMutations]


@dataclass(frozen=True)
class Change:
    """What a mutant does, apart from where, so that its opposite can be recognised.

    Attributes:
        mutation: its name in the file.
        before: what was there; "" for things that changed places.
        after: what is there instead.
        added_bytes: how much longer the mutant is.
    """

    mutation: str
    before: str
    after: str
    added_bytes: int

    def opposite(self) -> Change:
        """The change that undoes this one; itself if that makes no difference."""
        return Change(self.mutation, self.after, self.before, -self.added_bytes)


@dataclass(frozen=True)
class Mutant:
    """One change of a function: the bytes from `begin` to `end` of the document become `text`."""

    begin: int
    end: int
    text: bytes
    change: Change

    def apply(self, source: bytes) -> bytes:
        """The changed document."""
        return source[: self.begin] + self.text + source[self.end :]


@dataclass(frozen=True)
class Function:
    """Where a function is in its document, in bytes, and what can be changed in it.

    Attributes:
        begin: of its first line if nothing but space stands before it, so that indentation is kept.
        node_begin: where its node begins.
        body: end of its signature.
        kind: type of its node.
    """

    begin: int
    node_begin: int
    body: int
    end: int
    kind: str
    mutants: tuple[Mutant, ...]


@dataclass(frozen=True)
class Compiled:
    """A language ready for use: `rules[i]` is the rule of pattern i of the query, and whether it finds wrapped text."""

    parser: Parser
    functions: QueryCursor
    variables: QueryCursor
    places: QueryCursor
    rules: tuple[tuple[Rule, bool], ...]
    never: frozenset[bytes]


@cache
def mutations_file() -> MutationsFile:
    """The file that comes with codesieve."""
    return load_mutations(CONFIGS / "mutations.yaml")


def load_mutations(path: Path) -> MutationsFile:
    """The file at `path`.

    Raises:
        ConfigError: if it is not of the right form; a pattern is checked when its language is first used.
    """
    return parse(MutationsFile, read_yaml(path), where=str(path))


def known_languages() -> tuple[str, ...]:
    """Languages that have mutations."""
    return tuple(mutations_file().languages)


def find_functions(language: str, source: bytes, max_bytes: int) -> list[Function]:
    """The functions of a document that have at most `max_bytes`, no error in them and at least one mutant.

    An outer function is taken before those inside it. A text that is no UTF-8, too large or too hard to parse has none.
    """
    compiled = _compiled(language)
    tree = _tree(compiled, source)
    if tree is None:
        return []
    found: list[Function] = []
    nodes = compiled.functions.captures(tree.root_node).get("it", [])
    for node in sorted(nodes, key=lambda each: (each.start_byte, -each.end_byte)):
        is_inside = bool(found) and node.start_byte < found[-1].end
        if is_inside or node.has_error or node.end_byte - node.start_byte > max_bytes:
            continue
        function = _function(compiled, node, source)
        if function is not None and function.end - function.begin <= max_bytes and function.mutants:
            found.append(function)
    return found


def is_well_formed(language: str, source: bytes, function: Function, mutant: Mutant) -> bool:
    """Whether the changed function is still one, all of it, without an error.

    It is parsed alone where it parses alone before the change, else in its document, which takes longer.
    """
    compiled = _compiled(language)
    begin, end = function.node_begin, function.end + mutant.change.added_bytes
    changed = mutant.apply(source)
    if _holds(compiled, source[begin : function.end], 0, function.end - begin, function.kind):
        return _holds(compiled, changed[begin:end], 0, end - begin, function.kind)
    return _holds(compiled, changed, begin, end, function.kind)


def _holds(compiled: Compiled, source: bytes, begin: int, end: int, kind: str) -> bool:
    tree = _tree(compiled, source)
    node = None if tree is None else tree.root_node.descendant_for_byte_range(begin, end)
    while node is not None and node.start_byte == begin:
        if node.type == kind and node.end_byte == end:
            return not node.has_error
        node = node.parent
    return False


@cache
def _compiled(language: str) -> Compiled:
    entry = mutations_file().languages.get(language)
    grammar = grammars.grammar(language)
    if entry is None or grammar is None or grammar.parser.language is None:
        raise ConfigError(f'mutations.yaml: no language "{language}"; known: {", ".join(known_languages())}')

    def cursor(patterns: list[str]) -> QueryCursor:
        assert grammar is not None and grammar.parser.language is not None
        try:
            query = Query(grammar.parser.language, "\n".join(patterns))
        except QueryError as error:
            raise ConfigError(f"mutations.yaml: {language}: {error}") from error
        if query.pattern_count != len(patterns):
            raise ConfigError(f"mutations.yaml: {language}: an entry holds more than one pattern: {patterns}")
        return QueryCursor(query)

    places = [(pattern, rule, False) for rule in entry.rules for pattern in rule.find]
    places += [(pattern, rule, True) for rule in entry.rules for pattern in rule.wrapped]
    return Compiled(
        parser=grammar.parser,
        functions=cursor([f"({kind}) @it" for kind in entry.functions]),
        variables=cursor(list(entry.variables)),
        places=cursor([pattern for pattern, _, _ in places]),
        rules=tuple((rule, is_wrapped) for _, rule, is_wrapped in places),
        never=frozenset(name.encode() for name in entry.never),
    )


def _tree(compiled: Compiled, source: bytes) -> Tree | None:
    if len(source) > MAX_DOCUMENT_BYTES:
        return None
    try:
        tree = parse_source(compiled.parser, source, MAX_PARSE_SECONDS)
    except TimeoutError:
        return None
    return tree if find_errors(tree.root_node).widest <= MAX_ERROR_CHILDREN else None


def _function(compiled: Compiled, node: Node, source: bytes) -> Function | None:
    body = node.child_by_field_name("body")
    if body is None or body.prev_sibling is None:
        return None
    indented = source.rfind(b"\n", 0, node.start_byte) + 1
    begin = node.start_byte if source[indented : node.start_byte].strip() else indented
    signature_end = body.prev_sibling.end_byte
    names = [(each.start_byte, _bytes(each, source)) for each in compiled.variables.captures(node).get("it", [])]
    declared = {name: place for place, name in sorted(names, reverse=True) if name not in compiled.never}
    mutants: dict[tuple[int, int, bytes], Mutant] = {}
    for pattern, captures in compiled.places.matches(node):
        rule, is_wrapped = compiled.rules[pattern]
        first = min(each.start_byte for nodes in captures.values() for each in nodes)
        if first < signature_end:
            continue
        line = source.rfind(b"\n", 0, first)
        known = [name for name, place in declared.items() if place < signature_end or place < line]
        for mutant in _mutants(rule, is_wrapped, captures, source, known):
            if source[mutant.begin : mutant.end] != mutant.text:
                mutants.setdefault((mutant.begin, mutant.end, mutant.text), mutant)
    ordered = tuple(mutants[key] for key in sorted(mutants))
    return Function(begin, node.start_byte, signature_end, node.end_byte, node.type, ordered)


def _mutants(
    rule: Rule, is_wrapped: bool, captures: dict[str, list[Node]], source: bytes, known: Collection[bytes]
) -> Iterator[Mutant]:
    if rule.exchange:
        one, other = captures["one"][0], captures["other"][0]
        if "name" in captures and _last_word(captures["name"][0], source) in rule.unless:
            return
        if one.type in rule.not_kinds or other.type in rule.not_kinds:
            return
        between = source[one.end_byte : other.start_byte]
        text = _bytes(other, source) + between + _bytes(one, source)
        yield Mutant(one.start_byte, other.end_byte, text, Change(rule.mutation, "", "", 0))
        return
    node = captures["it"][0]
    was = _bytes(node, source)
    if rule.variable:
        for name in known if was in known else ():
            if name != was:
                yield _replaced(node, rule.mutation, was, name)
    elif is_wrapped:
        inner = _bytes(captures["inner"][0], source)
        if was == rule.wrap.encode().replace(b"{}", inner):
            yield _replaced(node, rule.mutation, was, inner, (rule.wrap, "{}"))
    elif rule.wrap:
        yield _replaced(node, rule.mutation, was, rule.wrap.encode().replace(b"{}", was), ("{}", rule.wrap))
    elif rule.integer:
        if DECIMAL.fullmatch(was):
            for number in {int(was) + 1, max(int(was) - 1, 0)} - {int(was)}:
                yield _replaced(node, rule.mutation, was, str(number).encode())
    else:
        for before, after in chain.from_iterable(((one, other), (other, one)) for one, other in rule.swap):
            if before.encode() == was:
                yield _replaced(node, rule.mutation, was, after.encode())


def _replaced(node: Node, mutation: str, was: bytes, text: bytes, names: tuple[str, str] | None = None) -> Mutant:
    before, after = names or (was.decode("utf-8", "replace"), text.decode("utf-8", "replace"))
    return Mutant(node.start_byte, node.end_byte, text, Change(mutation, before, after, len(text) - len(was)))


def _last_word(node: Node, source: bytes) -> str:
    """`max` of `Math.max` and of `std::max`."""
    words = re.findall(rb"\w+", _bytes(node, source))
    return words[-1].decode("ascii", "replace") if words else ""


def _bytes(node: Node, source: bytes) -> bytes:
    return source[node.start_byte : node.end_byte]
