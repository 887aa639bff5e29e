"""Checks of a rule set before any document is read: types, values that do not exist, rules that can never fire.

Comes in: a rule set and the declarations of the columns. Goes out: every problem at once, each with rule, column, value
and what to do; `load_rules` refuses a set with any. A predicate must be a statement about one document: no aggregate,
no window and no clock may stand in it, nothing may be divided by what can be 0 (0/0 is NaN, which is over every limit),
no count may be taken from another (unsigned numbers wrap round). What can never hold is proved by `reason` from
the ranges of the columns, language by language: a signal that a grammar cannot give is null there.

Price: 0.4 ms a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import polars as pl

from ...strict import ConfigError, nearest
from ..corpus import predicate
from ..languages import UNKNOWN, languages
from ..signals.grammars import LanguageSyntax, syntax_file
from ..signals.signal import Signal
from .dtypes import problems_of_types
from .ranges import Domain, domain_of
from .reason import Box, can_be
from .ruleset import LANGUAGE, Rule, RuleSet
from .sql import parse_predicate
from .tree import Column, Compare, In, Literal, Node, atoms, columns, text_of

FUNCTIONS = re.compile(
    "abs|ceil|ceiling|char_length|coalesce|concat|ends_with|floor|greatest|initcap|least|left|length|lower|ltrim|nullif"
    "|octet_length|regexp_like|replace|right|round|rtrim|starts_with|strpos|substr|substring|trim|upper"
    "|and|between|cast|else|ilike|in|like|not|or|then|when",
    re.IGNORECASE,
)
"""Words that may stand before a parenthesis: they look at one document. SUM(…) or … OVER (…) would give another answer
in another batch."""

_STRING = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_CLOCK = re.compile(r"\b(current_date|current_time|current_timestamp|localtime|localtimestamp|now|today)\b", re.I)

GRAMMAR_GIVES: Mapping[str, tuple[str, ...]] = {
    "function_count": ("functions",),
    "class_count": ("classes",),
    "longest_function_lines": ("functions",),
    "median_function_lines": ("functions",),
    "p90_function_lines": ("functions",),
    "longest_class_lines": ("classes",),
    "branch_count": ("branches",),
    "call_count": ("calls",),
    "import_count": ("imports",),
    "max_nesting_depth": ("functions", "branches"),
    "mean_cyclomatic_complexity": ("functions", "branches"),
    "top_level_fraction": ("functions", "comments"),
    "comment_fraction": ("comments",),
    "commented_out_code_fraction": ("comments", "identifiers"),
    "docstring_fraction": ("docstrings",),
    "placeholder_comment_count": ("comments",),
    "string_fraction": ("strings",),
    "longest_string_bytes": ("strings",),
    "long_string_line_fraction": ("strings",),
    "long_string_word_fraction": ("strings",),
    "literal_fraction": ("strings", "identifiers"),
    "visible_text_fraction": ("visible_text",),
    "identifier_count": ("identifiers",),
    "distinct_identifier_count": ("identifiers",),
    "mean_identifier_length": ("identifiers",),
    "single_letter_identifier_fraction": ("identifiers",),
    "assert_count": ("identifiers", "assertions"),
    "print_count": ("identifiers", "prints"),
    "return_count": ("identifiers", "returns"),
    "pass_count": ("identifiers", "passes"),
    "assignment_count": ("identifiers", "assignments"),
    "literal_assignment_count": ("identifiers", "assignments"),
    "trivial_function_count": ("identifiers", "bodies"),
    "main_count": ("identifiers", "mains"),
    "preprocessor_line_fraction": ("identifiers", "preprocessor"),
}
"""Syntax signal → keys that a language needs in `configs/syntax.yaml`. A signal that is not here needs a grammar."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one rule, and what to do about it."""

    file: str
    rule: str
    problem: str
    advice: str = ""
    column: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        return f'{self.file}: rule "{self.rule}": {self.problem}' + (f"; {self.advice}" if self.advice else "")


