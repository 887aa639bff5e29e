"""The package list of pyproject.toml is the folders, and the rooms import one way."""

import ast
import tomllib
from pathlib import Path

import codesieve

ROOT = Path(codesieve.__file__).parent
NOT_PACKAGES = {"tests", "benchmarks", "docs", "runs", "build", "dist"}
ORDER = ["sandbox", "curation", "classifiers", "train", "eval", "report"]


def packages() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


def test_the_package_list_is_the_folders() -> None:
    found = {"codesieve"}
    for init in ROOT.glob("*/**/__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts[0] not in NOT_PACKAGES and not any(part.startswith(".") for part in parts):
            found.add(".".join(("codesieve", *parts)))
    assert found == set(packages())


def test_every_module_lies_in_a_listed_package() -> None:
    listed = {name.removeprefix("codesieve").removeprefix(".").replace(".", "/") for name in packages()}
    for path in ROOT.glob("**/*.py"):
        folder = path.parent.relative_to(ROOT).as_posix()
        if folder.split("/")[0] not in NOT_PACKAGES and not folder.startswith("."):
            assert ("" if folder == "." else folder) in listed, path


def test_rooms_import_one_way() -> None:
    allowed = {
        "sandbox": set(),
        "curation": {"sandbox"},
        "classifiers": {"sandbox", "curation"},
        "train": {"sandbox", "curation", "classifiers"},
        "eval": {"sandbox", "curation", "classifiers", "train"},
        "report": {"curation", "train", "eval"},
    }
    for room in ORDER:
        for path in (ROOT / room).glob("**/*.py"):
            depth = len(path.relative_to(ROOT).parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level == depth and node.module:
                    first = node.module.split(".")[0]
                    if first in ORDER and first != room:
                        assert first in allowed[room], f"{path}: {room} imports {first}"
                    assert first not in {"workflow", "commands", "cli"}, f"{path} imports {first}"


def test_no_file_is_over_500_lines() -> None:
    for path in ROOT.glob("**/*.py"):
        if ".venv" not in path.parts and ".cache" not in path.parts:
            assert len(path.read_text().splitlines()) <= 500, path
