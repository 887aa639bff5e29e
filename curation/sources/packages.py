"""What a package says about itself: name, version and licence from METADATA, PKG-INFO or package.json."""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
from dataclasses import dataclass
from typing import Any

from .values import valid

LICENCE_CHARACTERS = 80
"""Longer ones are the text of a licence, not its name."""

_BOOKS = (
    re.compile(r"^[^/]+\.dist-info/METADATA$"),  # wheel
    re.compile(r"^[^/]+/PKG-INFO$"),  # sdist
    re.compile(r"^[^/]+/package\.json$"),  # npm
)

MAX_BOOK_BYTES = 1_000_000
"""The largest METADATA among the thousand most downloaded packages holds 300 kB of description."""


@dataclass(frozen=True)
class Facts:
    """What is stated; empty where nothing is."""

    name: str = ""
    version: str = ""
    licence: str = ""


def rank_of_book(name: str) -> int | None:
    """How well a member of that name knows the package (0 is best); None if it is no package's book."""
    return next((rank for rank, pattern in enumerate(_BOOKS) if pattern.match(name)), None)


def facts_of(name: str, data: bytes) -> Facts | None:
    """What the book says, or None if it cannot be read."""
    text = data.decode("utf-8", "replace")
    if name.endswith(".json"):
        return _of_json(text)
    message = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(text)
    return Facts(str(message.get("Name") or ""), str(message.get("Version") or ""), stated_licence(message))


def stated_licence(metadata: Any) -> str:
    """The SPDX expression if a package states one (PEP 639), else a short licence field, else nothing."""
    for field in ("License-Expression", "License"):
        stated = metadata[field] if field in metadata else ""  # noqa: SIM401  not a dict: it has no get
        if stated and len(stated) <= LICENCE_CHARACTERS and "\n" not in stated:  # some put the whole text there
            return str(stated.strip())
    return ""


def _of_json(text: str) -> Facts | None:
    try:
        book = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(book, dict):
        return None
    licence = book.get("license")
    if isinstance(licence, dict):  # npm before 2014
        licence = licence.get("type")
    named = (book.get("name"), book.get("version"), licence)
    name, version, licence = (valid(value) if isinstance(value, str) else "" for value in named)
    if len(licence) > LICENCE_CHARACTERS or licence.upper().startswith("SEE LICEN"):
        licence = ""
    return Facts(name, version, licence)