def check_rules(rules: RuleSet, known: Iterable[str], file: str) -> list[Problem]:
    """Every problem of a rule set.

    Args:
        rules: the set.
        known: the columns that exist; of those that `schema` declares, types and ranges are checked as well.
        file: where the set stands, for the messages.
    """
    known = list(known)
    declared = _declared()
    return [
        replace(problem, file=file, rule=rule.name) for rule in rules.rules for problem in _rule(rule, known, declared)
    ]


def _rule(rule: Rule, known: list[str], declared: Mapping[str, Signal]) -> Iterator[Problem]:
    bad_languages = list(_languages(rule))
    yield from bad_languages
    if trap := _trap(rule.fires):
        yield _problem(f"{rule.fires}: {trap}", "a rule looks at one document and its numbers, nothing else")
        return
    try:
        expression = predicate(rule.fires, known)
    except ConfigError as error:
        yield _problem(str(error).removeprefix("predicate: "), "`codesieve signals` lists the columns")
        return
    used = pl.sql_expr(rule.fires).meta.root_names()
    if not all(column in declared for column in used):
        return
    tree = parse_predicate(rule.fires)
    types = [_problem(f"{rule.fires}: {found}") for found in problems_of_types(tree, expression, used, declared)]
    yield from types
    if types or bad_languages or tree is None:
        return
    values = list(_values(tree, rule, declared))
    yield from values
    if not values:
        yield from _reasoned(tree, rule, declared)


def _problem(problem: str, advice: str = "", column: str | None = None, value: str | None = None) -> Problem:
    return Problem("", "", problem, advice, column, value)


def _trap(text: str) -> str:
    """What makes a predicate about more than the document; empty if nothing does."""
    bare = _STRING.sub("''", text)
    for name in _CALL.findall(bare):
        if not FUNCTIONS.fullmatch(name):
            return f"{name}(…) is not among the functions of rules"
    clock = _CLOCK.search(bare)
    return f"{clock[1]} differs from run to run" if clock else ""


def _languages(rule: Rule) -> Iterator[Problem]:
    known = _all_languages()
    for key, names in (("languages", rule.languages or ()), ("except", rule.except_)):
        for name in names:
            if name not in known:
                yield _problem(
                    f'{key}: unknown language "{name}"{nearest(name, known)}',
                    "configs/languages.yaml lists the names",
                    LANGUAGE,
                    name,
                )
    if rule.languages is not None and (idle := sorted(set(rule.except_) - set(rule.languages))):
        yield _problem(f"except: {', '.join(idle)}: not among its languages anyway", "leave it out", LANGUAGE, idle[0])
    if not _applies(rule):
        yield _problem("except: leaves no language", "the rule would never fire", LANGUAGE)


def _values(tree: Node, rule: Rule, declared: Mapping[str, Signal]) -> Iterator[Problem]:
    """Values that are compared with an enumeration that does not have them."""
    for atom in atoms(tree):
        named: tuple[object, ...]
        match atom:
            case Compare("=" | "<>", Column(name), Literal(value)) | Compare("=" | "<>", Literal(value), Column(name)):
                named = (value,)
            case In(Column(name), values):
                named = values
            case _:
                continue
        names = _domain(declared[name]).names
        for each in named:
            if names is not None and isinstance(each, str) and each not in names:
                strings = sorted(one for one in names if isinstance(one, str))
                shown = f"known: {', '.join(strings)}" if len(strings) < 20 else "see configs/languages.yaml"
                yield _problem(f'{rule.fires}: {name} is never "{each}"{nearest(each, strings)}', shown, name, each)


