"""How one pass over a micro-batch is computed, and how the next rows are ready when it ends.

`make_pass` gives forward and backward in one call that adds to the gradients. On a CPU it is PyTorch as it is written:
compiling needs a C++ compiler and gains little. On a GPU the model is one compiled graph; above 1 B parameters one a
layer, whose code all layers share, so that compiling takes seconds. For a small model, whose kernels are shorter than
their launches, forward and backward are captured as a CUDA graph and replayed over static inputs and gradients. The
price is a minute at the first step and static copies. What cannot be done falls back to the slower path with one line
in the log; `Pass.description` says which path runs.

`Prefetcher` makes batches in a thread while the last ones are used, and measures how long they were waited for.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from .attention import Mask
from .config import TrainConfig

log = logging.getLogger(__name__)

WHOLE_MODEL_PARAMETERS = 1_200_000_000
"""Compiled as one graph up to here (CodeGen2 1B included); torchtitan and OLMo-core compile larger models by block."""
GRAPH_PARAMETERS = 160_000_000
"""Captured as a CUDA graph up to here: above, the kernels of a full micro-batch are far longer than their launches."""
GRAPHS = 4
"""Captured at most, one for each shape of a batch and kind of mask; what comes after runs without."""
CHECKED_BATCHES = 3
"""The first batches of a graph, all but one not those it was captured with, are computed both ways and compared."""

Losses = tuple[Tensor, Tensor]
Compute = Callable[..., Losses]
Capture = Callable[[Callable[[], Losses]], tuple[Callable[[], None], Losses]]
T_co = TypeVar("T_co", covariant=True)


class Trainable(Protocol):
    """What `Decoder` and `ForeignModel` have in common here."""

    @property
    def loss(self) -> Compute:
        """(tokens_BT, targets_BT, positions_BT, mask, valid_targets, z_loss) -> the loss and losses_BT."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...


def make_pass(
    model: Trainable,
    config: TrainConfig,
    device: torch.device,
    *,
    graph: bool | None = None,
    is_sharded: bool = False,
    capture: Capture | None = None,
    backend: str = "inductor",
) -> Pass:
    """The way to compute a pass of `model` on `device`.

    Args:
        graph: capture a CUDA graph; default: where it pays.
        is_sharded: the parameters belong to several processes (FSDP2): compile by layer, capture nothing.
        capture: in place of CUDA's, and `backend` in place of inductor: for tests.
    """

    def compute(*arguments: Any) -> Losses:
        return model.loss(*arguments, z_loss=config.z_loss)

    is_cuda = device.type == "cuda"
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() for parameter in parameters)
    is_compiled = is_cuda if config.compile is None else config.compile
    plain = Pass(compute, parameters, "eager")
    if is_compiled and (is_sharded or size > WHOLE_MODEL_PARAMETERS):
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        for layer in max(lists, key=len, default=[]):  # the layers, whatever the architecture calls them
            layer.compile(dynamic=False, fullgraph=True, backend=backend)
        plain = Pass(compute, parameters, "compiled by layer")
    elif is_compiled:
        plain = CompiledPass(compute, parameters, backend, is_required=bool(config.compile))
    if graph and (is_sharded or (capture is None and not is_cuda)):
        log.warning("no CUDA graph: %s", "parameters are sharded" if is_sharded else f"the device is {device.type}")
        graph = False
    if graph is None:
        graph = is_cuda and is_compiled and not is_sharded and size <= GRAPH_PARAMETERS
    return ReplayedPass(plain, capture or _cuda_capture) if graph else plain


class Pass:
    """Forward and backward of one micro-batch. `description` says how, in words for a log."""

    def __init__(self, compute: Compute, parameters: list[nn.Parameter], description: str) -> None:
        self.compute, self.parameters, self.description = compute, parameters, description

    def __call__(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        positions_BT: Tensor | None,
        mask: Any,
        valid_targets: float | Tensor,
    ) -> Losses:
        """Add the micro-batch's gradients to `.grad`.

        Args:
            mask: an `attention.Mask`, or None: every row is one document.
            valid_targets: of the whole optimiser step.

        Returns:
            The loss (a scalar) and the losses_BT, both detached.
        """
        loss, losses_BT = self.compute(tokens_BT, targets_BT, positions_BT, mask, valid_targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), losses_BT.detach()

    def zero_grad(self) -> None:
        """Before the first pass of a step; in place of the optimiser's, which may move gradients."""
        for parameter in self.parameters:
            parameter.grad = None


