"""Corruptions: seeded transformations that turn a good document into one that nobody should learn from.

In goes a text, its language and a random generator; out comes the damaged text, or the same text where there was
nothing to damage. They serve twice: as a minority of the negatives in training, and as matched pairs in the audit,
where topic, author and repository are the same on both sides and only the damage differs. A corrupted text is a
regular-expression job and need not parse. Price: about 5 MB/s for the slowest (renaming).
"""

from __future__ import annotations

import keyword
import random
import re
import string
from collections.abc import Callable, Mapping

from .masking import HASH_COMMENTS

MAXIMUM_BYTES = 64_000
"""Longer documents are not corrupted: five times the mean file, and it bounds what a corruption may cost."""


def corrupt(name: str, text: str, language: str, seed: int, key: str) -> str:
    """`text` damaged by the corruption `name`; the same (seed, key) gives the same damage.

    Raises:
        KeyError: if there is no such corruption.
    """
    return CORRUPTIONS[name](text, language, random.Random(f"{seed}:{key}:{name}"))


def flatten_indentation(text: str, language: str, generator: random.Random) -> str:
    """Every line loses its leading whitespace."""
    return _LEADING.sub("", text)


def rename_identifiers(text: str, language: str, generator: random.Random) -> str:
    """Identifiers become single letters in order of appearance (two letters after 52 names); comments stay."""
    names: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        found = match.group()
        if match.lastgroup != "name" or found in RESERVED:
            return found
        return names.setdefault(found, _letters(len(names)))

    return _pieces(language).sub(replace, text)


def minify(text: str, language: str, generator: random.Random) -> str:
    """Comments and docstrings go, lines are joined to about 500 characters."""
    bare = _pieces(language).sub(lambda match: "" if match.lastgroup in {"comment", "doc"} else match.group(), text)
    joiner = ";" if language in HASH_COMMENTS else ""
    lines: list[str] = []
    width = 0
    for line in filter(None, map(str.strip, bare.split("\n"))):
        if not lines or width > 500:
            lines.append(line)
            width = 0
        else:
            lines[-1] += joiner + line
        width += len(line)
    return "\n".join(lines)


def truncate(text: str, language: str, generator: random.Random) -> str:
    """The text stops in the middle of a line, after 30 to 70 % of it."""
    return text[: int(len(text) * generator.uniform(0.3, 0.7))]


def duplicate_blocks(text: str, language: str, generator: random.Random) -> str:
    """A block of 10 to 25 % of the lines is written over the rest again and again; the number of lines stays."""
    lines = text.split("\n")
    size = max(1, int(len(lines) * generator.uniform(0.1, 0.25)))
    start = generator.randrange(max(1, len(lines) - size))
    block = lines[start : start + size]
    return "\n".join((block * (len(lines) // size + 1))[: len(lines)])


def shuffle_lines(text: str, language: str, generator: random.Random) -> str:
    """The same lines in random order."""
    lines = text.split("\n")
    generator.shuffle(lines)
    return "\n".join(lines)


Corruption = Callable[[str, str, random.Random], str]

CORRUPTIONS: Mapping[str, Corruption] = {
    "flatten_indentation": flatten_indentation,
    "rename_identifiers": rename_identifiers,
    "minify": minify,
    "truncate": truncate,
    "duplicate_blocks": duplicate_blocks,
    "shuffle_lines": shuffle_lines,
}

RESERVED = frozenset(keyword.kwlist) | frozenset(
    """
    auto bool boolean box byte case catch char const constexpr crate debugger default defer delete do done double
    elif enum esac export extends extern fi final float fn foreach fun func function go goto impl implements inline
    int interface let long loop match mod module move mut namespace new null nullptr operator override package private
    protected pub public ref register select self short signed sizeof static static_cast string struct super switch
    template then this throw throws trait true false type typedef typename typeof undefined union unsafe unsigned use
    using usize var virtual void volatile where
    """.split()  # noqa: SIM905
)
"""Words that a renaming must leave alone for the result to look like code; the union over the languages we read."""

_LEADING = re.compile(r"^[ \t]+", re.MULTILINE)
_DOC = r'(?P<doc>"""(?s:.*?)(?:"""|\Z)|\'\'\'(?s:.*?)(?:\'\'\'|\Z))'
_STRING = r'(?P<string>"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"|\'[^\'\\\n]*+(?:\\.[^\'\\\n]*+)*+\')'
_NAME = r"(?P<name>[^\W\d]\w++)"
_HASH = re.compile(rf"(?P<comment>#[^\n]*)|{_DOC}|{_STRING}|{_NAME}")
_SLASH = re.compile(rf"(?P<comment>//[^\n]*|/\*(?s:.*?)(?:\*/|\Z))|{_STRING}|{_NAME}")


def _pieces(language: str) -> re.Pattern[str]:
    return _HASH if language in HASH_COMMENTS else _SLASH


def _letters(index: int) -> str:
    letters = string.ascii_letters
    return letters[index] if index < len(letters) else letters[index // len(letters) % 52] + letters[index % 52]
