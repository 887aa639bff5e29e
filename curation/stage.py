"""Stage: reader → steps → shard writer, as a datatrove PipelineStep, so that every datatrove executor runs it.

The unit of work is a piece of the input that `plan` wrote down; one unit makes one shard. A shard that is there with
the right fingerprint in its footer is done: an interrupted stage continues where it was, whatever the number of tasks
or workers, and the result is the same bytes. A plan that differs from the one on disk refuses to continue.

    plan/<stage>/plan.json       fingerprint, what it was made from, number of units
    plan/<stage>/00000.json      one unit: what the reader needs to read it
    plan/<stage>/00000.working   while the unit is made: which step is at which documents
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from ..differences import changes
from ..files import read_json, remove_temporary, write_atomic, write_json
from ..strict import ConfigError, fingerprint, nearest
from .faults import apply_step, describe, set_up
from .shards import BrokenShardError, column_names, shard_name, shard_paths, write_shard
from .shards import footer as read_footer
from .steps import STEP_ERRORS, Step, check


class ShardError(RuntimeError):
    """What kept a shard from being made, with its name."""


class Reader(Protocol):
    """Turns one unit into batches. `columns` are those of every batch; at least one batch, if need be an empty one."""

    @property
    def columns(self) -> Sequence[str]: ...

    def read(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]: ...


class Stage(PipelineStep):  # type: ignore[misc]
    """Runs the units of a plan; rank r of n takes units r, r + n, …

    Args:
        name: of the stage, shown in logs.
        reader: makes batches from a unit.
        steps: add columns to a batch, in this order.
        plan_folder: what `write_plan` wrote.
        output: folder of the shards.
        columns: the columns to write; default all.
        facts: more for the footers of the shards.
    """

    type = "STAGE"

    def __init__(
        self,
        name: str,
        reader: Reader,
        steps: Sequence[Step],
        plan_folder: Path,
        output: Path,
        columns: Sequence[str] | None = None,
        facts: Mapping[str, str] | None = None,
    ):
        super().__init__()
        self.name = name
        self.reader = reader
        self.steps = list(steps)
        self.plan_folder = plan_folder
        self.output = output
        self.facts = dict(facts or {})
        known = check(self.steps, reader.columns)
        self.columns = list(columns) if columns is not None else known
        for column in self.columns:
            if column not in known:
                raise ConfigError(f'stage "{name}": no step makes column "{column}"{nearest(column, known)}')

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Datatrove's entry point: makes the shards of this rank; passes on what came in."""
        yield from data or ()
        # Only its own units: as a task each unit of a large plan would otherwise read the footers of all others.
        todo = pending(self.plan_folder, self.output, range(rank, read_plan(self.plan_folder)["units"], world_size))
        if not todo:
            return
        set_up(self.steps)
        for index in todo:
            rows = self._make(index)
            self.stat_update("shards")
            self.stat_update("documents", value=rows, unit="shard")

    def _make(self, index: int) -> int:
        unit = read_json(unit_path(self.plan_folder, index))
        marks = {
            **self.facts,
            "fingerprint": plan_fingerprint(self.plan_folder),
            "unit": fingerprint(unit["marks"]),
            "stage": self.name,
        }
        shard, note = self.output / shard_name(index), working_path(self.plan_folder, index)
        try:
            return write_shard(shard, self._batches(unit, note), marks)
        except (ConfigError, OSError, BrokenShardError):  # these say what they are about
            raise
        except (Exception, pl.exceptions.PanicException) as error:
            raise ShardError(f"{shard}: {describe(error)}{working(self.plan_folder, index)}") from error
        finally:
            note.unlink(missing_ok=True)

    def _batches(self, unit: Mapping[str, Any], note: Path) -> Iterator[pl.DataFrame]:
        _write_note(note, "reading")
        for batch in self.reader.read(unit):
            where = _documents(batch)
            for step in self.steps:
                _write_note(note, f'step "{step.name}" at {where}')
                batch = apply_step(step, batch)  # noqa: PLW2901  a pipeline: each output is the next one's input
            self._count_errors(batch)
            _write_note(note, f"writing {where}, or reading what follows")
            made = batch.select(self.columns)
            del batch  # two large documents are not in memory at once
            yield made

    def _count_errors(self, batch: pl.DataFrame) -> None:
        """Into statistics and log, since not every shard has the column."""
        if STEP_ERRORS not in batch.columns:
            return
        failed = batch.filter(pl.col(STEP_ERRORS).list.len() > 0)
        if failed.height:
            self.stat_update(STEP_ERRORS, value=failed.height, unit="batch")
            for name, errors in failed.select(pl.coalesce(_name_columns(failed)), STEP_ERRORS).iter_rows():
                logger.warning("{}: {}", name, "; ".join(errors))