def _reasoned(tree: Node, rule: Rule, declared: Mapping[str, Signal]) -> Iterator[Problem]:
    """What can never hold, and what always does."""
    used = columns(tree)
    groups = _groups(_applies(rule), used, declared)
    everywhere = frozenset.intersection(*groups)
    box = _box(used, everywhere, [name for names in groups.values() for name in names], declared)
    parts = list(_parts(tree, box, everywhere, declared))
    yield from parts
    if parts:
        return
    silent = {
        nulls: names for nulls, names in groups.items() if not can_be(tree, True, _box(used, nulls, names, declared))
    }
    if len(silent) == len(groups):
        yield _problem(f"{rule.fires}: can never fire: its parts exclude each other", "drop or mend the rule")
    elif not can_be(tree, False, box):
        yield _problem(f"{rule.fires}: fires on every document", "drop or mend the rule")
    elif rule.languages is not None:
        for nulls, names in silent.items():
            missing = sorted(nulls) or used
            yield _problem(
                f"{rule.fires}: can never fire in {', '.join(names)}: no {', '.join(missing)} there",
                "take them out of its languages",
                missing[0],
                names[0],
            )


def _parts(tree: Node, box: Box, nulls: frozenset[str], declared: Mapping[str, Signal]) -> Iterator[Problem]:
    """Statements in the rule that never hold, or always."""
    whole = list(atoms(tree))
    for atom in whole if len(whole) > 1 else [tree]:
        if not can_be(atom, True, box):
            verdict = "this rule can never fire" if len(whole) == 1 else "this part never holds"
        elif not can_be(atom, False, box):
            verdict = "this rule fires on every document" if len(whole) == 1 else "this part always holds"
        else:
            continue
        names = columns(atom)
        ranges = ", ".join(
            f"{name} is always null in its languages" if name in nulls else f"{name} is {declared[name].range}"
            for name in ([name for name in names if name in nulls] or names)
        )
        text = text_of(atom)
        column = names[0] if names else None
        yield _problem(f"{text}: {verdict} ({ranges or 'it names no column'})", "mend or drop it", column, text)


def _groups(
    applies: Iterable[str], used: Iterable[str], declared: Mapping[str, Signal]
) -> dict[frozenset[str], list[str]]:
    """Columns that are always null → the languages in which exactly those are."""
    groups: dict[frozenset[str], list[str]] = {}
    syntax = [name for name in used if declared[name].step == "syntax"]
    for language in applies:
        nulls = frozenset(name for name in syntax if not measured_in(name, language))
        groups.setdefault(nulls, []).append(language)
    return groups


@cache
def measured_in(signal: str, language: str) -> bool:
    """Whether a syntax signal is ever measured in a language."""
    file = syntax_file()
    # A header may be parsed as another language than the one that it is filed under.
    parsed_as = [language, file.retry.as_] if language == file.retry.language else [language]
    entries = [entry for name in parsed_as if (entry := file.languages.get(name)) is not None]
    return any(all(_gives(entry, key) for key in GRAMMAR_GIVES.get(signal, ())) for entry in entries)


def _gives(entry: LanguageSyntax, key: str) -> bool:
    value = getattr(entry, key)
    return bool(value) or (key == "assertions" and value is None)  # None: those of all languages


def _box(used: Iterable[str], nulls: Iterable[str], names: Iterable[str], declared: Mapping[str, Signal]) -> Box:
    box = {name: _domain(declared[name]) for name in used}
    box |= {name: box[name].only_null() for name in nulls}
    if LANGUAGE in box:
        box[LANGUAGE] = box[LANGUAGE].named(names)
    return box


def _applies(rule: Rule) -> list[str]:
    wanted = _all_languages() if rule.languages is None else rule.languages
    return [name for name in wanted if name not in rule.except_]


@cache
def _all_languages() -> tuple[str, ...]:
    return (*languages(), UNKNOWN)


@cache
def _declared() -> dict[str, Signal]:
    from ..schema import IDENTITY, SIGNALS  # the schema stands above the steps, and rules are one

    return {column.name: column for column in (*IDENTITY, *SIGNALS)}


@cache
def _domain(column: Signal) -> Domain:
    return domain_of(column)
