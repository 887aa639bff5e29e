"""Language identification: by name, extension, interpreter and, where these are not enough, by content."""

from pathlib import Path

import pytest
from codesieve.config import KINDS
from codesieve.curation.languages import UNKNOWN, identify, kind_of, languages, load_languages
from codesieve.strict import CONFIGS, ConfigError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("a/b.pyi", "python"),
        ("fast.pyx", "cython"),
        ("fast.pxd", "cython"),
        ("app.js", "javascript"),
        ("app.min.js", "javascript"),
        ("types.d.ts", "typescript"),
        ("view.tsx", "tsx"),
        ("main.c", "c"),
        ("main.CC", "c++"),
        ("kernel.cu", "cuda"),
        ("lib.rs", "rust"),
        ("Main.java", "java"),
        ("main.go", "go"),
        ("run.sh", "shell"),
        ("solve.f90", "fortran"),
        ("solve.f", "fortran"),
        ("query.sql", "sql"),
        ("page.html", "html"),
        ("README.md", "markdown"),
        ("index.rst", "restructuredtext"),
        ("data.csv", "csv"),
        ("LICENSE", "text"),
        ("LICENSE-APACHE", "text"),
        ("NUMPY_LICENSE", "text"),
        ("notes.txt", "text"),
        ("requirements-dev.txt", "pip requirements"),
        ("CMakeLists.txt", "cmake"),
        ("Makefile", "makefile"),
        ("Makefile.am", "makefile"),
        ("docker/Dockerfile.gpu", "dockerfile"),
        ("analysis.ipynb", "jupyter notebook"),
        ("fix.patch", "diff"),
        ("config.h.in", "c"),
        ("setup.py.tmpl", "python"),
        (".bashrc", "shell"),
        (".gitignore", "ignore list"),
        (".py", UNKNOWN),
        ("py", UNKNOWN),
        ("weights.bin", UNKNOWN),
        ("python/no_extension", UNKNOWN),
    ],
)
def test_a_file_is_identified_by_its_name(path: str, language: str) -> None:
    assert identify(path, b"") == language


@pytest.mark.parametrize(
    ("path", "head", "language"),
    [
        ("a.h", b"#ifndef A_H\nint f(void);\nstruct a { int class_id; };\n", "c"),
        ("a.h", b'#ifdef __cplusplus\nextern "C" {\n#endif\nint f(void);\n', "c"),
        ("a.h", b"/* the class of all\n   using the template\n   namespace rules */\nint f(void);\n", "c"),
        ("a.h", b"#pragma once\nnamespace a {\nint f();\n}\n", "c++"),
        ("a.h", b"template <typename T>\nT f(T x);\n", "c++"),
        ("a.h", b"#include <vector>\nvoid f(std::vector<int>&);\n", "c++"),
        ("a.h", b"class Stack : public Base {\n public:\n};\n", "c++"),
        ("a.h", b"#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", "objective-c"),
        ("a.m", b"% fits a line\nfunction y = f(x)\ny = x;\nend\n", "matlab"),
        ("a.m", b"#import <Foundation/Foundation.h>\n@implementation A\n@end\n", "objective-c"),
        ("a.m", b'BeginPackage["A`"]\nf[x_] := x\n', "wolfram language"),
        ("a.pl", b"#!/usr/bin/perl\nuse strict;\nmy $x = 1;\n", "perl"),
        ("a.pl", b":- module(a, [b/1]).\nb(X) :- c(X).\n", "prolog"),
        ("a.ts", b"export const a: number = 1;\n", "typescript"),
        ("a.ts", b'<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1">\n', "xml"),
        ("a.v", b"module adder(input a, output b);\nendmodule\n", "verilog"),
        ("a.v", b"Require Import List.\nTheorem t : True.\nProof. exact I. Qed.\n", "rocq prover"),
        ("a.fs", b"module A\nlet x = 1\n", "f#"),
        ("a.fs", b"#version 330\nvoid main() { gl_FragColor = vec4(1); }\n", "glsl"),
        ("a.1", b".TH LS 1\n.SH NAME\nls \\- list\n", "roff"),
        ("libz.so.1", b"no manual page", UNKNOWN),
    ],
)
def test_content_decides_where_an_extension_is_shared(path: str, head: bytes, language: str) -> None:
    assert identify(path, head) == language


@pytest.mark.parametrize(
    ("line", "language"),
    [
        (b"#!/usr/bin/python3.11 -u", "python"),
        (b"#!/usr/bin/env python3", "python"),
        (b"#! /bin/sh", "shell"),
        (b"#!/usr/bin/env -S node --harmony", "javascript"),
        (b"#!/usr/bin/env LC_ALL=C bash", "shell"),
        (b"#!/usr/bin/env", UNKNOWN),
        (b"#!/opt/unheard-of", UNKNOWN),
        (b"\xef\xbb\xbf#!/bin/bash\r", "shell"),
    ],
)
def test_a_script_without_extension_is_known_by_its_interpreter(line: bytes, language: str) -> None:
    assert identify("bin/tool", line + b"\nrest\n") == language


def test_the_extension_wins_over_the_interpreter() -> None:
    assert identify("tool.rb", b"#!/bin/sh\n") == "ruby"


def test_every_language_has_a_kind_and_the_unknown_is_neither_code_nor_text() -> None:
    table = languages()
    assert len(table) >= 80
    assert set(table.values()) == set(KINDS) - {"synthetic"}
    assert kind_of(UNKNOWN) == "markup"
    assert [kind_of(language) for language in ("python", "html", "json", "jupyter notebook", "text")] == [
        "code",
        "markup",
        "markup",
        "adjacent",
        "text",
    ]


@given(st.text(), st.binary(max_size=300))
def test_any_path_and_any_bytes_have_an_answer(path: str, head: bytes) -> None:
    assert identify(path, head) in {*languages(), UNKNOWN}


GOOD = (CONFIGS / "languages.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "rust: {kind: code, extensions: [.rs]",
            "rust: {kind: code, extensions: [.rs, .go]",
            '.go is in "rust" and "go"',
        ),
        (
            "{language: typescript}",
            "{language: typescrypt}",
            'unknown language "typescrypt" (did you mean "typescript"?)',
        ),
        ("css: {kind: markup, extensions: [.css]}", "css: {kind: mark-up, extensions: [.css]}", "mark-up"),
        ("rust: {kind: code,", "rust: {kind: code, extension: [],", 'unknown key "languages.rust.extension"'),
        (
            "html: {kind: markup, extensions: [.html",
            "html: {kind: markup, extensions: [html",
            "languages.html.extensions",
        ),
        ("'\\A%!PS'", "'['", "not a regular expression"),
        ("interpreters: [fish]", "interpreters: [fish, bash]", 'interpreter "bash" is in "shell" and "fish"'),
        (
            "hack: {kind: code, extensions: [.hack, .hhi]}",
            "hack: {kind: code, extensions: [.h]}",
            "no rule in `ambiguous`",
        ),
    ],
)
def test_a_bad_table_is_an_error_that_names_the_place(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in GOOD
    path = tmp_path / "languages.yaml"
    path.write_text(GOOD.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_languages(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
