"""Stage: reader → steps → shard writer, as a datatrove PipelineStep, so that every datatrove executor runs it.

The unit of work is a piece of the input that `plan` wrote down; one unit makes one shard. A shard that is there with
the right fingerprint in its footer is done: an interrupted stage continues where it was, whatever the number of tasks
or workers, and the result is the same bytes. A plan that differs from the one on disk refuses to continue.

    plan/<stage>/plan.json     fingerprint, what it was made from, number of units
    plan/<stage>/00000.json    one unit: what the reader needs to read it
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from datatrove.pipeline.base import PipelineStep

from ..config import ConfigError, changes, fingerprint
from ..files import read_json, remove_temporary, write_atomic, write_json
from .shards import BrokenShardError, shard_name, shard_paths, write_shard
from .shards import footer as read_footer
from .steps import Step, check


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
    ):
        super().__init__()
        self.name = name
        self.reader = reader
        self.steps = list(steps)
        self.plan_folder = plan_folder
        self.output = output
        known = check(self.steps, reader.columns)
        self.columns = list(columns) if columns is not None else known

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Datatrove's entry point: makes the shards of this rank; passes on what came in."""
        yield from data or ()
        todo = [index for index in pending(self.plan_folder, self.output) if index % world_size == rank]
        if not todo:
            return
        for step in self.steps:
            step.setup()
        for index in todo:
            rows = self._make(index)
            self.stat_update("shards")
            self.stat_update("documents", value=rows, unit="shard")

    def _make(self, index: int) -> int:
        unit = read_json(unit_path(self.plan_folder, index))
        marks = {
            "fingerprint": plan_fingerprint(self.plan_folder),
            "unit": fingerprint(unit["marks"]),
            "stage": self.name,
        }
        return write_shard(self.output / shard_name(index), self._batches(unit), marks)

    def _batches(self, unit: Mapping[str, Any]) -> Iterator[pl.DataFrame]:
        for batch in self.reader.read(unit):
            for step in self.steps:
                batch = step(batch)  # noqa: PLW2901  a pipeline: each step's output is the next one's input
            yield batch.select(self.columns)


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


def pending(plan_folder: Path, output: Path) -> list[int]:
    """Units whose shard is missing, broken or of another plan."""
    plan = read_plan(plan_folder)
    return [index for index in range(plan["units"]) if not _is_done(output / shard_name(index), plan["fingerprint"])]


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
