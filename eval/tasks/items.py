"""Rows become items: the layout whose columns are there makes the fields, and every field that counts is checked.

An item that could not be asked or judged is an error that names file, line, field and value; none is left out in
silence. What every kind of task needs is in `NEEDS`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...strict import ConfigError, nearest
from .data import Row
from .schema import (
    ChoiceTask,
    CodeTask,
    DataConfig,
    EachConfig,
    InfillTask,
    JudgeTask,
    Layout,
    MatchTask,
    TaskConfig,
    TestsConfig,
    ValueConfig,
)
from .templates import evaluate, fill, look_up, names, shown

RESERVED = ("id", "cluster")
"""Fields of a layout that name the item; the others are the templates', `language` is both."""

CLUSTER_CHARACTERS = 64
"""A longer name of a cluster, as a whole passage is, is replaced by its hash."""


@dataclass(frozen=True)
class Item:
    """One question of a task.

    Attributes:
        id: unique in the task.
        cluster: items of one cluster are not independent of each other.
        language: groups items in reports; "" if there is nothing to group by.
        fields: made by the layout; the task's templates use them.
    """

    id: str
    cluster: str
    language: str
    fields: Mapping[str, Any]


def make_items(rows: Sequence[Row], config: TaskConfig, data: DataConfig) -> list[Item]:
    """The items of all rows that `data.where` leaves, in their order.

    Raises:
        ConfigError: if no layout fits, an item is broken, or two have one id.
    """
    rows = [row for row in rows if _wanted(row, data)]
    if data.each is not None:
        rows = [part for row in rows for part in _unfolded(row, data.each)]
    if not rows:
        raise ConfigError(f'task "{config.name}": no row of the file is wanted; see `where` and `each` of its data')
    layout = _fitting(config.layouts, rows[0], config.name)
    check = _check(config)
    items = []
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        item = _item(layout, row, number, str(getattr(config, "language", "")))
        check(item.fields, row.where)
        if item.id in places:
            raise ConfigError(f'{row.where}: an item with the id "{item.id}" came before: {places[item.id]}')
        places[item.id] = row.where
        items.append(item)
    return items


def _wanted(row: Row, data: DataConfig) -> bool:
    for column, values in data.where.items():
        try:
            value = look_up(column, row.values)
        except ConfigError as error:
            raise ConfigError(f"{row.where}: where: {error}") from error
        if value not in values and str(value) not in map(str, values):
            return False
    return True


def _unfolded(row: Row, each: EachConfig) -> Iterable[Row]:
    """A row for every position of the lists side by side."""
    try:
        lists = {column: look_up(path, row.values) for column, path in each.columns.items()}
    except ConfigError as error:
        raise ConfigError(f"{row.where}: each: {error}") from error
    lengths = {len(value) if isinstance(value, list) else None for value in lists.values()}
    if None in lengths or len(lengths) > 1:
        raise ConfigError(f"{row.where}: each: {', '.join(lists)} are not lists of one length")
    history = ""
    for position, parts in enumerate(zip(*lists.values(), strict=True), start=1):
        values = {**row.values, **dict(zip(lists, parts, strict=True)), "position": position, "history": history}
        yield Row(f"{row.where}, position {position}", values)
        if each.history is not None:
            history += fill(each.history, values)


def _fitting(layouts: Sequence[Layout], row: Row, task: str) -> Layout:
    """The first layout whose columns the row has; with none, every column is a field."""
    if not layouts:
        return {column: ValueConfig(value=f"{{{column}}}") for column in row.values}
    problems = []
    for layout in layouts:
        missing = sorted(_columns(layout) - row.values.keys())
        if not missing:
            return layout
        problems.append(", ".join(f'"{name}"{nearest(name, row.values)}' for name in missing))
    raise ConfigError(
        f'{row.where}: no layout of task "{task}" fits; columns there: {", ".join(row.values)}\n'
        + "\n".join(f"  layout {number} misses {each}" for number, each in enumerate(problems, start=1))
    )


def _columns(layout: Layout) -> set[str]:
    """What a layout's templates use, apart from its own fields above them."""
    made: set[str] = set()
    needed: set[str] = set()
    for name, value in layout.items():
        needed |= (names(value.value) | names(value.index_in)) - made
        made.add(name)
    return needed


def _item(layout: Layout, row: Row, number: int, language: str) -> Item:
    fields: dict[str, Any] = {}
    for name, how in layout.items():
        try:
            fields[name] = value_of(how, {**fields, **row.values})
        except (ConfigError, ValueError, TypeError, re.error) as error:
            raise ConfigError(f"{row.where}: field {name}: {error}") from error
    identity = str(fields.get("id", number))
    cluster = str(fields.get("cluster", identity))
    if len(cluster) > CLUSTER_CHARACTERS:
        cluster = hashlib.sha256(cluster.encode()).hexdigest()[:16]
    described = {name: value for name, value in fields.items() if name not in RESERVED}
    return Item(identity, cluster, str(fields.get("language", language)), described)