def write_plan(folder: Path, made_from: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> str:
    """Write down what a stage will do; returns the fingerprint of `made_from` and the units' marks.

    A unit is plain data for the reader. Its `marks` (names and sizes, no paths of this machine) are what identifies
    it; `made_from` is the configuration in words, kept so that a later start can print what changed.

    Raises:
        ConfigError: if another plan is there already: what changed, and what to do.
    """
    marks = fingerprint([unit["marks"] for unit in units])
    plan: dict[str, Any] = {
        "fingerprint": fingerprint(made_from, marks),
        "made_from": dict(made_from),
        "units": len(units),
        "unit_marks": marks,
        "units_bytes": [int(unit.get("bytes", 1)) for unit in units],
    }
    path = folder / "plan.json"
    if path.exists():
        before = read_json(path)
        if before == plan:
            return str(plan["fingerprint"])
        different = changes(before["made_from"], plan["made_from"])
        if before["unit_marks"] != marks:
            different.append("the input: files were added, removed, renamed or changed in size")
        raise ConfigError(
            f"{folder.parent.parent}: was made with another configuration or input:\n  "
            + "\n  ".join(different)
            + "\nGive another --out, or delete that folder to start anew."
        )
    for index, unit in enumerate(units):
        # Names that are not UTF-8 hold lone surrogates, which only ASCII JSON can carry.
        write_atomic(unit_path(folder, index), json.dumps({**unit, "index": index}, sort_keys=True))
    write_json(path, plan)
    return str(plan["fingerprint"])


def read_plan(folder: Path) -> dict[str, Any]:
    """`plan.json` of a stage."""
    plan: dict[str, Any] = read_json(folder / "plan.json")
    return plan


def plan_fingerprint(folder: Path) -> str:
    """The fingerprint that every shard of the stage carries."""
    return str(read_plan(folder)["fingerprint"])


def unit_path(folder: Path, index: int) -> Path:
    """The file that describes unit `index`."""
    return folder / f"{index:05d}.json"


def working_path(folder: Path, index: int) -> Path:
    """Where the maker of unit `index` notes what it is doing, for the case that it is killed."""
    return folder / f"{index:05d}.working"


def working(folder: Path, index: int) -> str:
    """What the maker of unit `index` was doing, as ` (…)`; nothing if that is not known."""
    try:
        return f" ({working_path(folder, index).read_text(encoding='utf-8')})"
    except FileNotFoundError:
        return ""


def pending(plan_folder: Path, output: Path, units: Iterable[int] | None = None) -> list[int]:
    """Units, of these or of all, whose shard is missing, broken or of another plan."""
    plan = read_plan(plan_folder)
    if units is None:
        units = range(plan["units"])
    return [index for index in units if not _is_done(output / shard_name(index), plan["fingerprint"])]


def check_columns(stage: Stage, todo: Sequence[int]) -> None:
    """Shards that are done have the columns that this version of the code makes, so that all shards are alike.

    Raises:
        ConfigError: with the difference.
    """
    left = set(todo)
    done = [index for index in range(read_plan(stage.plan_folder)["units"]) if index not in left]
    if not done:
        return
    path = stage.output / shard_name(done[0])
    found = column_names(path)
    if found == stage.columns:
        return
    gone = [f"without {name}" for name in stage.columns if name not in found]
    more = [f"with {name}" for name in found if name not in stage.columns]
    different = ", ".join(gone + more) or "in another order"
    raise ConfigError(
        f"{path}: was made by another version of codesieve: {different}\n"
        f"Give another --out, or delete {stage.output} to make it anew."
    )


def sweep(output: Path, units: int) -> None:
    """Delete temporary files and shards beyond the plan."""
    remove_temporary(output)
    names = {shard_name(index) for index in range(units)}
    for path in shard_paths(output):
        if path.name not in names:
            path.unlink()


def _is_done(path: Path, expected: str) -> bool:
    if not path.exists():
        return False
    try:
        return read_footer(path).get("fingerprint") == expected
    except BrokenShardError:
        return False


def _write_note(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must be reported of the shard, not of a note about it
        path.write_text(text, encoding="utf-8")


def _documents(batch: pl.DataFrame) -> str:
    """How many, from which to which, and the largest: that is the one to look at when memory runs out."""
    names = _name_columns(batch)
    if not batch.height or not names:
        return f"{batch.height} documents"
    column = batch.select(pl.coalesce(names).alias("name"))["name"]
    if batch.height == 1:
        return str(column[0])
    largest = ""
    if "text" in batch.columns:
        sizes = batch["text"].str.len_bytes()
        position = sizes.arg_max() or 0
        largest = f", the largest {column[position]} with {sizes[position] or 0:,} bytes"
    return f"{batch.height} documents, {column[0]} to {column[-1]}{largest}"


def _name_columns(batch: pl.DataFrame) -> list[str]:
    return [name for name in ("path", "id") if name in batch.columns]
