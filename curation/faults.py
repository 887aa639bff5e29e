"""One document's fault costs that document: a step is applied so that neither a batch nor a run is lost to it.

Most steps measure document by document with `map_documents`, which marks the one that fails. `apply_step` does the
same for whatever else a step does: when it raises on a batch, the batch is halved until the documents that make it
raise are alone; they get nulls and a line in `step_errors`, memory errors too, since half a batch needs half the
memory. A step that breaks its own contract (rows, columns, types) is a fault of the step and ends the run.

Price where nothing fails: comparing names, types and ids, about 0.1 ms a batch of a thousand documents.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import polars as pl

from ..strict import ConfigError, nearest
from .steps import STEP_ERRORS, Step, with_errors

MESSAGE_CHARACTERS = 500
"""Of an error in `step_errors`, as in `map_documents`."""


class StepError(RuntimeError):
    """A step that does not keep its contract, whatever the documents are."""


def set_up(steps: Sequence[Step]) -> None:
    """`setup` of each, in the worker.

    Each worker begins with another step: at the first use after an installation steps compile their loops for half a
    minute, and what one worker has compiled the others find on disk.

    Raises:
        StepError: naming the step that cannot start, unless the error says it itself (ConfigError, OSError).
    """
    first = os.getpid() % len(steps) if steps else 0
    for step in (*steps[first:], *steps[:first]):
        try:
            step.setup()
        except (ConfigError, OSError):
            raise
        except Exception as error:
            raise StepError(f'step "{step.name}": cannot start: {describe(error)}') from error


def apply_step(step: Step, batch: pl.DataFrame) -> pl.DataFrame:
    """`step(batch)`, with documents that make it raise marked instead.

    Raises:
        StepError: if the result has other rows, columns or types than the step declares, or if the step fails
            without any document.
        ConfigError: as the step does.
    """
    try:
        result = step(batch)
    except (ConfigError, StepError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        if not batch.height:
            raise StepError(f'step "{step.name}": fails without any document: {describe(error)}') from error
        return _without_the_failing(step, with_errors(batch, [None] * batch.height), error)
    _check(step, batch, result)
    return result


def describe(error: BaseException) -> str:
    """`Type: message`, or only the type."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _without_the_failing(step: Step, batch: pl.DataFrame, error: BaseException) -> pl.DataFrame:
    if batch.height == 1:
        nulls = (pl.lit(None, dtype=dtype).alias(name) for name, dtype in step.provides.items())
        return with_errors(batch.with_columns(*nulls), [f"{step.name}: {describe(error)}"[:MESSAGE_CHARACTERS]])
    columns = [*batch.columns, *step.provides]
    half = batch.height // 2
    return pl.concat([apply_step(step, part).select(columns) for part in (batch[:half], batch[half:])])


def _check(step: Step, before: pl.DataFrame, after: pl.DataFrame) -> None:
    """What a step owes: the same documents in the same order, the columns it declares, and no others."""
    who = f'step "{step.name}"'
    if not isinstance(after, pl.DataFrame):
        raise StepError(f"{who}: returned {type(after).__name__}, not a polars DataFrame")
    if after.height != before.height:
        raise StepError(f"{who}: returned {after.height} rows for {before.height} documents")
    found, were = after.schema, before.columns
    for name, dtype in step.provides.items():
        if name not in found:
            raise StepError(f'{who}: declares column "{name}" and does not return it{nearest(name, found)}')
        if found[name] != dtype:
            raise StepError(f'{who}: declares column "{name}" as {dtype} and returns {found[name]}')
    for name in found.keys() - {*were, *step.provides, STEP_ERRORS}:
        raise StepError(f'{who}: returned column "{name}", which it does not declare')
    for name in set(were) - found.keys():
        raise StepError(f'{who}: lost column "{name}"')
    if "id" in before.columns and not after["id"].equals(before["id"]):
        raise StepError(f"{who}: returned the documents in another order")
