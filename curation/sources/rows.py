"""From rows of a table to documents: which column is what, and what a row says about its document.

A column that the configuration names must be there; one that it does not name is looked for under well-known names.
Rows without text but with the name of a blob (The Stack v2, Stack-Edu) get their text from where blobs are kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...config import ColumnsConfig, ContentConfig, SourceConfig
from ...strict import ConfigError, nearest
from .blobs import BlobError, fetch, url_of
from .documents import HEAD_BYTES, Document, documents_of_text
from .listing import Entry, Skip
from .remote import file_system
from .values import plain, valid
from .vocabulary import Preset, default_content, language_named, licence_of, well_known

Row = Mapping[str, Any]


def options_of(
    config: SourceConfig, file: str, known: Sequence[str], preset: Preset | None = None, folder: str = ""
) -> dict[str, Any]:
    """What reading the rows of one file needs: columns by meaning, columns for `extra`, where blobs are.

    Args:
        config: the source.
        file: for messages.
        known: the columns of the file.
        preset: preferences of a published layout.
        folder: the language folder that the file is in, if the layout has such.

    Raises:
        ConfigError: if a column that is named is not there, or none holds text.
    """
    columns: dict[str, str] = {}
    for what in ColumnsConfig.model_fields:
        named = getattr(config.columns, what)
        if named:
            _check(config.name, file, f"columns.{what}", named, known)
            columns[what] = named
        elif named is None:
            preferred = getattr(preset.columns, what) if preset else None
            candidates = ((preferred,) if preferred else ()) + well_known(what)
            found = next((name for name in candidates if name in known), None)
            if found:
                columns[what] = found
    if not columns.keys() & {"text", "blob_id"}:
        raise ConfigError(
            f'source "{config.name}": {file}: no column that holds text by its name; '
            f"give columns.text; columns here: {', '.join(known)}"
        )
    for name in config.extra:
        _check(config.name, file, "extra", name, known)
    extra = config.extra or tuple(name for name in (preset.extra if preset else ()) if name in known)
    options: dict[str, Any] = {"columns": columns, "extra": list(extra), "max_bytes": config.max_file_bytes}
    if config.storage:
        options["storage"] = dict(config.storage)
    if folder:
        options["folder"] = folder
    if "blob_id" in columns:
        content = config.content or (preset.content if preset else None) or default_content()
        options["content"] = content.model_dump(mode="json")
        if "text" not in columns:
            file_system(url_of(content, "0"), content.storage)  # a package that is missing is said before the work
    return options


def needed(options: Mapping[str, Any]) -> list[str]:
    """The columns that reading takes, each once."""
    return list(dict.fromkeys([*options["columns"].values(), *options["extra"]]))


def documents_of_rows(entry: Entry, rows: Sequence[tuple[int, Row]]) -> Iterator[Document | Skip]:
    """The documents in numbered rows of the file that `entry` is a part of."""
    options = entry.options or {}
    columns = options["columns"]
    file = entry.path.rpartition("#")[0]
    blobs = _fetched(options, columns, [row for _, row in rows])
    for number, row in rows:
        where = f"{file}#{number}"
        text = _text(columns, row, blobs, options["max_bytes"])
        if isinstance(text, Skip):
            yield dataclasses.replace(text, source=entry.source, path=where)
            continue
        yield from _document(entry, row, where, text)


def value_of(row: Row, column: str | None) -> Any:
    """A row's value; `a.b` is field b of a, unless a column has that very name."""
    if column is None:
        return None
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _document(entry: Entry, row: Row, where: str, text: str) -> Iterator[Document | Skip]:
    options = entry.options or {}
    stated = {what: value_of(row, column) for what, column in options["columns"].items()}
    path = _word(stated.get("path")) or where
    repository = _word(stated.get("repository")) or entry.repository
    extra = {name: plain(value_of(row, name)) for name in options["extra"]}
    filled = dataclasses.replace(
        entry,
        path=path,
        repository=repository,
        revision=_word(stated.get("revision")),
        license=valid(licence_of(stated.get("license"))),
        size_bytes=len(text),
        extra=json.dumps(extra, sort_keys=True, ensure_ascii=False) if extra else "{}",
    )
    language = language_named(stated.get("language")) or language_named(options.get("folder"))
    for found in documents_of_text(filled, text, language, key=repository):
        # A skip is named by its place: a table may hold a path many times.
        yield dataclasses.replace(found, path=where) if isinstance(found, Skip) else found


def _text(columns: Mapping[str, str], row: Row, blobs: Mapping[str, bytes | BlobError], max_bytes: int) -> str | Skip:
    """The row's text, or a skip that says why it has none."""
    text = value_of(row, columns.get("text"))
    if text is None and "blob_id" in columns:
        text = blobs.get(str(value_of(row, columns["blob_id"])))
        if isinstance(text, BlobError):
            return Skip("", "", str(text))
    if text is None:
        return Skip("", "", "null_text")
    if isinstance(text, bytes):
        text = _decoded(text, value_of(row, columns.get("encoding")))
    if not isinstance(text, str):
        return Skip("", "", f"text_is_not_a_string: {type(text).__name__}")
    if len(text) > max_bytes:
        return Skip("", "", "over_max_file_bytes", len(text))
    if "\0" in text[:HEAD_BYTES]:
        return Skip("", "", "binary", len(text))
    return valid(text)


def _decoded(data: bytes, encoding: Any) -> str:
    """In the encoding that the table states, if that is one and fits; else UTF-8 with replacement."""
    if isinstance(encoding, str) and encoding.lower() not in {"utf-8", "utf8", "ascii"}:
        try:
            return data.decode(encoding)
        except (LookupError, ValueError):
            pass
    return data.decode("utf-8-sig", "replace")


def _fetched(
    options: Mapping[str, Any], columns: Mapping[str, str], rows: Sequence[Row]
) -> Mapping[str, bytes | BlobError]:
    if "blob_id" not in columns:
        return {}
    wanted = [
        str(value_of(row, columns["blob_id"]))
        for row in rows
        if value_of(row, columns.get("text")) is None and value_of(row, columns["blob_id"]) is not None
    ]
    return fetch(ContentConfig(**options["content"]), wanted, options["max_bytes"]) if wanted else {}


def _word(value: Any) -> str:
    return valid(value) if isinstance(value, str) else "" if value is None else str(value)


def _check(source: str, file: str, key: str, name: str, known: Sequence[str]) -> None:
    if name not in known and name.split(".", maxsplit=1)[0] not in known:
        raise ConfigError(
            f'source "{source}": {file}: {key}: no column "{name}"{nearest(name, known)}; '
            f"columns here: {', '.join(known)}"
        )
