"""A pass captured as CUDA graphs and replayed: for small models, whose kernels are shorter than their launches.

Every kind of batch (shapes and mask) has a graph, with static inputs that each batch is copied into; gradients stay at
their addresses and are added to. Not `mode="reduce-overhead"`: its graphs own the gradients, and several micro-batches
then raise, or keep the last one's alone (pytorch #169545, #96693). What was baked in at a capture by mistake shows with
other inputs, so the first batches of a graph are computed both ways and compared. A capture that fails, disagrees or
does not fit in memory beside the plain pass is given up with one line in the log, all graphs are freed, and the plain
pass goes on. The price of a graph is the memory of a pass, which all graphs share, and copies of inputs and gradients.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .attention import Mask
from .passes import Pass, as_tensor, first_line
from .trainable import Arguments, Losses

log = logging.getLogger(__name__)

GRAPHS = 4
"""Captured at most, one for each kind of batch; what comes after runs without."""
CHECKED_BATCHES = 3
"""Of each graph, all but one not the batch that it was captured with."""

Capture = Callable[[Callable[[], Losses]], tuple[Callable[[], None], Losses]]
"""function -> (replay it, where its results then are)"""


class ReplayedPass(Pass):
    """`plain` as captured graphs."""

    def __init__(self, plain: Pass, capture: Capture) -> None:
        super().__init__(plain.compute, plain.parameters, f"{plain.description}, CUDA graph")
        self._plain, self._capture = plain, capture
        self._graphs: dict[Any, _Graph] = {}
        self._is_given_up = False

    def run(self, arguments: Arguments) -> Losses:
        """See `Pass.run`."""
        if self._is_given_up:
            return self._plain.run(arguments)
        tokens_BT, targets_BT, positions_BT, mask, valid_targets = arguments
        if isinstance(mask, Mask) and mask.lowering is not None:
            mask = replace(mask, pieces=None)  # spent, and another in every batch
        arguments = (tokens_BT, targets_BT, positions_BT, mask, as_tensor(valid_targets, tokens_BT.device))
        _, kind = _flat(arguments)
        if kind not in self._graphs and len(self._graphs) == GRAPHS:
            return self._plain.run(arguments)
        graph = self._checked(kind, arguments)
        if isinstance(graph, str):
            self._give_up(graph)
            return self._plain.run(arguments)
        return graph.replay(arguments)

    def zero_grad(self) -> None:
        """See `Pass.zero_grad`; gradients that graphs add to stay where they are."""
        if self._is_given_up:
            self._plain.zero_grad()
        elif gradients := [p.grad for p in self.parameters if p.grad is not None]:
            torch._foreach_zero_(gradients)

    def _checked(self, kind: Any, arguments: Arguments) -> _Graph | str:
        """The graph of this kind of batch, or why there can be none."""
        try:
            graph = self._graphs.get(kind) or self._captured(arguments)
            self._graphs[kind] = graph
            if graph.checked < CHECKED_BATCHES:
                self._check(graph, arguments)
        except Exception as error:  # running out of memory included: the plain pass may fit where both do not
            return first_line(error)
        return graph

    def _give_up(self, reason: str) -> None:
        log.warning("no CUDA graph: %s", reason)
        self._graphs.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._is_given_up, self.description = True, self._plain.description

    def _captured(self, arguments: Arguments) -> _Graph:
        static = _static(arguments)
        with self._gradients_kept():
            graph = _Graph(static, *self._capture(lambda: self._plain.run(static)))
        self.description = f"{self._plain.description}, CUDA graph"  # compiling, tried just now, may have failed
        return graph

    def _check(self, graph: _Graph, arguments: Arguments) -> None:
        graph.checked += 1
        with self._gradients_kept() as gradients:
            _, expected_BT = self._plain.run(arguments)
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
    def __init__(self, static: Arguments, replay: Callable[[], None], losses: Losses) -> None:
        self._inputs, self._replay, self._losses = _flat(static)[0], replay, losses
        self.checked = 0

    def replay(self, arguments: Arguments) -> Losses:
        for static, new in zip(self._inputs, _flat(arguments)[0], strict=True):
            static.copy_(new, non_blocking=True)
        self._replay()
        loss, losses_BT = self._losses
        return loss.clone(), losses_BT.clone()  # the next replay writes over them


class CudaCapture:  # pragma: no cover - needs CUDA
    """PyTorch's recipe for a whole network: warm up on another stream, then capture.

    All captures share one pool of memory. That is sound here because nothing in it outlives a replay: results are
    copied out at once, on the stream of the replays, and gradients lie outside.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Losses]) -> tuple[Callable[[], None], Losses]:
        """See `Capture`."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        here = torch.cuda.current_stream()
        try:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(here)
            with torch.cuda.stream(side):
                for _ in range(3):
                    function()
            here.wait_stream(side)
            gc.collect()  # the cycle collector rests while a run trains, and capturing frees what is unused
            graph = torch.cuda.CUDAGraph()
            # thread_local: the prefetching thread may pin memory meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                losses = function()
        finally:
            # A capture that breaks off leaves its own stream current, and batches are copied on the other.
            torch.cuda.set_stream(here)
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


def _static(arguments: Arguments) -> Arguments:
    """A copy with tensors of its own, also those that the function of a block mask looks at."""
    copies: dict[int, Any] = {}
    static = copy.deepcopy(arguments, copies)
    for blocks in (getattr(value, "blocks", None) for value in static):
        if blocks is not None:
            old = blocks.mask_mod
            cells = (types.CellType(copy.deepcopy(cell.cell_contents, copies)) for cell in old.__closure__)
            blocks.mask_mod = types.FunctionType(old.__code__, old.__globals__, closure=tuple(cells))
    return static


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.float().norm() for tensor in tensors]).norm())
