"""Table source: Parquet and JSONL files, one document a row, and the published data sets of that form by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from ...config import SourceConfig
from ...strict import ConfigError, nearest
from . import jsonl
from .directory import existing
from .listing import Listing, Skip, Wanted, text_of
from .parquet import list_parquet
from .remote import Found, find, is_url
from .vocabulary import Preset, language_named, preset, preset_of

SUFFIXES = (".parquet", *jsonl.SUFFIXES)
HUB = "hf://datasets/"
NAME_ON_THE_HUB = re.compile(r"^[\w.-]+/[\w.-]+$")


def list_table(config: SourceConfig) -> Listing:
    """The rows of one file, or of all tables below a folder or URL.

    Raises:
        ConfigError: if nothing is there, a file is broken, or a column is missing.
    """
    files = _files(config, str(config.path))
    if len(files) == 1 and not is_table(files[0].name):
        raise ConfigError(
            f'source "{config.name}": {config.path}: not a table by its name; known: {", ".join(SUFFIXES)}'
        )
    return _listed(config, [(file, "") for file in files], None)


def list_huggingface(config: SourceConfig) -> Listing:
    """The rows of a data set on the hub, or of a local folder in the same layout.

    Raises:
        ConfigError: as `list_table`; if there is neither such a folder nor such a data set, or no such language in it.
    """
    path = str(config.path)
    local = is_url(path) or Path(path).expanduser().exists()
    if not local and not NAME_ON_THE_HUB.match(path):
        existing(config)  # says that it does not exist
    name = config.preset or preset_of(path.removeprefix(HUB) if path.startswith(HUB) else path)
    layout = preset(name) if name else None
    revision = "" if config.revision == "HEAD" else f"@{config.revision}"
    files = _files(config, path if local else f"{HUB}{path}{revision}")
    placed = _placed(files, layout) if layout else []
    if not placed:  # one language's folder, or a data set without a preset
        placed = [(file, "") for file in files]
    if config.languages:
        placed = _of_languages(config, placed)
    return _listed(config, placed, layout)


def is_table(name: str) -> bool:
    """Whether a file of that name is read as a table."""
    return name.lower().endswith(SUFFIXES)


def _files(config: SourceConfig, path: str) -> list[Found]:
    if is_url(path):
        return find(path, config.name, config.storage)
    root = existing(config)
    if root.is_file():
        return [Found(str(root.absolute()), root.name, root.stat().st_size)]
    files = sorted((file for file in root.rglob("*") if file.is_file()), key=lambda f: f.relative_to(root).as_posix())
    return [Found(str(f.absolute()), f.relative_to(root).as_posix(), f.stat().st_size) for f in files]


def _listed(config: SourceConfig, files: Sequence[tuple[Found, str]], layout: Preset | None) -> Listing:
    listing = Listing()
    unlimited = Wanted(config.name, config.exclude, 1 << 62)  # the limit is for documents, not for tables of them
    for file, folder in files:
        if not unlimited(file.name, file.size_bytes, listing.skips):
            continue
        if not is_table(file.name):
            listing.skips.append(Skip(config.name, text_of(file.name), "not_a_table", file.size_bytes))
            continue
        lister = list_parquet if file.name.lower().endswith(".parquet") else jsonl.list_jsonl
        found = lister(config, file, layout, folder)
        if layout and folder in layout.adjacent and config.kind is None:
            found.entries = [dataclasses.replace(entry, kind="adjacent") for entry in found.entries]
        listing.extend(found)
    return listing


def _placed(files: Sequence[Found], layout: Preset) -> list[tuple[Found, str]]:
    """The files that the layout names, each with its language folder."""
    patterns = [_pattern(glob) for glob in layout.files]
    matches = [(file, pattern.match(file.name)) for file in files for pattern in patterns]
    return [(file, match.groupdict().get("language") or "") for file, match in matches if match]


def _pattern(glob: str) -> re.Pattern[str]:
    escaped = re.escape(glob).replace(re.escape("{language}"), "(?P<language>[^/]+)").replace(re.escape("*"), "[^/]*")
    return re.compile(f"^{escaped}$")


def _of_languages(config: SourceConfig, files: Sequence[tuple[Found, str]]) -> list[tuple[Found, str]]:
    folders = {folder for _, folder in files if folder}
    wanted: set[str] = set()
    for language in config.languages:
        ours = language_named(language)
        same = {f for f in folders if f.lower() == language.lower() or (ours and language_named(f) == ours)}
        if not same:
            there = ", ".join(sorted(folders)) or "no language folders"
            raise ConfigError(
                f'source "{config.name}": {config.path}: languages: no folder "{language}"'
                f"{nearest(language, folders)}; there: {there}"
            )
        wanted |= same
    return [(file, folder) for file, folder in files if folder in wanted]