class CompiledPass(Pass):
    """The model as one graph, without recompilation from step to step.

    Raises:
        RuntimeError: from the first call, if compiling fails and was asked for; where it was only the default, the
            model runs eagerly from then on.
    """

    def __init__(self, compute: Compute, parameters: list[nn.Parameter], backend: str, *, is_required: bool) -> None:
        super().__init__(self._first, parameters, "compiled")
        self._eager, self._is_required = compute, is_required
        self._compiled: Compute = torch.compile(compute, dynamic=False, fullgraph=True, backend=backend)

    def _first(self, *arguments: Any) -> Losses:
        try:
            result = self._later(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self._is_required:
                raise RuntimeError(f"compile: true, but the model cannot be compiled: {_first_line(error)}") from error
            log.warning("not compiled, the model runs eagerly: %s", _first_line(error))
            self.compute, self.description = self._eager, "eager"
            return self._eager(*arguments)
        self.compute = self._later
        return result

    def _later(self, *arguments: Any) -> Losses:
        # A number would be a constant of the graph, and every step with another count of targets a new compilation.
        return self._compiled(*arguments[:-1], _scalar(arguments[-1], arguments[0].device))


class ReplayedPass(Pass):
    """A pass as captured graphs: inputs are copied into static tensors, gradients are added to static ones.

    Not `mode="reduce-overhead"`: its graphs own the gradients, and several micro-batches then raise, or keep the last
    one's alone (pytorch #169545, #96693). A capture that fails, or whose first replays disagree with the pass that it
    stands for, is given up and the reason logged.
    """

    def __init__(self, plain: Pass, capture: Capture) -> None:
        super().__init__(plain.compute, plain.parameters, f"{plain.description}, CUDA graph")
        self._plain, self._capture = plain, capture
        self._graphs: dict[Any, _Graph] = {}
        self._is_given_up = False

    def __call__(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        positions_BT: Tensor | None,
        mask: Any,
        valid_targets: float | Tensor,
    ) -> Losses:
        if isinstance(mask, Mask) and mask.lowering is not None:
            mask = replace(mask, pieces=None)  # spent, and another in every batch
        arguments = (tokens_BT, targets_BT, positions_BT, mask, _scalar(valid_targets, tokens_BT.device))
        _, kind = _flat(arguments)
        if self._is_given_up or (kind not in self._graphs and len(self._graphs) == GRAPHS):
            return self._plain(*arguments)
        try:
            graph = self._graphs.get(kind) or self._captured(arguments)
            self._graphs[kind] = graph
            if graph.checked < CHECKED_BATCHES:
                self._check(graph, arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            log.warning("no CUDA graph: %s", _first_line(error))
            self._graphs.clear()
            self._is_given_up, self.description = True, self._plain.description
            return self._plain(*arguments)
        return graph.replay(arguments)

    def zero_grad(self) -> None:
        if self._is_given_up:
            self._plain.zero_grad()
        elif gradients := [p.grad for p in self.parameters if p.grad is not None]:
            torch._foreach_zero_(gradients)

    def _captured(self, arguments: tuple[Any, ...]) -> _Graph:
        static = _static(arguments)
        with self._gradients_kept():
            graph = _Graph(static, *self._capture(lambda: self._plain(*static)))
        self.description = f"{self._plain.description}, CUDA graph"  # compiling, tried just now, may have failed
        return graph

    def _check(self, graph: _Graph, arguments: tuple[Any, ...]) -> None:
        """Graph and pass must give the same: what was baked in at the capture shows with other inputs."""
        graph.checked += 1
        with self._gradients_kept() as gradients:
            _, expected_BT = self._plain(*arguments)
            differences = [gradient.clone() for gradient in gradients]
            torch._foreach_zero_(gradients)
            _, losses_BT = graph.replay(arguments)
            torch._foreach_sub_(differences, gradients)
            if not torch.allclose(losses_BT, expected_BT, rtol=1e-3, atol=1e-3):
                raise ArithmeticError("a replay gave other losses than the pass it stands for")
            if _norm(differences) > 0.02 * _norm(gradients):  # atomic additions of a GPU differ from call to call
                raise ArithmeticError("a replay gave other gradients than the pass it stands for")

    @contextlib.contextmanager
    def _gradients_kept(self) -> Iterator[list[Tensor]]:
        """Gradients that are zero inside, at the addresses the graphs know, and afterwards what they were."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        kept = [gradient.clone() for gradient in gradients]
        torch._foreach_zero_(gradients)
        try:
            yield gradients
        finally:
            torch._foreach_copy_(gradients, kept)


class _Graph:
    def __init__(self, static: tuple[Any, ...], replay: Callable[[], None], losses: Losses) -> None:
        self._inputs, self._replay, self._losses = _flat(static)[0], replay, losses
        self.checked = 0

    def replay(self, arguments: tuple[Any, ...]) -> Losses:
        for static, new in zip(self._inputs, _flat(arguments)[0], strict=True):
            static.copy_(new, non_blocking=True)
        self._replay()
        loss, losses_BT = self._losses
        return loss.clone(), losses_BT.clone()  # the next replay writes over them


def _cuda_capture(function: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:  # pragma: no cover - needs CUDA
    """PyTorch's recipe for a whole network: warm up on another stream, then capture."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # thread_local: the prefetching thread may pin memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        losses = function()
    return graph.replay, losses


def _flat(value: Any) -> tuple[list[Tensor], Any]:
    """Tensors in tuples and attributes of objects, and all else that a captured graph takes for granted."""
    if isinstance(value, Tensor):
        return [value], (tuple(value.shape), value.dtype)
    parts = enumerate(value) if isinstance(value, tuple | list) else getattr(value, "__dict__", {}).items()
    inner = [(name, *_flat(part)) for name, part in parts if not callable(part)]
    tensors = [tensor for _, found, _ in inner for tensor in found]
    is_plain = isinstance(value, str | int | float | None)
    return tensors, (type(value), value if is_plain else tuple((name, kind) for name, _, kind in inner))


def _static(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """A copy with tensors of its own, also those that the function of a block mask looks at."""
    copies: dict[int, Any] = {}
    static = copy.deepcopy(arguments, copies)
    for blocks in (getattr(value, "blocks", None) for value in static):
        if blocks is not None:
            old = blocks.mask_mod
            cells = (types.CellType(copy.deepcopy(cell.cell_contents, copies)) for cell in old.__closure__)
            blocks.mask_mod = types.FunctionType(old.__code__, old.__globals__, closure=tuple(cells))
    return static


def _scalar(value: float | Tensor, device: torch.device) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=torch.float32, device=device)


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.float().norm() for tensor in tensors]).norm())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]


