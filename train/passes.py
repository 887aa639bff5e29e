"""Forward and backward of one micro-batch in one call that adds to the gradients: as it is written, or compiled.

A batch of a kind that was not seen before (another mask, another length of the head) is compiled when it comes, so a
run may compile at any step. What fails then is tried eagerly: if that works the compiler was at fault, the reason is
logged and the run goes on eagerly; if not, the batch was, and its own error is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .loss import Shortened, ValidTargets
from .trainable import Arguments, Compute, Losses

log = logging.getLogger(__name__)

KINDS = 64
"""Graphs of one model, at most: three lowerings of attention times eight lengths of the head, a few shapes. Dynamo's
own limit of 8 is for code that is compiled again by mistake."""


class Pass:
    """Forward and backward of one micro-batch. `description` says how, in words for a log."""

    def __init__(self, compute: Compute, parameters: Sequence[nn.Parameter], description: str = "eager") -> None:
        self.compute, self.parameters, self.description = compute, parameters, description

    def __call__(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        positions_BT: Tensor | None,
        mask: Any,
        valid_targets: float | Tensor,
        kept_K: Tensor | None = None,
    ) -> Losses:
        """Add the micro-batch's gradients to `.grad`.

        Args:
            mask: an `attention.Mask`, or None: every row is one document.
            valid_targets: of the whole optimiser step.
            kept_K: positions of the flattened batch that go through the head, where not all do; see `Shortened`.

        Returns:
            The loss (a scalar) and the losses_BT, both detached.
        """
        divisor = valid_targets if kept_K is None else Shortened(valid_targets, kept_K)
        return self.run((tokens_BT, targets_BT, positions_BT, mask, divisor))

    def run(self, arguments: Arguments) -> Losses:
        """The same, with the arguments as the model takes them."""
        loss, losses_BT = self.compute(*arguments)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), losses_BT.detach()

    def zero_grad(self) -> None:
        """Before the first pass of a step; in place of the optimiser's, which may move gradients."""
        for parameter in self.parameters:
            parameter.grad = None


class CompiledPass(Pass):
    """The model as one graph, or as one a layer, which all layers share.

    Raises:
        RuntimeError: from a call, if compiling fails and was asked for (`is_required`), or fails when a part of the
            gradients is there already, which only happens layer by layer.
    """

    def __init__(
        self,
        compute: Compute,
        parameters: Sequence[nn.Parameter],
        backend: str,
        *,
        is_required: bool,
        layers: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__(compute, parameters, "compiled by layer" if layers else "compiled")
        self._is_required, self._layers, self._eager = is_required, layers, Pass(compute, parameters)
        if not layers:
            self.compute = torch.compile(compute, dynamic=False, fullgraph=True, backend=backend)
        for layer in layers:
            layer.compile(dynamic=False, fullgraph=True, backend=backend)
        self._calls = [layer._compiled_call_impl for layer in layers]

    def run(self, arguments: Arguments) -> Losses:
        """See `Pass.run`."""
        if self.description == self._eager.description:
            return self._eager.run(arguments)
        # A number would be a constant of the graph, and every step with another count of targets a new compilation.
        arguments = (*arguments[:-1], as_tensor(arguments[-1], arguments[0].device))
        before = [(p.grad, 0 if p.grad is None else p.grad._version) for p in self.parameters]
        try:
            with torch._dynamo.config.patch(recompile_limit=KINDS):
                return super().run(arguments)
        except Exception as error:
            if (out_of_memory := _out_of_memory(error)) is not None:
                raise out_of_memory from None
            reason, cause = first_line(error), error if self._is_required else None
        # Not in the handler: the error's frames hold the tensors of the pass that failed.
        if not self._restored(before):
            raise RuntimeError(f"the backward pass cannot be compiled: {reason}; set compile: false") from cause
        self._compile_layers(False)
        losses = self._eager.run(arguments)
        if self._is_required:
            self._compile_layers(True)
            raise RuntimeError(f"compile: true, but the model cannot be compiled: {reason}") from cause
        log.warning("not compiled, the model runs eagerly: %s", reason)
        self.description = self._eager.description
        return losses

    def _restored(self, before: Sequence[tuple[Tensor | None, int]]) -> bool:
        """Whether gradients are what they were: backwards is compiled when it first runs, and may fail on the way."""
        for parameter, (gradient, version) in zip(self.parameters, before, strict=True):
            if gradient is None:
                parameter.grad = None
            elif parameter.grad is not gradient or gradient._version != version:
                return False
        return True

    def _compile_layers(self, is_compiled: bool) -> None:
        for layer, call in zip(self._layers, self._calls, strict=True):
            layer._compiled_call_impl = call if is_compiled else None


def as_tensor(valid_targets: ValidTargets, device: torch.device) -> Tensor | Shortened:
    """The same with the number as a scalar on `device`."""
    if isinstance(valid_targets, Shortened):
        return Shortened(_scalar(valid_targets.of_step, device), valid_targets.kept_K)
    return _scalar(valid_targets, device)


def _scalar(value: float | Tensor, device: torch.device) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=torch.float32, device=device)


def _out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """The error, or the one that a compiler wrapped, if that is what it is."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__cause__ or error.__context__
    return error


def first_line(error: Exception) -> str:
    """Kind and first line of an error, for a log."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300]
