"""Licence signals: what a document says about its own licence.

Comes in: text, path and language. Goes out: the SPDX expression of a header tag, whether there is a copyright notice in
the head, whether the document is itself a licence text, and which one. The repository's licence is another matter: it
is the identity column `license`, stated by the source; the layer `licences` puts all of it together.

Price: 15 µs a document; only the head is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from ..languages import kind_of
from ..licences import licence_of
from ..steps import STEP_ERRORS, map_documents
from .signal import Signal, dtypes

HEAD_CHARACTERS = 4_000
"""Header comments with a full MIT or BSD text are about 1,500 characters; some follow a table of contents."""

TEXT_CHARACTERS = 20_000
"""CPython's licence tells its history first; the phrases of all others are in the first 4,000."""

# REUSE 3.0: the tag, then an expression of identifiers joined by AND, OR, WITH and parentheses, to the end of the line.
_SPDX = re.compile(
    r"SPDX-License-Identifier:[ \t]*(\(*[A-Za-z0-9][A-Za-z0-9.+-]*\)*"
    r"(?:[ \t]+(?:AND|OR|WITH)[ \t]+\(*[A-Za-z0-9][A-Za-z0-9.+:-]*\)*)*)"
)
_NOTICE = re.compile(
    r"copyright[^\n]{0,40}?\b(?:19|20)\d\d\b|copyright[ \t]*(?:\(c\)|©)[ \t]*\S|spdx-filecopyrighttext:"
)
_SHORT_NOTICE = re.compile(r"(?:\(c\)|©)[ \t]*(?:19|20)\d\d\b")
_LICENCE_NAME = re.compile(
    r"(?:.*[-_.])?(?:licen[cs]es?|copying|unlicense|notice|third[-_]?party[-_]?notices?)(?:[-_.].*)?$", re.IGNORECASE
)
_LICENCE_PHRASE = re.compile(
    r"permission\s+is\s+hereby\s+granted|redistribution\s+and\s+use\s+in\s+source|terms\s+and\s+conditions"
    r"|general\s+public\s+license|mozilla\s+public\s+license|apache\s+license|licensed\s+under"
    r"|permission\s+to\s+use,\s+copy,\s+modify|all\s+rights\s+reserved|without\s+warranty|creative\s+commons"
    r"|license\s+agreement|public\s+domain|\bMIT\s+license|warranties\s+of\s+merchantability",
    re.IGNORECASE,
)


def _licence(name: str, dtype: pl.DataType, unit: str, values: str, meaning: str, source: str) -> Signal:
    return Signal(name, dtype, unit, values, meaning, source, "licence")


LICENCE_SIGNALS: tuple[Signal, ...] = (
    _licence(
        "spdx_identifier", pl.String(), "SPDX", "an expression, or null", "of the first tag in the head", "REUSE 3.0"
    ),
    _licence(
        "has_copyright_header",
        pl.Boolean(),
        "statement",
        "true | false",
        f"a copyright notice in the first {HEAD_CHARACTERS} characters",
        "Dolma code_copyright_comments_v1; OpenCoder",
    ),
    _licence(
        "is_licence_text",
        pl.Boolean(),
        "statement",
        "true | false",
        "a text named or filed as a licence that reads like one",
        "Stack v2 (licence-named files)",
    ),
    _licence(
        "licence_of_text",
        pl.String(),
        "SPDX",
        "an identifier, or null",
        f"which licence a licence text is, by phrases in its first {TEXT_CHARACTERS} characters; the first of several",
        "Stack v2 (there by ScanCode); phrases of the SPDX list",
    ),
)


class LicenceSignals:
    """Step: adds `LICENCE_SIGNALS`."""

    name = "licence"
    requires: tuple[str, ...] = ("text", "path", "language")
    provides: Mapping[str, pl.DataType] = dtypes(LICENCE_SIGNALS)

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """`batch` with the licence columns."""
        heads = batch["text"].str.head(HEAD_CHARACTERS)
        beside = [batch[STEP_ERRORS]] if STEP_ERRORS in batch.columns else []
        inputs = pl.DataFrame([heads, batch["path"], batch["language"], *beside])
        measured = map_documents(inputs, self.name, measure_licence, self.requires, _OF_HEAD)
        texts = pl.Series("licence_of_text", [None] * batch.height, dtype=pl.String)
        rows = measured["is_licence_text"].fill_null(False).arg_true()
        if len(rows):
            beginnings = batch["text"].gather(rows).str.head(TEXT_CHARACTERS)
            texts = texts.scatter(rows, pl.Series([licence_of(text) for text in beginnings], dtype=pl.String))
        return batch.with_columns(*(measured[name] for name in _OF_HEAD), texts, measured[STEP_ERRORS])


_OF_HEAD = {name: dtype for name, dtype in LicenceSignals.provides.items() if name != "licence_of_text"}


def measure_licence(head: str, path: str, language: str) -> tuple[str | bool | None, ...]:
    """The values of `LICENCE_SIGNALS` but the last for one document from its head, in that order."""
    tag = _SPDX.search(head) if "SPDX-" in head else None
    return (tag.group(1) if tag else None, _has_notice(head.lower()), _is_licence_text(head, path, language))


def _has_notice(head: str) -> bool:
    if "copyright" in head and _NOTICE.search(head):
        return True
    return ("(c)" in head or "©" in head) and _SHORT_NOTICE.search(head) is not None


def _is_licence_text(head: str, path: str, language: str) -> bool:
    if kind_of(language) == "code":
        return False
    *folders, name = path.split("/")
    filed = any(folder.lower() in {"licenses", "licences"} for folder in folders)
    return (filed or _LICENCE_NAME.match(name) is not None) and _LICENCE_PHRASE.search(head) is not None
