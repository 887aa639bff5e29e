"""From the source configs to one listing and its units of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...config import SourceConfig
from ...strict import CONFIGS, ConfigError
from .archive import list_archive
from .directory import list_directory
from .environment import list_environment
from .git import list_git
from .listing import Entry, Listing, sample
from .tables import list_huggingface, list_table

BESIDE_CONFIGS = "configs:"


def list_sources(configs: Sequence[SourceConfig]) -> Listing:
    """All sources, each sampled as it asks, in the order of the configs.

    Raises:
        ConfigError: if a path does not exist or a source has no files at all.
    """
    listing = Listing()
    for config in configs:
        found = LISTERS[config.type](config)
        if not found.entries:
            raise ConfigError(f'source "{config.name}": no files to read{_why(found)}')
        if config.sample_bytes is not None:
            found.entries, left_out = sample(found.entries, config.sample_bytes)
            found.skips += left_out
        listing.extend(found)
    return listing


def list_problems(config: SourceConfig) -> Listing:
    """A JSONL file of problems, or every one in a folder; `configs:` in front means beside codesieve's configs."""
    path = str(config.path)
    root = CONFIGS / path.removeprefix(BESIDE_CONFIGS) if path.startswith(BESIDE_CONFIGS) else Path(path).expanduser()
    files = sorted(root.glob("*.jsonl")) if root.is_dir() else [root]
    if not files or not files[0].exists():
        raise ConfigError(f'source "{config.name}": {root}: no such file, or no *.jsonl in that folder')
    return Listing(
        [
            Entry(
                source=config.name,
                file=str(file.absolute()),
                path=file.name,
                size_bytes=file.stat().st_size,
                repository=config.name,
                kind="synthetic",
                form="problems",
            )
            for file in files
        ]
    )


LISTERS: dict[str, Callable[[SourceConfig], Listing]] = {
    "directory": list_directory,
    "git": list_git,
    "archive": list_archive,
    "table": list_table,
    "huggingface": list_huggingface,
    "environment": list_environment,
    "problems": list_problems,
}


def _why(found: Listing) -> str:
    reasons = sorted({f"{skip.reason} ({skip.path})" for skip in found.skips})
    shown = ", ".join(reasons[:3]) + (", …" if len(reasons) > 3 else "")
    return f"; {len(found.skips)} skipped: {shown}" if reasons else ""
