"""The benchmark corpus is the same every time, holds each content once, and nothing is written outside its folder."""

import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import yaml
from codesieve.benchmarks import corpus

PYTHON = b"def f(x):\n    return x + 1\n"


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, list[Path]]:
    source = tar(
        tmp_path / "a.tar.gz",
        {
            "a/one.py": PYTHON,
            "../../outside.c": b"int main(void) { return 0; }\n",
            "a/binary.py": b"x\0",
            "a/latin.py": b"name = '\xe9'\n",
            "a/large.py": b"x = 1\n" * 200_000,
            "a/notes.xyz": b"nothing known\n",
        },
    )
    wheel = tmp_path / "b.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("b/copy.py", PYTHON)
        archive.writestr("b/other.js", "const a = 1;\n")
        archive.writestr("b/empty.py", " \n")
    return {"debian/a": [source], "pypi/b": [wheel]}


def test_the_corpus_holds_each_content_once_and_says_what_it_passed_over(
    archives: dict[str, list[Path]], tmp_path: Path
) -> None:
    summary = corpus.build(archives, tmp_path / "out", 10**9)
    frame = pl.read_parquet(tmp_path / "out" / "corpus" / "*.parquet")
    assert frame.columns == ["text", "path", "package", "language"]
    assert sorted(frame["language"]) == ["c", "javascript", "python"]
    assert frame.filter(pl.col("language") == "python")["text"].to_list() == [PYTHON.decode()]
    passed_over = {
        "over --max-file-megabytes",
        "binary",
        "empty",
        "not UTF-8",
        "duplicate",
        "no code or markup language",
    }
    assert summary["passed_over"] == dict.fromkeys(passed_over, 1)
    assert summary["documents"] == 3


def test_a_member_outside_the_archive_is_only_a_name(archives: dict[str, list[Path]], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = {path for _, path, _ in corpus.members(archives)}
    assert "../../outside.c" in found
    assert "link.py" not in found
    assert set(tmp_path.rglob("*")) == before


def test_a_language_is_cut_at_its_limit_and_the_same_files_are_taken_each_time(
    archives: dict[str, list[Path]], tmp_path: Path
) -> None:
    many = {f"m/{number}.py": b"x = %d\n" % number for number in range(100)}
    archives["npm/m"] = [tar(tmp_path / "m.tgz", many)]
    written = []
    for name in ("first", "second"):
        summary = corpus.build(dict(reversed(archives.items())), tmp_path / name, 300)
        assert summary["languages"]["python"]["bytes"] <= 300
        written.append([path.read_bytes() for path in sorted((tmp_path / name / "corpus").iterdir())])
    assert written[0] == written[1]


def test_files_of_a_corpus_are_in_order_of_language_package_and_path(archives: dict[str, list[Path]]) -> None:
    files = list(corpus.candidates(archives, Counter()))
    chosen = corpus.choose(files, 10**9, Counter())
    assert [(file.language, file.package, file.path) for file in chosen] == sorted(
        (file.language, file.package, file.path) for file in chosen
    )


def test_package_sources_become_source_entries_in_a_private_folder(tmp_path: Path) -> None:
    configured, parts = tmp_path / "etc", tmp_path / "parts"
    (configured / "sources.list.d").mkdir(parents=True)
    parts.mkdir()
    (configured / "sources.list").write_text("# deb here\ndeb http://example.test/a stable main\n")
    other = configured / "sources.list.d" / "b.sources"
    other.write_text("Types: deb\nURIs: http://example.test/b\nSuites: stable\n")
    (configured / "sources.list.d" / "c.list.disabled").write_text("deb http://example.test/c stable main\n")
    assert corpus.source_entries(configured, parts) == 2
    assert (parts / "sources.list").read_text() == "# deb here\ndeb-src http://example.test/a stable main\n"
    assert (parts / "b.sources").read_text().startswith("Types: deb-src\n")
    assert other.read_text().startswith("Types: deb\n")


def test_a_client_that_is_missing_leaves_its_part_out_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus.shutil, "which", lambda name: None)
    archives, left_out = corpus.download({"npm": {"a": "1", "b": "2"}, "debian": {"c": "3"}}, tmp_path)
    assert archives == {}
    assert left_out == ["npm: no npm here", "debian: no apt-get here"]


def test_a_package_that_is_downloaded_already_needs_no_client(tmp_path: Path) -> None:
    place = tmp_path / "npm" / "a=1"
    place.mkdir(parents=True)
    tar(place / "a-1.tgz", {"a.js": b"1\n"})
    (place / "a.tar.gz.asc").write_text("signature")
    archives, left_out = corpus.download({"npm": {"a": "1"}}, tmp_path)
    assert archives == {"npm/a": [place / "a-1.tgz"]}
    assert left_out == []


def test_every_package_of_the_list_is_pinned() -> None:
    wanted = yaml.safe_load(corpus.PACKAGES.read_text())
    assert set(wanted) == {"pypi", "npm", "debian"}
    assert all(isinstance(version, str) for packages in wanted.values() for version in packages.values())
