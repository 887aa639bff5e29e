"""The gradient of one optimiser step, made from parts of it.

Two ways. *Exact*, on a CPU: the gradient of every row alone, added up as a binary tree over the rows of the step. The
tree does not know how many rows a process holds, so micro-batch and world size (1, 2, 4, … that divide the rows) do not
change a bit. Price: 7 to 9 % at 1 M parameters and nothing at 5 M (rows of 512 tokens fill the matrix products), and
memory for log2(rows) gradients. *Fast*, on a GPU: micro-batches add into `.grad`, then one all-reduce, or FSDP2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from .batches import Part
from .distributed import World
from .passes import Pass


def step_gradients(
    compute: Pass, parts: Sequence[Part], targets: int, world: World, *, is_exact: bool, is_sharded: bool
) -> np.ndarray:
    """Leave the gradient of the whole step in `.grad`.

    Args:
        parts: of this rank; one row each if `is_exact`.
        targets: valid targets of the step, all ranks together.
        is_sharded: FSDP2 averages over the ranks on its own.

    Returns:
        The losses_BT of this rank's rows, float32.
    """
    losses: list[Tensor] = []
    divisor = targets / world.size if is_sharded else targets

    def backward(number: int) -> None:
        part = parts[number]
        losses.append(compute(part.tokens_BT, part.targets_BT, part.positions_BT, part.mask, divisor, part.kept_K)[1])

    if is_exact:
        exact_gradients(compute.parameters, len(parts), backward, world)
    else:
        for number in range(len(parts)):
            backward(number)
        if not is_sharded:
            all_reduce_gradients(compute.parameters, world)
    return torch.cat(losses).float().cpu().numpy()


def add_as_tree(first: int, last: int, leaf: Callable[[int], list[Tensor]]) -> list[Tensor]:
    """The sum of `leaf(first)` to `leaf(last - 1)`, halves first; leaves may be overwritten."""
    if last - first == 1:
        return leaf(first)
    middle = (first + last) // 2
    left = add_as_tree(first, middle, leaf)
    torch._foreach_add_(left, add_as_tree(middle, last, leaf))
    return left


def exact_gradients(
    parameters: Sequence[Parameter], rows: int, backward: Callable[[int], None], world: World | None = None
) -> None:
    """Set `.grad` of all parameters to the sum over the rows of all ranks.

    Args:
        rows: of this rank; the step has `rows` times the world size.
        backward: runs row number i of this rank forwards and backwards, with `.grad` None before.
    """

    def of_row(row: int) -> list[Tensor]:
        backward(row)
        return _take(parameters)

    gradients = add_as_tree(0, rows, of_row)
    if world is not None and world.size > 1:
        parts = world.all_gather(torch.cat([gradient.flatten() for gradient in gradients]))
        (total,) = add_as_tree(0, world.size, lambda rank: [parts[rank]])
        sizes = [gradient.numel() for gradient in gradients]
        gradients = [part.view_as(old) for part, old in zip(torch.split(total, sizes), gradients, strict=True)]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def all_reduce_gradients(parameters: Sequence[Parameter], world: World) -> None:
    """Sum `.grad` over the ranks, as one flat message."""
    if world.size > 1:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _take(parameters: Sequence[Parameter]) -> list[Tensor]:
    """The gradients, with `.grad` left None; a parameter that the row did not touch has zeros."""
    taken = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return taken
