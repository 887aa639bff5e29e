"""Notebooks: one document of code and prose in order, outputs dropped; a broken one is a named skip."""

import json
from pathlib import Path

import pytest
from codesieve.config import SourceConfig
from codesieve.curation.sources.documents import documents_of
from codesieve.curation.sources.listing import Entry, Skip
from codesieve.curation.sources.notebooks import NotebookError, notebook_text
from codesieve.curation.sources.sources import list_sources


def notebook(*cells: dict, language: str | None = "python", **more: object) -> str:
    metadata = {"kernelspec": {"name": "k", "language": language, "display_name": "K"}} if language else {}
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5, **more})


def code(source: str | list[str], **more: object) -> dict:
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None, **more}


def prose(source: str) -> dict:
    return {"cell_type": "markdown", "source": source, "metadata": {"tags": ["x"]}}


OUTPUT = [{"output_type": "stream", "name": "stdout", "text": "SECRET OUTPUT"}]


def test_code_and_prose_keep_their_order_and_outputs_go() -> None:
    raw = notebook(
        prose("# Sums\n\nWe add."),
        code(["%matplotlib inline\n", "import os\n", "x = 1"], outputs=OUTPUT, execution_count=7),
        code("y = x + 1"),
    )
    text, language, facts = notebook_text(raw)
    assert text == (
        "# %% [markdown]\n# # Sums\n#\n# We add.\n\n# %%\n# %matplotlib inline\nimport os\nx = 1\n\n# %%\ny = x + 1\n"
    )
    assert language == "python"
    assert facts == {"cells": 3, "code_cells": 2}
    compile(text, "notebook", "exec")


@pytest.mark.parametrize(
    ("kernel", "language", "begins"),
    [
        ("R", "r", "# %% [markdown]\n# Hi"), ("julia", "julia", "# %% [markdown]\n# Hi"),
        ("javascript", "javascript", "// %% [markdown]\n// Hi"), ("C++", "c++", "// %% [markdown]\n// Hi"),
        ("C#", "c#", "// %% [markdown]\n// Hi"), ("haskell", "haskell", "-- %% [markdown]\n-- Hi"),
        ("bash", "shell", "# %% [markdown]\n# Hi"), (None, "python", "# %% [markdown]\n# Hi"),
        ("klingon", "unknown", "# %% [markdown]\n# Hi"),
    ],
)  # fmt: skip
def test_prose_is_in_comments_of_the_kernels_language(kernel: str | None, language: str, begins: str) -> None:
    text, found, _ = notebook_text(notebook(prose("Hi"), code("1"), language=kernel))
    assert found == language
    assert text.startswith(begins)


def test_notebooks_of_format_three_and_without_metadata_are_read() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Old"], "metadata": {}},
        {"cell_type": "code", "input": ["x = 1\n", "y = 2"], "outputs": [], "language": "python", "collapsed": False},
    ]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": cells}]}
    text, _, facts = notebook_text(json.dumps(old))
    assert text == "# %% [markdown]\n# ## Old\n\n# %%\nx = 1\ny = 2\n"
    assert facts == {"cells": 2, "code_cells": 1}
    bare = {"nbformat": 4, "cells": [{"cell_type": "code", "source": "z = 3"}]}
    assert notebook_text(json.dumps(bare))[0] == "# %%\nz = 3\n"


def test_the_same_notebook_gives_the_same_text_again() -> None:
    raw = notebook(prose("a"), code("b"))
    assert notebook_text(raw) == notebook_text(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "{broken", "{}", '{"nbformat": 4}', '{"nbformat": 4, "cells": {"a": 1}}', '{"nbformat": 4, "cells": [3]}',
        '{"nbformat": 99, "cells": []}', '{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}',
        '{"nbformat": 3, "worksheets": 3}', '{"nbformat": 4, "cells": [{"source": "no type"}]}',
        '{"a":' * 100_000, '{"nbformat": 4, "nbformat_minor": "x", "cells": [{"cell_type": ["code"]}]}',
        '{"nbformat": {}, "cells": []}',
    ],
)  # fmt: skip
def test_a_broken_notebook_is_an_error_in_words(raw: str) -> None:
    with pytest.raises(NotebookError):
        notebook_text(raw)


def test_half_of_a_character_becomes_replacement_characters() -> None:
    text, _, _ = notebook_text(notebook(code("x = '\ud800'")))
    assert text == "# %%\nx = '\ufffd\ufffd\ufffd'\n"


def entry(path: str = "a/b.ipynb") -> Entry:
    return Entry(source="s", file="/x", path=path, size_bytes=10, extra='{"changed": "2024"}')


def test_a_notebook_is_an_adjacent_document_and_a_broken_one_a_named_skip() -> None:
    found = next(documents_of(entry(), notebook(prose("Hi"), code("x = 1")).encode()))
    assert not isinstance(found, Skip)
    assert (found["kind"], found["language"], found["path"]) == ("adjacent", "python", "a/b.ipynb")
    assert json.loads(found["extra"]) == {"changed": "2024", "cells": 2, "code_cells": 1}
    for data in (b"", b"not json", b'{"cells": 3}', b'{"nbformat": 4'):
        broken = next(documents_of(entry(), data))
        assert isinstance(broken, Skip)
        assert broken.reason.startswith("bad_notebook: ")


def test_a_kind_of_the_source_holds_for_notebooks_too(tmp_path: Path) -> None:
    (tmp_path / "n.ipynb").write_text(notebook(code("x = 1")))
    found = list_sources([SourceConfig(name="s", type="directory", path=str(tmp_path), kind="code")]).entries[0]
    row = next(documents_of(found, (tmp_path / "n.ipynb").read_bytes()))
    assert not isinstance(row, Skip)
    assert row["kind"] == "code"
