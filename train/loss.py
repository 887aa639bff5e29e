"""Cross entropy of the next token, with its gradient made on the way.

The logits of a 2048-token step over 4 k tokens are 32 MB; written, normalised and differentiated as whole tensors they
cost more than all layers of a 1 M-parameter model. Here a chunk of positions is projected, turned into probabilities
and then into the gradient in place, and multiplied out before the next chunk: three matrix products, one buffer that
stays in the cache. Measured on one core (2048 tokens, vocabulary 4096, hidden size 128): 94 ms, of which 77 are the
products at full speed; `F.cross_entropy` on whole logits takes 200. Losses and probabilities are fp32 whatever the
dtype of the products. Compiled (on a GPU), logits that fit the budget are one plain expression, which fuses best; more
are made chunk by chunk as well.

Sums are divided by the number of valid targets of the whole optimiser step, so that splitting a step into parts cannot
change its gradient. Positions without a target do not reach the head where they are many: on a CPU they are counted
here; a GPU would have to be waited for, and a graph has fixed shapes, so there `Shortened` says which ones do.

Shapes: N positions, K of them that reach the head, D hidden, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .rows import IGNORED

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 8 << 30}
"""Logits held at a time. CPU, fp32: 2 to 8 MB measured equal, 32 MB 40 % slower. GPU, in the dtype of the products:
65,536 tokens of a vocabulary of 50 k are 6.1 GiB."""

DROP_FROM = 0.1
"""Share of positions without a target from which dropping them pays for the copy."""


class Shortened(NamedTuple):
    """`valid_targets` of a batch of whose N positions only K go through the head.

    of_step: valid targets of the whole optimiser step. kept_K: int64, every position with a target and any others,
    each once. Few different K mean few compiled graphs.
    """

    of_step: float | Tensor
    kept_K: Tensor


ValidTargets = float | Tensor | Shortened
"""How many targets an optimiser step has in all: what sums of losses are divided by."""


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    valid_targets: ValidTargets,
    dtype: torch.dtype = torch.float32,
    bias_V: Tensor | None = None,
    logit_scale: float = 1.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Loss of the logits `(hidden @ weight.T + bias) * logit_scale` against `targets`.

    Args:
        targets_N: token ids; `IGNORED` where a position has none.
        valid_targets: of the whole optimiser step; the sum of losses is divided by it (0: the loss is 0).
            A compiled graph should get a tensor: a number is a constant of it. `Shortened` names positions too.
        dtype: of the matrix products.
        z_loss: weight of `logsumexp(logits) ** 2`, averaged as the losses are.

    Returns:
        The loss (a scalar to differentiate) and the loss of each position in nats (0 where ignored, no gradient,
        without the z term).

    Raises:
        ValueError: on a CPU, if a target is neither a token id nor `IGNORED`.
    """
    is_compiled = torch.compiler.is_compiling()
    count = len(targets_N)
    of_step, kept_K = _parts(valid_targets)
    if hidden_ND.device.type == "cpu" and not is_compiled:
        is_valid_N = _checked(targets_N, len(weight_VD))
        if kept_K is None and int(is_valid_N.sum()) <= (1 - DROP_FROM) * count:
            kept_K = is_valid_N.nonzero().flatten()
    if kept_K is not None:
        hidden_ND, targets_N = hidden_ND.index_select(0, kept_K), targets_N.index_select(0, kept_K)
    hidden_ND, bias_V = _scaled(hidden_ND, bias_V, logit_scale)
    if is_compiled and hidden_ND.shape[0] * len(weight_VD) * dtype.itemsize <= _budget(hidden_ND):
        logits_NV = F.linear(hidden_ND.to(dtype), weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype))
        loss, losses_N = _expression(logits_NV, targets_N, of_step, z_loss)
    else:
        loss, losses_N = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_ND, weight_VD, bias_V, targets_N, of_step, dtype, z_loss, torch.is_grad_enabled()
        )
    if kept_K is not None:
        losses_N = losses_N.new_zeros(count).index_copy(0, kept_K, losses_N)
    return loss, losses_N


