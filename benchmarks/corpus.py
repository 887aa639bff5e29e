"""The benchmark corpus: Parquet shards of real files in many languages, from packages named in `corpus.yaml`.

    python benchmarks/corpus.py [--out runs/benchmark-corpus] [--megabytes 25] [--max-file-megabytes 1]

Packages come from the registries' own clients, as this machine has them configured: `pip download` (wheels), `npm pack`
and `apt-get source --download-only`, the last with a private copy of the machine's package sources turned into source
entries. A client that is missing or refuses leaves its part out, and says so. Archives are read as streams; nothing is
unpacked, built or executed.

Out come `corpus/*.parquet` (text, path, package, language; ordered by language, package and path) and `summary.json`.
A file is text in UTF-8 of a known language in code or markup, up to a size, and unique; of each language up to
`--megabytes`, chosen by a hash of package and path. Price: 300 MB of downloads, which are kept, and two minutes.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import xxhash
import yaml
from codesieve.curation.languages import HEAD_BYTES, UNKNOWN, identify, kind_of
from codesieve.curation.shards import shard_name, write_shard

PACKAGES = Path(__file__).with_suffix(".yaml")
DEFAULT_OUT = Path("runs/benchmark-corpus")
MAX_FILE_BYTES = 1_000_000
SHARD_BYTES = 32_000_000
BATCH_BYTES = 4_000_000
ARCHIVE = re.compile(r"\.(?:whl|tgz|tar\.\w+)$")
SCHEMA: dict[str, Any] = {"text": pl.String, "path": pl.String, "package": pl.String, "language": pl.String}


class LeftOutError(RuntimeError):
    """A package, or a whole registry, that cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class File:
    """A member of an archive that may become a document. `key` orders the candidates of a language."""

    package: str
    path: str
    language: str
    size_bytes: int
    content_hash: str

    @property
    def key(self) -> tuple[int, str, str]:
        name = f"{self.package}\0{self.path}".encode()
        return xxhash.xxh3_64_intdigest(name), self.package, self.path


