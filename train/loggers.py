"""TensorBoard and Weights & Biases, as options beside `metrics.jsonl`.

Both write into the run's own folder, and a resumed run goes on in the same place: TensorBoard hides what lay behind the
step that it resumes at; Weights & Biases gets the id that the run was given at its first start. Weights & Biases works
offline unless `WANDB_MODE` says otherwise: `wandb sync <folder>/wandb/offline-run-*` uploads later. Neither package is
needed for anything else; they come with the extra `loggers`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..files import write_atomic
from ..strict import ConfigError


class Logger(Protocol):
    """Where numbers go."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Note values of a step, counted from 0."""

    def close(self) -> None:
        """Write what is still held."""


def open_loggers(
    names: Sequence[str], folder: Path, run_name: str, config: Mapping[str, Any], first_step: int = 0
) -> list[Logger]:
    """The loggers called `names`, writing into `folder`.

    Args:
        first_step: the step that a resumed run goes on with.

    Raises:
        ConfigError: if a package is not installed.
    """
    return [LOGGERS[name](folder, run_name, config, first_step) for name in names]


class TensorBoard:
    """Event files in `<folder>/tensorboard`."""

    def __init__(self, folder: Path, run_name: str, config: Mapping[str, Any], first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        purge = first_step or None
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        if not first_step:
            lines = "\n".join(f"    {key}: {value}" for key, value in config.items())
            self._writer.add_text("config", f"{run_name}\n\n{lines}", 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One point a name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run in `<folder>/wandb`, with its id in `<folder>/wandb-id`; the project is `WANDB_PROJECT` or codesieve."""

    def __init__(self, folder: Path, run_name: str, config: Mapping[str, Any], first_step: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        path = folder / "wandb-id"
        if not path.exists():
            write_atomic(path, uuid.uuid4().hex[:16])
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "codesieve"),
            dir=str(folder),
            id=path.read_text(encoding="utf-8"),
            resume="allow",
            name=run_name,
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            # The console belongs to the progress bar.
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """All values of the step at once."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run; offline this only writes."""
        self._run.finish()


LOGGERS: dict[str, Callable[[Path, str, Mapping[str, Any], int], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def _missing(package: str) -> ConfigError:
    return ConfigError(
        f"loggers: {package} is not installed; `pip install 'codesieve[loggers]'`, or leave it out of `loggers`"
    )
