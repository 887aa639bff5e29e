"""What the results of a run depend on besides its inputs: versions, and the commit of codesieve itself."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from . import __version__

PACKAGES = (
    "datatrove",
    "fasttext-numpy2",
    "polars",
    "pyarrow",
    "tokenizers",
    "torch",
    "transformers",
    "tree-sitter",
    "tree-sitter-language-pack",
)


def versions() -> dict[str, str]:
    """Versions of codesieve, Python and the packages that results depend on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"codesieve": __version__, "python": platform.python_version(), **found}


def git_commit() -> str | None:
    """The commit that codesieve runs from, if it runs from a checkout of its own."""
    root = Path(__file__).parent
    if not (root / ".git").exists():
        return None
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
