"""Any causal language model of transformers, trained through the interface of `Decoder`.

Packed documents and prefixes reach it as a dense 4-D float mask, with positions that start anew in each document: all
that the models of transformers agree on (a 2-D mask of ones would silently switch their own isolation off). A model
that does not obey such a mask is refused when it is loaded: tokens of one made-up row are changed, and the logits must
move where the mask says, and nowhere else. Price against `Decoder`: the mask, 4 bytes x length^2 a row, whole logits,
and the kernels that this mask leaves to choose from. Dropout stays off, the loss is cross entropy alone (a mixture of
experts gets no balancing term).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from .attention import Mask
from .loss import ValidTargets, cross_entropy


class ForeignModel(nn.Module):
    """`network` with the interface of `Decoder`."""

    def __init__(self, network: Any, compute_dtype: torch.dtype, end_of_text: int) -> None:
        """Wrap a `PreTrainedModel` with a head.

        Raises:
            ValueError: if it takes no positions or does not obey a 4-D mask.
        """
        super().__init__()
        self.network, self.config, self.end_of_text = network, network.config, end_of_text
        embedding = network.get_input_embeddings()
        self.vocab_size = len(embedding.weight)
        names = ("max_position_embeddings", "sliding_window", "attention_chunk_size")
        limits = [getattr(self.config, name, None) for name in names]
        self.longest: int | None = min(filter(None, limits), default=None)
        """Tokens that positions reach, and a window that the 4-D mask would silently replace."""
        embedding.padding_idx = None  # end of text is often the padding token, and would not be learnt
        self.train()
        self.compute_dtype = torch.float32
        _check_obeys_masks(self)
        self.compute_dtype = compute_dtype

    @classmethod
    def load(
        cls, folder: Path, compute_dtype: torch.dtype, seed: int | None, vocab_size: int, end_of_text: int
    ) -> Self:
        """The model in `folder` with its weights, or where a `seed` is given with random ones for `vocab_size` tokens.

        Raises:
            ValueError: if transformers cannot load it, or weights are missing.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        classes: Any = AutoModelForCausalLM
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if seed is not None:
                config.vocab_size, config.pad_token_id = vocab_size, None
                config.bos_token_id = config.eos_token_id = end_of_text
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    network = classes.from_config(config, dtype=torch.float32)
            else:
                network, facts = classes.from_pretrained(
                    folder, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
                )
                if wrong := sorted(facts["missing_keys"]) + sorted(map(str, facts["mismatched_keys"])):
                    raise ValueError(f"weights are missing or have another shape: {wrong[0]} ({len(wrong)} in all)")
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            raise ValueError(f"{folder}: transformers cannot load a causal language model: {error}") from error
        try:
            return cls(network, compute_dtype, end_of_text)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, mask: Mask | None = None) -> Tensor:
        """Logits_BTV in fp32; arguments as in `Decoder.hidden`."""
        rows, time = tokens_BT.shape
        if mask is None:
            mask = Mask.causal(rows, time, tokens_BT.device)
        if positions_BT is None:
            positions_BT = torch.arange(time, device=tokens_BT.device).expand(rows, time)
        hidden_B1TT = torch.zeros(rows, 1, time, time, device=tokens_BT.device)
        hidden_B1TT.masked_fill_(~mask.dense(), torch.finfo(self.compute_dtype).min)
        is_narrow = self.compute_dtype != torch.float32
        cast = torch.autocast(tokens_BT.device.type, self.compute_dtype) if is_narrow else contextlib.nullcontext()
        with cast:
            output = self.network(
                input_ids=tokens_BT, attention_mask=hidden_B1TT, position_ids=positions_BT.long(), use_cache=False
            )
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        positions_BT: Tensor | None,
        mask: Mask | None,
        valid_targets: ValidTargets,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The loss to differentiate and losses_BT in nats, as in `Decoder`."""
        logits_BTV = self(tokens_BT, positions_BT, mask)
        loss, losses_N = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), valid_targets, z_loss)
        return loss, losses_N.view(targets_BT.shape)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters in all, and without embedding and head."""
        tables = self._tables()
        sizes = [(parameter.numel(), id(parameter) in tables) for parameter in self.parameters()]
        body = sum(size for size, is_table in sizes if not is_table)
        return {"parameters": sum(size for size, _ in sizes), "parameters_without_embeddings": body}

    def matrices(self) -> list[nn.Parameter]:
        """The 2-D parameters that are neither head nor a table of embeddings."""
        tables = self._tables()
        return [parameter for parameter in self.parameters() if parameter.ndim == 2 and id(parameter) not in tables]

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write config and weights for transformers; `state` is the whole `state_dict` of this module."""
        tensors = [*self.network.named_parameters(), *self.network.named_buffers()]  # tied ones come once
        weights = {name: state[f"network.{name}"] for name, _ in tensors if f"network.{name}" in state}
        self.network.save_pretrained(folder, state_dict=weights)

    def train(self, mode: bool = True) -> Self:
        """Dropout stays off: a row's gradient must not depend on the rows before it."""
        super().train(mode)
        self.network.eval()
        return self

    def _tables(self) -> set[int]:
        head = self.network.get_output_embeddings()
        modules = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        return {id(p) for module in (*modules, *([head] if head is not None else [])) for p in module.parameters()}


@torch.no_grad()
def _check_obeys_masks(model: ForeignModel) -> None:
    """Two documents in a row, the second with a prefix that sees itself both ways; one token at a time is changed."""
    name = type(model.network).__name__
    if "position_ids" not in inspect.signature(model.network.forward).parameters:
        raise ValueError(f"{name} takes no position_ids: documents cannot be packed")
    segments_BT = torch.tensor([[0] * 6 + [1] * 6] * 4)
    prefixes_BT = torch.tensor([[0] * 6 + [3] * 6] * 4)
    positions_BT = torch.tensor([[*range(6), *range(6)]] * 4)
    mask = Mask.from_segments(segments_BT, prefixes_BT)
    tokens_BT = torch.arange(12).expand(4, 12) % model.vocab_size
    tokens_BT = tokens_BT.clone()
    for row, column in ((1, 5), (2, 8), (3, 11)):  # row 0 stays: the end of document 0, of the prefix, of document 1
        tokens_BT[row, column] = (tokens_BT[row, column] + 7) % model.vocab_size
    try:
        logits_BTV = model(tokens_BT, positions_BT, mask)
    except Exception as error:
        raise ValueError(f"{name} cannot be given a 4-D attention mask: {type(error).__name__}: {error}") from error
    change_BT = (logits_BTV - logits_BTV[:1]).abs().amax(-1) / logits_BTV.abs().max()
    moved_BT = change_BT > 1e-4
    if moved_BT[1, 6:].any():
        raise ValueError(f"{name} ignores the attention mask: a document sees the one before it")
    if moved_BT[2:, :6].any() or moved_BT[3, 6:11].any():
        raise ValueError(f"{name} ignores the attention mask: a token sees what comes after it")
    if not (change_BT[2, 6:8] > 1e-6).all():
        raise ValueError(f"{name} hides what the mask shows: a prefix does not see itself both ways")