class Prefetcher(Generic[T_co]):
    """Batches in order, each made by a thread while those before it are used.

    `make(first, count)` is called for every span of rows, one after another, at most `ahead` before it is needed; what
    it gives depends on the span alone, so prefetching changes nothing but the time. It should do all that needs no
    model: build rows, describe masks, pin memory. Its exception is raised where its batch would have come.
    """

    def __init__(self, make: Callable[[int, int], T_co], spans: Iterable[tuple[int, int]], ahead: int = 2) -> None:
        self._make, self._spans = make, iter(spans)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._coming: deque[Future[T_co]] = deque()
        self.wait_seconds = 0.0
        """Of the consumer, since the start."""
        for _ in range(ahead):
            self._order()

    def __iter__(self) -> Iterator[T_co]:
        return self

    def __next__(self) -> T_co:
        if not self._coming:
            raise StopIteration
        begun = time.perf_counter()
        try:
            batch = self._coming.popleft().result()
        except BaseException:
            self.close()
            raise
        self.wait_seconds += time.perf_counter() - begun
        self._order()
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what was made ahead, and wait for the thread to end."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    def _order(self) -> None:
        if (span := next(self._spans, None)) is not None:
            self._coming.append(self._thread.submit(self._make, *span))


def spans(first_step: int, steps: int, rows_per_step: int, rank: int = 0, world: int = 1) -> Iterator[tuple[int, int]]:
    """(first row, number of rows) of one rank's part of each step: equal parts, in the order of the ranks.

    Raises:
        ValueError: if the rows of a step cannot be shared equally.
    """
    if rows_per_step % world:
        raise ValueError(
            f"{rows_per_step} rows a step cannot be shared equally by {world} processes; change step_tokens"
        )
    count = rows_per_step // world
    for step in range(first_step, steps):
        yield step * rows_per_step + rank * count, count


@contextlib.contextmanager
def garbage_later() -> Iterator[None]:
    """Python's cycle collector off inside: over the objects of a model it pauses a step by up to half a second.

    Reference counting goes on, and a training step makes no cycles; a loop may call `gc.collect()` at checkpoints.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
