"""Sources: every file becomes a document or a named skip, whatever is in it."""

import json
import os
from pathlib import Path

import polars as pl
import pytest
from codesieve.config import SourceConfig
from codesieve.curation.sources.environment import list_environment
from codesieve.curation.sources.files import FilesReader
from codesieve.curation.sources.listing import Entry, Listing, sample, units
from codesieve.curation.sources.sources import list_sources
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st


def listing(path: Path, **more: object) -> Listing:
    return list_sources([SourceConfig(name="here", type="directory", path=str(path), **more)])


def read(found: Listing, tmp_path: Path, batch_bytes: int = 8_000_000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and read-time skips."""
    reader = FilesReader(batch_bytes, tmp_path / "skipped")
    frames = [
        batch
        for index, unit in enumerate(units(found.entries, 16_000_000))
        for batch in reader.read({**json.loads(json.dumps(unit)), "index": index})
    ]
    return pl.concat(frames), pl.read_parquet(tmp_path / "skipped" / "*.parquet")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "project" / "src").mkdir(parents=True)
    (root / "project" / "src" / "main.py").write_text("def main():\n    return 1\n")
    (root / "project" / "empty.py").touch()
    (root / "project" / "binary.dat").write_bytes(b"\x7fELF\0\0\0")
    (root / "project" / "latin.py").write_bytes("# caf\xe9\n".encode("latin-1"))
    (root / "project" / "bom.py").write_bytes(b"\xef\xbb\xbfx = 1\n")
    (root / "project" / "two\nlines.py").write_text("x = 2\n")
    (root / "project" / ".git").mkdir()
    (root / "project" / ".git" / "HEAD").write_text("ref")
    (root / "loop").symlink_to(root)
    (root / "gone.py").symlink_to(root / "nowhere.py")
    os.mkfifo(root / "pipe.py")
    return root


def test_every_file_is_a_document_or_a_named_skip(tree: Path, tmp_path: Path) -> None:
    found = listing(tree)
    documents, skips = read(found, tmp_path)
    reasons = {skip.path: skip.reason for skip in found.skips} | dict(zip(skips["path"], skips["reason"], strict=True))
    assert reasons == {
        "gone.py": "broken_link",
        "loop": "folder_link",
        "pipe.py": "not_a_file",
        "project/.git": "ignored_folder",
        "project/binary.dat": "binary",
    }
    assert documents["path"].to_list() == [
        "project/bom.py", "project/empty.py", "project/latin.py", "project/two\nlines.py", "project/src/main.py",
    ]  # fmt: skip


def test_what_cannot_be_decoded_stays_as_replacement_characters(tree: Path, tmp_path: Path) -> None:
    documents, _ = read(listing(tree), tmp_path)
    texts = dict(zip(documents["path"], documents["text"], strict=True))
    assert texts["project/latin.py"] == "# caf�\n"
    assert texts["project/bom.py"] == "x = 1\n"
    assert texts["project/empty.py"] == ""


def test_a_name_that_is_not_utf8_is_read_and_shown(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    documents, _ = read(listing(root), tmp_path)
    assert documents["path"].to_list() == ["caf\\xe9.py"]


def test_an_unreadable_file_is_a_named_skip(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is simulated: root, which tests run as in containers, reads everything."""
    (tree / "project" / "secret.py").write_text("x")
    really_read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "secret.py":
            raise PermissionError(13, "Permission denied", str(path))
        return really_read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    _, skips = read(listing(tree), tmp_path)
    assert skips.filter(path="project/secret.py")["reason"].to_list() == ["unreadable: Permission denied"]


def test_a_file_that_vanished_is_a_named_skip(tree: Path, tmp_path: Path) -> None:
    found = listing(tree)
    (tree / "project" / "src" / "main.py").unlink()
    _, skips = read(found, tmp_path)
    assert skips.filter(path="project/src/main.py")["reason"].to_list() == ["unreadable: No such file or directory"]


def test_excluded_and_oversized_files_are_named_skips(tree: Path) -> None:
    (tree / "big.py").write_bytes(b"x" * 200)
    (tree / "kept.py").touch()
    found = listing(tree, exclude=("project/*",), max_file_bytes=100)
    assert [entry.path for entry in found.entries] == ["kept.py"]
    reasons = {skip.path: skip.reason for skip in found.skips}
    assert reasons["big.py"] == "over_max_file_bytes"
    assert reasons["project/src"] == "excluded"


def test_ids_are_stable_and_differ_by_path(tree: Path, tmp_path: Path) -> None:
    one, _ = read(listing(tree), tmp_path)
    two, _ = read(listing(tree), tmp_path, batch_bytes=1)
    assert one["id"].to_list() == two["id"].to_list()
    assert one["id"].n_unique() == one.height
    assert one["id"].str.len_chars().unique().to_list() == [32]


def test_a_missing_path_is_an_error_with_the_nearest_name(tree: Path) -> None:
    with pytest.raises(ConfigError, match='did you mean "tree"'):
        listing(tree.parent / "tre")


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no files to read"):
        listing(tmp_path)


def test_problems_become_documents_and_bad_lines_named_skips(tmp_path: Path) -> None:
    good = {
        "name": "add",
        "problem": "Add two numbers.",
        "solution": "def add(a, b):\n    return a + b\n",
        "entry_point": "add",
        "tests": [{"args": [1, 2], "expected": 3}],
    }
    (tmp_path / "set.jsonl").write_text(json.dumps(good) + "\n{broken\n" + json.dumps({"name": "x"}) + "\n")
    found = list_sources([SourceConfig(name="problems", type="problems", path=str(tmp_path))])
    documents, skips = read(found, tmp_path)
    assert documents["kind"].to_list() == ["synthetic"]
    assert documents["path"].to_list() == ["set.jsonl#add"]
    assert "return a + b" in documents["text"][0]
    assert skips["path"].to_list() == ["set.jsonl:2", "set.jsonl:3"]


def test_the_environment_lists_this_interpreter_by_package() -> None:
    code = list_environment(SourceConfig(name="packages", type="environment"))
    repositories = {entry.repository for entry in code.entries}
    assert {"cpython", "polars", "typer"} <= repositories
    assert "codesieve" not in repositories
    assert not [entry.path for entry in code.entries if "__pycache__" in entry.path or entry.path.endswith("RECORD")]
    words = list_environment(SourceConfig(name="docs", type="environment", parts=("documentation",)))
    assert {entry.form for entry in words.entries} == {"metadata", "file"}
    assert not {e.path for e in code.entries} & {e.path for e in words.entries if e.form == "metadata"}


def entries(sizes: list[int]) -> list[Entry]:
    return [Entry(source="s", file=f"/x/{i}", path=f"{i:04d}", size_bytes=size) for i, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 500))
def test_units_hold_every_entry_once_in_order(sizes: list[int], unit_bytes: int) -> None:
    pieces = units(entries(sizes), unit_bytes)
    assert [file["path"] for piece in pieces for file in piece["files"]] == [e.path for e in entries(sizes)]
    assert all(len(piece["files"]) == 1 or piece["bytes"] <= unit_bytes for piece in pieces)
    assert "/x/" not in json.dumps([piece["marks"] for piece in pieces])


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(1, 2000))
def test_a_sample_keeps_within_its_size_and_loses_no_entry(sizes: list[int], most: int) -> None:
    kept, left_out = sample(entries(sizes), most)
    assert sum(entry.size_bytes for entry in kept) <= most
    assert sorted([e.path for e in kept] + [s.path for s in left_out]) == [e.path for e in entries(sizes)]
    assert {skip.reason for skip in left_out} <= {"not_sampled"}
