"""Tables: every row is a document or a named skip, in the published layouts and in anyone's own."""

import bz2
import gzip
import json
import lzma
import os
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from codesieve.config import AnnotateConfig, RunConfig, SourceConfig
from codesieve.curation.annotate import annotate
from codesieve.curation.shards import shard_paths
from codesieve.curation.sources import jsonl, parquet
from codesieve.curation.sources.files import FilesReader
from codesieve.curation.sources.listing import Listing, units
from codesieve.curation.sources.sources import list_sources
from codesieve.curation.sources.vocabulary import language_named, licence_of, preset, preset_of
from codesieve.strict import ConfigError, override, parse

COMPRESS = {"": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}  # fmt: skip
BLOBS = {"a1": b"print('one')\n", "b2": "é = 2\n".encode("latin-1"), "c3": b"\0\1", "d4": b"x" * 5_000_000}


def listing(path: Path | str, kind: str = "table", **more: object) -> Listing:
    return list_sources([SourceConfig(name="here", type=kind, path=str(path), **more)])


def read(found: Listing, tmp_path: Path, unit_bytes: int = 16_000_000) -> tuple[pl.DataFrame, dict[str, str]]:
    folder = tmp_path / "skipped"
    reader = FilesReader(8_000_000, folder)
    frames = [
        batch
        for index, unit in enumerate(units(found.entries, unit_bytes))
        for batch in reader.read({**json.loads(json.dumps(unit)), "index": index})
    ]
    skips = pl.read_parquet(folder / "*.parquet")
    reasons = {skip.path: skip.reason for skip in found.skips} | dict(zip(skips["path"], skips["reason"], strict=True))
    return pl.concat(frames), reasons


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def stack_v2(rows: list[dict]) -> pa.Table:
    """The columns of bigcode/the-stack-v2 that matter here, with their types."""
    schema = pa.schema({
        "blob_id": pa.large_string(), "path": pa.large_string(), "detected_licenses": pa.large_list(pa.large_string()),
        "license_type": pa.large_string(), "repo_name": pa.large_string(), "revision_id": pa.large_string(),
        "src_encoding": pa.large_string(), "language": pa.large_string(), "length_bytes": pa.int64(),
        "star_events_count": pa.int64(), "committer_date": pa.timestamp("ns"),
    })  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schema)


