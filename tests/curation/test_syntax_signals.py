"""Syntax signals: every grammar on a small program, Python against `ast` and `tokenize`."""

import ast
import inspect
import io
import itertools
import math
import re
import socket
import statistics
import tokenize
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from codesieve.curation.signals.grammars import build_grammar, grammar, load_syntax, syntax_file
from codesieve.curation.signals.parsing import parse
from codesieve.curation.signals.syntax import SYNTAX_SIGNALS, measure_syntax
from codesieve.strict import CONFIGS, ConfigError
from hypothesis import given
from hypothesis import strategies as st

LANGUAGES = sorted(syntax_file().languages)


def measure(text: str, language: str = "python", path: str = "a") -> dict[str, Any]:
    measured = measure_syntax(text.encode(), path, language)
    assert measured is not None
    return measured


# One program a language: one function, one class, one branch, one call, one import, a comment and a string where it
# has such things.
PROGRAMS = {
    "python": "import a\nclass B:\n    def c(self):\n        # d\n        if self:\n            e('f')\n",
    "javascript": "import a from 'a';\nclass B { c() { /* d */ if (this) { e(`f`); } } }\n",
    "typescript": "import a from 'a';\nclass B { c(x: number) { /* d */ if (x) { e('f'); } } }\n",
    "tsx": "import a from 'a';\nclass B { c() { /* d */ if (this) { e(<b>f</b>); } } }\n",
    "c": '#include <a.h>\nstruct b { int c; };\n/* d */\nint main(void) { if (1) e("f"); return 0; }\n',
    "c++": '#include <a>\nclass B { void c() { /* d */ if (x) e("f"); } };\n',
    "cuda": '#include <a>\nstruct B {};\n// d\n__global__ void c(int *x) { if (x) e("f"); }\n',
    "objective-c": '#import <A.h>\n@implementation B\n// d\n- (void)c { if (x) e(@"f"); }\n@end\n',
    "rust": 'use a::b;\nstruct B {}\n// d\nfn c() { if x { e("f"); } }\n',
    "java": 'import a.B;\nclass B { void c() { /* d */ if (x) e("f"); } }\n',
    "go": 'package a\nimport "a"\ntype B struct {}\n// d\nfunc c() { if x { e(`f`) } }\n',
    "shell": 'c() {\n  # d\n  if true_; then :; fi\n  e "f"\n}\n',
    "ruby": "class B\n  # d\n  def c\n    if x\n      e('f')\n    end\n  end\nend\n",
    "php": "<?php\nuse A\\B;\nclass C { function c() { /* d */ if ($x) { e('f'); } } }\n",
    "lua": "-- d\nfunction c() if x then e('f') end end\n",
    "kotlin": 'import a.b\nclass B {\n  // d\n  fun c() { if (x) { e("f") } }\n}\n',
    "scala": 'import a.b\nclass B {\n  // d\n  def c() = { if (x) e("f") }\n}\n',
    "c#": 'using A;\nclass B { void C() { /* d */ if (x) { E("f"); } } }\n',
    "swift": 'import A\nclass B {\n  // d\n  func c() { if x { e("f") } }\n}\n',
    "fortran": "subroutine c(x)\n  use a\n  ! d\n  if (x > 0) then\n    call e('f')\n  end if\nend subroutine c\n",
    "r": "# d\nc <- function(x) { if (x) { e('f') } }\n",
    "julia": 'import A\nstruct B end\n# d\nfunction c(x)\n  if x\n    e("f")\n  end\nend\n',
    "html": "<html><!-- d --><p>visible text</p></html>\n",
    "css": "@import 'a.css';\n/* d */\np { content: \"f\"; }\n",
    "scss": "@use 'a';\n// d\n@mixin c { content: \"f\"; }\n",
    "json": '{"a": [1, 2, {"b": null}]}\n',
    "json with comments": '{"a": 1 /* d */}\n',
    "toml": "# d\n[a]\nb = 'c'\n",
    "xml": '<?xml version="1.0"?>\n<!-- d -->\n<a>visible text</a>\n',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><!-- d --><text>visible</text></svg>\n',
}
# Where the program above means another number: a shell's `true_` and `:` are commands, Julia's grammar has a call in
# `function c(x)`, and the Fortran program has no type.
COUNTS = {("shell", "call_count"): 3, ("julia", "call_count"): 2, ("fortran", "class_count"): 0}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a grammar asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    grammar.cache_clear()
    yield
    grammar.cache_clear()


