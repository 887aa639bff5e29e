"""Environment source: the interpreter's standard library and the installed packages.

Input that is on every machine and that nobody arranged: hand-written modules, generated tables, minified bundles,
vendored copies. `code` lists source files; `documentation` lists METADATA descriptions and documentation files. The
repository of a file is its distribution, so that whole package families can be held out. codesieve itself is left out.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sysconfig
from pathlib import Path, PurePosixPath

from ...config import SourceConfig
from ..languages import UNKNOWN, identify
from .listing import IGNORED_FOLDERS, Entry, Listing, Skip, text_of, walk

DOCUMENTATION_SUFFIXES = frozenset({".md", ".rst", ".txt"})
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
            _sort_in(listing, config, root / name, name, status.st_size, STANDARD_LIBRARY, _PYTHON_FACTS)
    return listing


_PYTHON_FACTS = (platform.python_version(), "PSF-2.0")


def _distribution(config: SourceConfig, name: str, dist: importlib.metadata.Distribution) -> Listing:
    listing = Listing()
    facts = (dist.version, _license(dist))
    for file in sorted(dist.files or (), key=str):
        if ".." in file.parts or IGNORED_FOLDERS.intersection(file.parts):
            continue  # console scripts outside the library, and byte code
        located = Path(str(dist.locate_file(file)))
        try:
            size = located.stat().st_size
        except OSError as error:
            listing.skips.append(Skip(config.name, text_of(str(file)), f"unreadable: {error.strerror}"))
            continue
        _sort_in(listing, config, located, str(file), size, name, facts)
    return listing


def _sort_in(
    listing: Listing, config: SourceConfig, file: Path, path: str, size: int, repository: str, facts: tuple[str, str]
) -> None:
    """Add the file to the listing if its part (code or documentation) is asked for."""
    name = PurePosixPath(path)
    is_metadata = name.name == "METADATA" and name.parent.suffix == ".dist-info"
    is_documentation = is_metadata or name.suffix.lower() in DOCUMENTATION_SUFFIXES
    if name.parts[0].endswith(".dist-info") and not is_metadata:
        return  # the installer's books, different on every machine, and copies of licences
    if ("documentation" if is_documentation else "code") not in config.parts:
        return
    if not is_documentation and identify(path, b"") == UNKNOWN:
        listing.skips.append(Skip(config.name, text_of(path), "not_source", size))
        return
    if size > config.max_file_bytes:
        listing.skips.append(Skip(config.name, text_of(path), "over_max_file_bytes", size))
        return
    listing.entries.append(
        Entry(
            source=config.name,
            file=str(file),
            path=text_of(path),
            size_bytes=size,
            repository=repository,
            revision=facts[0],
            license=facts[1],
            kind=config.kind,
            form="metadata" if is_metadata else "file",
        )
    )


def _license(dist: importlib.metadata.Distribution) -> str:
    """The SPDX expression if the package states one (PEP 639), else a short licence field, else nothing."""
    stated = dist.metadata.json.get("license_expression") or dist.metadata.json.get("license") or ""
    if not isinstance(stated, str) or len(stated) > 80 or "\n" in stated:
        return ""  # the whole text of a licence in the field that should name it
    return stated.strip()
