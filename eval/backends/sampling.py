"""The next token of every row: the most probable one, or one that a counted draw picks.

A draw is a hash of (seed, key of the item, number of the sample, position) and no state, and the token is found on the
cumulative probabilities in the order of ids, in float64. So a sample is the same whoever shares its batch and in
whatever order, up to rounding of the logits: a last bit moves the borders by as much, and matters once in millions of
draws. Temperature comes first, then `top_k`, then `top_p` on what is left, as in transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...train.hashing import keyed, uniform
from .protocol import Generation, Sampling

PURPOSE = "generate"


class Chooser:
    """Chooses for the requests of one batch."""

    def __init__(self, sampling: Sampling, requests: Sequence[Generation]) -> None:
        self._sampling = sampling
        self._keys = _keys(sampling, requests)

    def __call__(self, logits_RV: Tensor, rows: Sequence[int], position: int) -> list[int]:
        """Tokens for the requests number `rows`, each at `position` of its answer."""
        if self._sampling.temperature == 0:
            tokens: list[int] = logits_RV.argmax(dim=-1).tolist()
            return tokens
        draws = uniform(self._keys[list(rows)], np.uint64(position))
        return sample(logits_RV, draws, self._sampling)


def seed_of(sampling: Sampling, request: Generation) -> int:
    """31 bits that seed one answer, where another program draws."""
    return int(_keys(sampling, [request])[0] >> np.uint64(33))


def sample(logits_RV: Tensor, draws_R: np.ndarray, sampling: Sampling) -> list[int]:
    """The token at which the cumulative probability passes each draw."""
    chances_RV = torch.softmax(logits_RV.double() / sampling.temperature, dim=-1)
    if sampling.top_k is not None and sampling.top_k < chances_RV.shape[1]:
        chances_RV = _most_probable(chances_RV, sampling.top_k)
    if sampling.top_p < 1:
        chances_RV = nucleus(chances_RV, sampling.top_p)
    reached_RV = chances_RV.cumsum(dim=-1)
    draws_R1 = torch.from_numpy(draws_R).to(reached_RV)[:, None]
    chosen_R1 = torch.searchsorted(reached_RV, draws_R1 * reached_RV[:, -1:], right=True)
    if bool((chosen_R1 == chances_RV.shape[1]).any()):  # a draw just below 1 may round to the whole
        last_RV = (chances_RV > 0) * torch.arange(chances_RV.shape[1], device=chances_RV.device)
        chosen_R1 = torch.minimum(chosen_R1, last_RV.amax(dim=1, keepdim=True))
    tokens: list[int] = chosen_R1.flatten().tolist()
    return tokens


def nucleus(chances_RV: Tensor, top_p: float, guess: int = 256) -> Tensor:
    """Chances of the smallest set of tokens whose share reaches `top_p`, 0 elsewhere; not normalised.

    Among equal chances at the border the lower ids stay. The `guess` largest are looked at first: enough nearly always,
    and several times cheaper than sorting a whole vocabulary.
    """
    size = chances_RV.shape[1]
    wanted_R1 = top_p * chances_RV.sum(dim=-1, keepdim=True)
    ordered_RK = chances_RV.topk(min(guess, size), dim=-1).values
    if size > guess and bool((ordered_RK.sum(dim=-1, keepdim=True) < wanted_R1).any()):
        ordered_RK = chances_RV.sort(dim=-1, descending=True).values
    before_RK = ordered_RK.cumsum(dim=-1) - ordered_RK
    count_R = (before_RK < wanted_R1).sum(dim=-1)
    return _largest(chances_RV, ordered_RK, count_R.clamp(min=1))


def _keys(sampling: Sampling, requests: Sequence[Generation]) -> np.ndarray:
    digests = [hashlib.sha256(f"{each.key}\0{each.sample}".encode()).digest() for each in requests]
    hashes = np.array([int.from_bytes(digest[:8], "little") for digest in digests], dtype=np.uint64)
    return keyed(hashes, PURPOSE, sampling.seed)


def _most_probable(chances_RV: Tensor, count: int) -> Tensor:
    ordered_RK = chances_RV.topk(count, dim=-1).values
    return _largest(chances_RV, ordered_RK, torch.full_like(ordered_RK[:, 0], count, dtype=torch.long))


def _largest(chances_RV: Tensor, ordered_RK: Tensor, count_R: Tensor) -> Tensor:
    """The `count` largest chances of each row; of those equal to the smallest of them the lower ids."""
    border_R1 = ordered_RK.gather(1, count_R[:, None] - 1)
    above_RV = chances_RV > border_R1
    equal_RV = chances_RV == border_R1
    room_R1 = count_R[:, None] - above_RV.sum(dim=-1, keepdim=True)
    kept_RV = above_RV | (equal_RV & (equal_RV.cumsum(dim=-1) <= room_R1))
    return chances_RV.where(kept_RV, 0.0)