def stack_v2_row(blob: str, **more: object) -> dict:
    return {
        "blob_id": blob, "path": f"/src/{blob}.py", "detected_licenses": ["MIT", "Apache-2.0"],
        "license_type": "permissive", "repo_name": "team/project", "revision_id": "c0ffee", "src_encoding": "UTF-8",
        "language": "Python", "length_bytes": len(BLOBS.get(blob, b"")), "star_events_count": 7,
        "committer_date": datetime(2023, 1, 2), **more,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", COMPRESS)
def test_jsonl_rows_become_documents_and_bad_lines_named_skips(tmp_path: Path, suffix: str) -> None:
    data = lines(
        {"text": "x = 1\n", "path": "a/one.py", "license": "MIT", "repo": "r", "commit": "c1"},
        b"{broken",
        {"text": None, "path": "null.py"},
        b"",
        {"text": 5, "path": "number.py"},
        [1, 2],
        {"path": "missing.py"},
        b'{"text": "caf\xe9"}',
        {"text": "nul\0l", "path": "binary.py"},
        {"text": "lone \ud800 surrogate", "path": "s\ud800.py"},
        {"text": "no path"},
    )
    (tmp_path / f"t.jsonl{suffix}").write_bytes(COMPRESS[suffix](data))
    documents, reasons = read(listing(tmp_path / f"t.jsonl{suffix}"), tmp_path)
    file = f"t.jsonl{suffix}"
    assert documents["path"].to_list() == ["a/one.py", "s\ufffd\ufffd\ufffd.py", f"{file}#11"]
    assert documents.row(0, named=True) | {"id": "", "content_hash": ""} == {
        "id": "", "content_hash": "", "text": "x = 1\n", "source": "here", "kind": "code", "language": "python",
        "path": "a/one.py", "repository": "r", "revision": "c1", "license": "MIT", "size_bytes": 6, "extra": "{}",
    }  # fmt: skip
    assert {path: reason.partition(":")[0] for path, reason in reasons.items()} == {
        f"{file}#2": "bad_line", f"{file}#3": "null_text", f"{file}#5": "text_is_not_a_string", f"{file}#6": "bad_line",
        f"{file}#7": "null_text", f"{file}#8": "bad_line", f"{file}#9": "binary",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_cut_off_stream_keeps_the_rows_before_the_cut(tmp_path: Path, suffix: str) -> None:
    rows = [{"text": os.urandom(2_000).hex(), "path": f"{n}.txt"} for n in range(200)]
    whole = COMPRESS[suffix](lines(*rows))
    name = f"t.jsonl{suffix}"
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    documents, reasons = read(listing(tmp_path / name), tmp_path)
    assert 30 < documents.height < 150
    assert documents["path"].to_list() == [f"{n}.txt" for n in range(documents.height)]
    assert reasons[name].startswith(f"broken_stream: after line {documents.height}: ")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_streams_one_after_the_other_are_read_as_one(tmp_path: Path, suffix: str) -> None:
    parts = [COMPRESS[suffix](lines({"text": str(n)})) for n in range(3)]
    (tmp_path / f"t.jsonl{suffix}").write_bytes(b"".join(parts) + (bytes(8) if suffix == ".xz" else b""))
    documents, reasons = read(listing(tmp_path / f"t.jsonl{suffix}"), tmp_path)
    assert documents["text"].to_list() == ["0", "1", "2"]
    assert reasons == {}


def test_a_plain_file_is_cut_into_ranges_that_know_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[object] = [{"text": f"line {n} " + "x" * (n % 7), "path": f"{n}.txt"} for n in range(1, 101)]
    rows[41] = b"{broken"
    (tmp_path / "t.jsonl").write_bytes(lines(*rows))
    whole, _ = read(listing(tmp_path / "t.jsonl"), tmp_path)
    monkeypatch.setattr(jsonl, "PIECE_BYTES", 300)
    found = listing(tmp_path / "t.jsonl")
    assert len(found.entries) > 10
    assert sum(entry.size_bytes for entry in found.entries) == (tmp_path / "t.jsonl").stat().st_size
    documents, reasons = read(found, tmp_path, unit_bytes=1_000)
    assert documents["id"].to_list() == whole["id"].to_list()
    assert documents.height == 99
    assert list(reasons) == ["t.jsonl#42"]


def test_a_line_over_the_limit_is_a_skip_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines({"text": "x" * 5_000}, {"text": "short", "path": "a.txt"}))
    documents, reasons = read(listing(tmp_path / "t.jsonl", max_file_bytes=1_000), tmp_path)
    assert documents["path"].to_list() == ["a.txt"]
    assert reasons == {"t.jsonl#1": "over_max_file_bytes"}


def test_columns_are_mapped_and_others_kept_in_extra(tmp_path: Path) -> None:
    row = {"body": "x = 1\n", "meta": {"file": "a.py"}, "stars": 3, "at": "now", "licences": ["MIT", "MIT", "ISC"]}
    (tmp_path / "t.jsonl").write_bytes(lines(row))
    columns = {"text": "body", "path": "meta.file", "license": "licences"}
    documents, _ = read(listing(tmp_path / "t.jsonl", columns=columns, extra=("stars", "at")), tmp_path)
    found = documents.row(0, named=True)
    assert (found["text"], found["path"], found["license"]) == ("x = 1\n", "a.py", "MIT AND ISC")
    assert json.loads(found["extra"]) == {"stars": 3, "at": "now"}


def test_a_well_known_column_can_be_turned_off(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines({"text": "x", "license": "MIT", "path": "a.py"}))
    documents, _ = read(listing(tmp_path / "t.jsonl", columns={"license": ""}), tmp_path)
    assert documents.select("license", "path").rows() == [("", "a.py")]


def test_a_column_is_set_on_the_command_line(tmp_path: Path) -> None:
    data = {"name": "x", "sources": [{"name": "t", "type": "table", "path": "t.jsonl"}]}
    config = parse(RunConfig, override(data, ["sources.t.columns.text=body"]), where="x")
    assert config.sources[0].columns.text == "body"
    data["sources"][0]["name"] = "t-1.2"
    config = parse(RunConfig, override(data, ["sources.t-1.2.columns.text=body", "sources.t-1.2.kind=code"]), where="x")
    assert (config.sources[0].columns.text, config.sources[0].kind) == ("body", "code")
    with pytest.raises(ConfigError, match='did you mean "text"'):
        parse(RunConfig, override(data, ["sources.0.columns.txt=body"]), where="x")


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"columns": {"text": "contents"}}, r'columns\.text: no column "contents" \(did you mean "konten"\?\)'),
        ({"columns": {"text": "konten", "path": "nam"}}, r'columns\.path: no column "nam" \(did you mean "name"\?\)'),
        ({"columns": {"text": "konten"}, "extra": ("stars",)}, r'extra: no column "stars"'),
        ({}, "no column that holds text by its name; give columns.text; columns here: konten, name"),
    ],
)
def test_a_missing_column_is_an_error_with_file_and_nearest_name(
    tmp_path: Path, form: str, more: dict, message: str
) -> None:
    row = {"konten": "x", "name": "y"}
    if form == "jsonl":
        (tmp_path / "t.jsonl").write_bytes(lines(row))
    else:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=rf"t\.{form}.*{message}"):
        listing(tmp_path / f"t.{form}", **more)


