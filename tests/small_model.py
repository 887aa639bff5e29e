"""A model with the interface of `Decoder` that runs in microseconds, its batches, and a CUDA graph made by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

VOCABULARY = 11


@dataclass(frozen=True)
class Weights:
    """In place of an attention mask: a value with a tensor, one without, and a part of its own."""

    weight_BT: torch.Tensor
    kind: str = "plain"
    inner: tuple[torch.Tensor, ...] = ()


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class Small(nn.Module):
    """Embedding, two layers and a head with the interface of `Decoder`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(8, VOCABULARY)

    def loss(self, tokens_BT, targets_BT, positions_BT, mask, valid_targets, z_loss=0.0):
        x = self.embedding(tokens_BT)
        for layer in self.layers:
            x = layer(x)
        losses = nn.functional.cross_entropy(self.head(x).flatten(0, 1), targets_BT.flatten(), reduction="none")
        losses = losses.view_as(targets_BT) * (mask.weight_BT if mask is not None else 1.0)
        return losses.sum() / valid_targets + z_loss, losses


def inputs(seed, rows=2, kind="plain"):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (rows, 6), generator=generator)
    mask = Weights(torch.rand(rows, 6, generator=generator), kind, (torch.ones(1),))
    return tokens, tokens.roll(-1, 1), None, mask, 5 + seed


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def run(way, model, batches):
    """Losses and gradients of a step of several micro-batches."""
    way.zero_grad()
    losses = [way(*batch)[0].item() for batch in batches]
    return losses, gradients(model)


def captured(function):
    """What CUDA does, by hand: the outputs stay where they are and every replay computes into them."""
    outputs = function()

    def replay():
        for output, new in zip(outputs, function(), strict=True):
            output.copy_(new)

    return replay, outputs


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
