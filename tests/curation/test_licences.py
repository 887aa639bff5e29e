"""Licences: texts by phrases, classes of expressions, and the precedence of repository, file and folder."""

from pathlib import Path

import polars as pl
import pytest
from codesieve.curation.licences import LAYER, UNKNOWN_TEXT, classify, licence_of, licences, load_table, normalise
from codesieve.strict import CONFIGS, ConfigError
from license_expression import get_spdx_licensing

MIT = """MIT License

Copyright (c) 2020 A. Author

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies of the Software.
"""
BSD = """Redistribution and use in source and binary forms, with or without modification, are permitted:
1. Redistributions of source code must retain the above copyright notice.
2. Redistributions in binary form must reproduce the above copyright notice.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (MIT.replace("\n", "\r\n * "), "MIT"),
        (MIT[: MIT.index("The above")], "MIT-0"),
        (BSD, "BSD-2-Clause"),
        (BSD + "3. Neither the name may be used to endorse or promote products derived from it.", "BSD-3-Clause"),
        (BSD + "All advertising materials mentioning features of it must display:", "BSD-4-Clause"),
        ("                 Apache License\n           Version 2.0, January 2004\n", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991\n", "GPL-2.0-only"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007\n", "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1, February 1999\n", "LGPL-2.1-only"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007\n", "AGPL-3.0-only"),
        ("Mozilla Public License Version 2.0\n===\n", "MPL-2.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International\n", "CC-BY-SA-4.0"),
        ("Creative Commons Attribution 4.0 International\n", "CC-BY-4.0"),
        ("EUROPEAN UNION PUBLIC LICENCE v. 1.2\n", "EUPL-1.2"),
        ("We may do with this what we want.\n", None),
        ("", None),
    ],
)
def test_a_licence_text_is_known_by_its_phrases(text: str, expected: str | None) -> None:
    assert licence_of(text) == expected


def test_of_two_licences_in_one_text_the_first_counts() -> None:
    assert licence_of(MIT + "\nThe bundled parts:\n" + BSD) == "MIT"
    assert licence_of(BSD + "\nThe bundled parts:\n" + MIT) == "BSD-2-Clause"


@pytest.mark.parametrize(
    ("stated", "expression", "expected"),
    [
        ("MIT", "MIT", "permissive"),
        ("mit", "MIT", "permissive"),
        ("MIT License", "MIT", "permissive"),
        ("GPL-3.0-or-later", "GPL-3.0-or-later", "copyleft"),
        ("MIT OR GPL-2.0-only", "MIT OR GPL-2.0-only", "permissive"),
        ("MIT AND GPL-2.0-only", "MIT AND GPL-2.0-only", "copyleft"),
        ("(MIT OR GPL-2.0-only) AND MPL-2.0", "(MIT OR GPL-2.0-only) AND MPL-2.0", "copyleft"),
        ("MIT AND CC-BY-NC-4.0", "MIT AND CC-BY-NC-4.0", "other"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception", "permissive"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0", "copyleft"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0", "permissive"),
        ("LicenseRef-ours", "LicenseRef-ours", "other"),
        ("MIT AND (GPL", "MIT AND (GPL", "other"),
        ("Ask me first", "Ask me first", "other"),
        ("NOASSERTION", None, "none"),
        ("", None, "none"),
        (None, None, "none"),
    ],
)
def test_what_a_source_states_has_a_class(stated: str | None, expression: str | None, expected: str) -> None:
    assert (normalise(stated), classify(normalise(stated))) == (expression, expected)


def layer(*rows: dict[str, object]) -> list[tuple[str | None, str, str | None]]:
    empty = {"source": "s", "repository": "r", "license": "", "spdx_identifier": None, "licence_of_text": None}
    full = [{"id": str(i), **empty, "is_licence_text": "licence_of_text" in row, **row} for i, row in enumerate(rows)]
    frame = pl.DataFrame(full, schema_overrides={"spdx_identifier": pl.String, "licence_of_text": pl.String})
    result = licences(frame.lazy())
    assert result["id"].to_list() == [row["id"] for row in full]
    assert dict(result.schema) == {"id": pl.String(), **LAYER}
    return result.select(list(LAYER)).rows()


def test_the_repository_comes_before_the_folder() -> None:
    found = layer({"path": "a.py", "license": "Apache-2.0"}, {"path": "LICENSE", "licence_of_text": "MIT"})
    assert found == [("Apache-2.0", "permissive", "repository"), ("MIT", "permissive", "folder")]


def test_a_tag_counts_where_the_repository_says_nothing() -> None:
    found = layer({"path": "a.py", "spdx_identifier": "MIT"}, {"path": "LICENSE", "licence_of_text": "GPL-3.0-only"})
    assert found[0] == ("MIT", "permissive", "file")


@pytest.mark.parametrize(
    ("repository", "tag", "expected"),
    [
        ("MIT", "GPL-2.0-only", ("GPL-2.0-only", "copyleft", "file")),
        ("GPL-2.0-only", "MIT", ("GPL-2.0-only", "copyleft", "repository")),
        ("MIT", "Apache-2.0", ("MIT", "permissive", "repository")),
        ("GPL-2.0-only", "LicenseRef-ours", ("LicenseRef-ours", "other", "file")),
    ],
)
def test_of_repository_and_tag_the_less_permissive_counts(
    repository: str, tag: str, expected: tuple[str, str, str]
) -> None:
    assert layer({"path": "a.py", "license": repository, "spdx_identifier": tag}) == [expected]


def test_the_nearest_folder_with_a_text_counts_with_all_its_texts() -> None:
    found = layer(
        {"path": "LICENSE", "licence_of_text": "MIT"},
        {"path": "a/b/c.py"},
        {"path": "vendor/x/LICENSE-MIT", "licence_of_text": "MIT"},
        {"path": "vendor/x/COPYING", "licence_of_text": "GPL-2.0-only"},
        {"path": "vendor/x/src/y.c"},
        {"path": "vendorx/y.c"},
    )
    assert [row[0] for row in found] == ["MIT", "MIT", *["GPL-2.0-only AND MIT"] * 3, "MIT"]
    assert [row[1] for row in found] == ["permissive"] * 2 + ["copyleft"] * 3 + ["permissive"]


def test_a_folder_of_licences_speaks_for_the_folder_that_it_is_in() -> None:
    found = layer({"path": "a/LICENSES/MIT.txt", "licence_of_text": "MIT"}, {"path": "a/b.py"}, {"path": "c.py"})
    assert found[1:] == [("MIT", "permissive", "folder"), (None, "none", None)]


def test_repositories_and_sources_do_not_share_licences() -> None:
    found = layer(
        {"path": "LICENSE", "licence_of_text": "MIT"},
        {"path": "a.py", "repository": "other"},
        {"path": "a.py", "source": "other"},
    )
    assert [row[1] for row in found] == ["permissive", "none", "none"]


def test_an_unknown_text_counts_only_where_no_known_one_is() -> None:
    found = layer(
        {"path": "a/LICENSE", "licence_of_text": None},
        {"path": "b/LICENSE", "licence_of_text": None},
        {"path": "b/COPYING", "licence_of_text": "MIT"},
    )
    assert found == [(UNKNOWN_TEXT, "other", "folder"), *[("MIT", "permissive", "folder")] * 2]


def test_a_notice_about_others_is_no_licence_of_its_folder() -> None:
    found = layer({"path": "THIRD-PARTY-NOTICES.txt", "licence_of_text": "GPL-2.0-only"}, {"path": "a.py"})
    assert [row[1] for row in found] == ["none", "none"]


def test_no_documents_give_an_empty_layer() -> None:
    schema = dict.fromkeys(("id", "source", "repository", "path", "license", "spdx_identifier"), pl.String)
    frame = pl.LazyFrame(schema=schema | {"is_licence_text": pl.Boolean, "licence_of_text": pl.String})
    assert licences(frame).shape == (0, 4)


GOOD = CONFIGS / "licences.yaml"


def test_every_identifier_of_the_table_is_one_of_spdx() -> None:
    file = load_table(GOOD)
    identifiers = {text.spdx for text in file.texts} | set(file.spellings.values())
    assert not get_spdx_licensing().unknown_license_keys(" AND ".join(sorted(identifiers)))


def test_a_phrase_that_could_never_be_found_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "licences.yaml"
    good = GOOD.read_text(encoding="utf-8")
    path.write_text(good.replace("has: [cc0 1.0 universal]", "has: ['CC0 1.0, universal']"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r'CC0-1.0: "CC0 1.0, universal" must be words: "cc0 1.0 universal"'):
        load_table(path)
