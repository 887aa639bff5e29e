"""Documents for the classifier tests: files of the running interpreter's standard library and damaged copies of them."""

import hashlib
import sysconfig
from pathlib import Path

import polars as pl
import pytest
from codesieve.classifiers.corruption import corrupt
from codesieve.classifiers.fit import train_classifier
from codesieve.config import ClassifierConfig

LABELS = """
name: tiny
version: 1
description: the test's labels
positive:
  - {name: library, where: "content_type = 'library' AND has_tests AND digit_fraction < 0.2", why: test}
negative:
  - {name: minified, where: is_minified, why: test}
  - {name: generated, where: is_generated, why: test}
corruptions: {share: 0.3, trained: [flatten_indentation], audited: [truncate]}
"""


def row(text: str, path: str, repository: str, **facts: object) -> dict[str, object]:
    """One annotated document with the columns that labels need."""
    data = text.encode()
    return {
        "id": hashlib.md5(path.encode() + data).hexdigest(),
        "text": text,
        "language": "python",
        "kind": "code",
        "path": path,
        "repository": repository,
        "size_bytes": len(data),
        "content_hash": hashlib.md5(data).hexdigest(),
        "content_type": "library",
        "digit_fraction": 0.05,
        "is_minified": False,
        "is_generated": False,
        "is_test": False,
        **facts,
    }


def standard_library(count: int) -> list[tuple[str, str]]:
    """Path and text of hand-written modules, in name order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.glob("*.py")) + sorted(root.glob("*/*.py")):
        name = str(path.relative_to(root))
        if 1500 <= path.stat().st_size <= 30_000 and "-packages" not in name and "test" not in name:
            found.append((name, path.read_text(encoding="utf-8", errors="replace")))
    return found[:count]


@pytest.fixture(scope="session")
def annotated() -> pl.DataFrame:
    """360 real modules in 24 repositories; half of them damaged in ways that training sees only as labels."""
    rows = []
    for index, (path, text) in enumerate(standard_library(360)):
        repository = f"repository-{index % 24}"
        if index % 2:
            rows.append(row(text, path, repository))
        elif index % 4:
            rows.append(row(corrupt("minify", text, "python", 7, path), path, repository, is_minified=True))
        else:
            damaged = corrupt("rename_identifiers", text, "python", 7, path)
            rows.append(row(damaged, path, repository, is_generated=True))
    rows += [
        row("def test(): pass\n", f"tests/test_{n}.py", f"repository-{n}", is_test=True, content_type="test")
        for n in range(24)
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> ClassifierConfig:
    path = tmp_path_factory.mktemp("labels") / "tiny.yaml"
    path.write_text(LABELS)
    return ClassifierConfig(labels=str(path), dim=8, bucket=20_000, epoch=10, calibration_fraction=0.3)


@pytest.fixture(scope="session")
def trained(
    annotated: pl.DataFrame, config: ClassifierConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    """Folder and card of a classifier trained on `annotated`."""
    folder = tmp_path_factory.mktemp("run") / "classifiers" / "quality"
    return folder, train_classifier(config, annotated.lazy(), folder)