def main() -> None:
    """Download, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--megabytes", type=float, default=25.0, help="most text of one language")
    parser.add_argument("--max-file-megabytes", type=float, default=1.0, help="larger files are left out")
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="registry → package → version, in YAML")
    arguments = parser.parse_args()
    wanted = yaml.safe_load(arguments.packages.read_text())
    archives, left_out = download(wanted, arguments.out / "downloads")
    limits = int(arguments.megabytes * 1e6), int(arguments.max_file_megabytes * 1e6)
    summary = build(archives, arguments.out, *limits)
    summary |= {"packages": {name: sorted(path.name for path in paths) for name, paths in archives.items()}}
    summary |= {"left_out": left_out}
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(summary))


def build(
    archives: Mapping[str, Sequence[Path]], out: Path, most_bytes: int, max_file_bytes: int = MAX_FILE_BYTES
) -> dict[str, Any]:
    """Write `out/corpus/` from package → archives; returns counts by language and by what was passed over."""
    passed_over: Counter[str] = Counter()
    chosen = choose(list(candidates(archives, passed_over, max_file_bytes)), most_bytes, passed_over)
    texts = {file: data.decode() for file, data in members_of(archives, set(chosen), max_file_bytes)}
    folder = out / "corpus"
    shutil.rmtree(folder, ignore_errors=True)
    for index, piece in enumerate(pieces(chosen, SHARD_BYTES)):
        batches = [frame(batch, texts) for batch in pieces(piece, BATCH_BYTES)]
        write_shard(folder / shard_name(index), batches, {})
    languages: dict[str, dict[str, int]] = {}
    for file in chosen:
        row = languages.setdefault(file.language, {"documents": 0, "bytes": 0})
        row["documents"] += 1
        row["bytes"] += file.size_bytes
    return {
        "documents": len(chosen),
        "bytes": sum(file.size_bytes for file in chosen),
        "languages": dict(sorted(languages.items(), key=lambda item: (-item[1]["bytes"], item[0]))),
        "passed_over": dict(passed_over.most_common()),
    }


def candidates(
    archives: Mapping[str, Sequence[Path]], passed_over: Counter[str], max_file_bytes: int = MAX_FILE_BYTES
) -> Iterator[File]:
    """Every member that is text of a known language; the others are counted by reason."""
    for package, path, data in members(archives, max_file_bytes):
        reason = None
        if data is None:
            reason = "over --max-file-megabytes"
        elif b"\0" in data:
            reason = "binary"
        elif not data.strip():
            reason = "empty"
        else:
            language = identify(path, data[:HEAD_BYTES])
            if language == UNKNOWN or kind_of(language) == "text":
                reason = "no code or markup language"
            elif not _is_utf8(data):
                reason = "not UTF-8"
            else:
                yield File(package, path, language, len(data), xxhash.xxh3_128_hexdigest(data))
        if reason:
            passed_over[reason] += 1


def choose(files: Sequence[File], most_bytes: int, passed_over: Counter[str]) -> list[File]:
    """Up to `most_bytes` of each language, each content once, in the order language, package, path."""
    seen: set[str] = set()
    size: Counter[str] = Counter()
    chosen = []
    for file in sorted(files, key=lambda file: file.key):
        if file.content_hash in seen:
            passed_over["duplicate"] += 1
        elif size[file.language] + file.size_bytes > most_bytes:
            passed_over["over --megabytes"] += 1
        else:
            seen.add(file.content_hash)
            size[file.language] += file.size_bytes
            chosen.append(file)
    return sorted(chosen, key=lambda file: (file.language, file.package, file.path))


def members_of(
    archives: Mapping[str, Sequence[Path]], wanted: set[File], max_file_bytes: int
) -> Iterator[tuple[File, bytes]]:
    """The content of the wanted files, from a second reading."""
    names = {(file.package, file.path, file.content_hash): file for file in wanted}
    for package, path, data in members(archives, max_file_bytes):
        if data is not None:
            file = names.get((package, path, xxhash.xxh3_128_hexdigest(data)))
            if file:
                yield file, data


def members(
    archives: Mapping[str, Sequence[Path]], max_file_bytes: int = MAX_FILE_BYTES
) -> Iterator[tuple[str, str, bytes | None]]:
    """Package, path and content of every regular file; None stands for one that is larger."""
    for package in sorted(archives):
        for archive in sorted(archives[package]):
            read = _zip_members if zipfile.is_zipfile(archive) else _tar_members
            try:
                for path, data in read(archive, max_file_bytes):
                    yield package, path, data
            except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
                raise SystemExit(f"{archive}: not a readable archive ({error}); delete it and run again") from error


def _tar_members(archive: Path, max_file_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    with tarfile.open(archive, mode="r|*") as tar:
        for member in tar:
            if member.isreg():
                handle = tar.extractfile(member) if member.size <= max_file_bytes else None
                yield _text(member.name), handle.read() if handle else None


def _zip_members(archive: Path, max_file_bytes: int) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(archive) as wheel:
        for member in wheel.infolist():
            if not member.is_dir():
                yield _text(member.filename), wheel.read(member) if member.file_size <= max_file_bytes else None


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def pieces(files: Sequence[File], most_bytes: int) -> Iterator[list[File]]:
    """Runs of files of about `most_bytes` together."""
    piece: list[File] = []
    size = 0
    for file in files:
        if piece and size + file.size_bytes > most_bytes:
            yield piece
            piece, size = [], 0
        piece.append(file)
        size += file.size_bytes
    if piece:
        yield piece


def frame(files: Sequence[File], texts: Mapping[File, str]) -> pl.DataFrame:
    """One batch of the corpus."""
    rows = [(texts[file], file.path, file.package, file.language) for file in files]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def table(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{'language':16} {'documents':>9} {'MB':>7}"]
    lines += [
        f"{name:16} {row['documents']:9,} {row['bytes'] / 1e6:7.1f}" for name, row in summary["languages"].items()
    ]
    lines += [f"{'all':16} {summary['documents']:9,} {summary['bytes'] / 1e6:7.1f}"]
    lines += [f"passed over: {count:,} {reason}" for reason, count in summary["passed_over"].items()]
    lines += [f"left out: {line}" for line in summary.get("left_out", ())]
    return "\n".join(lines)


# Downloads: one folder a package and version, which is there when it is complete.


def download(wanted: Mapping[str, Mapping[str, str]], folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """`<registry>/<package>` → its archives, and what was left out and why."""
    archives: dict[str, list[Path]] = {}
    left_out: list[str] = []
    clients: dict[str, Callable[[Path], Client]] = {"pypi": Pip, "npm": Npm, "debian": Apt}
    for registry, packages in wanted.items():
        client: Client | None = None
        for name, version in packages.items():
            place = folder / registry / re.sub(r"[^\w.@+=-]", "_", f"{name}={version}")
            try:
                if not place.is_dir():
                    client = client or clients[registry](folder)
                    _fetch(client, name, version, place, left_out)
            except LeftOutError as error:
                left_out.append(f"{registry}: {error}" if client is None else f"{registry}: {name} {version}: {error}")
                print(left_out[-1], file=sys.stderr)
                if client is None:
                    break
                continue
            archives[f"{registry}/{name}"] = [path for path in place.iterdir() if ARCHIVE.search(path.name)]
    return archives, left_out


class Client:
    """A registry's client: `fetch` downloads the archives of one package into a folder.

    Raises:
        LeftOutError: from the constructor if the client is not there, from `fetch` if the package is not.
    """

    def __init__(self, state: Path):
        self.state = state

    def fetch(self, name: str, version: str | None, folder: Path) -> None:
        raise NotImplementedError


class Pip(Client):
    """`pip download` of this interpreter; wheels only, so that no package's code runs."""

    def fetch(self, name: str, version: str | None, folder: Path) -> None:
        which = f"{name}=={version}" if version else name
        options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check"]
        _call([sys.executable, "-m", "pip", "download", *options, "--dest", str(folder.absolute()), which])


