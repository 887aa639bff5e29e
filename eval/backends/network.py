"""A model on a device: the logits where they are asked for, and what its training says about how to ask.

Checkpoints that codesieve's own decoder trained are scored by it, and only the positions that count reach the head, a
chunk at a time that stays in the cache. All others go through transformers. Generation is always transformers', for its
cache of keys and values. A prefix that sees itself both ways is an interval mask for the decoder and a dense 4-D mask
for transformers, whose model is tried first: not every class obeys one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from ...files import read_json
from ...strict import ConfigError
from ...train.visible import Mask

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 30}
"""Logits at a time behind the decoder; on a CPU what its cache holds, as in train/loss.py."""

LOGIT_BYTES = {"cpu": 1 << 28, "cuda": 4 << 30}
"""Logits at a time of transformers' models, whose head is not called in parts."""

TRAINING = "training.json"
FORMATS = {"infill": "psm", "span_corruption": "codegen2"}
"""Objective → format of infilling; of infill it is the `order`."""


@dataclass(frozen=True)
class Training:
    """What training.json says: whether our decoder knows the model, and how the model has seen its contexts."""

    is_own: bool = False
    is_prefix: bool = False
    mode: Literal["R", "S", "X"] | None = None
    infill_formats: tuple[str, ...] | None = None
    """Names in configs/infill.yaml that it has learnt, the most frequent first; None: not known."""

    @classmethod
    def of(cls, folder: Path) -> Training:
        """Of a model folder; one without the file was trained elsewhere, causally as far as can be known.

        A model is a prefix-LM if the last stage had that objective and plain prediction was not another: one that
        learnt both ways is measured causally, as its peers are.
        """
        path = folder / TRAINING
        if not path.is_file():
            return cls()
        config = read_json(path).get("config")
        if not config:
            return cls(is_own=True)
        stages = config.get("stages") or [{}]
        objectives = stages[-1].get("objectives") or config.get("objectives") or []
        prefixes = [each for each in objectives if each["type"] == "prefix_lm"]
        is_prefix = bool(prefixes) and not any(each["type"] == "causal" for each in objectives)
        modes = {each.get("mode") for each in prefixes}
        mode = modes.pop() if is_prefix and len(modes) == 1 else None
        formats: dict[str, float] = {}
        for each in objectives:
            if each["type"] in FORMATS:
                name = each.get("order", "psm") if each["type"] == "infill" else FORMATS[each["type"]]
                formats[name] = formats.get(name, 0.0) + each.get("weight", 1.0)
        ordered = tuple(sorted(formats, key=lambda name: -formats[name]))
        return cls(config.get("backend", "codesieve") == "codesieve", is_prefix, mode, ordered)


class Network(Protocol):
    """What scoring needs."""

    device: torch.device
    most_logits: int | None
    """Positions whose logits may be held at a time; None: as many as there are."""

    def logits(self, inputs_BT: Tensor, keep_BT: Tensor, prefixes: Sequence[int]) -> Iterator[Tensor]:
        """Logits [N, V] in fp32 at the positions where `keep_BT`, row by row, in chunks."""
        ...