def test_every_program_is_of_a_language_in_the_table() -> None:
    """All others have a longer one in `test_syntax_golden.py`."""
    assert set(PROGRAMS) < set(LANGUAGES)


@pytest.mark.parametrize("language", PROGRAMS)
@pytest.mark.usefixtures("no_network")
def test_every_grammar_loads_offline_and_counts_its_program(language: str) -> None:
    measured = measure(PROGRAMS[language], language)
    assert measured["syntax_error_fraction"] == 0
    counts = ("function_count", "class_count", "branch_count", "call_count", "import_count")
    found = {name: measured[name] for name in counts if name in measured}
    assert found == {name: COUNTS.get((language, name), 1) for name in found}
    for share in ("comment_fraction", "string_fraction", "visible_text_fraction"):
        if share in measured and not (language == "json" and share == "comment_fraction"):
            assert 0 < measured[share] < 1, share


def test_columns_that_a_language_cannot_have_are_null() -> None:
    measured = measure(PROGRAMS["json"], "json")
    assert {signal.name for signal in SYNTAX_SIGNALS} - set(measured) >= {"function_count", "string_fraction"}
    assert "docstring_fraction" not in measure(PROGRAMS["go"], "go")


# --- Python against the interpreter's own parser

MODULES = ["argparse", "dataclasses", "textwrap", "heapq", "json.decoder", "collections", "contextlib", "fnmatch"]


def module_source(name: str) -> str:
    module = __import__(name, fromlist=["_"])
    assert isinstance(module, types.ModuleType)
    return inspect.getsource(module)


@pytest.mark.parametrize("name", MODULES)
def test_python_is_counted_as_the_interpreter_counts_it(name: str) -> None:
    source = module_source(name)
    nodes = list(ast.walk(ast.parse(source)))
    measured = measure(source)

    def count(*kinds: type[ast.AST]) -> int:
        return sum(isinstance(node, kinds) for node in nodes)

    assert measured["syntax_error_fraction"] == 0
    assert measured["function_count"] == count(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    assert measured["class_count"] == count(ast.ClassDef)
    assert measured["call_count"] == count(ast.Call)
    assert measured["import_count"] == count(ast.Import, ast.ImportFrom)
    longest = max(
        (node.end_lineno - node.lineno + 1 for node in nodes if isinstance(node, ast.FunctionDef | ast.Lambda)),
        default=0,
    )
    assert measured["longest_function_lines"] == longest


@pytest.mark.parametrize("name", MODULES)
def test_python_comments_and_docstrings_are_those_of_tokenize_and_ast(name: str) -> None:
    source = module_source(name)
    size = len(source.encode())
    comments = sum(
        len(token.string.encode())
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    )
    docstrings = 0
    for node in ast.walk(ast.parse(source)):
        holds = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if holds and ast.get_docstring(node, clean=False) is not None:
            segment = ast.get_source_segment(source, node.body[0])
            assert segment is not None
            docstrings += len(segment.encode())
    measured = measure(source)
    assert measured["docstring_fraction"] == pytest.approx(docstrings / size)
    assert measured["comment_fraction"] == pytest.approx((comments + docstrings) / size)


def test_identifiers_are_the_names_outside_comments_and_strings() -> None:
    source = module_source("heapq")
    names = {
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.NAME and token.string.encode() not in grammar("python").keywords
    }
    measured = measure(source)
    assert measured["distinct_identifier_count"] == len(names)
    assert measured["mean_identifier_length"] == pytest.approx(sum(map(len, names)) / len(names))


# --- what counts


def test_a_string_is_no_docstring_unless_it_comes_first() -> None:
    measured = measure('def f():\n    x = 1\n    "not a docstring"\n    y = "a string"\n')
    assert measured["docstring_fraction"] == 0
    assert measured["longest_string_bytes"] == len('"not a docstring"')


def test_a_string_inside_a_string_counts_once() -> None:
    inner = "f\"{x:{'>10'}} and {f('y')}\""
    assert measure(f"{inner}\nz = {inner}\n", "python")["string_fraction"] <= 1
    source = "let a = `one ${f(`two ${'three'}`)} four`;\n"
    measured = measure(source, "javascript")
    assert measured["string_fraction"] == pytest.approx((len(source) - len("let a = ;\n")) / len(source))


@pytest.mark.parametrize(
    ("comment", "count"),
    [
        ("# TODO: all of it", 1),
        ("# todo: all of it", 1),
        ("# your code here", 1),
        ("# XXX and FIXME", 2),
        ("# mastodon, TODOS, de todo un poco", 0),
        ("x = 'TODO'", 0),
    ],
)
def test_placeholders_are_words_in_comments(comment: str, count: int) -> None:
    assert measure(comment + "\n")["placeholder_comment_count"] == count


@pytest.mark.parametrize(
    ("language", "source", "count"),
    [
        ("python", "assert x\nassert(y)\nself.assertEqual(a, b)\nnp.testing.assert_allclose(a, b)\n", 4),
        ("python", "raise AssertionError('assert x')\nasserted = 1\nreassert(x)\n# assert x\n", 0),
        ("c", "int main() { assert(x); static_assert(y); }\n", 2),
        ("c++", "TEST(A, B) { EXPECT_EQ(a, b); ASSERT_TRUE(c); }\n", 2),
        ("rust", 'fn t() { assert!(a); assert_eq!(a, b); debug_assert!(c); d.expect("e"); }\n', 3),
        ("javascript", "expect(a).toBe(b); assert(c); assert.equal(d, e);\n", 3),
        ("java", "class A { void t() { assert x; assertEquals(a, b); } }\n", 2),
    ],
)
def test_assertions_are_whole_words_of_code(language: str, source: str, count: int) -> None:
    assert measure(source, language)["assert_count"] == count


def test_a_header_in_cpp_is_parsed_again_as_cpp() -> None:
    cpp = "template <typename T> class A : public B<T> { public: T *x; A(const A &) = delete; };\n"
    assert measure(cpp, "c", "a.h")["parsed_as"] == "c++"
    assert measure(cpp, "c", "a.c")["parsed_as"] == "c"
    assert measure("int class(int);\nint new(int);\n", "c", "a.h")["parsed_as"] == "c"


def test_a_header_that_is_broken_in_both_stays_c() -> None:
    measured = measure("} } } )\n" * 3, "c", "a.h")
    assert measured["parsed_as"] == "c"
    assert measured["syntax_error_fraction"] > 0.02


# --- errors


def test_the_error_share_is_that_of_the_broken_part() -> None:
    good = "".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(50))
    broken = good + "x = = = (\n"
    assert measure(good)["syntax_error_count"] == 0
    measured = measure(broken)
    assert 0 < measured["syntax_error_fraction"] < 0.05
    assert 0 < measured["largest_syntax_error_bytes"] <= 10
    assert measured["function_count"] == 50


