"""Checkpoints of a run: `step-00000100/` holds a model that transformers loads, the optimiser's state and the run's.

A checkpoint is copied to memory between two steps, written by a thread under a temporary name, flushed and renamed, so
one that is there is whole, and a full disk costs the new one only. The last `keep` stay, and all with a file `kept`.
What a run needs to go on is little, because order, objectives and learning rate are arithmetic on the step:
`optimizer.safetensors` (by parameter name, unsharded whatever the world size) and `state.json` (step, identity of the
run, spike statistics, seconds). Price: three times the model in fp32, in the memory of the first rank alone; with a GPU
it is pinned, and stays so for the next checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..files import read_json, remove_temporary, replacing_folder, write_json
from .foreign import ForeignModel
from .model import Decoder
from .pretrained import save_model

log = logging.getLogger(__name__)

OPTIMIZER_FILE, STATE_FILE = "optimizer.safetensors", "state.json"
KEPT_FILE = "kept"
"""Empty; a checkpoint that has it stays when others go."""
ENTRIES = {"adamw": {"step", "exp_avg", "exp_avg_sq"}, "muon": {"momentum"}}
"""What each kind of parameter group remembers of a parameter."""
_STEP = re.compile(r"step-(\d{8})")


class Checkpoints:
    """The checkpoints in `folder`, written in the background one at a time.

    One that cannot be written must not cost the next: who saves something is told of it in the log and goes on; only
    `wait` raises.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        found = [path for path in self.folder.glob("step-*") if _STEP.fullmatch(path.name)]
        return sorted(path for path in found if (path / STATE_FILE).is_file())

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        found = self.all()
        return found[-1] if found else None

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps lies."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, write: Callable[[Path], None], *, is_kept: bool = False) -> None:
        """Have `write` fill the folder of the checkpoint after `step` steps, while the caller goes on.

        Args:
            is_kept: it stays for good, and does not count among the last ones.
        """
        self.settle()
        self._thread = threading.Thread(target=self._write, args=(step, write, is_kept), name="checkpoint")
        self._thread.start()

    def settle(self) -> None:
        """Until nothing is being written; a checkpoint that could not be is a warning."""
        try:
            self.wait()
        except OSError as error:
            log.warning("%s", error)

    def wait(self) -> None:
        """Until nothing is being written.

        Raises:
            OSError: if the last checkpoint could not be written; the ones before are whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            last = self.latest()
            kept = f"the last whole one is {last}" if last else "there is none before it"
            raise OSError(f"{self.folder}: the checkpoint could not be written ({error}); {kept}") from error

    def remove(self) -> None:
        """Delete all but those that stay for good."""
        for path in self.folder.glob("*"):
            if not (path / KEPT_FILE).exists():
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # not there, or not empty
            self.folder.rmdir()

    def _write(self, step: int, write: Callable[[Path], None], is_kept: bool) -> None:
        try:
            remove_temporary(self.folder)
            with replacing_folder(self.path(step)) as temporary:
                write(temporary)
                if is_kept:
                    (temporary / KEPT_FILE).touch()
                for path in temporary.iterdir():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            passing = [path for path in self.all() if not (path / KEPT_FILE).exists()]
            for old in passing[: -self._keep]:
                shutil.rmtree(old)
        except BaseException as error:  # handed to the thread that trains, in `wait` and `settle`
            self._error = error


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps, copied to memory, so that training can go on while it is written."""

    model: Decoder | ForeignModel
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    tokenizer_folder: Path
    state: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        model: Decoder | ForeignModel,
        optimizer: torch.optim.Optimizer | None,
        tokenizer_folder: Path,
        state: Mapping[str, Any],
        *,
        is_first: bool = True,
    ) -> Self:
        """Copy what changes. With sharded parameters all ranks must call it.

        Args:
            is_first: whether this rank is the one that writes. The others take part in collecting shards and get a
                snapshot of nothing: a copy of the whole on each rank would fill the memory of the machine.
        """
        weights = _copies(model.state_dict().items(), is_first)
        tensors = _copies(optimizer_tensors(optimizer, model), is_first) if optimizer else {}
        if next(model.parameters()).is_cuda:
            torch.cuda.synchronize()  # once for all copies
        return cls(model, weights, tensors, tokenizer_folder, state)

    def write_model(self, folder: Path) -> None:
        """The files that transformers loads."""
        save_model(self.model, self.tokenizer_folder, folder, self.weights)

    def write(self, folder: Path) -> None:
        """The model's files, the optimiser's and, last, the run's state."""
        self.write_model(folder)
        save_file(dict(self.optimizer), folder / OPTIMIZER_FILE, metadata={"format": "pt"})
        write_json(folder / STATE_FILE, dict(self.state))


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The optimiser's state: `<entry>.<parameter name>` and the tensor, which may be a shard."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            yield f"{entry}.{names[id(parameter)]}", value if isinstance(value, Tensor) else torch.tensor(value)


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, folder: Path) -> None:
    """Put the state that `optimizer_tensors` named into a new optimiser of the same parameters.

    Raises:
        ValueError: if the state is of other parameters, or not there.
    """
    path = folder / OPTIMIZER_FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file; only checkpoints of a run hold the optimiser's state")
    tensors = load_file(path)
    parameters = dict(model.named_parameters())
    expected = {id(p): ENTRIES[group.get("kind", "adamw")] for group in optimizer.param_groups for p in group["params"]}
    for key, value in tensors.items():
        entry, _, name = key.partition(".")
        if name not in parameters or (value.ndim and value.shape != parameters[name].shape):
            raise ValueError(f"{path}: {key} does not fit the model; was it written with another one?")
        parameter = parameters[name]
        if entry not in expected[id(parameter)]:
            raise ValueError(f"{path}: {key} is of another kind of optimiser; use the one it was written with")
        moved = value.to(parameter.device)
        if value.ndim and isinstance(parameter, DTensor):
            moved = distribute_tensor(moved, parameter.device_mesh, parameter.placements)
        optimizer.state[parameter][entry] = moved


def read_state(folder: Path) -> dict[str, Any]:
    """`state.json` of a checkpoint."""
    state: dict[str, Any] = read_json(folder / STATE_FILE)
    return state


def _copies(tensors: Iterable[tuple[str, Tensor]], is_kept: bool) -> dict[str, Tensor]:
    """On the CPU, of shards the whole; from a GPU not there before it is synchronised."""
    copies = {}
    for name, tensor in tensors:
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if is_kept:
            place = torch.empty(whole.shape, dtype=whole.dtype, pin_memory=whole.is_cuda)
            copies[name] = place.copy_(whole.detach(), non_blocking=whole.is_cuda)
    return copies
