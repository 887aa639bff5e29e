"""Verifying synthetic problems by execution: a document's own tests decide, in the sandbox.

The step runs documents of kind `synthetic` whose `extra` holds `entry_point` and `tests`, each in a contained process
of its own, and leaves all others null. `verified` is a column like any other; nothing is dropped here. One document
costs some milliseconds and what its code takes, at most the limits; twice that for a timeout, which is run again
before it counts.
A sandbox that fails stops the stage: that is no verdict on a document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from ..sandbox import containment
from ..sandbox.judge import judge_all
from ..sandbox.limits import Limits
from ..sandbox.trials import CallTests, Trial, parse_tests
from .steps import with_errors

VERIFY_LIMITS = Limits(cpu_seconds=2.0, memory_bytes=256 * 2**20)
"""Problems are small: the honest ones of our own set take 10 ms of CPU time."""


class VerifyStep:
    """Adds `verified` (whether all tests pass) and `verification` (the outcome, one of `sandbox.run.OUTCOMES`).

    Args:
        limits: of each document's run.
        workers: contained processes at a time.
        required_level: of containment; a host that gives less makes `setup` fail.
    """

    name = "verify"
    requires = ("text", "kind", "extra")
    provides: Mapping[str, pl.DataType] = {"verified": pl.Boolean(), "verification": pl.String()}

    def __init__(self, limits: Limits = VERIFY_LIMITS, workers: int = 1, required_level: int = 1):
        self.limits = limits
        self.workers = workers
        self.required_level = required_level

    def setup(self) -> None:
        """Raises SandboxError if this host does not give the required level."""
        containment.best(self.required_level)

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        outcomes: list[str | None] = [None] * batch.height
        errors: list[str | None] = [None] * batch.height
        trials: dict[int, Trial] = {}
        chosen = batch.select("text", "extra", pl.col("kind") == "synthetic").with_row_index()
        for row, text, extra, _ in chosen.filter("kind").iter_rows():
            try:
                trials[row] = _trial(text, extra, self.limits)
            except ValueError as error:
                errors[row] = f"{self.name}: {error}"
        judged = judge_all(list(trials.values()), self.workers, self.required_level)
        for row, outcome in zip(trials, judged, strict=True):
            outcomes[row] = outcome.status
        added = batch.with_columns(
            pl.Series("verification", outcomes, dtype=pl.String),
        ).with_columns(verified=pl.col("verification") == "passed")
        return with_errors(added, errors)


def _trial(text: str, extra: str, limits: Limits) -> Trial:
    """The document as a trial.

    Raises:
        ValueError: if `extra` does not say what to call and what to expect.
    """
    try:
        facts = json.loads(extra)
    except ValueError as error:
        raise ValueError(f"extra is not JSON: {error}") from error
    entry_point = facts.get("entry_point") if isinstance(facts, dict) else None
    if not isinstance(entry_point, str):
        raise ValueError("extra has no entry_point: a synthetic document that is no problem cannot be verified")
    return Trial(text, CallTests(entry_point, parse_tests(facts.get("tests"), "extra")), limits=limits)
