"""Excerpts: few lines, short lines, nothing invisible, nothing that HTML would read, and the text unchanged."""

import html
import re

import pytest
from codesieve.report.excerpts import MAX_CHARACTERS, MAX_LINES, body, head, longest_line, visible
from hypothesis import given
from hypothesis import strategies as st

LANGUAGES = ["python", "javascript", "c", "c++", "html", "cython", "shell", "text", "unknown", "no such language"]
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=400) | st.text("<>&\"'`/#\n\r\t x{}", max_size=400)


def plain(markup: str) -> str:
    return html.unescape(re.sub(r"</?span[^>]*>", "", markup))


@given(TEXTS, st.sampled_from(LANGUAGES), st.sampled_from([head, body, longest_line]))
def test_an_excerpt_is_the_visible_text_of_its_lines(text: str, language: str, view: object) -> None:
    excerpt = view(text, language)  # type: ignore[operator]
    lines = re.split(r"\r\n|\r|\n", text.removesuffix("\n"))
    shown = plain(str(excerpt.html)).split("\n")
    wanted = lines[excerpt.first_line - 1 : excerpt.last_line]
    for line, original in zip(shown, wanted, strict=True):
        assert line.startswith(visible(original[:MAX_CHARACTERS]))
    assert len(shown) <= MAX_LINES
    assert excerpt.lines == len(lines)


@given(TEXTS, st.sampled_from(LANGUAGES))
def test_only_our_own_tags_are_in_the_html(text: str, language: str) -> None:
    without = re.sub(r'<span class="(?:c|k|s|n|more)">|</span>', "", str(head(text, language).html))
    assert not re.search("[<>\"']", without.replace("&#39;", "").replace("&#34;", ""))


def test_a_long_line_is_cut_and_says_by_how_much() -> None:
    excerpt = head("x" * 1500, "text")
    assert plain(str(excerpt.html)) == "x" * 160 + " … 1,340 more"


def test_the_longest_line_is_in_view() -> None:
    text = "\n".join(["short"] * 50 + ["long " * 100] + ["short"] * 50)
    excerpt = longest_line(text, "text")
    assert excerpt.first_line < 51 <= excerpt.last_line


def test_a_licence_header_is_passed_over_where_the_body_is_wanted() -> None:
    text = "\n".join(["# Licence text"] * 40 + ["", "import this"] + ["x = 1"] * 40)
    assert head(text, "python").first_line == 1
    assert body(text, "python").first_line == 42


@pytest.mark.parametrize(
    ("character", "shown"), [("\0", "␀"), ("\x1b", "␛"), ("\n", "␊"), ("\u202e", "[U+202E]"), ("\u200b", "[U+200B]")]
)
def test_what_cannot_be_seen_becomes_a_symbol(character: str, shown: str) -> None:
    assert visible(f"a{character}b") == f"a{shown}b"


def test_comments_strings_and_keywords_are_coloured() -> None:
    shown = str(head("def f():  # why\n    return 'a'\n", "python").html)
    assert '<span class="k">def</span>' in shown
    assert '<span class="c"># why</span>' in shown
    assert '<span class="s">a</span>' in shown
