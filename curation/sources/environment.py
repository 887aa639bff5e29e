"""Environment source: the interpreter's standard library and the installed packages.

Input that is on every machine and that nobody arranged: hand-written modules, generated tables, minified bundles,
vendored copies. `code` lists source files; `documentation` lists METADATA descriptions and documentation files. The
repository of a file is its distribution, so that whole package families can be held out. codesieve itself is left out.
"""

from __future__ import annotations

import csv
import importlib.metadata
import os
import platform
import re
import sysconfig
from pathlib import Path

from ...config import SourceConfig
from ..languages import UNKNOWN, identify
from .listing import Entry, Listing, Skip, text_of, walk
from .packages import stated_licence

DOCUMENTATION_SUFFIXES = (".md", ".rst", ".txt")
OURSELVES = "codesieve"
STANDARD_LIBRARY = "cpython"


def list_environment(config: SourceConfig) -> Listing:
    """Entries and skips of the parts that `config.parts` names, sampled by the caller if it wants less."""
    listing = _standard_library(config)
    distributions = {normalised(dist.metadata["Name"]): dist for dist in importlib.metadata.distributions()}
    for name in sorted(distributions):
        if name != OURSELVES:
            listing.extend(_distribution(config, name, distributions[name]))
    listing.entries.sort(key=lambda entry: (entry.repository, entry.path))
    return listing


def normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _standard_library(config: SourceConfig) -> Listing:
    root = Path(sysconfig.get_path("stdlib"))
    listing = Listing()
    for name, status, reason in walk(root, ("site-packages", "dist-packages", *config.exclude)):
        if status is None or reason:
            if reason not in {"excluded", "ignored_folder"}:
                listing.skips.append(Skip(config.name, text_of(name), reason or "unreadable"))
        else:
            _sort_in(listing, config, str(root / name), name, status.st_size, STANDARD_LIBRARY, _PYTHON_FACTS)
    return listing


_PYTHON_FACTS = (platform.python_version(), "PSF-2.0")


def _distribution(config: SourceConfig, name: str, dist: importlib.metadata.Distribution) -> Listing:
    listing = Listing()
    facts = (dist.version, stated_licence(dist.metadata))
    root = str(dist.locate_file(""))
    for path in sorted(_recorded(dist)):
        if path.startswith(("../", "/")) or "__pycache__/" in path:
            continue  # console scripts outside the library, and byte code
        located = os.path.join(root, path)  # noqa: PTH118  tens of thousands of names: pathlib takes 10 s for them
        try:
            size = os.stat(located).st_size  # noqa: PTH116
        except OSError as error:
            listing.skips.append(Skip(config.name, text_of(path), f"unreadable: {error.strerror}"))
            continue
        _sort_in(listing, config, located, path, size, name, facts)
    return listing


def _recorded(dist: importlib.metadata.Distribution) -> list[str]:
    """The distribution's files as RECORD has them (PEP 376), or as importlib finds them where there is none."""
    record = dist.read_text("RECORD")
    if record is None:
        return [str(file) for file in dist.files or ()]
    return [row[0] for row in csv.reader(record.splitlines()) if row]


def _sort_in(
    listing: Listing, config: SourceConfig, file: str, path: str, size: int, repository: str, facts: tuple[str, str]
) -> None:
    """Add the file to the listing if its part (code or documentation) is asked for."""
    in_books = path.partition("/")[0].endswith(".dist-info")
    is_metadata = in_books and path.endswith("/METADATA")
    if in_books and not is_metadata:
        return  # the installer's books, different on every machine, and copies of licences
    is_documentation = is_metadata or path.lower().endswith(DOCUMENTATION_SUFFIXES)
    if ("documentation" if is_documentation else "code") not in config.parts:
        return
    reason = None
    if size > config.max_file_bytes:
        reason = "over_max_file_bytes"
    elif not is_documentation and identify(path, b"") == UNKNOWN:
        reason = "not_source"
    if reason:
        listing.skips.append(Skip(config.name, text_of(path), reason, size))
        return
    listing.entries.append(
        Entry(
            source=config.name,
            file=file,
            path=text_of(path),
            size_bytes=size,
            repository=repository,
            revision=facts[0],
            license=facts[1],
            kind=config.kind,
            form="metadata" if is_metadata else "file",
        )
    )
