"""Archive source: the members of zip and tar archives, read as streams; nothing is ever unpacked to disk.

zip, wheel, jar; tar, and tar behind gzip, bzip2, xz or zstd (sdist, npm package, source release). An entry is a member.
A package states its name, version and licence, which become `repository`, `revision` and `license`; of any other
archive the file name is the repository.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePosixPath

from ...config import SourceConfig
from ...strict import ConfigError, nearest
from .directory import existing
from .listing import Listing, Skip, text_of
from .members import BROKEN, Members, is_of_connection, words
from .remote import Found, find, is_url
from .streams import COMPRESSIONS
from .tars import list_tar
from .zips import list_zip

ZIP_SUFFIXES = (".zip", ".whl", ".jar", ".egg")
SUFFIXES = (*ZIP_SUFFIXES, ".tar", ".tgz", ".tbz2", ".txz", ".tzst", *(f".tar{suffix}" for suffix in COMPRESSIONS))


def list_archive(config: SourceConfig) -> Listing:
    """The members of one archive, or of all archives below a folder or URL.

    Raises:
        ConfigError: if nothing is there, or it is no archive by its name.
    """
    listing = Listing()
    files, alone = _archives(config, listing)
    for file in files:
        members = Members(config, file, "" if alone else f"{text_of(file.name)}/")
        try:
            (list_zip if file.name.lower().endswith(ZIP_SUFFIXES) else list_tar)(members)
        except BROKEN as error:
            if is_of_connection(file.file, error):
                raise
            members.cut_off(f"broken_archive: {words(error)}")
        stated = members.stated()
        name = stated.name or text_of(stem(file.name))
        listing.skips += members.listing.skips
        listing.entries += [
            dataclasses.replace(entry, repository=name, revision=stated.version, license=stated.licence)
            for entry in members.listing.entries
        ]
    return listing


def is_archive(name: str) -> bool:
    """Whether a file of that name is read as an archive."""
    return name.lower().endswith(SUFFIXES)


def stem(name: str) -> str:
    """An archive's file name without its suffix."""
    last = name.rpartition("/")[2]
    suffix = max((one for one in SUFFIXES if last.lower().endswith(one)), key=len, default="")
    return last[: len(last) - len(suffix)] or last


def _archives(config: SourceConfig, listing: Listing) -> tuple[list[Found], bool]:
    """The archives of a source, and whether it is a single one; other files beside them become skips."""
    path = str(config.path)
    if is_url(path):
        found = find(path, config.name, config.storage)
        alone = len(found) == 1 and found[0].file == path
    else:
        root = existing(config)
        alone = root.is_file()
        files = [root] if alone else sorted(file for file in root.rglob("*") if file.is_file())
        names = [root.name] if alone else [file.relative_to(root).as_posix() for file in files]
        found = [Found(str(f.absolute()), name, f.stat().st_size) for f, name in zip(files, names, strict=True)]
    if alone and not is_archive(found[0].name):
        hint = nearest(PurePosixPath(path).suffix, SUFFIXES)
        raise ConfigError(
            f'source "{config.name}": {path}: not an archive by its name{hint}; known: {", ".join(SUFFIXES)}'
        )
    others = [one for one in found if not is_archive(one.name)]
    listing.skips += [Skip(config.name, text_of(one.name), "not_an_archive", one.size_bytes) for one in others]
    return [one for one in found if is_archive(one.name)], alone
