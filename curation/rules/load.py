"""Rule sets by name or path, each checked (`check`) before any document is read."""

from __future__ import annotations

from collections.abc import Iterable

from ...strict import CONFIGS, ConfigError, parse, read_yaml, resolve
from .check import Problem, check_rules
from .ruleset import RuleSet


def load_rules(name_or_path: str, columns: Iterable[str]) -> RuleSet:
    """The rule set of that name in `configs/rules/`, or at that path, checked against the columns that exist.

    Raises:
        ConfigError: every problem, a line each, naming file, rule, value and what to do.
    """
    rules, problems = read_rules(name_or_path, columns)
    if problems:
        raise ConfigError("\n".join(map(str, problems)))
    return rules


def read_rules(name_or_path: str, columns: Iterable[str]) -> tuple[RuleSet, list[Problem]]:
    """A rule set and what is wrong with it.

    Raises:
        ConfigError: if the file is not of the right form.
    """
    path = resolve(name_or_path, "rules")
    rules = parse(RuleSet, read_yaml(path), where=str(path))
    return rules, check_rules(rules, columns, str(path))


def rule_sets() -> list[str]:
    """Names of the sets that come with codesieve."""
    return sorted(path.stem for path in (CONFIGS / "rules").glob("*.yaml"))
