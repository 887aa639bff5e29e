"""Items on disk: fixed columns, fixed order, same bytes."""

from pathlib import Path

import polars as pl
import pytest
from codesieve.eval.store import ITEMS, collect, items_frame, read_items, write_items


def items(nats: float = 1.5) -> pl.DataFrame:
    scored = {"task": "heldout", "cluster": "f", "stream": "code", "language": "python", "nats": nats, "bytes": 10}
    answer = {"task": "problems", "item": "add", "cluster": "add", "stream": "problems", "language": "python"}
    return items_frame(
        [
            {**scored, "item": "b", "outcome": "scored"},
            {**scored, "item": "a", "outcome": "scored"},
            {**answer, "sample": 1, "score": 1.0, "outcome": "passed", "answer": "return a", "sandbox_level": 3},
            {**answer, "score": 0.0, "outcome": "wrong", "answer": "return b", "sandbox_level": 3},
        ]
    )


def test_items_come_back_as_they_went_in_whatever_the_row_order(tmp_path: Path) -> None:
    write_items(tmp_path / "one", items())
    write_items(tmp_path / "two", items()[::-1])
    assert read_items(tmp_path / "one").equals(items().sort("task", "item", "sample"))
    assert (tmp_path / "one/items.parquet").read_bytes() == (tmp_path / "two/items.parquet").read_bytes()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    write_items(tmp_path, items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.parquet", "job.json"]


def test_many_models_become_one_frame_with_arm_and_seed_in_front(tmp_path: Path) -> None:
    for number, name in enumerate(["random-drop-0", "random-drop-1", "all-0", "all-1", "other-0"]):
        write_items(tmp_path / name, items(float(number)))
    found = collect(tmp_path, ["random-drop", "all"], [0, 1])
    assert found.columns == ["arm", "seed", *ITEMS]
    assert found.group_by("arm", "seed").len().height == 4
    assert found.filter((pl.col("arm") == "all") & (pl.col("seed") == 1))["nats"][0] == 3.0


def test_a_missing_evaluation_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    write_items(tmp_path / "rules-0", items())
    with pytest.raises(FileNotFoundError, match=r'rule-0: no such evaluation \(did you mean "rules-0"\?\)'):
        collect(tmp_path, ["rule"], [0])
    (tmp_path / "rules-1").mkdir()
    with pytest.raises(FileNotFoundError, match=r"rules-1/items.parquet: no such file; evaluate the model first"):
        collect(tmp_path, ["rules"], [0, 1])


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    items().drop("answer").write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="columns are"):
        read_items(tmp_path)