def test_prose_is_mostly_error_in_python_and_c() -> None:
    prose = "This is no program, but a sentence; it goes on (and on) until it ends: here.\n" * 20
    assert measure(prose, "python")["syntax_error_fraction"] > 0.3
    assert measure(prose, "c")["syntax_error_fraction"] > 0.3


def test_a_missing_token_counts_as_one_byte() -> None:
    source = "int main(void) { return 0 }\n"
    measured = measure(source, "c")
    assert (measured["syntax_error_count"], measured["largest_syntax_error_bytes"]) == (1, 1)
    assert measured["syntax_error_fraction"] == pytest.approx(1 / len(source))


# --- words and signs of code


@pytest.mark.parametrize(
    ("language", "source", "count", "literals"),
    [
        ("python", "x = 1\nx += y\nz: int = 'a'\nif (n := f(a=1)) == 2: pass\n", 4, 2),
        ("python", "x == y\nx != y\nx <= y\nx >= y\nf(a=1, *b)\ndef g(a=1): pass\n# x = 1\n'y = 2'\n", 0, 0),
        ("python", "x = None\ny = -1.5\nz = 'a' + b\na[0] = 1\nw = 1  # one\n", 5, 3),
        ("javascript", "let a = 1; b === c; d !== e; f => g; h ||= i; if ((m = n)) {}\n", 3, 1),
        ("c", "int a = 1, *b = &a; a <<= 2; if (a <= 3 || a >= 4) a = b == 0;\n", 4, 1),
        ("go", "a := 1\nb, c = d, e\nfor i := range x {}\nif a == b {}\n", 3, 1),
        ("rust", "fn f() { let a = 0..=9; match a { _ => () } }\n", 1, 0),
        ("shell", "a=1\nb+=2\n[ $a = 1 ]\n./run --to=x\nexport C=d\n", 3, 1),
        ("r", "a <- 1\nb = 2\nf(c = 3)\nd <<- 4\na == b\n", 3, 3),
        ("haskell", "a = b >>= c\nd = e /= f\ng = h <= i\n", 3, 0),
        ("vhdl", "a <= b;\nc := 1;\nif (d <= e) then\n", 2, 1),
        ("lua", "a = 1 if b ~= c then d = e end\n", 2, 0),
    ],
)
def test_assignments_are_neither_comparisons_nor_named_arguments(
    language: str, source: str, count: int, literals: int
) -> None:
    measured = measure(source, language)
    assert (measured["assignment_count"], measured["literal_assignment_count"]) == (count, literals)


