"""Directory source: every regular file below a folder (or one file) is a document."""

from __future__ import annotations

from pathlib import Path

from ...config import ConfigError, SourceConfig, nearest
from .listing import Entry, Listing, Skip, text_of, walk


def list_directory(config: SourceConfig) -> Listing:
    """Entries and skips below `config.path`; the first path part names the repository when there are sub-folders.

    Raises:
        ConfigError: if the path does not exist.
    """
    root = Path(config.path or "").expanduser()
    if not root.exists():
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        raise ConfigError(f'source "{config.name}": {root}: no such file or folder{nearest(root.name, siblings)}')
    if root.is_file():
        size = root.stat().st_size
        return Listing([_entry(config, root, root.name, size)], [])
    listing = Listing()
    for name, status, reason in walk(root, config.exclude):
        if status is None or reason:
            listing.skips.append(Skip(config.name, text_of(name), reason or "unreadable"))
        elif status.st_size > config.max_file_bytes:
            listing.skips.append(Skip(config.name, text_of(name), "over_max_file_bytes", status.st_size))
        else:
            listing.entries.append(_entry(config, root / name, name, status.st_size))
    return listing


def _entry(config: SourceConfig, file: Path, name: str, size_bytes: int) -> Entry:
    first, separator, _ = name.partition("/")
    return Entry(
        source=config.name,
        file=str(file.absolute()),
        path=text_of(name),
        size_bytes=size_bytes,
        repository=text_of(first) if separator else "",
        kind=config.kind,
    )
