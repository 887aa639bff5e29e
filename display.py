"""What a user sees while codesieve works: one line a stage, with a bar where it is a terminal, and the wall times."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PRINT_SECONDS = 5.0


class Display:
    """Draws stages on standard error; `wall_seconds` remembers how long each took."""

    def __init__(self, quiet: bool = False):
        # The stream is taken now: workers of one process redirect sys.stderr while they run.
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False)
        self.wall_seconds: dict[str, float] = {}
        self.log: Path | None = None
        """A JSON-lines file that stages are written to as well."""

    @contextlib.contextmanager
    def stage(self, name: str, what: str = "") -> Iterator[Callable[[float], None]]:
        """A stage of the work; yields the function to call with the fraction that is done."""
        start = time.perf_counter()
        self.note(name, "start")
        try:
            if self.console.is_terminal:
                with self._progress() as bar:
                    task = bar.add_task(f"{name:<10} {what}", total=1.0)
                    yield _updater(bar, task)
                    bar.update(task, completed=1.0)
            else:
                self.say(f"{name:<10} {what} …")
                yield _printer(self, name)
        except BaseException as error:
            self.note(name, "failed", error=f"{type(error).__name__}: {error}")
            raise
        seconds = time.perf_counter() - start
        self.wall_seconds[name] = round(self.wall_seconds.get(name, 0.0) + seconds, 3)
        self.note(name, "done", wall_seconds=round(seconds, 3))
        if not self.console.is_terminal:
            self.say(f"{name:<10} done in {seconds:.1f} s")

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, markup=False)

    def note(self, stage: str, event: str, **more: Any) -> None:
        """A line of log.jsonl, where there is one."""
        if self.log is not None:
            entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "stage": stage, "event": event, **more}
            with self.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _progress(self) -> Progress:
        return Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )


def _printer(display: Display, name: str) -> Callable[[float], None]:
    """Where there is no bar: a line for every tenth of the work, at most one in PRINT_SECONDS."""
    last = [0.0, time.perf_counter()]

    def update(fraction: float) -> None:
        now = time.perf_counter()
        if fraction >= last[0] + 0.1 and now >= last[1] + PRINT_SECONDS and fraction < 1.0:
            last[:] = [fraction, now]
            display.say(f"{name:<10} {fraction:.0%}")

    return update


def _updater(bar: Progress, task: TaskID) -> Callable[[float], None]:
    def update(fraction: float) -> None:
        bar.update(task, completed=min(1.0, fraction))

    return update
