"""Code that was commented out is told from prose."""

from typing import Any

import pytest
from codesieve.curation.signals.syntax import measure_syntax


def measure(text: str, language: str = "python", path: str = "a") -> dict[str, Any]:
    measured = measure_syntax(text.encode(), path, language)
    assert measured is not None
    return measured


PROSE = """
This returns the number of rows (or None if there are none).
For example: when x is larger than y, both are swapped;
n = number of rows
if the file exists, it is read:
for use in tests:
see foo(x) for details
the file(s)
open(2)
import data before use
return value
x is set to 5
Copyright (c) 2020 Somebody
https://example.org/a=b;c(d)
TODO: handle errors (see above)
sourceMappingURL=index.js.map
defined(HAVE_THREADS)
-*- coding: utf-8 -*-
getName()
with the following:
alpha = learning rate of the model
pylint: disable=invalid-name
""".strip().splitlines()
CODE = """
x = 5
int x = 3;
foo(bar, baz)
self.items.append(item)
if x == 3:
if (x == 3) {
} else {
}
for (i = 0; i < n; i++) {
while (list != NULL) {
def read(path):
return foo(x)
return;
raise ValueError(name)
import os.path
from a import b
include <stdio.h>
console.log("x");
let total = price * 2;
self.x = np.zeros(3)
items[0] = None
print(x)
""".strip().splitlines()


@pytest.mark.parametrize("line", PROSE)
def test_prose_does_not_read_as_code(line: str) -> None:
    for language, mark in (("python", "# "), ("c", "// "), ("javascript", "// ")):
        assert measure(f"{mark}{line}\n", language)["commented_out_code_fraction"] == 0


@pytest.mark.parametrize("line", CODE)
def test_code_in_a_comment_reads_as_code(line: str) -> None:
    for language, mark in (("python", "# "), ("c", "// "), ("javascript", "// ")):
        assert measure(f"{mark}{line}\n", language)["commented_out_code_fraction"] == 1


def test_examples_in_documentation_comments_are_not_commented_out() -> None:
    assert measure("/// let x = f(1);\nfn a() {}\n", "rust")["commented_out_code_fraction"] == 0
    assert measure("/**\n * f(1);\n */\nclass A {}\n", "java")["commented_out_code_fraction"] == 0
    assert measure("/* prose\n * f(1);\n */\nclass A {}\n", "java")["commented_out_code_fraction"] > 0
