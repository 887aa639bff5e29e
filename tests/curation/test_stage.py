"""Stages: one unit, one shard; whatever is interrupted continues to the same bytes."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from codesieve.curation.executors import run_stage
from codesieve.curation.shards import BrokenShardError, footer, read_batches, row_count, shard_paths, write_shard
from codesieve.curation.stage import Stage, pending, write_plan
from codesieve.curation.steps import STEP_ERRORS, check, map_documents
from codesieve.processes import WorkerDiedError
from codesieve.strict import ConfigError


class Numbers:
    columns = ("id", "n")

    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        for start in unit["starts"]:
            yield pl.DataFrame({"id": [f"{start + i}" for i in range(3)], "n": [start + i for i in range(3)]})


class Square:
    name = "square"
    requires = ("n",)
    provides: Mapping[str, pl.DataType] = {"squared": pl.Int64()}

    def setup(self) -> None:
        self.ready = True

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        assert self.ready
        return batch.with_columns((pl.col("n") ** 2).alias("squared"))


class KillOnce(Square):
    """Kills its own worker at 30, once."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        if batch["n"][0] == 30 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def make(folder: Path, step: Any, units: int = 6) -> Stage:
    pieces = [{"starts": [index * 10, index * 10 + 5], "marks": [index], "bytes": 10} for index in range(units)]
    write_plan(folder / "plan" / "s", {"setting": 1}, pieces)
    return Stage("s", Numbers(), [step], folder / "plan" / "s", folder / "out")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shard_paths(folder)}


def test_datatroves_own_executor_runs_a_stage(tmp_path: Path) -> None:
    from datatrove.executor.local import LocalPipelineExecutor

    run_stage(make(tmp_path / "ours", Square()), tmp_path / "logs", workers=1)
    stage = make(tmp_path / "theirs", Square())
    LocalPipelineExecutor([stage], tasks=2, workers=2, logging_dir=str(tmp_path / "logs2")).run()
    assert contents(tmp_path / "ours" / "out") == contents(tmp_path / "theirs" / "out")


def test_one_unit_makes_one_shard_with_a_footer(tmp_path: Path) -> None:
    stage = make(tmp_path, Square())
    run_stage(stage, tmp_path / "logs", workers=1)
    assert [path.name for path in shard_paths(tmp_path / "out")] == [f"{i:05d}.parquet" for i in range(6)]
    first = tmp_path / "out" / "00000.parquet"
    assert pl.read_parquet(first)["squared"].to_list() == [0, 1, 4, 25, 36, 49]
    assert footer(first)["stage"] == "s"
    assert row_count(first) == 6
    assert [batch.height for batch in read_batches(first)] == [3, 3]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path) -> None:
    run_stage(make(tmp_path / "one", Square()), tmp_path / "logs1", workers=1)
    run_stage(make(tmp_path / "two", Square()), tmp_path / "logs2", workers=2)
    assert contents(tmp_path / "one" / "out") == contents(tmp_path / "two" / "out")


def test_finished_shards_are_not_made_again(tmp_path: Path) -> None:
    stage = make(tmp_path, Square())
    run_stage(stage, tmp_path / "logs", workers=1)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "00003.parquet").unlink()
    (tmp_path / "out" / "00004.parquet").write_bytes(b"torn")
    (tmp_path / "out" / "00099.parquet").write_bytes(b"of an older plan")
    untouched = (tmp_path / "out" / "00000.parquet").stat().st_mtime_ns
    assert pending(stage.plan_folder, stage.output) == [3, 4]
    run_stage(stage, tmp_path / "logs", workers=1)
    assert contents(tmp_path / "out") == before
    assert (tmp_path / "out" / "00000.parquet").stat().st_mtime_ns == untouched


def test_a_killed_worker_is_an_error_and_the_next_start_continues_to_the_same_bytes(tmp_path: Path) -> None:
    run_stage(make(tmp_path / "whole", Square()), tmp_path / "logs", workers=1)
    stage = make(tmp_path / "killed", KillOnce(tmp_path / "marker"))
    with pytest.raises(WorkerDiedError, match=r"00003\.parquet"):
        run_stage(stage, tmp_path / "logs", workers=2)
    run_stage(stage, tmp_path / "logs", workers=2)
    assert contents(tmp_path / "killed" / "out") == contents(tmp_path / "whole" / "out")


def test_another_plan_refuses_and_says_what_changed(tmp_path: Path) -> None:
    make(tmp_path, Square())
    with pytest.raises(ConfigError, match="setting: 1 -> 2"):
        write_plan(tmp_path / "plan" / "s", {"setting": 2}, [])
    with pytest.raises(ConfigError, match="the input: files were added"):
        make(tmp_path, Square(), units=7)


def test_progress_ends_at_one_and_never_falls(tmp_path: Path) -> None:
    seen: list[float] = []
    run_stage(make(tmp_path, Square()), tmp_path / "logs", workers=1, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_steps_are_checked_before_anything_is_read() -> None:
    with pytest.raises(
        ConfigError, match=r'step "square" requires column "n" \(did you mean "m"\?\)|requires column "n"'
    ):
        check([Square()], ["id", "m"])
    with pytest.raises(ConfigError, match="is there already"):
        check([Square()], ["n", "squared"])


def test_a_document_that_makes_a_step_fail_does_not_fail_the_batch() -> None:
    def inverse(n: int) -> tuple[float] | None:
        return None if n < 0 else (1 / n,)

    batch = pl.DataFrame({"n": [1, 0, -1, 2]})
    result = map_documents(batch, "inverse", inverse, ["n"], {"inverse": pl.Float64()})
    assert result["inverse"].to_list() == [1.0, None, None, 0.5]
    assert result[STEP_ERRORS].to_list() == [[], ["inverse: ZeroDivisionError: division by zero"], [], []]


def test_map_documents_keeps_an_empty_batch() -> None:
    batch = pl.DataFrame({"n": []}, schema={"n": pl.Int64})
    result = map_documents(batch, "s", lambda n: (n,), ["n"], {"copy": pl.Int64()})
    assert result.schema == {"n": pl.Int64, "copy": pl.Int64, STEP_ERRORS: pl.List(pl.String)}


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(BrokenShardError, match=r"00000\.parquet: not a readable Parquet file"):
        footer(tmp_path / "00000.parquet")


def test_a_failed_write_leaves_no_shard(tmp_path: Path) -> None:
    def batches() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame({"a": [1]})
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_shard(tmp_path / "00000.parquet", batches(), {})
    assert not list(tmp_path.iterdir())
