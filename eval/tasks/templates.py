"""Templates: text with `{field}` in it, and no logic; `{{` and `}}` are braces.

`{a.b.0}` goes into objects and lists, `{a.*.b}` is the list of b of everything in a. One function fills a template
with text, the other gives the value itself where the template is one field and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ...strict import ConfigError, nearest

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")

EACH = "*"

_MISSING = object()


@lru_cache(maxsize=4096)
def pieces(template: str) -> tuple[tuple[str, bool], ...]:
    """(text, is it a field's name?) in turn.

    Raises:
        ConfigError: if a brace stands alone or a name is empty.
    """
    found: list[tuple[str, bool]] = []
    end = 0
    for match in _PIECE.finditer(template):
        found.append((template[end : match.start()], False))
        end = match.end()
        if match[0] in ("{{", "}}"):
            found.append((match[0][0], False))
        elif match[1]:
            found.append((match[1].strip(), True))
        else:
            raise ConfigError(f"template {template!r}: {match[0]!r} is no field; a brace itself is {{{{ or }}}}")
    found.append((template[end:], False))
    return tuple(piece for piece in found if piece[0])


def names(template: Any) -> set[str]:
    """First parts of the names of all fields in a template, or in a structure of templates."""
    if isinstance(template, str):
        return {name.partition(".")[0] for name, is_field in pieces(template) if is_field}
    if isinstance(template, list | tuple):
        return {name for each in template for name in names(each)}
    return set()


def fill(template: str, fields: Mapping[str, Any]) -> str:
    """The text of a template.

    Raises:
        ConfigError: if a field is unknown, or holds nothing or a structure.
    """
    return "".join(_as_text(text, look_up(text, fields)) if is_field else text for text, is_field in pieces(template))


def evaluate(template: Any, fields: Mapping[str, Any]) -> Any:
    """As `fill`; but one field alone gives its value as it is, and of a list each template is evaluated."""
    if isinstance(template, list | tuple):
        return [evaluate(each, fields) for each in template]
    if not isinstance(template, str):
        return template
    parts = pieces(template)
    if len(parts) == 1 and parts[0][1]:
        return look_up(parts[0][0], fields)
    return fill(template, fields)


def look_up(name: str, fields: Mapping[str, Any]) -> Any:
    """The value of a field, or of a place in it."""
    if name in fields:
        return fields[name]
    first, *rest = name.split(".")
    if first not in fields:
        raise ConfigError(f'unknown field "{first}"{nearest(first, fields)}; known: {", ".join(map(str, fields))}')
    value = _inside(fields[first], rest)
    if value is _MISSING:
        raise ConfigError(f'"{name}" leads nowhere in {shown(fields[first])}')
    return value


def _inside(value: Any, path: list[str]) -> Any:
    if not path:
        return value
    part, *rest = path
    if part == EACH and isinstance(value, list):
        found = [_inside(each, rest) for each in value]
        return _MISSING if any(each is _MISSING for each in found) else found
    if isinstance(value, Mapping) and part in value:
        return _inside(value[part], rest)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return _inside(value[int(part)], rest)
    return _MISSING


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ConfigError(f'field "{name}" is no text: {shown(value)}')


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"