class OwnNetwork:
    """A model of our trainer."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        from ...train.pretrained import load_model

        self.device, self.dtype = device, dtype
        self.model = load_model(folder, dtype).to(device).eval()
        self.most_logits: int | None = None
        self._chunk = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // (4 * self.model.vocab_size))

    def logits(self, inputs_BT: Tensor, keep_BT: Tensor, prefixes: Sequence[int]) -> Iterator[Tensor]:
        """See `Network`."""
        mask = _mask(inputs_BT, prefixes)
        if mask is not None:
            mask = mask.to(self.device, None if self.device.type == "cpu" else "sdpa-mask")
        hidden_ND = self.model.hidden(inputs_BT, mask=mask)[keep_BT]
        for begin in range(0, len(hidden_ND), self._chunk):
            part_ND = hidden_ND[begin : begin + self._chunk]
            logits_NV = self.model.lm_head(part_ND, self.dtype).float()
            yield logits_NV if self.model.config.logit_scale == 1.0 else logits_NV * self.model.config.logit_scale


class TransformersNetwork:
    """A model that `AutoModelForCausalLM` loads."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        bars: Any = logging
        draws = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except (SafetensorError, UnpicklingError, EOFError, RuntimeError, ValueError, OSError, KeyError) as error:
            raise ConfigError(f"{folder}: transformers cannot load a causal language model: {error}") from error
        finally:
            if draws:
                bars.enable_progress_bar()
        self.device, self.dtype = device, dtype
        self.model = model.to(device).eval()
        vocab_size = int(model.get_output_embeddings().weight.shape[0])
        most_bytes = LOGIT_BYTES.get(device.type, LOGIT_BYTES["cuda"])
        self.most_logits: int | None = max(1, most_bytes // (4 * vocab_size))
        self._names = set(inspect.signature(model.forward).parameters)
        self._can_select = self._tries_to_select()

    def logits(self, inputs_BT: Tensor, keep_BT: Tensor, prefixes: Sequence[int]) -> Iterator[Tensor]:
        """See `Network`."""
        facts: dict[str, Any] = {"use_cache": False}
        mask = _mask(inputs_BT, prefixes)
        if mask is not None:
            facts["attention_mask"] = self.additive(mask.dense())
        if self._can_select:
            yield self.model(input_ids=inputs_BT, logits_to_keep=keep_BT, **facts).logits.float()
        else:
            yield self.model(input_ids=inputs_BT, **facts).logits[keep_BT].float()

    def begin(self, inputs_BT: Tensor, real_BT: Tensor, is_prefix: bool) -> tuple[Tensor, Any]:
        """Logits [B, V] behind the last column of prompts padded on the left, and the cache."""
        mask = real_BT.long()
        if is_prefix:  # a padded query must see something: the softmax of no keys is not a number
            both = real_BT[:, None, :] & real_BT[:, :, None]
            itself = torch.eye(real_BT.shape[1], dtype=torch.bool, device=real_BT.device)
            mask = self.additive((both | itself)[:, None])
        return self._step(inputs_BT, mask, (real_BT.cumsum(dim=1) - 1).clamp(min=0), None)

    def go_on(self, inputs_B: Tensor, real_BT: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits [B, V] behind one token more; `real_BT` includes it."""
        return self._step(inputs_B[:, None], real_BT.long(), real_BT.sum(dim=1, keepdim=True) - 1, cache)

    def check_prefixes(self) -> None:
        """Refuse a model that does not obey a 4-D mask."""
        from ...train.foreign import ForeignModel

        try:
            ForeignModel(self.model, self.dtype, 0)
        except ValueError as error:
            raise ConfigError(f"attention: prefix: {error}") from error
        self.model.eval()

    def additive(self, visible: Tensor) -> Tensor:
        """A boolean mask as what is added to the scores."""
        return torch.zeros_like(visible, dtype=self.dtype).masked_fill_(~visible, torch.finfo(self.dtype).min)

    def _step(self, inputs_BT: Tensor, mask: Tensor, positions_BT: Tensor, cache: Any) -> tuple[Tensor, Any]:
        facts: dict[str, Any] = {"position_ids": positions_BT} if "position_ids" in self._names else {}
        if "logits_to_keep" in self._names:
            facts["logits_to_keep"] = 1
        output = self.model(input_ids=inputs_BT, attention_mask=mask, past_key_values=cache, use_cache=True, **facts)
        return output.logits[:, -1], output.past_key_values

    def _tries_to_select(self) -> bool:
        """Whether the head takes a boolean mask of positions; before transformers 5 and in foreign code it does not."""
        if "logits_to_keep" not in self._names:
            return False
        inputs_BT = torch.zeros(1, 3, dtype=torch.long, device=self.device)
        keep_BT = torch.tensor([[False, True, False]], device=self.device)
        try:
            with torch.inference_mode():
                logits = self.model(input_ids=inputs_BT, logits_to_keep=keep_BT, use_cache=False).logits
                whole = self.model(input_ids=inputs_BT, use_cache=False).logits[keep_BT]
        except (IndexError, TypeError, RuntimeError):
            return False
        return bool(logits.shape == whole.shape and torch.allclose(logits, whole, atol=1e-4, rtol=1e-3))


def _mask(inputs_BT: Tensor, prefixes: Sequence[int]) -> Mask | None:
    """None where every row is causal."""
    if not any(prefixes):
        return None
    prefixes_BT = torch.tensor(prefixes)[:, None].expand(*inputs_BT.shape)
    return Mask.from_segments(torch.zeros(inputs_BT.shape, dtype=torch.long), prefixes_BT)
