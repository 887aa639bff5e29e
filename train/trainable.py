"""What training asks of a model: the part that `Decoder` and `ForeignModel` have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn

Losses = tuple[Tensor, Tensor]
"""The loss to differentiate (a scalar), and losses_BT in nats."""
Compute = Callable[..., Losses]
Arguments = tuple[Any, ...]
"""(tokens_BT, targets_BT, positions_BT, mask, valid_targets) of a micro-batch, what `Trainable.loss` takes."""


class Trainable(Protocol):
    """A model in training."""

    @property
    def loss(self) -> Compute:
        """(tokens_BT, targets_BT, positions_BT, mask, valid_targets, z_loss) -> losses.

        The mask is an `attention.Mask` or None, `valid_targets` a `loss.ValidTargets`.
        """

    def parameters(self) -> Iterator[nn.Parameter]:
        """Each once."""

    def matrices(self) -> Iterable[nn.Parameter]:
        """The 2-D parameters of the layers."""

    def modules(self) -> Iterator[nn.Module]:
        """All parts; the longest `ModuleList` among them holds the layers."""