@pytest.mark.parametrize(
    ("language", "source", "count"),
    [
        ("python", "def f():\n    return 1\n\ndef g():\n    pass\n\ndef h():\n    ...\n", 3),
        ("python", "def f(a: int = {1: 2}) -> int:\n    'doc'  # why\n    return (\n        a)\n", 1),
        ("python", "def f():\n    return 1\n    g()\n\ndef h():\n    if x:\n        return 1\n", 0),
        ("python", "f = lambda: 1\ndef g():\n    x = 1\n    return x\n", 0),
        ("java", "class A { int a() { return 1; } void b() { } void c() { d(); } int e() { f(); return 1; } }\n", 2),
        ("javascript", "function a() { return { b: 1 } }\nfunction c() {\n  return 1\n  d()\n}\n", 1),
        ("go", "package a\nfunc b() int {\n\treturn 1\n}\nfunc c() { d() }\n", 1),
    ],
)
def test_a_function_is_trivial_if_all_it_does_is_return(language: str, source: str, count: int) -> None:
    assert measure(source, language)["trivial_function_count"] == count


def test_names_of_words_are_whole_words() -> None:
    measured = measure("footprint(password)\nprint(1)\npass\nreturned = important\n")
    assert (measured["print_count"], measured["pass_count"], measured["return_count"]) == (1, 1, 0)
    assert (
        measure("int mainly(void) { return 0; }\nint f(void) { main(1, 2); }\nint main (void) {}\n", "c")["main_count"]
        == 1
    )


def test_an_else_if_is_as_deep_as_its_if() -> None:
    chain = "int f(int x) { if (x == 1) { g(); } else if (x == 2) { g(); } else if (x == 3) { while (x) g(); } }\n"
    assert measure(chain, "c")["max_nesting_depth"] == 3
    assert (
        measure("def f(x):\n    if x:\n        a\n    elif y:\n        b\n    else:\n        c\n")["max_nesting_depth"]
        == 2
    )


def test_the_share_at_the_top_leaves_out_white_space_functions_imports_and_comments() -> None:
    source = "import a\n\n\n# why\nx = 1\n\n\ndef f():\n    return 1\n"
    assert measure(source)["top_level_fraction"] == pytest.approx(3 / len(source))


def test_numbers_and_strings_are_literals() -> None:
    source = "x = 12 + 3.5 + 1e-5 + 0x1F\ny = 'abc'\na1 = b2\n"
    assert measure(source)["literal_fraction"] == pytest.approx((2 + 3 + 4 + 4 + 5) / len(source))


def test_long_strings_and_their_words() -> None:
    words = " ".join(["word"] * 21)
    source = f"x = '{words}'\ny = '{'a' * 30} http://{'b' * 30}'\nz = '{' '.join(['w'] * 20)}'\n"
    measured = measure(source)
    assert measured["long_string_line_fraction"] == pytest.approx(1 / 3)
    assert measured["long_string_word_fraction"] == pytest.approx(30 / len(source))


# --- the kernels against plain Python

CODE_LIKE = st.lists(
    st.sampled_from(
        [*"(){}[]<>\"'`\\\n\t #/*;:,.=&|@%x1", "if ", "def ", "class ", "fn ", "<<E\n", "${", "/*", "*/", "é文", "\0"]
    ),
    max_size=150,
).map("".join)

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12)


