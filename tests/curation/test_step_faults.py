"""Workers that die and steps that fail cost the documents they are at, are named, and end what cannot go on."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from codesieve.curation.executors import run_stage
from codesieve.curation.faults import StepError, apply_step
from codesieve.curation.shards import shard_paths
from codesieve.curation.stage import ShardError, Stage, write_plan
from codesieve.curation.steps import STEP_ERRORS
from codesieve.processes import WorkerDiedError, run_processes
from codesieve.strict import ConfigError


class Numbers:
    columns = ("id", "path", "text", "n")

    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        numbers = unit["numbers"]
        yield pl.DataFrame(
            {
                "id": [str(n) for n in numbers],
                "path": [f"{n}.py" for n in numbers],
                "text": ["x" * n for n in numbers],
                "n": numbers,
            }
        )


class OnNumbers:
    """A step whose `act` is called with each batch's numbers before it is squared."""

    name = "square"
    requires = ("n",)
    provides: Mapping[str, pl.DataType] = {"squared": pl.Int64()}

    def setup(self) -> None:
        """Nothing to load."""

    def act(self, numbers: list[int]) -> None:
        """Nothing."""

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        self.act(batch["n"].to_list())
        return batch.with_columns((pl.col("n") ** 2).alias("squared"))


class Hungry(OnNumbers):
    """Takes more than it may at 12: as Python does it, with an error that can be caught."""

    def act(self, numbers: list[int]) -> None:
        if 12 in numbers:
            before = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, before[1]))
            try:
                bytearray(8 << 30)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, before)


class Killed(OnNumbers):
    """Is killed at 12, as by the kernel when memory runs out."""

    def act(self, numbers: list[int]) -> None:
        if 12 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)


class Aborting(OnNumbers):
    """Aborts at 12, as compiled code does when an allocation fails."""

    def act(self, numbers: list[int]) -> None:
        if 12 in numbers:
            os.abort()


def make(folder: Path, step: Any, reader: Any = None) -> Stage:
    units = [{"numbers": list(range(n, n + 5)), "marks": [n], "bytes": 5} for n in range(0, 30, 5)]
    write_plan(folder / "plan", {"setting": 1}, units)
    return Stage("s", reader or Numbers(), [step], folder / "plan", folder / "out")


@pytest.mark.parametrize(("step", "how"), [(Killed(), "was killed (SIGKILL)"), (Aborting(), "crashed (SIGABRT)")])
def test_a_worker_that_dies_is_named_with_its_shard_step_and_documents(tmp_path: Path, step: Any, how: str) -> None:
    run_stage(make(tmp_path / "whole", OnNumbers()), tmp_path / "logs", workers=1)
    with pytest.raises(WorkerDiedError) as caught:
        run_stage(make(tmp_path / "died", step), tmp_path / "logs", workers=2)
    message = str(caught.value)
    assert how in message
    assert '00002.parquet (step "square" at 5 documents, 10.py to 14.py, the largest 14.py with 14 bytes)' in message
    whole = {path.name: path.read_bytes() for path in shard_paths(tmp_path / "whole" / "out")}
    for path in shard_paths(tmp_path / "died" / "out"):
        assert path.read_bytes() == whole[path.name]
    run_stage(make(tmp_path / "died", OnNumbers()), tmp_path / "logs", workers=2)
    assert {path.name: path.read_bytes() for path in shard_paths(tmp_path / "died" / "out")} == whole
    assert not list((tmp_path / "died" / "plan").glob("*.working"))


def test_memory_that_runs_out_inside_a_step_costs_one_document(tmp_path: Path) -> None:
    run_processes(run_stage, [(make(tmp_path, Hungry()), tmp_path / "logs", 1)], ["it"], workers=1)
    table = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert table.height == 30
    assert table.filter(pl.col("squared").is_null())["n"].to_list() == [12]


class NoMemory(Numbers):
    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        if unit["index"] == 3:
            raise MemoryError
        yield from super().read(unit)


def test_an_error_outside_the_steps_names_the_shard_and_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"00003\.parquet: MemoryError \(reading\)"):
        run_stage(make(tmp_path, OnNumbers(), NoMemory()), tmp_path / "logs", workers=1)
    assert [path.name for path in shard_paths(tmp_path / "out")] == [f"0000{n}.parquet" for n in range(3)]


class OddError(Exception):
    """Can be pickled, not read again."""

    def __init__(self, one: int, two: int):
        super().__init__(f"{one} and {two}")


def raise_odd_error() -> None:
    raise OddError(1, 2)


