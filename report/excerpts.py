"""Excerpts of documents as HTML that is safe to show: at most 20 lines of at most 160 characters, lightly coloured.

The text is untrusted. Everything is escaped, control characters and the bidirectional overrides that can make code
read as something else are shown as symbols, and only the excerpt is lexed, so that no document costs more than
another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup, escape
from pygments import token
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_LINES = 20
MAX_CHARACTERS = 160

LEXERS = {"tsx": "typescript", "text": "", "markdown": "", "restructuredtext": "", "unknown": ""}
"""Languages whose lexer has another name, or that are shown plain."""

CLASSES = (
    (token.Comment.PreprocFile, "s"), (token.Comment.Preproc, "k"), (token.Comment, "c"), (token.Keyword, "k"),
    (token.Literal.String, "s"), (token.Literal.Number, "n"),
)  # fmt: skip
"""Four colours are enough to see the shape of code; more would compete with the page."""

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_HEADER = re.compile(r"\s*(?:#|//|/\*|\*|--|;|<!--|\"\"\"|$)")


@dataclass(frozen=True)
class Excerpt:
    """A few lines of a document: their first number, their HTML, and how many lines the document has."""

    first_line: int
    last_line: int
    lines: int
    html: Markup


def head(text: str, language: str) -> Excerpt:
    """The beginning."""
    return _excerpt(text, language, 0)


def body(text: str, language: str) -> Excerpt:
    """From the first line that is not a header comment, where there is one: what the document is, not its licence."""
    lines = _lines(text)
    first = next((number for number, line in enumerate(lines) if not _HEADER.match(line)), 0)
    return _excerpt(text, language, min(first, max(0, len(lines) - MAX_LINES)))


def longest_line(text: str, language: str) -> Excerpt:
    """Around the longest line, which is what some rules look at."""
    lines = _lines(text)
    longest = max(range(len(lines)), key=lambda number: (len(lines[number]), -number))
    return _excerpt(text, language, max(0, min(longest - 2, len(lines) - MAX_LINES)))


def visible(text: str) -> str:
    """`text` with invisible characters as symbols: `␀` for NUL, `␊` for a line feed, `[U+202E]` for an override."""
    return _HIDDEN.sub(_symbol, text.replace("\n", "␊").replace("\t", "    "))


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text.removesuffix("\n")) or [""]


def _excerpt(text: str, language: str, first: int) -> Excerpt:
    lines = _lines(text)
    chosen = lines[first : first + MAX_LINES]
    cut = [visible(line[:MAX_CHARACTERS]) for line in chosen]
    coloured = _colour("\n".join(cut), language).split("\n")
    more = [len(line) - MAX_CHARACTERS for line in chosen]
    html = [
        Markup('{}<span class="more"> … {:,} more</span>').format(line, left) if left > 0 else line
        for line, left in zip(coloured, more, strict=True)
    ]
    return Excerpt(first + 1, first + len(chosen), len(lines), Markup("\n").join(html))


def _colour(text: str, language: str) -> Markup:
    lexer = _lexer(language)
    if lexer is None:
        return escape(text)
    whole = text + "\n"  # many lexers end a comment at the line end only
    tokens = list(lexer.get_tokens(whole))
    if "".join(value for _, value in tokens) != whole:
        return escape(text)  # the lexer changed line ends; the lines must stay the same
    parts: list[Markup] = []
    for kind, value in tokens:
        css = next((name for wanted, name in CLASSES if kind in wanted), None)
        # A span must not reach over lines, because they are taken apart again.
        pieces = [
            Markup('<span class="{}">{}</span>').format(css, p) if css and p else escape(p) for p in value.split("\n")
        ]
        parts.append(Markup("\n").join(pieces))
    return Markup("").join(parts).removesuffix("\n")


def _lexer(language: str) -> Lexer | None:
    name = LEXERS.get(language, language)
    if not name:
        return None
    try:
        return get_lexer_by_name(name, stripnl=False, stripall=False, ensurenl=False)
    except ClassNotFound:
        return None


def _symbol(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return f"[U+{code:04X}]"