def test_parquet_rows_of_every_string_type_are_read_by_row_group(tmp_path: Path) -> None:
    texts = [f"x = {n}\n" for n in range(10)]
    table = pa.table({
        "content": pa.array([*texts[:8], None, "y\0"], pa.large_string()),
        "path": pa.array([f"{n}.py" for n in range(10)]).dictionary_encode(),
        "lang": pa.array(["Python"] * 5 + ["Klingon"] * 5, pa.string()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    found = listing(tmp_path / "t.parquet")
    assert len(found.entries) == 3
    documents, reasons = read(found, tmp_path, unit_bytes=1)
    assert documents["text"].to_list() == texts[:8]
    assert documents["language"].unique().to_list() == ["python"]
    assert reasons == {"t.parquet#9": "null_text", "t.parquet#10": "binary"}


def test_a_large_row_group_is_cut_and_nothing_is_read_twice_or_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {n} " * 20 for n in range(200)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet", row_group_size=120)
    monkeypatch.setattr(parquet, "PIECE_BYTES", 3_000)
    monkeypatch.setattr(parquet, "MAX_BATCH_ROWS", 7)
    found = listing(tmp_path / "t.parquet")
    assert len(found.entries) > 8
    documents, _ = read(found, tmp_path, unit_bytes=1)
    assert documents["text"].to_list() == texts
    assert documents["path"].to_list() == [f"t.parquet#{n}" for n in range(1, 201)]


def test_binary_columns_and_nested_fields_are_read(tmp_path: Path) -> None:
    rows = [{"blob": b"caf\xc3\xa9\n", "meta": {"path": "a.md", "n": 1}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    columns = {"text": "blob", "path": "meta.path"}
    documents, _ = read(listing(tmp_path / "t.parquet", columns=columns, extra=("meta",)), tmp_path)
    assert documents["text"].to_list() == ["café\n"]
    assert documents["path"].to_list() == ["a.md"]
    assert json.loads(documents["extra"][0]) == {"meta": {"path": "a.md", "n": 1}}


def test_a_broken_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but no")
    with pytest.raises(ConfigError, match=r"t\.parquet: not a readable Parquet file .* get it anew"):
        listing(tmp_path / "t.parquet")
    pq.write_table(
        pa.table({"text": ["x" * 1000] * 50}), tmp_path / "u.parquet", compression="none", use_dictionary=False
    )
    found = listing(tmp_path / "u.parquet")
    data = bytearray((tmp_path / "u.parquet").read_bytes())
    data[4:40] = b"\xff" * 36
    (tmp_path / "u.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"u\.parquet: row group 0 cannot be read .* get the file anew"):
        read(found, tmp_path)


def test_rows_of_equal_path_and_text_in_two_repositories_have_two_ids(tmp_path: Path) -> None:
    row = {"content": "x", "max_stars_repo_path": "setup.py"}
    (tmp_path / "t.jsonl").write_bytes(lines({**row, "repo_name": "a"}, {**row, "repo_name": "b"}))
    documents, _ = read(listing(tmp_path / "t.jsonl"), tmp_path)
    assert documents["id"].n_unique() == 2
    assert documents["content_hash"].n_unique() == 1


def test_a_folder_of_tables_is_read_and_other_files_are_skips(tmp_path: Path) -> None:
    (tmp_path / "t" / "more").mkdir(parents=True)
    (tmp_path / "t" / "a.jsonl").write_bytes(lines({"text": "a"}))
    (tmp_path / "t" / "empty.jsonl").touch()
    (tmp_path / "t" / "README.md").write_text("about")
    pq.write_table(pa.table({"text": ["b"]}), tmp_path / "t" / "more" / "b.parquet")
    documents, reasons = read(listing(tmp_path / "t", exclude=("none*",)), tmp_path)
    assert sorted(documents["path"]) == ["a.jsonl#1", "more/b.parquet#1"]
    assert reasons == {"README.md": "not_a_table", "empty.jsonl": "empty"}


@pytest.fixture
def blobs(tmp_path: Path) -> str:
    folder = tmp_path / "content"
    folder.mkdir()
    for name, data in BLOBS.items():
        (folder / name).write_bytes(gzip.compress(data))
    (folder / "torn").write_bytes(gzip.compress(b"x" * 1000)[:-12])
    return f"file://{folder}/{{blob_id}}"


def test_the_stack_v2_fetches_what_its_rows_name(tmp_path: Path, blobs: str) -> None:
    folder = tmp_path / "stack" / "data" / "Python"
    folder.mkdir(parents=True)
    rows = [
        stack_v2_row("a1"), stack_v2_row("b2", src_encoding="ISO-8859-1"), stack_v2_row("c3"), stack_v2_row("gone"),
        stack_v2_row("../../etc/passwd"), stack_v2_row("torn"), stack_v2_row("d4"),
    ]  # fmt: skip
    pq.write_table(stack_v2(rows), folder / "train-00000-of-00001.parquet")
    config = {"preset": "the-stack-v2", "content": {"url": blobs}, "max_file_bytes": 1_000_000}
    documents, reasons = read(listing(tmp_path / "stack", "huggingface", **config), tmp_path)
    assert documents["text"].to_list() == ["print('one')\n", "é = 2\n"]
    first = documents.row(0, named=True)
    assert (first["repository"], first["revision"], first["license"], first["language"]) == (
        "team/project", "c0ffee", "MIT AND Apache-2.0", "python",
    )  # fmt: skip
    assert json.loads(first["extra"]) == {
        "blob_id": "a1", "license_type": "permissive", "star_events_count": 7, "committer_date": "2023-01-02T00:00:00",
    }  # fmt: skip
    name = "data/Python/train-00000-of-00001.parquet"
    assert reasons == {
        f"{name}#3": "binary", f"{name}#4": "no_such_blob", f"{name}#5": "bad_blob_id",
        f"{name}#6": "broken_blob: cut off", f"{name}#7": "over_max_file_bytes",
    }  # fmt: skip


def test_rows_that_hold_their_content_are_not_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "stack" / "data" / "C"
    folder.mkdir(parents=True)
    table = stack_v2([stack_v2_row("a1", language="C", path="/a.c")]).append_column("content", pa.array(["int x;\n"]))
    pq.write_table(table, folder / "train-0.parquet")
    config = {"preset": "the-stack-v2", "content": {"url": "file:///nowhere/{blob_id}"}}
    documents, _ = read(listing(tmp_path / "stack", "huggingface", **config), tmp_path)
    assert documents["text"].to_list() == ["int x;\n"]


def test_a_file_system_whose_package_is_missing_is_said_before_the_work(tmp_path: Path) -> None:
    pq.write_table(stack_v2([stack_v2_row("a1")]), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="klingon"):
        listing(tmp_path / "t.parquet", content={"url": "klingon://{blob_id}"})
    with pytest.raises(ValueError, match=r"url must hold \{blob_id\}"):
        listing(tmp_path / "t.parquet", content={"url": "file:///x"})


def test_blobs_that_cannot_be_fetched_end_the_work_and_are_no_skips(tmp_path: Path, blobs: str) -> None:
    (tmp_path / "content" / "a1").unlink()
    (tmp_path / "content" / "a1").mkdir()  # reading it is an error that is not "there is no such file"
    pq.write_table(stack_v2([stack_v2_row("a1"), stack_v2_row("b2")]), tmp_path / "t.parquet")
    with pytest.raises(RuntimeError, match=r"content/a1: cannot be fetched .* run again"):
        read(listing(tmp_path / "t.parquet", content={"url": blobs}), tmp_path)


def test_the_stack_has_a_folder_a_language_and_its_own_names(tmp_path: Path) -> None:
    row = {
        "hexsha": "h", "size": 6, "ext": "cs", "lang": "C#", "max_stars_repo_path": "a/A.cs",
        "max_stars_repo_name": "t/p", "max_stars_repo_head_hexsha": "c0ffee", "max_stars_repo_licenses": ["MIT"],
        "max_stars_count": 5, "content": "class A {}\n",
    }  # fmt: skip
    for folder, change in (("c-sharp", {}), ("python", {"lang": "Python", "max_stars_repo_path": "b.py"})):
        (tmp_path / "stack" / "data" / folder).mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist([{**row, **change}]), tmp_path / "stack" / "data" / folder / "data-0.parquet"
        )
    documents, _ = read(listing(tmp_path / "stack", "huggingface", preset="the-stack"), tmp_path)
    assert sorted(documents["language"]) == ["c#", "python"]
    only, _ = read(listing(tmp_path / "stack", "huggingface", preset="the-stack", languages=("C#",)), tmp_path)
    found = only.row(0, named=True)
    assert (found["path"], found["repository"], found["revision"]) == ("a/A.cs", "t/p", "c0ffee")
    assert json.loads(found["extra"]) == {"hexsha": "h", "max_stars_count": 5}
    with pytest.raises(ConfigError, match=r'no folder "pyton" \(did you mean "python"\?\)'):
        listing(tmp_path / "stack", "huggingface", preset="the-stack", languages=("pyton",))


def test_starcoderdata_names_the_language_by_the_folder(tmp_path: Path) -> None:
    for folder, path in (("rust", "lib"), ("git-commits-cleaned", "x.py")):
        row = {
            "max_stars_repo_path": path,
            "max_stars_repo_name": "t/p",
            "max_stars_count": 5,
            "id": "1",
            "content": "?",
        }
        (tmp_path / "data" / folder).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data" / folder / "train-00000-of-00001.parquet")
    documents, _ = read(listing(tmp_path / "data", "huggingface", preset="starcoderdata"), tmp_path)
    assert sorted(documents.select("path", "language", "kind").iter_rows()) == [
        ("lib", "rust", "code"), ("x.py", "python", "adjacent"),
    ]  # fmt: skip


def test_stack_edu_fetches_its_blobs_and_keeps_its_scores(tmp_path: Path, blobs: str) -> None:
    row = {
        "blob_id": "a1", "language": "Python", "repo_name": "t/p", "path": "/a.py", "src_encoding": "UTF-8",
        "length_bytes": 13, "score": 3.5, "int_score": 4, "detected_licenses": ["MIT"], "license_type": "permissive",
    }  # fmt: skip
    (tmp_path / "edu" / "Python").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "edu" / "Python" / "train-0.parquet")
    config = {"preset": "stack-edu", "content": {"url": blobs}}
    documents, _ = read(listing(tmp_path / "edu", "huggingface", **config), tmp_path)
    assert documents["text"].to_list() == ["print('one')\n"]
    assert json.loads(documents["extra"][0])["int_score"] == 4


def test_presets_are_found_by_name_and_wrong_names_are_errors(tmp_path: Path) -> None:
    assert preset_of("bigcode/The-Stack-v2") == "the-stack-v2"
    assert preset_of("someone/else") is None
    with pytest.raises(ConfigError, match='did you mean "starcoderdata"'):
        preset("starcoderdat")
    with pytest.raises(ConfigError, match="no such file or folder"):
        listing(tmp_path / "nowhere", "huggingface")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("C++", "c++"), ("Jupyter Notebook", "jupyter notebook"), ("C_Sharp", "c#"), ("c-sharp", "c#"), ("F#", "f#"),
        ("Common-Lisp", "common lisp"), ("CSharp", "c#"), ("Cpp", "c++"), ("Shell", "shell"), ("bash", "shell"),
        ("Visual_Basic_.NET", "visual basic .net"), ("Klingon", None), ("", None), (None, None), (3, None),
    ],
)  # fmt: skip
def test_languages_of_other_vocabularies_get_our_names(theirs: object, ours: str | None) -> None:
    assert language_named(theirs) == ours


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("MIT", "MIT"), (["MIT", "ISC"], "MIT AND ISC"), (["MIT", None, "MIT"], "MIT"), ([], ""), (None, ""), (3, "")],
)
def test_licence_lists_become_one_expression(stated: object, expected: str) -> None:
    assert licence_of(stated) == expected


