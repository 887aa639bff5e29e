"""What a user sees while codesieve works: one line a stage, with a bar where it is a terminal, and the wall times."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """Draws stages on standard error; `wall_seconds` remembers how long each took."""

    def __init__(self, quiet: bool = False):
        # The stream is taken now: workers of one process redirect sys.stderr while they run.
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False)
        self.wall_seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, what: str = "") -> Iterator[Callable[[float], None]]:
        """A stage of the work; yields the function to call with the fraction that is done."""
        start = time.perf_counter()
        if self.console.is_terminal:
            with self._progress() as bar:
                task = bar.add_task(f"{name:<10} {what}", total=1.0)
                yield _updater(bar, task)
                bar.update(task, completed=1.0)
        else:
            self.console.print(f"{name:<10} {what} …", markup=False)
            yield lambda fraction: None
        seconds = time.perf_counter() - start
        self.wall_seconds[name] = round(self.wall_seconds.get(name, 0.0) + seconds, 3)
        if not self.console.is_terminal:
            self.console.print(f"{name:<10} done in {seconds:.1f} s", markup=False)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, markup=False)

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


def _updater(bar: Progress, task: TaskID) -> Callable[[float], None]:
    def update(fraction: float) -> None:
        bar.update(task, completed=min(1.0, fraction))

    return update
