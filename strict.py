"""Strict configuration: YAML into frozen pydantic models, and errors that name file, key, value and the nearest name.

An unknown key is an error. `fingerprint` hashes what a stage depends on, so that a finished shard can tell whether it
still answers the question that is asked.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONFIGS = Path(__file__).parent / "configs"

TABLES = frozenset({"datasets", "infill", "languages", "licences", "mutations", "origin", "syntax", "toolchains"})
"""Files beside the recipes in `configs/` that are none."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="used as a file and column name")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

C = TypeVar("C", bound=BaseModel)


class ConfigError(ValueError):
    """The user's configuration or arguments are wrong; the command line exits with 2."""


class Config(BaseModel):
    """Base of all configs: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def resolve(name_or_path: str, folder: str) -> Path:
    """A path as it is, or `configs/<folder>/<name>.yaml`; an unknown name is an error with the nearest one."""
    as_path = Path(name_or_path)
    if as_path.suffix in {".yaml", ".yml"} or "/" in name_or_path:
        if not as_path.is_file():
            raise ConfigError(f"{name_or_path}: no such file")
        return as_path
    known = {path.stem: path for path in sorted((CONFIGS / folder).glob("*.yaml")) if folder or path.stem not in TABLES}
    if name_or_path not in known:
        what = {"": "recipe", "train": "recipe for training"}.get(folder, folder.rstrip("s"))
        raise ConfigError(unknown(what, name_or_path, known))
    return known[name_or_path]


def read_yaml(path: Path) -> Any:
    """The parsed file; a syntax error names file and line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def parse(model: type[C], data: Any, where: str) -> C:
    """Validate `data` as `model`.

    Raises:
        ConfigError: with one line a problem: where, which key, which value, and the nearest known key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_describe(problem, model) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def override(data: Any, overrides: Sequence[str]) -> Any:
    """`data` with each `a.b.0.c=value` (value is YAML) put in; lists are addressed by index or by `name`."""
    result = json.loads(json.dumps(data))
    for item in overrides:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {item}: expected key=value")
        node = result
        last, rest = _next_part(node, key.split("."))
        while rest:
            node = _child(node, last, item)
            last, rest = _next_part(node, rest)
        if isinstance(node, list):
            node[_position(node, last, item)] = yaml.safe_load(value)
        elif isinstance(node, dict):
            node[last] = yaml.safe_load(value)
        else:
            raise ConfigError(f"--set {item}: {key.rpartition('.')[0]} is a value, not a section")
    return result


def fingerprint(*parts: Any) -> str:
    """128-bit hex hash of configs and plain values, independent of key order."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' (did you mean "{matches[0]}"?)' if matches else ""


def _next_part(node: Any, parts: list[str]) -> tuple[str, list[str]]:
    """The part of a key that is meant for `node`, and the rest; a name in a list may hold dots."""
    if isinstance(node, list):
        names = {str(entry.get("name")) for entry in node if isinstance(entry, dict)}
        for length in range(len(parts), 1, -1):
            if ".".join(parts[:length]) in names:
                return ".".join(parts[:length]), parts[length:]
    return parts[0], parts[1:]


def _child(node: Any, part: str, item: str) -> Any:
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    if isinstance(node, list):
        return node[_position(node, part, item)]
    raise ConfigError(f"--set {item}: {part} is below a plain value")


def _position(node: list[Any], part: str, item: str) -> int:
    names = [str(entry.get("name")) for entry in node if isinstance(entry, dict)]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    raise ConfigError(f"--set {item}: no entry {part!r}{nearest(part, names)}")


def _describe(problem: Any, model: type[BaseModel]) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path) or "(file)"
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return f'unknown key "{key}"{nearest(path[-1], known)}; known here: {", ".join(known)}'
    message = str(problem["msg"]).removeprefix("Value error, ")
    shown = f" (got {problem['input']!r})" if not isinstance(problem["input"], dict | list) else ""
    return f"{key}: {message}{shown}"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Field names of the model that the error path leads to; list positions lead through."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            continue
        found = next((inner for inner in _models_in(field.annotation)), None)
        if found is None:
            return []
        current = found
    return list(current.model_fields)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not there."""
    known = list(known)
    return f'unknown {what} "{name}"{nearest(name, known)}; known: {", ".join(known)}'