def value_of(how: ValueConfig, known: Mapping[str, Any]) -> Any:
    """The value that a layout makes of columns.

    Raises:
        ConfigError, ValueError: if a step does not fit the value.
    """
    value = evaluate(how.value, known)
    if how.parse is not None:
        value = _each(value, _PARSERS[how.parse])
    for pattern, replacement in how.replace:
        value = _each(value, lambda text, p=pattern, r=replacement: re.sub(p, r, text))  # type: ignore[misc]
    if how.case is not None:
        value = _each(value, _CASES[how.case])
    if how.match is not None:
        value = _each(value, lambda text: _matched(str(how.match), text))
    if how.split is not None:
        value = str(value).split(how.split)
    if how.index_in is not None:
        value = _position(value, evaluate(how.index_in, known))
    return value


def _each(value: Any, step: Callable[[str], Any]) -> Any:
    if isinstance(value, list):
        return [_each(each, step) for each in value]
    if value is None:
        raise ValueError("there is no value (null)")
    return step(str(value))


def _matched(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"{shown(text)} does not match {pattern!r}")
    return found[1] or ""


def _position(value: Any, among: Any) -> int:
    if not isinstance(among, list):
        raise ValueError(f"index_in: {shown(among)} is no list")
    texts = [str(each).strip() for each in among]
    if value in among:
        return among.index(value)
    if str(value).strip() not in texts:
        raise ValueError(f"{shown(value)} is none of {shown(among)}")
    return texts.index(str(value).strip())


# What an item must hold, by kind of task.

Check = Callable[[Mapping[str, Any], str], None]


def _check(config: TaskConfig) -> Check:
    if isinstance(config, ChoiceTask):
        return _choice
    if isinstance(config, MatchTask):
        return _answers
    if isinstance(config, CodeTask):
        return lambda fields, where: _code(fields, where, ("reference",), config.tests)
    if isinstance(config, InfillTask):
        return lambda fields, where: _code(fields, where, ("prefix", "suffix", "reference"), config.tests)
    if isinstance(config, JudgeTask):
        return lambda fields, where: _texts(fields, where, ("instruction",))
    return lambda fields, where: None


def _choice(fields: Mapping[str, Any], where: str) -> None:
    choices = _needed(fields, where, "choices")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ConfigError(f"{where}: field choices: a list of at least two is needed (got {shown(choices)})")
    for number, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice.strip():
            raise ConfigError(f"{where}: field choices: choice {number} is no text or empty (got {shown(choice)})")
    gold = _needed(fields, where, "gold")
    for each in gold if isinstance(gold, list) and gold else [gold]:
        if not isinstance(each, int) or isinstance(each, bool) or not 0 <= each < len(choices):
            raise ConfigError(
                f"{where}: field gold: the position of one of {len(choices)} choices is needed (got {shown(each)})"
            )


def _answers(fields: Mapping[str, Any], where: str) -> None:
    answers = _needed(fields, where, "answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(each, str) for each in answers):
        raise ConfigError(f"{where}: field answers: a list of texts is needed, and not empty (got {shown(answers)})")


def _code(fields: Mapping[str, Any], where: str, texts: Sequence[str], tests: TestsConfig) -> None:
    _texts(fields, where, texts)
    found = _needed(fields, where, "tests")
    wanted = str if tests.form in ("check", "program") else list
    if not isinstance(found, wanted) or not found:
        form = "text" if wanted is str else "a list"
        raise ConfigError(f"{where}: field tests: {form} is needed, and not empty (got {shown(found)})")
    if tests.form in ("calls", "check"):
        _texts(fields, where, ("entry_point",))


def _texts(fields: Mapping[str, Any], where: str, wanted: Sequence[str]) -> None:
    for name in wanted:
        if not isinstance(value := _needed(fields, where, name), str):
            raise ConfigError(f"{where}: field {name}: text is needed (got {shown(value)})")


def _needed(fields: Mapping[str, Any], where: str, name: str) -> Any:
    if name not in fields:
        raise ConfigError(f'{where}: no field "{name}"{nearest(name, fields)}; the layout gives {", ".join(fields)}')
    return fields[name]


def _capital(text: str) -> str:
    return text.capitalize()


_CASES: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "capital": _capital,
    "first_upper": lambda text: text[:1].upper() + text[1:],
    "first_lower": lambda text: text[:1].lower() + text[1:],
}

_PARSERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "python": ast.literal_eval}
