"""From content to identity rows: the one place where bytes or text of any source become a document or a named skip.

Text is UTF-8; a byte-order mark is dropped, undecodable bytes become U+FFFD (the signal `replacement_fraction` counts
them). What has a NUL byte in its head is binary and skipped by name. A Jupyter notebook becomes one document of code
and prose in order. The id hashes source, path, revision and content, so it is stable from run to run.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
from collections.abc import Iterator
from typing import Any

import xxhash

from ..languages import identify, kind_of
from .listing import Entry, Skip
from .notebooks import NotebookError, notebook_text

Document = dict[str, Any]
"""One row with the identity columns."""

HEAD_BYTES = 8_000
"""git's own heuristic: a NUL in the first 8,000 bytes makes a file binary."""

NOTEBOOK = ".ipynb"


def documents_of(entry: Entry, data: bytes) -> Iterator[Document | Skip]:
    """The document in a file's bytes, or why there is none."""
    if b"\0" in data[:HEAD_BYTES]:
        yield skip(entry, "binary")
        return
    text = data.decode("utf-8-sig", "replace")
    if entry.path.lower().endswith(NOTEBOOK) and not _is_object(text):
        yield skip(entry, "bad_notebook: not a JSON object")
        return
    yield from documents_of_text(entry, text)


def documents_of_text(entry: Entry, text: str, language: str | None = None, key: str = "") -> Iterator[Document | Skip]:
    """The document in a text, or why there is none.

    Args:
        entry: where it comes from.
        text: valid Unicode.
        language: if the source states it; else path and content decide.
        key: tells documents of equal path and content apart (a table of many repositories).
    """
    if entry.path.lower().endswith(NOTEBOOK) and _is_object(text):  # tables hold notebooks that are scripts already
        try:
            text, language, facts = notebook_text(text)
        except NotebookError as error:
            yield skip(entry, f"bad_notebook: {error}")
            return
        extra = json.dumps({**json.loads(entry.extra), **facts}, sort_keys=True, ensure_ascii=False)
        kind = entry.kind or "adjacent"
        yield document(entry, text, path=entry.path, language=language, kind=kind, extra=extra, key=key)
        return
    if language is None:
        language = identify(entry.path, text[:HEAD_BYTES].encode("utf-8", "replace"))
    kind = entry.kind or kind_of(language)
    yield document(entry, text, path=entry.path, language=language, kind=kind, extra=entry.extra, key=key)


def description_of(entry: Entry, data: bytes) -> Iterator[Document | Skip]:
    """The body of a METADATA file as a document: the package's long description."""
    message = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(data.decode("utf-8-sig", "replace"))
    text = str(message.get_payload() or message.get("Description") or "")
    if b"\0" in data[:HEAD_BYTES]:
        yield skip(entry, "binary")
    elif not text.strip():
        yield skip(entry, "no_description")
    else:
        kind = entry.kind or kind_of("text")
        yield document(entry, text, path=entry.path, language="text", kind=kind, extra="{}")


def document(entry: Entry, text: str, *, path: str, language: str, kind: str, extra: str, key: str = "") -> Document:
    """One identity row."""
    data = text.encode("utf-8", "replace")
    content_hash = xxhash.xxh3_128_hexdigest(data)
    parts = (entry.source, path, entry.revision, content_hash, *((key,) if key else ()))
    return {
        "id": xxhash.xxh3_128_hexdigest("\0".join(parts).encode("utf-8", "replace")),
        "text": text,
        "source": entry.source,
        "kind": kind,
        "language": language,
        "path": path,
        "repository": entry.repository,
        "revision": entry.revision,
        "license": entry.license,
        "size_bytes": len(data),
        "content_hash": content_hash,
        "extra": extra,
    }


def skip(entry: Entry, reason: str) -> Skip:
    """The entry as a skip."""
    return Skip(entry.source, entry.path, reason, entry.size_bytes)


def _is_object(text: str) -> bool:
    return text[:1_000].lstrip().startswith("{")
