"""Verifying synthetic problems by execution: a document's own tests decide, in the sandbox.

The step runs documents of kind `synthetic` whose `extra` holds `entry_point` and `tests`, each in a contained process
of its own, and leaves all others null. `verified` is a column like any other; nothing is dropped here. One document
costs some milliseconds and what its code takes, at most the limits; twice that for a timeout, which is run again
before it counts. A sandbox that fails stops the stage, and a host that does not contain well enough refuses: neither
is a verdict on a document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from ..sandbox import containment
from ..sandbox.endings import SandboxError
from ..sandbox.judge import judge_all
from ..sandbox.limits import Limits
from ..sandbox.trials import CallTests, Trial, parse_tests
from ..strict import ConfigError
from .faults import StepError
from .steps import with_errors

VERIFY_LIMITS = Limits(cpu_seconds=2.0, memory_bytes=256 * 2**20)
"""Problems are small: the honest ones of our own set take 10 ms of CPU time."""


class VerifyStep:
    """Adds `verified` (whether all tests pass), `verification` (the outcome, one of `sandbox.run.OUTCOMES`), and the
    level of containment at which that was found.

    Args:
        limits: of each document's run.
        workers: contained processes at a time.
        required_level: of containment; a host that gives less refuses the first document that would be run.
    """

    name = "verify"
    requires = ("text", "kind", "extra")
    provides: Mapping[str, pl.DataType] = {
        "verified": pl.Boolean(),
        "verification": pl.String(),
        "verification_level": pl.Int8(),
    }

    def __init__(self, limits: Limits = VERIFY_LIMITS, workers: int = 1, required_level: int = 2):
        self.limits = limits
        self.workers = workers
        self.required_level = required_level

    def setup(self) -> None:
        """Nothing: most runs hold no synthetic problem, and need no sandbox."""

    def check_level(self) -> None:
        """Raises ConfigError if this host does not give the required level; says which key lowers it."""
        try:
            containment.best(self.required_level)
        except SandboxError as error:
            raise ConfigError(
                f"synthetic problems are verified by running them: {error}\n"
                "docs/security.md says how to get a higher level. If you wrote or have read the problems, "
                "--set verify.sandbox_level=1 runs them with your rights, under limits only (eval.sandbox_level is the "
                "same for what models write)."
            ) from error

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
        levels: list[int | None] = [None] * batch.height
        if trials:
            self.check_level()
        try:
            judged = judge_all(list(trials.values()), self.workers, self.required_level)
        except SandboxError as error:
            raise StepError(f'step "{self.name}": {error}') from error  # anything else would be this batch's fault
        for row, outcome in zip(trials, judged, strict=True):
            outcomes[row] = outcome.status
            levels[row] = outcome.level or None  # 0: nothing was run
        added = batch.with_columns(
            verified=pl.Series(outcomes, dtype=pl.String) == "passed",
            verification=pl.Series(outcomes, dtype=pl.String),
            verification_level=pl.Series(levels, dtype=pl.Int8),
        )
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
