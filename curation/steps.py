"""Steps: functions from batch to batch that add columns, and the check that a list of them fits together.

A step declares the columns it `requires` and those it `provides` with their types; `check` compares the declarations
before a byte is read. `map_documents` runs a per-document function over a batch: a document that makes it fail gets
nulls, and `step_errors` says which step failed and how, so one bad document never costs its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from ..strict import ConfigError, nearest

STEP_ERRORS = "step_errors"

Outcome = tuple[Sequence[Any] | None, str | None]
"""Of one document: the values, or None, and what went wrong, or None."""


class Step(Protocol):
    """Adds columns to a batch. `setup` runs once in the worker: parsers and models are loaded there, never pickled."""

    @property
    def name(self) -> str: ...

    @property
    def requires(self) -> Sequence[str]: ...

    @property
    def provides(self) -> Mapping[str, pl.DataType]: ...

    def setup(self) -> None: ...

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame: ...


def check(steps: Sequence[Step], columns: Iterable[str]) -> list[str]:
    """Names of all columns after `steps` have run on a batch with `columns`.

    Raises:
        ConfigError: if a step requires a column that nothing before it provides, or provides one that is there.
    """
    known = list(columns)
    for step in steps:
        for column in step.requires:
            if column not in known:
                raise ConfigError(f'step "{step.name}" requires column "{column}"{nearest(column, known)}')
        for column in step.provides:
            if column in known:
                raise ConfigError(f'step "{step.name}" provides column "{column}", which is there already')
            known.append(column)
    return known


def map_documents(
    batch: pl.DataFrame,
    step_name: str,
    function: Callable[..., Sequence[Any] | None],
    columns: Sequence[str],
    provides: Mapping[str, pl.DataType],
) -> pl.DataFrame:
    """`batch` with `provides` added: `function` is called with each document's `columns`.

    It returns the values in the order of `provides`, or None for nulls without an error. If it raises, the values
    are null and `step_errors` (List(String)) gets "step: Type: message".
    """
    return with_outcomes(batch, step_name, measured_here(function, documents(batch, columns)), provides)


def documents(batch: pl.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Those columns of each document."""
    return list(zip(*(batch[column].to_list() for column in columns), strict=True))


def measured_here(function: Callable[..., Sequence[Any] | None], documents: Sequence[Sequence[Any]]) -> list[Outcome]:
    """`measured` for each document, one after the other."""
    return [measured(function, *values) for values in documents]


def measured(function: Callable[..., Sequence[Any] | None], *values: Any) -> Outcome:
    """What a function says of one document; whatever it raises, the others are measured."""
    try:
        return function(*values), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def with_outcomes(
    batch: pl.DataFrame, step_name: str, outcomes: Sequence[Outcome], provides: Mapping[str, pl.DataType]
) -> pl.DataFrame:
    """`batch` with the values of each document as columns, null where there are none, and the errors."""
    nothing = (None,) * len(provides)
    rows = [nothing if values is None else values for values, _ in outcomes]
    by_column = zip(*rows, strict=True) if rows else [()] * len(provides)
    added = [
        pl.Series(name, values, dtype=dtype) for (name, dtype), values in zip(provides.items(), by_column, strict=True)
    ]
    errors = [None if error is None else f"{step_name}: {error}"[:500] for _, error in outcomes]
    return with_errors(batch.with_columns(added), errors)


def with_errors(batch: pl.DataFrame, errors: Sequence[str | None]) -> pl.DataFrame:
    """`batch` with each document's new error, if any, appended to its `step_errors`."""
    if STEP_ERRORS not in batch.columns:
        batch = batch.with_columns(pl.Series(STEP_ERRORS, [[]] * batch.height, dtype=pl.List(pl.String)))
    if not any(errors):
        return batch
    new = pl.Series("new", [[error] if error else [] for error in errors], dtype=pl.List(pl.String))
    return batch.with_columns(pl.col(STEP_ERRORS).list.concat(new))