class Npm(Client):
    """`npm pack`, which downloads a published tarball and runs no script of it."""

    def __init__(self, state: Path):
        super().__init__(state)
        if not shutil.which("npm"):
            raise LeftOutError("no npm here")

    def fetch(self, name: str, version: str | None, folder: Path) -> None:
        which = f"{name}@{version}" if version else name
        _call(["npm", "pack", which, "--silent", "--ignore-scripts"], cwd=folder)


class Apt(Client):
    """`apt-get source --download-only`, with lists of its own so that the machine's configuration stays as it is."""

    def __init__(self, state: Path):
        super().__init__(state)
        if not shutil.which("apt-get"):
            raise LeftOutError("no apt-get here")
        home = (state / "apt").absolute()
        parts, lists, cache = home / "sources", home / "lists", home / "cache"
        for path in (parts, lists / "partial", cache / "archives" / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        if not source_entries(Path("/etc/apt"), parts):
            raise LeftOutError("apt has no package sources here")
        options = {"Etc::SourceList": "/dev/null", "Etc::SourceParts": parts, "State::Lists": lists, "Cache": cache}
        self.options = [f"-oDir::{key}={value}" for key, value in options.items()]
        self.options.append("-oAPT::Sandbox::User=root")
        _call(["apt-get", *self.options, "update", "--quiet"])

    def fetch(self, name: str, version: str | None, folder: Path) -> None:
        which = f"{name}={version}" if version else name
        _call(["apt-get", *self.options, "source", "--download-only", "--only-source", "--quiet", which], cwd=folder)


def source_entries(configured: Path, parts: Path) -> int:
    """Copy apt's package sources with `deb` turned into `deb-src`; returns how many files have one."""
    found = 0
    for file in [configured / "sources.list", *sorted((configured / "sources.list.d").glob("*"))]:
        if not file.is_file() or file.suffix not in {".list", ".sources"}:
            continue
        pattern = r"^deb(?:-src)?(?=\s)" if file.suffix == ".list" else r"^Types:.*$"
        new = "deb-src" if file.suffix == ".list" else "Types: deb-src"
        text, count = re.subn(pattern, new, file.read_text(), flags=re.MULTILINE)
        if count:
            (parts / file.name).write_text(text)
            found += 1
    return found


def _fetch(client: Client, name: str, version: str | None, place: Path, left_out: list[str]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as temporary:
        try:
            client.fetch(name, version, Path(temporary))
        except LeftOutError as error:
            if not version:
                raise
            # A distribution keeps the newest version only; another one is better than none, and is said.
            client.fetch(name, None, Path(temporary))
            left_out.append(f"{name} {version}: {error}; the current version was taken instead")
            print(left_out[-1], file=sys.stderr)
        Path(temporary).rename(place)
        Path(temporary).mkdir()


def _call(command: Sequence[str], cwd: Path | None = None) -> None:
    result = subprocess.run(
        command, check=False, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )
    if result.returncode:
        last = (result.stderr.strip() or result.stdout.strip() or f"exit code {result.returncode}").splitlines()[-1]
        reason = re.sub(r"https?://\S+", "(address)", last)
        raise LeftOutError(f"{command[0]}: {reason}")


if __name__ == "__main__":
    main()
