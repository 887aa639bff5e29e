"""Rules are data: predicates over columns, all reasons kept, null never fires."""

from pathlib import Path

import polars as pl
import pytest
import yaml
from codesieve.curation.rules import RuleSet, RulesStep, load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.strict import CONFIGS, ConfigError
from hypothesis import given
from hypothesis import strategies as st

COLUMNS = ["id", "language", "size_bytes", "max_line_length", "is_generated"]


def rule(name: str, fires: str, **more: object) -> dict:
    return {"name": name, "version": 1, "languages": "all", "fires": fires, "why": "a test", **more}


def rule_set(*rules: dict) -> RuleSet:
    return RuleSet.model_validate({"name": "t", "description": "d", "rules": list(rules)})


def reasons(rules: RuleSet, **columns: list) -> list[list[str]]:
    frame = pl.DataFrame(columns)
    return RulesStep(rules)(frame)["reasons"].to_list()


def write(tmp_path: Path, *rules: dict) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "description": "d", "rules": list(rules)}))
    return str(path)


def test_all_reasons_are_kept_not_the_first() -> None:
    rules = rule_set(rule("long", "n > 1"), rule("longer", "n > 2"), rule("even", "n % 2 = 0"))
    assert reasons(rules, language=["c", "c", "c"], n=[1, 3, 4]) == [[], ["long", "longer"], ["long", "longer", "even"]]


def test_null_never_fires() -> None:
    rules = rule_set(rule("a", "n > 1"), rule("b", "NOT (n > 1)"), rule("c", "flag"))
    frame = pl.DataFrame(
        {"language": ["c"], "n": pl.Series([None], dtype=pl.Int64), "flag": pl.Series([None], dtype=pl.Boolean)}
    )
    step = RulesStep(rules)
    assert step(frame)["reasons"].to_list() == [[]]
    assert step(frame)["reason_count"].to_list() == [0]


def test_languages_and_exceptions_are_respected() -> None:
    rules = rule_set(
        rule("only_c", "n > 0", languages=["c"]), rule("not_c", "n > 0", **{"except": ["c"]}), rule("all", "n > 0")
    )
    assert reasons(rules, language=["c", "go", None], n=[1, 1, 1]) == [["only_c", "all"], ["not_c", "all"], ["all"]]


def test_an_unknown_column_names_file_rule_and_the_nearest_column(tmp_path: Path) -> None:
    path = write(tmp_path, rule("long_lines", "max_line_lenght > 1000"))
    with pytest.raises(ConfigError, match=r'mine\.yaml: rule "long_lines": .*did you mean "max_line_length"'):
        load_rules(path, COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fires": "max_line_length >"}, "not a valid SQL predicate"),
        ({"fire": "x"}, 'unknown key "rules.0.fire"'),
        ({"languages": ["c"], "except": ["c"]}, "applies to no language"),
        ({"version": 0}, "version"),
    ],
)
def test_a_bad_rule_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = write(tmp_path, {**rule("r", "size_bytes > 1"), **change})
    with pytest.raises(ConfigError, match=message):
        load_rules(path, COLUMNS)


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice: a"):
        load_rules(write(tmp_path, rule("a", "size_bytes > 1"), rule("a", "size_bytes > 2")), COLUMNS)


def test_the_hash_changes_with_any_rule() -> None:
    assert rule_set(rule("a", "n > 1")).hash != rule_set(rule("a", "n > 2")).hash


def test_every_shipped_rule_set_names_columns_that_exist() -> None:
    columns = [column.name for column in (*IDENTITY, *SIGNALS)]
    for path in (CONFIGS / "rules").glob("*.yaml"):
        assert load_rules(path.stem, columns).rules


@given(
    st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=20),
    st.lists(st.integers(-5, 5), min_size=1, max_size=4),
)
def test_adding_a_rule_never_takes_a_reason_away(values: list[int | None], limits: list[int]) -> None:
    rules = [rule(f"over_{index}", f"n > {limit}") for index, limit in enumerate(limits)]
    frame = {"language": ["c"] * len(values), "n": pl.Series(values, dtype=pl.Int64)}
    fewer = RulesStep(rule_set(*rules[:1]))(pl.DataFrame(frame))["reasons"]
    more = RulesStep(rule_set(*rules))(pl.DataFrame(frame))["reasons"]
    assert all(set(a) <= set(b) for a, b in zip(fewer, more, strict=True))
