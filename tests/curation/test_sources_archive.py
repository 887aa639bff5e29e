"""Archives: members are documents, what is dangerous or broken is a named skip, nothing is unpacked to disk."""

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest
import zstandard
from codesieve.config import AnnotateConfig, SourceConfig
from codesieve.curation.annotate import annotate
from codesieve.curation.shards import shard_paths
from codesieve.curation.sources import members
from codesieve.curation.sources.archive import stem
from codesieve.curation.sources.files import FilesReader
from codesieve.curation.sources.listing import Listing, units
from codesieve.curation.sources.sources import list_sources
from codesieve.strict import ConfigError

FILES = {"pkg-1.0/a.py": b"a = 1\n", "pkg-1.0/src/b.py": b"b = 2\n", "pkg-1.0/c.md": b"# C\n"}
COMPRESS = {
    ".tar": lambda data: data,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".tar.zst": zstandard.compress,
}


def tar_of(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def listing(path: Path, **more: object) -> Listing:
    return list_sources([SourceConfig(name="here", type="archive", path=str(path), **more)])


def read(found: Listing, tmp_path: Path, unit_bytes: int = 16_000_000) -> tuple[dict[str, dict], dict[str, str]]:
    folder = tmp_path / "skipped"
    reader = FilesReader(8_000_000, folder)
    frames = [
        batch
        for index, unit in enumerate(units(found.entries, unit_bytes))
        for batch in reader.read({**json.loads(json.dumps(unit)), "index": index})
    ]
    skips = pl.read_parquet(folder / "*.parquet")
    reasons = {skip.path: skip.reason for skip in found.skips} | dict(zip(skips["path"], skips["reason"], strict=True))
    rows = pl.concat(frames).to_dicts()
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}, reasons


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("unit_bytes", [1, 16_000_000])
def test_every_tar_gives_its_members_in_units_of_any_size(tmp_path: Path, suffix: str, unit_bytes: int) -> None:
    path = tmp_path / f"pkg-1.0{suffix}"
    path.write_bytes(COMPRESS[suffix](tar_of(FILES)))
    documents, reasons = read(listing(path), tmp_path, unit_bytes)
    assert {name: row["text"].encode() for name, row in documents.items()} == FILES
    assert {row["repository"] for row in documents.values()} == {"pkg-1.0"}
    assert reasons == {}
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "skipped"]


