"""Other people's names, in our words: languages, licences, and columns by their well-known names.

The tables are in `configs/datasets.yaml`; it is read once a process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from pydantic import Field

from ...config import ColumnsConfig, ContentConfig
from ...strict import CONFIGS, Config, ConfigError, nearest, parse, read_yaml
from ..languages import languages

TABLE = CONFIGS / "datasets.yaml"


class Preset(Config):
    """A published data set: where its files are and what its columns hold."""

    datasets: tuple[str, ...] = Field(description="names on the Hugging Face hub")
    files: tuple[str, ...] = Field(description="globs below the data set; {language} stands for a folder")
    columns: ColumnsConfig
    extra: tuple[str, ...] = ()
    content: ContentConfig | None = None
    adjacent: tuple[str, ...] = Field((), description="folders whose documents are of the kind `adjacent`")


class _Table(Config):
    columns: dict[str, tuple[str, ...]]
    presets: dict[str, Preset]
    content: ContentConfig
    languages: dict[str, str]


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: if there is none, with the nearest.
    """
    known = _table().presets
    if name not in known:
        raise ConfigError(f'unknown preset "{name}"{nearest(name, known)}; known: {", ".join(known)}')
    return known[name]


def preset_of(dataset: str) -> str | None:
    """The preset that a data set's name on the hub belongs to."""
    folded = dataset.casefold()
    names = ((name, one) for name, entry in _table().presets.items() for one in entry.datasets)
    return next((name for name, one in names if one.casefold() == folded), None)


def well_known(what: str) -> tuple[str, ...]:
    """The names under which columns of that meaning are found."""
    return _table().columns.get(what, ())


def default_content() -> ContentConfig:
    """Where blobs are fetched that a table names without saying from where."""
    return _table().content


def language_named(name: object) -> str | None:
    """Our name of a language that has another name elsewhere; None if it is unknown here."""
    if not isinstance(name, str) or not name.strip():
        return None
    return _language(name.strip().lower())


def licence_of(value: object) -> str:
    """One SPDX expression: a list is joined by AND, in its order, each once."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return ""
    return " AND ".join(dict.fromkeys(str(one) for one in value if one))


@cache
def _language(name: str) -> str | None:
    known = languages()
    aliases = _table().languages
    spaced = name.replace("_", " ").replace("-", " ")
    for one in (name, name.replace("_", "-"), spaced):
        found = one if one in known else aliases.get(one)
        if found in known:
            return found
    return None


@cache
def _table() -> _Table:
    return parse(_Table, read_yaml(TABLE), where=str(TABLE))
