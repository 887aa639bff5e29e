"""Real benchmark data, which the project neither holds nor needs: tests that use it skip where it is missing."""

import os
from pathlib import Path

import codesieve
import pytest

VARIABLE = "CODESIEVE_BENCHMARKS"
FOLDER = Path(os.environ.get(VARIABLE, Path(codesieve.__file__).parents[1] / "shared" / "benchmarks"))


def benchmark(name: str) -> Path:
    """The file of that name below the folder of benchmarks; skips the test where there is none."""
    found = sorted(FOLDER.glob(f"*/{name}")) if FOLDER.is_dir() else []
    if not found:
        pytest.skip(f"{name} is not below {VARIABLE}")
    return found[0]
