"""−log p of the tokens that questions ask about: rows in, nats out.

Rows are padded on the right, where a causal model cannot see the padding (nor behind a prefix, which ends before it).
Only positions that a question asks about reach the head. Sums are made in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from .batching import Found, Row
from .network import Network


def score(network: Network, batch: Sequence[Row], padding: int) -> list[Found]:
    """What the model gives for every question of every row."""
    width = max(len(row.inputs) for row in batch)
    inputs = np.full((len(batch), width), padding, dtype=np.int64)
    keep = np.zeros((len(batch), width), dtype=bool)
    for number, row in enumerate(batch):
        inputs[number, : len(row.inputs)] = row.inputs
        for question in row.questions:
            keep[number, question.first : question.first + len(question.targets)] = True
    places = keep.ravel().cumsum().reshape(keep.shape) - 1  # of each kept position among the kept ones
    questions = [(number, question) for number, row in enumerate(batch) for question in row.questions]
    where = np.concatenate([places[number, each.first : each.first + len(each.targets)] for number, each in questions])
    targets = np.concatenate([np.array(each.targets, dtype=np.int64) for _, each in questions])
    nats, is_top = _measured(network, inputs, keep, [row.prefix for row in batch], where, targets)
    found: list[Found] = [[] for _ in batch]
    begin = 0
    for number, each in questions:
        part = slice(begin, begin + len(each.targets))
        found[number].append((float(nats[part].sum()), bool(is_top[part].all())))
        begin += len(each.targets)
    return found


def _measured(
    network: Network,
    inputs: np.ndarray,
    keep: np.ndarray,
    prefixes: Sequence[int],
    where: np.ndarray,
    targets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Nats (float64) of every target, which belongs to the kept position `where`, and whether it is the top one."""
    nats, is_top = np.zeros(len(where)), np.zeros(len(where), dtype=bool)
    order = np.argsort(where, kind="stable")
    begin = 0
    with torch.inference_mode():
        device = network.device
        chunks = network.logits(torch.from_numpy(inputs).to(device), torch.from_numpy(keep).to(device), prefixes)
        for logits_NV in chunks:
            count = len(logits_NV)
            first, last = np.searchsorted(where[order], (begin, begin + count))
            mine = order[first:last]
            at_E, targets_E = where[mine] - begin, torch.from_numpy(targets[mine]).to(device)
            has_one_each = np.array_equal(at_E, np.arange(count))
            logits_EV = logits_NV if has_one_each else logits_NV[torch.from_numpy(at_E).to(device)]
            nats[mine] = F.cross_entropy(logits_EV, targets_E, reduction="none").double().cpu().numpy()
            at_target_E = logits_EV.gather(1, targets_E[:, None]).squeeze(1)
            is_top[mine] = (at_target_E == logits_EV.amax(dim=1)).cpu().numpy()
            begin += count
    return nats, is_top
