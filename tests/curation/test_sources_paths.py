"""What `curate` takes: the type of each path, URLs in and out, and all kinds of input in one call."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from codesieve.cli import app
from codesieve.config import SelectionConfig, SourceConfig
from codesieve.curation.select import write_corpus
from codesieve.curation.shards import write_shard
from codesieve.curation.sources.files import FilesReader
from codesieve.curation.sources.listing import Wanted, units
from codesieve.curation.sources.paths import guess
from codesieve.curation.sources.remote import upload
from codesieve.curation.sources.sources import list_sources
from codesieve.strict import ConfigError
from typer.testing import CliRunner

GIT = {
    **os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
}  # fmt: skip


def commit(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(folder), *arguments], env=GIT, check=True)
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, env=GIT, check=True, capture_output=True, text=True).stdout.strip()


def tgz(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.zip", "archive"), ("a.WHL", "archive"), ("a.tar.zst", "archive"), ("a.tgz", "archive"),
        ("a.parquet", "table"), ("a.jsonl", "table"), ("a.jsonl.zst", "table"), ("a.json.gz", "table"),
        ("a.json", "directory"), ("a.ipynb", "directory"), ("a.py", "directory"), ("a", "directory"),
    ],
)  # fmt: skip
def test_the_name_of_a_file_or_url_says_what_it_is(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).touch()
    assert guess(str(tmp_path / name)).fields == {"type": kind, "path": str(tmp_path / name)}
    assert guess(f"s3://bucket/x/{name}").fields == {"type": kind, "path": f"s3://bucket/x/{name}"}


def test_a_folder_of_tables_is_read_row_by_row_and_any_other_file_by_file(tmp_path: Path) -> None:
    for name in ("part-00000.parquet", "part-00001.parquet", "README.md", ".gitattributes"):
        (tmp_path / name).touch()
    assert guess(str(tmp_path)).fields["type"] == "table"
    (tmp_path / "notes.txt").touch()
    assert guess(str(tmp_path)).fields["type"] == "directory"


def test_a_repository_is_read_at_a_commit_and_the_user_is_told(tmp_path: Path) -> None:
    head = commit(tmp_path / "project", {"a.py": "x = 1\n"})
    found = guess(str(tmp_path / "project"))
    assert found.fields == {"type": "git", "path": str(tmp_path / "project"), "revision": head}
    assert head[:12] in found.note
    assert "type: directory" in found.note
    assert guess(f"{tmp_path}/project@{head[:8]}").fields["revision"] == head
    assert guess(f"{tmp_path}/project/.git").fields["type"] == "git"
    with pytest.raises(ConfigError, match="no commit 'nowhere'"):
        guess(f"{tmp_path}/project@nowhere")
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="plain is not a git repository"):
        guess(f"{tmp_path}/plain@v1")


def test_a_file_whose_name_holds_an_at_sign_is_that_file(tmp_path: Path) -> None:
    commit(tmp_path / "project", {"a.py": "x = 1\n"})
    (tmp_path / "project@v1").mkdir()
    assert guess(str(tmp_path / "project@v1")).fields["type"] == "directory"


@pytest.fixture
def bucket() -> object:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/bucket", recursive=True)


def test_folders_and_archives_are_read_through_a_url(bucket: object, tmp_path: Path) -> None:
    bucket.pipe({
        "/bucket/src/p/a.py": b"x = 1\n", "/bucket/src/p/__pycache__/a.pyc": b"\0", "/bucket/src/b.md": b"# B\n",
        "/bucket/src/big.py": b"x" * 200, "/bucket/p-1.tgz": tgz({"p/c.py": "y = 2\n"}),
    })  # fmt: skip
    found = list_sources([
        SourceConfig(name="folder", type="directory", path="memory://bucket/src", max_file_bytes=100),
        SourceConfig(name="one", type="directory", path="memory://bucket/src/b.md"),
        SourceConfig(name="archive", type="archive", path="memory://bucket/p-1.tgz"),
    ])  # fmt: skip
    assert {skip.path: skip.reason for skip in found.skips} == {
        "p/__pycache__": "ignored_folder", "big.py": "over_max_file_bytes",
    }  # fmt: skip
    reader = FilesReader(8_000_000, tmp_path)
    frames = [frame for i, unit in enumerate(units(found.entries, 1)) for frame in reader.read({**unit, "index": i})]
    assert pl.concat(frames).select("source", "path", "repository", "text").rows() == [
        ("folder", "b.md", "", "# B\n"), ("folder", "p/a.py", "p", "x = 1\n"),
        ("one", "b.md", "", "# B\n"), ("archive", "p/c.py", "p-1", "y = 2\n"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none", "nothing is there"),
        ("klingon://x/y", "klingon"),
        ("file:///nowhere/x", "nothing is there"),
    ],
)
def test_a_url_with_nothing_behind_it_is_an_error(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list_sources([SourceConfig(name="x", type="directory", path=url)])


def test_a_broken_connection_is_no_skip(bucket: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe({"/bucket/a.py": b"x", "/bucket/b.py": b"y"})
    found = list_sources([SourceConfig(name="x", type="directory", path="memory://bucket")])
    unit = {**units(found.entries, 100)[0], "index": 0}
    bucket.rm("/bucket/a.py")
    frames = list(FilesReader(100, tmp_path).read(unit))
    assert pl.concat(frames)["path"].to_list() == ["b.py"]
    assert pl.read_parquet(tmp_path / "*.parquet")["path"].to_list() == ["a.py"]

    def broken(*_: object, **__: object) -> bytes:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(type(bucket), "cat_file", broken)
    with pytest.raises(ConnectionResetError):
        list(FilesReader(100, tmp_path).read(unit))


def run_of(tmp_path: Path, rows: int = 6) -> Path:
    frame = pl.DataFrame({
        "id": [str(n) for n in range(rows)], "text": ["x"] * rows, "source": ["a", "b"] * (rows // 2),
        "language": ["c"] * rows, "size_bytes": range(rows),
    })  # fmt: skip
    write_shard(tmp_path / "run" / "annotated" / "00000.parquet", [frame], {})
    return tmp_path / "run"


def test_a_selection_is_written_to_a_url_with_the_manifest_last(bucket: object, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    selection = SelectionConfig(name="s", where="TRUE")
    order: list[str] = []
    really_move = type(bucket).mv

    def move(self: object, source: str, target: str, **more: object) -> None:
        order.append(target.rpartition("/")[2])
        really_move(self, source, target, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bucket), "mv", move)
        manifest = write_corpus(run, selection, "memory://bucket/corpus", {})
    assert manifest["documents"] == 6
    assert order == ["README.md", "a-00000.parquet", "b-00000.parquet", "manifest.json"]
    assert sorted(path.rpartition("/")[2] for path in bucket.find("/bucket/corpus")) == sorted(order)
    assert json.loads(bucket.cat("/bucket/corpus/manifest.json"))["documents"] == 6
    assert [path.name for path in run.iterdir()] == ["annotated"]
    # Another selection in the same place takes away what only the first had.
    write_corpus(run, SelectionConfig(name="s", where="source = 'a'"), "memory://bucket/corpus", {})
    names = sorted(path.rpartition("/")[2] for path in bucket.find("/bucket/corpus"))
    assert names == ["README.md", "a-00000.parquet", "manifest.json"]


def test_an_upload_that_fails_leaves_no_manifest(
    bucket: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path)
    write_corpus(run, SelectionConfig(name="s", where="TRUE"), "memory://bucket/corpus", {})
    really_put = type(bucket).put_file

    def put(self: object, local: str, remote: str, **more: object) -> None:
        if "b-00000" in remote:
            raise ConnectionResetError("reset by peer")
        really_put(self, local, remote, **more)

    monkeypatch.setattr(type(bucket), "put_file", put)
    with pytest.raises(ConnectionResetError):
        write_corpus(run, SelectionConfig(name="s", where="TRUE"), "memory://bucket/corpus", {})
    assert not bucket.exists("/bucket/corpus/manifest.json")


def test_a_foreign_manifest_is_not_overwritten(bucket: object, tmp_path: Path) -> None:
    bucket.pipe({"/bucket/corpus/manifest.json": b"[]"})
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a manifest of ours"):
        upload(tmp_path / "x", "memory://bucket/corpus")
    assert bucket.cat("/bucket/corpus/manifest.json") == b"[]"


def test_a_folder_that_is_left_out_is_one_skip_whatever_is_in_it() -> None:
    skips: list = []
    wanted = Wanted("s", ("*/skip", "*.min.js"), 10)
    names = ["a/skip/x.py", "a/skip/deep/y.py", "a/.git/config", "a/b.min.js", "a/big.py", "a/good.py"]
    assert [name for name in names if wanted(name, 99 if "big" in name else 1, skips)] == ["a/good.py"]
    assert [(skip.path, skip.reason) for skip in skips] == [
        ("a/skip", "excluded"), ("a/.git", "ignored_folder"), ("a/b.min.js", "excluded"), ("a/big.py", "over_max_file_bytes"),
    ]  # fmt: skip


def codesieve(*arguments: str) -> str:
    """What the command prints; it runs in this process, which saves the imports of three."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_kinds_of_input_go_through_one_call_and_a_second_changes_no_byte(tmp_path: Path) -> None:
    function = '"""Adds {0}."""\n\n\ndef add_{0}(left, right):\n    """The sum."""\n    return left + right\n'
    given = tmp_path / "given"
    (given / "folder" / "src").mkdir(parents=True)
    (given / "folder" / "src" / "plain.py").write_text(function.format("plain"))
    (given / "folder" / "binary.bin").write_bytes(b"\0\1")
    head = commit(given / "repository", {"lib/versioned.py": function.format("versioned")})
    info = "Metadata-Version: 2.1\nName: spam\nVersion: 1.2\nLicense: MIT\n\nText.\n"
    sdist = {"spam-1.2/spam.py": function.format("spam"), "spam-1.2/PKG-INFO": info}
    (given / "spam-1.2.tar.gz").write_bytes(tgz(sdist))
    book = json.dumps({"name": "eggs", "version": "3.4.5", "license": "ISC"})
    (given / "eggs-3.4.5.tgz").write_bytes(
        tgz({"package/package.json": book, "package/index.js": "export const x = 1;\n"})
    )
    rows = [{"content": function.format(n), "path": f"rows/{n}.py", "lang": "Python"} for n in ("one", "two")]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b"{broken\n"
    (given / "rows.jsonl.zst").write_bytes(zstandard.compress(lines))
    (given / "content").mkdir()
    (given / "content" / "b10b").write_bytes(gzip.compress(function.format("blob").encode()))
    row = {
        "blob_id": "b10b", "src_encoding": "UTF-8", "path": "/v2/blob.py", "repo_name": "t/p", "revision_id": "c0ffee",
        "detected_licenses": ["MIT"], "language": "Python", "length_bytes": 80,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row, {**row, "blob_id": "gone", "path": "/v2/gone.py"}]), given / "v2.parquet")
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "# Notes"},
        {"cell_type": "code", "metadata": {}, "source": function.format("cell"), "outputs": [], "execution_count": 1},
    ]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
    (given / "notes.ipynb").write_text(
        json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
    )
    names = ["folder", "repository", "spam-1.2.tar.gz", "eggs-3.4.5.tgz", "rows.jsonl.zst", "v2.parquet", "notes.ipynb"]
    command = [
        "curate", *(str(given / name) for name in names), "--out", str(tmp_path / "run"), "--json", "--workers", "1",
        "--set", f'sources.v2.content={{url: "file://{given}/content/{{blob_id}}"}}',
    ]  # fmt: skip
    summary = json.loads(codesieve(*command))
    table = pl.read_parquet(tmp_path / "run" / "annotated" / "*.parquet")
    facts = ("source", "path", "language", "kind", "repository", "revision", "license")
    assert sorted(table.select(facts).rows()) == [
        ("eggs-3.4.5", "package/index.js", "javascript", "code", "eggs", "3.4.5", "ISC"),
        ("eggs-3.4.5", "package/package.json", "json", "markup", "eggs", "3.4.5", "ISC"),
        ("folder", "src/plain.py", "python", "code", "src", "", ""),
        ("notes.ipynb", "notes.ipynb", "python", "adjacent", "", "", ""),
        ("repository", "lib/versioned.py", "python", "code", "repository", head, ""),
        ("rows", "rows/one.py", "python", "code", "", "", ""),
        ("rows", "rows/two.py", "python", "code", "", "", ""),
        ("spam-1.2", "spam-1.2/PKG-INFO", table.filter(path="spam-1.2/PKG-INFO")["language"][0],
         table.filter(path="spam-1.2/PKG-INFO")["kind"][0], "spam", "1.2", "MIT"),
        ("spam-1.2", "spam-1.2/spam.py", "python", "code", "spam", "1.2", "MIT"),
        ("v2", "/v2/blob.py", "python", "code", "t/p", "c0ffee", "MIT"),
    ]  # fmt: skip
    assert summary["documents_skipped"] == {"bad_line": 1, "binary": 1, "no_such_blob": 1}
    assert summary["documents_selected"] + summary["documents_rejected"] == summary["documents_annotated"] == 10
    assert table.filter(pl.col("language") == "python")["function_count"].to_list() == [1] * 7
    before = {path: path.read_bytes() for part in ("annotated", "layers", "corpus", "skipped")
              for path in (tmp_path / "run" / part).rglob("*.*")}  # fmt: skip
    codesieve(*command)
    assert {path: path.read_bytes() for path in before} == before
    out = f"file://{tmp_path}/bucket/everything"
    codesieve("select", str(tmp_path / "run"), "--where", "TRUE", "--out", out, "--json")
    assert json.loads((tmp_path / "bucket" / "everything" / "manifest.json").read_text())["documents"] == 10
    assert pl.read_parquet(tmp_path / "bucket" / "everything" / "*.parquet").height == 10