def test_an_error_that_cannot_be_sent_is_not_taken_for_the_death_of_a_worker() -> None:
    with pytest.raises(RuntimeError, match="OddError: 1 and 2") as caught:
        run_processes(raise_odd_error, [()], ["it"], workers=1)
    assert not isinstance(caught.value, WorkerDiedError)


def test_an_error_ends_only_the_processes_that_were_started_for_the_work() -> None:
    mine = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    mine.start()
    with pytest.raises(RuntimeError, match="OddError"):
        run_processes(raise_odd_error, [()], ["it"], workers=1)
    assert mine.is_alive()
    mine.terminate()
    mine.join()


# --- steps


def batch(numbers: list[int]) -> pl.DataFrame:
    return next(Numbers().read({"numbers": numbers}))


class Failing(OnNumbers):
    def act(self, numbers: list[int]) -> None:
        if any(n % 10 == 3 for n in numbers):
            raise ArithmeticError(f"cannot do {[n for n in numbers if n % 10 == 3]}")


def test_a_step_that_raises_on_a_batch_marks_the_documents_that_make_it_raise() -> None:
    found = apply_step(Failing(), batch(list(range(20))))
    assert found["n"].to_list() == list(range(20))
    assert found["squared"].to_list() == [None if n in (3, 13) else n * n for n in range(20)]
    errors = {n: e for n, e in found.select("n", STEP_ERRORS).iter_rows() if e}
    assert errors == {n: [f"square: ArithmeticError: cannot do [{n}]"] for n in (3, 13)}


def test_errors_of_earlier_steps_stay() -> None:
    with_error = batch([3, 4]).with_columns(pl.Series(STEP_ERRORS, [["text: ValueError: no"], []]))
    found = apply_step(Failing(), with_error)
    assert found[STEP_ERRORS].to_list() == [["text: ValueError: no", "square: ArithmeticError: cannot do [3]"], []]


class Broken(OnNumbers):
    def act(self, numbers: list[int]) -> None:
        raise KeyError("table")


def test_a_step_that_fails_without_any_document_ends_the_run_with_its_name() -> None:
    with pytest.raises(StepError, match='step "square": fails without any document: KeyError'):
        apply_step(Broken(), batch([]))


class NotReady(OnNumbers):
    def setup(self) -> None:
        raise KeyError("table")


def test_a_step_that_cannot_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match='step "square": cannot start: KeyError'):
        run_stage(make(tmp_path, NotReady()), tmp_path / "logs", workers=1)


class Returning(OnNumbers):
    def __init__(self, make: Callable[[pl.DataFrame], Any]):
        self.make = make

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        found: pl.DataFrame = self.make(super().__call__(batch))
        return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b.head(2), "returned 2 rows for 3 documents"),
        (lambda b: b.rename({"squared": "square"}), r'declares column "squared" and does not return it \(did you mean'),
        (lambda b: b.cast({"squared": pl.Float64}), 'declares column "squared" as Int64 and returns Float64'),
        (lambda b: b.with_columns(extra=1), 'returned column "extra", which it does not declare'),
        (lambda b: b.drop("text"), 'lost column "text"'),
        (lambda b: b.reverse(), "returned the documents in another order"),
        (lambda b: b.to_dicts(), "returned list, not a polars DataFrame"),
    ],
)
def test_a_step_that_breaks_its_contract_is_named_with_what_is_wrong(change: Any, message: str) -> None:
    with pytest.raises(StepError, match=f'step "square": {message}'):
        apply_step(Returning(change), batch([1, 2, 3]))


def test_in_a_run_such_a_step_is_named_with_the_shard(tmp_path: Path) -> None:
    stage = make(tmp_path, Returning(lambda b: b.head(2)))
    with pytest.raises(ShardError, match=r'00000\.parquet: StepError: step "square": returned 2 rows for 5 documents'):
        run_stage(stage, tmp_path / "logs", workers=1)


# --- another version of the steps


class Cube(OnNumbers):
    provides: Mapping[str, pl.DataType] = {"squared": pl.Int64(), "cubed": pl.Int64()}

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        return super().__call__(batch).with_columns((pl.col("n") ** 3).alias("cubed"))


def test_shards_of_another_version_of_the_steps_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    run_stage(make(tmp_path, OnNumbers()), tmp_path / "logs", workers=1)
    (tmp_path / "out" / "00005.parquet").unlink()
    with pytest.raises(ConfigError, match=r"00000\.parquet: was made by another version of codesieve: without cubed"):
        run_stage(make(tmp_path, Cube()), tmp_path / "logs", workers=1)