def test_tables_and_blobs_are_read_through_a_url(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({"/bucket/t/a.jsonl": lines({"text": "x = 1\n", "path": "a.py"})})
    with fs.open("/bucket/t/b.parquet", "wb") as handle:
        pq.write_table(stack_v2([stack_v2_row("a1")]), handle)
    fs.pipe({"/bucket/content/a1": gzip.compress(BLOBS["a1"])})
    try:
        found = listing("memory://bucket/t", content={"url": "memory://bucket/content/{blob_id}"})
        documents, _ = read(found, tmp_path)
        assert sorted(documents["text"]) == ["print('one')\n", "x = 1\n"]
        alone, _ = read(listing("memory://bucket/t/a.jsonl"), tmp_path)
        assert alone["path"].to_list() == ["a.py"]
    finally:
        fs.rm("/bucket", recursive=True)


def test_a_stage_over_a_table_continues_to_the_same_bytes(tmp_path: Path) -> None:
    rows = [{"content": f"def f_{n}():\n    return {n}\n", "path": f"{n}.py"} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=10)
    source = SourceConfig(name="t", type="table", path=str(tmp_path / "t.parquet"))
    config = AnnotateConfig(unit_bytes=100)
    annotate(tmp_path / "run", [source], config, workers=1)
    before = {path.name: path.read_bytes() for path in shard_paths(tmp_path / "run" / "annotated")}
    assert len(before) == 3
    (tmp_path / "run" / "annotated" / "00001.parquet").unlink()
    (tmp_path / "run" / "annotated" / "00002.parquet").write_bytes(b"torn")
    annotate(tmp_path / "run", [source], config, workers=1)
    assert {path.name: path.read_bytes() for path in shard_paths(tmp_path / "run" / "annotated")} == before
    changed = source.model_copy(update={"extra": ("path",)})
    with pytest.raises(ConfigError, match="was made with another configuration"):
        annotate(tmp_path / "run", [changed], config, workers=1)


def test_times_and_numbers_in_extra_are_json(tmp_path: Path) -> None:
    rows = [{"text": "x", "at": datetime(2024, 1, 2, tzinfo=UTC), "score": float("nan"), "raw": b"\1"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    documents, _ = read(listing(tmp_path / "t.parquet", extra=("at", "score", "raw")), tmp_path)
    assert json.loads(documents["extra"][0]) == {"at": "2024-01-02T00:00:00+00:00", "score": None, "raw": "01"}