@pytest.mark.parametrize("suffix", [".zip", ".whl", ".jar"])
def test_every_zip_gives_its_members(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pkg{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("pkg-1.0")
        for name, data in FILES.items():
            archive.writestr(name, data)
    documents, reasons = read(listing(path), tmp_path, unit_bytes=1)
    assert {name: row["text"].encode() for name, row in documents.items()} == FILES
    assert reasons == {}


def test_names_that_lead_out_links_and_devices_are_skips_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar.gz"
    files: dict[str, bytes | tarfile.TarInfo] = {
        "../up.py": b"x", "/etc/cron.d/x": b"x", "a/../../b.py": b"x", "C:\\x.py": b"x", "..\\y.py": b"x",
        "link": special("link", tarfile.SYMTYPE, "/etc/passwd"),
        "hard": special("hard", tarfile.LNKTYPE, "good.py"),
        "null": special("null", tarfile.CHRTYPE),
        "pipe": special("pipe", tarfile.FIFOTYPE),
        "folder": special("folder", tarfile.DIRTYPE),
        "./good.py": b"good = 1\n",
    }  # fmt: skip
    path.write_bytes(gzip.compress(tar_of(files)))
    documents, reasons = read(listing(path), tmp_path)
    assert list(documents) == ["good.py"]
    assert reasons == {
        "../up.py": "unsafe_name", "/etc/cron.d/x": "unsafe_name", "a/../../b.py": "unsafe_name",
        "C:\\x.py": "unsafe_name", "..\\y.py": "unsafe_name",
        "link": "link", "hard": "link", "null": "not_a_file", "pipe": "not_a_file",
    }  # fmt: skip
    assert not (tmp_path.parent / "up.py").exists()


def test_names_that_lead_out_links_and_encrypted_members_are_skips_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../up.py", "x")
        archive.writestr("/abs.py", "x")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret.py", "x = 1\n")
        archive.writestr("good.py", "x = 2\n")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"secret.py") - 46  # the flags in the central directory: bit 0 says encrypted
    data[at + 8] |= 1
    path.write_bytes(data)
    documents, reasons = read(listing(path), tmp_path)
    assert list(documents) == ["good.py"]
    assert reasons == {"../up.py": "unsafe_name", "/abs.py": "unsafe_name", "link": "link", "secret.py": "encrypted"}


def test_a_bomb_is_a_skip_and_what_is_beside_it_is_kept(tmp_path: Path) -> None:
    bomb = bytes(10_000_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("before.py", "x = 1\n")
        archive.writestr("bomb.py", bomb)
        archive.writestr("after.py", "x = 2\n")
    for suffix in (".tar.gz", ".tar.zst", ".tar.xz"):
        data = tar_of({"before.py": b"x = 1\n", "bomb.py": bomb, "after.py": b"x = 2\n"})
        (tmp_path / f"bomb{suffix}").write_bytes(COMPRESS[suffix](data))
    for path in sorted(tmp_path.glob("bomb.*")):
        assert path.stat().st_size < 20_000
        documents, reasons = read(listing(path), tmp_path)
        assert list(documents) == ["before.py", "after.py"], path
        assert reasons == {"bomb.py": "compression_ratio"}, path


def test_an_archive_that_unpacks_to_too_much_is_read_up_to_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number}.py": b"x = 1\n" * 2_000 for number in range(20)}
    (tmp_path / "many.tar.gz").write_bytes(gzip.compress(tar_of(files)))
    with zipfile.ZipFile(tmp_path / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    for name in ("many.tar.gz", "many.zip"):
        found = listing(tmp_path / name, max_archive_bytes=100_000)
        assert 0 < len(found.entries) < 9
        assert found.skips[-1].reason == "over_max_archive_bytes: the rest of the archive"
        assert found.skips[-1].path == name
    monkeypatch.setattr("codesieve.curation.sources.tars.ARCHIVE_FLOOR_BYTES", 100_000)
    monkeypatch.setattr(members, "RATIO", 20)
    found = listing(tmp_path / "many.tar.gz")
    assert found.skips[-1].reason == "compression_ratio: the rest of the archive"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_of_a_truncated_archive_the_whole_members_are_kept(tmp_path: Path, suffix: str) -> None:
    noise = os.urandom(300_000).hex().encode()
    path = tmp_path / f"cut{suffix}"
    data = COMPRESS[suffix](tar_of({"whole.py": b"x = 1\n", "noise.py": noise, "never.py": b"x = 2\n"}))
    path.write_bytes(data[: len(data) // 2])
    if suffix == ".tar.bz2":  # whose blocks are larger than what is whole here
        with pytest.raises(ConfigError, match=r"broken_archive"):
            listing(path)
        return
    documents, reasons = read(listing(path), tmp_path)
    assert list(documents) == ["whole.py"]
    assert reasons["noise.py"] == "truncated"
    assert reasons[path.name].startswith("broken_archive: ")


def test_garbage_in_the_middle_of_a_tar_does_not_end_it_in_silence(tmp_path: Path) -> None:
    data = bytearray(tar_of({"a.py": b"x", "b.py": b"y", "c.py": b"z"}))
    data[2048:2080] = b"\xff" * 32
    (tmp_path / "bad.tar").write_bytes(data)
    documents, reasons = read(listing(tmp_path / "bad.tar"), tmp_path)
    assert "a.py" in documents
    assert "c.py" not in documents
    assert reasons["bad.tar"].startswith("broken_archive")


def test_headers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "header.tar").write_bytes(
        tar_of({"a.py": b"x"})[:1024] + header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    )
    _, reasons = read(listing(tmp_path / "header.tar"), tmp_path)
    assert "a header of 1099511627776 bytes" in reasons["header.tar"]


def test_a_zip_member_that_is_not_what_its_header_states_is_a_skip(tmp_path: Path) -> None:
    path = tmp_path / "torn.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("torn.py", "abcdefgh")
        archive.writestr("good.py", "x = 1\n")
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdefgX"))
    documents, reasons = read(listing(path), tmp_path)
    assert list(documents) == ["good.py"]
    assert reasons["torn.py"].startswith("broken_member: BadZipFile")


def test_what_is_no_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"broken_archive.*x\.zip"):
        listing(tmp_path / "x.zip")
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(ConfigError, match=r"x\.rar: not an archive by its name"):
        listing(tmp_path / "x.rar")
    with pytest.raises(ConfigError, match=r'did you mean "x\.zip"'):
        listing(tmp_path / "xx.zip")


def test_a_package_states_its_name_version_and_licence(tmp_path: Path) -> None:
    info = b"Metadata-Version: 2.1\nName: spam\nVersion: 1.2\nLicense-Expression: MIT\n\nSpam.\n"
    book = json.dumps({"name": "@x/eggs", "version": "3.4.5", "license": "ISC"}).encode()
    (tmp_path / "spam-1.2.tar.gz").write_bytes(
        gzip.compress(tar_of({"spam-1.2/spam.py": b"x = 1\n", "spam-1.2/PKG-INFO": info}))
    )
    (tmp_path / "eggs-3.4.5.tgz").write_bytes(
        gzip.compress(tar_of({"package/package.json": book, "package/index.js": b"module.exports = 1;\n"}))
    )
    with zipfile.ZipFile(tmp_path / "spam-1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("spam.py", "x = 1\n")
        archive.writestr("spam-1.2.dist-info/METADATA", info)
    (tmp_path / "notes.txt").write_text("beside them")
    documents, reasons = read(listing(tmp_path), tmp_path)
    facts = {
        path: (row["repository"], row["revision"], row["license"])
        for path, row in documents.items()
        if path.endswith((".py", ".js"))
    }
    assert facts == {
        "spam-1.2.tar.gz/spam-1.2/spam.py": ("spam", "1.2", "MIT"),
        "eggs-3.4.5.tgz/package/index.js": ("@x/eggs", "3.4.5", "ISC"),
        "spam-1.2-py3-none-any.whl/spam.py": ("spam", "1.2", "MIT"),
    }
    assert reasons == {"notes.txt": "not_an_archive"}


def test_what_the_source_leaves_out_is_left_out_of_archives(tmp_path: Path) -> None:
    files = {
        "p/a.py": b"a",
        "p/docs/b.md": b"b",
        "p/docs/c.md": b"c",
        "p/__pycache__/a.pyc": b"d",
        "p/big.py": b"e" * 99,
    }
    (tmp_path / "p.tar").write_bytes(tar_of(files))
    documents, reasons = read(listing(tmp_path / "p.tar", exclude=("*/docs",), max_file_bytes=50), tmp_path)
    assert list(documents) == ["p/a.py"]
    assert reasons == {"p/docs": "excluded", "p/__pycache__": "ignored_folder", "p/big.py": "over_max_file_bytes"}


def test_a_stage_over_an_archive_continues_to_the_same_bytes(tmp_path: Path) -> None:
    files = {f"p/module_{n}.py": f"def f_{n}():\n    return {n}\n".encode() for n in range(12)}
    (tmp_path / "p.tar.gz").write_bytes(gzip.compress(tar_of(files)))
    source = SourceConfig(name="p", type="archive", path=str(tmp_path / "p.tar.gz"))
    config = AnnotateConfig(unit_bytes=100)
    annotate(tmp_path / "run", [source], config, workers=1)
    before = {path.name: path.read_bytes() for path in shard_paths(tmp_path / "run" / "annotated")}
    assert len(before) == 3
    (tmp_path / "run" / "annotated" / "00001.parquet").unlink()
    (tmp_path / "run" / "annotated" / "00002.parquet").write_bytes(b"torn")
    annotate(tmp_path / "run", [source], config, workers=1)
    assert {path.name: path.read_bytes() for path in shard_paths(tmp_path / "run" / "annotated")} == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a-1.tar.gz", "a-1"), ("x/b.tgz", "b"), ("c.whl", "c"), ("plain", "plain"), (".zip", ".zip")],
)
def test_the_stem_is_the_name_without_the_archives_suffix(name: str, expected: str) -> None:
    assert stem(name) == expected
