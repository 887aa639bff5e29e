"""Directory source: every regular file below a folder or a URL (or one file) is a document."""

from __future__ import annotations

from pathlib import Path

from ...config import SourceConfig
from ...strict import ConfigError, nearest
from .listing import Entry, Listing, Skip, Wanted, text_of, walk
from .remote import find, is_url


def list_directory(config: SourceConfig) -> Listing:
    """Entries and skips below `config.path`; the first path part names the repository when there are sub-folders.

    Raises:
        ConfigError: if the path does not exist.
    """
    if is_url(str(config.path)):
        return _list_url(config)
    root = existing(config)
    if root.is_file():
        size = root.stat().st_size
        return Listing([_entry(config, str(root.absolute()), root.name, size)], [])
    listing = Listing()
    for name, status, reason in walk(root, config.exclude):
        if status is None or reason:
            listing.skips.append(Skip(config.name, text_of(name), reason or "unreadable"))
        elif status.st_size > config.max_file_bytes:
            listing.skips.append(Skip(config.name, text_of(name), "over_max_file_bytes", status.st_size))
        else:
            listing.entries.append(_entry(config, str((root / name).absolute()), name, status.st_size))
    return listing


def existing(config: SourceConfig) -> Path:
    """The local path of a source.

    Raises:
        ConfigError: if nothing is there, with the nearest name.
    """
    root = Path(config.path or "").expanduser()
    if not root.exists():
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        raise ConfigError(f'source "{config.name}": {root}: no such file or folder{nearest(root.name, siblings)}')
    return root


def _list_url(config: SourceConfig) -> Listing:
    listing = Listing()
    wanted = Wanted(config.name, config.exclude, config.max_file_bytes)
    for found in find(str(config.path), config.name, config.storage):
        if wanted(found.name, found.size_bytes, listing.skips):
            listing.entries.append(_entry(config, found.file, found.name, found.size_bytes))
    return listing


def _entry(config: SourceConfig, file: str, name: str, size_bytes: int) -> Entry:
    first, separator, _ = name.partition("/")
    return Entry(
        source=config.name,
        file=file,
        path=text_of(name),
        size_bytes=size_bytes,
        repository=text_of(first) if separator else "",
        kind=config.kind,
        options={"storage": dict(config.storage)} if config.storage else None,
    )
