"""Rule sets: named, versioned SQL predicates over signals, as data. A rule that fires adds its name to the reasons.

A rule set is one YAML file; adding a rule is editing it. All rules of a set are one Polars projection over a batch:
null (an unmeasured signal) never fires. The hash of the set goes into every shard of its layer, so that reasons can
always be traced to the rules that gave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, field_validator, model_validator

from ..config import Config, ConfigError, Name, fingerprint, nearest, parse, read_yaml, resolve
from .corpus import predicate

LANGUAGE = "language"


class Rule(Config):
    """One rule. `fires` speaks against a document; `why` says on whose authority."""

    name: Name
    version: int = Field(ge=1)
    languages: tuple[str, ...] | None = Field(None, description="`all` or a list of languages")
    except_: tuple[str, ...] = Field((), alias="except", description="languages it does not apply to")
    fires: str = Field(min_length=1, description="Polars SQL predicate over signals")
    why: str = Field(min_length=1)

    @field_validator("languages", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return None if value == "all" else value

    @model_validator(mode="after")
    def _can_apply(self) -> Rule:
        if self.languages is not None and not set(self.languages) - set(self.except_):
            raise ValueError(f'rule "{self.name}" applies to no language')
        return self


class RuleSet(Config):
    """A named list of rules."""

    name: Name
    description: str
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> RuleSet:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rule names must differ; twice: {', '.join(twice)}")
        return self

    @property
    def hash(self) -> str:
        """128-bit hex of everything in the set."""
        return fingerprint(self)

    def rule(self, name: str) -> Rule:
        """The rule of that name.

        Raises:
            ConfigError: with the nearest name.
        """
        for rule in self.rules:
            if rule.name == name:
                return rule
        names = [rule.name for rule in self.rules]
        raise ConfigError(f'rule set {self.name}: unknown rule "{name}"{nearest(name, names)}')


def load_rules(name_or_path: str, columns: Iterable[str]) -> RuleSet:
    """The rule set of that name in `configs/rules/`, or at that path, checked against the columns that exist.

    Raises:
        ConfigError: naming file, rule and the nearest column or key.
    """
    path = resolve(name_or_path, "rules")
    rules = parse(RuleSet, read_yaml(path), where=str(path))
    check_rules(rules, columns, path)
    return rules


def check_rules(rules: RuleSet, columns: Iterable[str], path: Path | str) -> None:
    """Every predicate parses and names only known columns."""
    known = list(columns)
    for rule in rules.rules:
        predicate(rule.fires, known, place=f'{path}: rule "{rule.name}"')


class RulesStep:
    """Evaluates a rule set over a batch: `reasons`, the names of all rules that fired, and `reason_count`."""

    name = "rules"
    provides: Mapping[str, pl.DataType] = {"reasons": pl.List(pl.String()), "reason_count": pl.UInt16()}

    def __init__(self, rules: RuleSet):
        self.rules = rules
        used = {column for rule in rules.rules for column in pl.sql_expr(rule.fires).meta.root_names()}
        self.requires = tuple(sorted(used | {LANGUAGE}))

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the two columns."""
        fired = [
            pl.when(fires(rule, batch.columns)).then(pl.lit(rule.name)).otherwise(None).alias(rule.name)
            for rule in self.rules.rules
        ]
        reasons = batch.select(pl.concat_list(fired).list.drop_nulls().alias("reasons"))["reasons"]
        return batch.with_columns(reasons, reasons.list.len().cast(pl.UInt16).alias("reason_count"))


def fires(rule: Rule, columns: Iterable[str]) -> pl.Expr:
    """Whether a rule fires, never null; outside its languages it does not."""
    applies = pl.lit(True)
    if rule.languages is not None:
        applies = pl.col(LANGUAGE).is_in(list(rule.languages))
    if rule.except_:
        applies = applies & ~pl.col(LANGUAGE).is_in(list(rule.except_))
    return applies.fill_null(False) & predicate(rule.fires, columns)


def explain(rule: Rule, row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one document that a rule looks at."""
    return {column: row[column] for column in pl.sql_expr(rule.fires).meta.root_names()}
