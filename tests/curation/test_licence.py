"""Licence signals: tags, notices and licence texts."""

import polars as pl
import pytest
from codesieve.curation.signals.licence import HEAD_CHARACTERS, LicenceSignals, measure_licence

MIT = "MIT License\n\nCopyright (c) 2020 A. Author\n\nPermission is hereby granted, free of charge, to any person\n"


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0-or-later */", "GPL-2.0-or-later"),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0 -->", "CC-BY-4.0"),
        ("// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\r\n", "Apache-2.0 WITH LLVM-exception"),
        ("# SPDX-License-Identifier: (MIT OR Apache-2.0) AND BSD-3-Clause\n", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
        ("# SPDX-License-Identifier:\nimport os\n", None),
        ("# the tag is called SPDX-License-Identifier\n", None),
        ("x = 1\n", None),
    ],
)
def test_the_spdx_expression_is_read_from_the_tag(line: str, expression: str | None) -> None:
    assert measure_licence(line, "a.c", "c")[0] == expression


@pytest.mark.parametrize(
    "line",
    [
        "# Copyright 2019 The Authors",
        "# Copyright (c) Facebook, Inc.",
        "/* (C) 1998-2004 Somebody */",
        "// © 2024 Somebody",
        "# COPYRIGHT BY SOMEBODY, 2001",
        "# SPDX-FileCopyrightText: Somebody",
    ],
)
def test_a_copyright_notice_is_seen(line: str) -> None:
    assert measure_licence(line, "a.py", "python")[1] is True


@pytest.mark.parametrize("line", ["copyright = None", "# (c) a third case", "def copyright_notice(): ...", "sum(c)"])
def test_the_word_alone_is_no_notice(line: str) -> None:
    assert measure_licence(line, "a.py", "python")[1] is False


@pytest.mark.parametrize("path", ["LICENSE", "a/COPYING.LIB", "licenses/zlib.txt", "NUMPY_LICENSE", "NOTICE.md"])
def test_a_text_named_or_filed_as_a_licence_is_one(path: str) -> None:
    assert measure_licence(MIT, path, "text")[2] is True


def test_neither_the_name_nor_the_text_alone_makes_a_licence() -> None:
    assert measure_licence("How we license things.\n", "LICENSE", "text")[2] is False
    assert measure_licence(MIT, "README", "text")[2] is False
    assert measure_licence(MIT, "license.py", "python")[2] is False


def test_a_licence_text_is_named_and_other_documents_are_not() -> None:
    permission = " obtaining a copy ...\nThe above copyright notice and this permission notice\n"
    text = MIT.rstrip() + permission
    batch = pl.DataFrame({"text": ["x", text, text], "path": ["a.py", "LICENSE", "README"], "language": ["text"] * 3})
    assert LicenceSignals()(batch)["licence_of_text"].to_list() == [None, "MIT", None]


def test_a_licence_that_tells_its_history_first_is_read_further_than_a_head() -> None:
    history = "All rights reserved.\n" + "It was made long ago. " * 300
    text = history + "\nPYTHON SOFTWARE FOUNDATION LICENSE VERSION 2\n"
    batch = pl.DataFrame({"text": [text], "path": ["LICENSE"], "language": ["text"]})
    assert LicenceSignals()(batch)["licence_of_text"].to_list() == ["PSF-2.0"]


def test_the_step_reads_the_head_and_leaves_the_text_whole() -> None:
    text = "é" * HEAD_CHARACTERS + "\n# SPDX-License-Identifier: MIT\n# Copyright 2020 X\n"
    batch = pl.DataFrame({"text": [text, text[1000:]], "path": ["a.py"] * 2, "language": ["python"] * 2})
    result = LicenceSignals()(batch)
    assert result["text"].to_list() == batch["text"].to_list()
    assert result["spdx_identifier"].to_list() == [None, "MIT"]
    assert result["step_errors"].to_list() == [[], []]