@given(st.text(" \nab.", min_size=90, max_size=90), st.lists(SPANS, min_size=8, max_size=8))
def test_what_follows_from_ranges_is_what_sets_of_bytes_say(text: str, groups: list[list[tuple[int, int]]]) -> None:
    from codesieve.curation.signals.kernels import spans

    kept = nest([span for group in groups for span in group])
    nested = [[span for i, span in enumerate(kept) if i % 8 == group] for group in range(8)]
    flat = [span for group in nested for span in group]
    bounds = [0, *itertools.accumulate(map(len, nested))]
    numbers, hidden, functions = spans.measure_spans(
        np.frombuffer(text.encode(), np.uint8),
        np.array([start for start, _ in flat], np.int64),
        np.array([end for _, end in flat], np.int64),
        np.array(bounds, np.int64),
    )
    found = dict(zip(spans.NUMBERS, numbers, strict=True))
    inside = [{i for start, end in group for i in range(start, end)} for group in nested]
    assert found["comment_bytes"] == len(inside[0])
    assert found["string_bytes"] == len(inside[1])
    covered = inside[0] | inside[2] | inside[3] | inside[4] | inside[6]
    assert found["top_level_bytes"] == sum(not text[i].isspace() for i in range(len(text)) if i not in covered)
    assert found["line_count"] == text.count("\n") + (not text.endswith("\n"))
    lengths = sorted(text[start : start + len(text[start:end].rstrip())].count("\n") + 1 for start, end in nested[3])
    assert found["longest_function_lines"] == max(lengths, default=0)
    if lengths:
        assert found["median_function_lines"] == statistics.median(lengths)
        assert found["p90_function_lines"] == lengths[math.ceil(0.9 * len(lengths)) - 1]
    assert [tuple(row) for row in functions] == sorted(nested[3], key=lambda span: (span[0], -span[1]))
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(hidden))


def nest(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges as nodes of a tree are: nested or disjoint."""
    kept: list[tuple[int, int]] = []
    for start, length in spans:
        end = start + length + 1
        if all(end <= a or b <= start or (a <= start and end <= b) or (start <= a and b <= end) for a, b in kept):
            kept.append((start, end))
    return kept


@given(CODE_LIKE)
def test_words_are_those_of_a_regular_expression(text: str) -> None:
    python = grammar("python")
    assert python is not None
    source = text.encode()
    found = python.cursor.captures(parse(python.parser, source).root_node)
    hidden = {
        i for name in ("comments", "strings") for n in found.get(name, ()) for i in range(n.start_byte, n.end_byte)
    }
    code = bytes(32 if i in hidden else byte for i, byte in enumerate(source))
    words = re.findall(rb"[A-Za-z0-9_\x80-\xff]+", code)
    names = [word for word in words if not word[:1].isdigit() and word not in python.keywords]
    measured = measure(text)
    assert measured["identifier_count"] == len(names)
    assert measured["distinct_identifier_count"] == len(set(names))
    if names:
        assert measured["mean_identifier_length"] == pytest.approx(sum(map(len, set(names))) / len(set(names)))
        assert measured["single_letter_identifier_fraction"] == pytest.approx(
            sum(len(name) == 1 for name in set(names)) / len(set(names))
        )


# --- the table

GOOD = (CONFIGS / "syntax.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("classes: [class_definition]", "classes: [class_definitoin]", 'python: classes: grammar "python" has no node type "class_definitoin" (did you mean "class_definition"?)'),
        ("grammar: python", "grammar: pyhton", 'python: tree-sitter-language-pack has no "pyhton"'),
        ("'(module . (comment)* . (string) @docstrings)'", "'(module (nothing) @docstrings)'", "python: docstrings"),
    ],
)  # fmt: skip
def test_a_wrong_grammar_or_node_type_is_an_error_that_names_the_language(
    tmp_path: Any, before: str, after: str, message: str
) -> None:
    assert before in GOOD
    path = tmp_path / "syntax.yaml"
    path.write_text(GOOD.replace(before, after, 1), encoding="utf-8")
    file = load_syntax(path)
    with pytest.raises(ConfigError) as error:
        build_grammar("python", file.languages["python"], file)
    assert message in str(error.value)


def test_an_unknown_language_or_key_is_an_error(tmp_path: Any) -> None:
    path = tmp_path / "syntax.yaml"
    path.write_text(GOOD.replace("  kotlin:\n", "  kotlyn:\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r'unknown language "kotlyn".*did you mean "kotlin"'):
        load_syntax(path)
    path.write_text(GOOD.replace("  html:\n", "  html:\n    function: []\n"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r'unknown key "languages\.html\.function"'):
        load_syntax(path)