def cross_entropy(
    logits_NV: Tensor, targets_N: Tensor, valid_targets: ValidTargets, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The same for logits that are there already; arguments, result and errors of `linear_cross_entropy`."""
    of_step, _ = _parts(valid_targets)
    if logits_NV.device.type == "cpu" and not torch.compiler.is_compiling():
        _checked(targets_N, logits_NV.shape[1])
    return _expression(logits_NV, targets_N, of_step, z_loss)


def _parts(valid_targets: ValidTargets) -> tuple[float | Tensor, Tensor | None]:
    """The divisor, and which positions go through the head."""
    return valid_targets if isinstance(valid_targets, Shortened) else (valid_targets, None)


def _checked(targets_N: Tensor, vocab_size: int) -> Tensor:
    """Where a target counts."""
    is_valid_N = targets_N != IGNORED
    wrong_N = is_valid_N & ((targets_N < 0) | (targets_N >= vocab_size))
    if wrong_N.any():
        position = int(wrong_N.nonzero()[0])
        raise ValueError(
            f"targets: id {int(targets_N[position])} at position {position} is outside the vocabulary of {vocab_size} "
            "tokens; were the tokens made by another tokenizer?"
        )
    return is_valid_N


def _budget(x: Tensor) -> int:
    return CHUNK_BYTES.get(x.device.type, CHUNK_BYTES["cuda"])


def _divisor(valid_targets: float | Tensor) -> float | Tensor:
    return valid_targets.clamp(min=1) if isinstance(valid_targets, Tensor) else max(valid_targets, 1)


def _scaled(hidden_ND: Tensor, bias_V: Tensor | None, scale: float) -> tuple[Tensor, Tensor | None]:
    """The scale of the logits, put on the narrow side of the product."""
    if scale == 1.0:
        return hidden_ND, bias_V
    return hidden_ND * scale, None if bias_V is None else bias_V * scale


def _expression(
    logits_NV: Tensor, targets_N: Tensor, valid_targets: float | Tensor, z_loss: float
) -> tuple[Tensor, Tensor]:
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    losses_N = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="none")
    total = losses_N.sum()
    if z_loss:
        squares_N = logits_NV.logsumexp(1).square()
        total = total + z_loss * squares_N.where(targets_N != IGNORED, 0).sum()
    return total / _divisor(valid_targets), losses_N.detach()


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        valid_targets: float | Tensor,
        dtype: torch.dtype,
        z_loss: float,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        count, vocab_size = len(targets), len(weight)
        wide = torch.promote_types(dtype, torch.float32)
        chunk = max(1, _budget(hidden) // (wide.itemsize * vocab_size))
        inputs, matrix = hidden.to(dtype), weight.to(dtype)
        buffer = hidden.new_empty(min(chunk, count), vocab_size, dtype=wide)
        losses = hidden.new_empty(count, dtype=wide)
        penalty = losses.new_zeros(())
        to_hidden = torch.empty_like(hidden, dtype=wide)
        to_weight = torch.zeros_like(weight, dtype=wide)
        to_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)
        is_valid = (targets != IGNORED).to(wide)[:, None]
        labels = targets.clamp(min=0)[:, None]
        divisor = _divisor(valid_targets)
        for begin in range(0, count, chunk):
            part = slice(begin, min(begin + chunk, count))
            logits = _product(inputs[part], matrix.t(), buffer[: part.stop - begin])
            if bias is not None:
                logits += bias
            at_label = logits.gather(1, labels[part])
            largest = logits.amax(1, keepdim=True)
            exponentials = logits.sub_(largest).exp_()
            total = exponentials.sum(1, keepdim=True)
            log_total = largest + total.log()
            losses[part] = ((log_total - at_label) * is_valid[part]).squeeze(1)
            if z_loss:
                penalty += z_loss * (log_total.square() * is_valid[part]).sum()
            if not with_gradient:
                continue
            # The gradient of the logits is (exponentials - total at the label) / total: the division is left to the
            # narrow side of both products.
            factor = is_valid[part] / (total * divisor)
            if z_loss:
                exponentials.mul_(1 + 2 * z_loss * log_total)
            gradient = exponentials.scatter_add_(1, labels[part], -total).to(dtype)
            _product(gradient, matrix, to_hidden[part]).mul_(factor)
            _add_product(to_weight, gradient.t(), inputs[part] * factor.to(dtype))
            if to_bias is not None:
                to_bias += (factor.to(dtype).t() @ gradient).squeeze(0)
        ctx.save_for_backward(to_hidden, to_weight, to_bias)
        ctx.mark_non_differentiable(losses)
        return (losses.sum() + penalty) / divisor, losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        to_hidden, to_weight, to_bias = ctx.saved_tensors
        return to_hidden * to_loss, to_weight * to_loss, to_bias if to_bias is None else to_bias * to_loss, *[None] * 5


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """`left @ right` in `out`, rounded to the inputs' dtype on the way where that is narrower."""
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    return out.copy_(torch.mm(left, right))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, the sum in the dtype of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        total += torch.mm(left, right, out_dtype=total.dtype)
    else:
        total += left @ right
