"""A reader never sees half a file."""

from pathlib import Path

import pytest
from codesieve.files import read_json, remove_temporary, replacing, replacing_folder, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    with pytest.raises(RuntimeError), replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("half")
        raise RuntimeError
    assert (folder / "weights").read_text() == "old"


def test_a_finished_folder_replaces_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale").touch()
    with replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_leftovers_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-a").touch()
    (tmp_path / ".tmp-2-b" / ".tmp-3-c").mkdir(parents=True)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".tmp-4-d").touch()
    (tmp_path / "kept").touch()
    remove_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "kept"]


def test_broken_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"card\.json: not valid JSON"):
        read_json(path)


def test_equal_data_gives_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [2]})
    write_json(tmp_path / "b", {"y": [2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
