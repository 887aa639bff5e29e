"""Models as folders that transformers loads as they are, and from which training starts.

`save_model` writes `config.json`, `model.safetensors` (fp32; a tied head is stored once, as the embedding),
`generation_config.json` and the tokenizer's files. Nothing in them depends on time or machine: equal weights give equal
bytes. `load_model` reads such a folder or any checkpoint of the three families, whole or in shards, safetensors or
PyTorch's own, in any floating dtype; transformers is not needed for either. `initial_model` is what training starts
from. Price of loading: the weights once in fp32, and one file at a time beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import read_json, write_json
from . import families
from .config import TrainConfig
from .foreign import ForeignModel
from .model import Decoder
from .tokenizer import copy_tokenizer

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SHOWN = 3
"""Names listed in an error."""


def save_model(
    model: Decoder | ForeignModel, tokenizer_folder: Path, folder: Path, state: Mapping[str, Tensor] | None = None
) -> None:
    """Write `model` and the tokenizer from `tokenizer_folder` into `folder` (made if need be, not cleared).

    Args:
        state: the whole `state_dict`, where the model's own parameters are shards.

    Raises:
        ValueError: if `tokenizer_folder` has no tokenizer.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(tokenizer_folder, folder)
    state = model.state_dict() if state is None else state
    state = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in state.items()}
    if isinstance(model, ForeignModel):
        model.save(folder, state)
    else:
        weights = families.to_weights(model.config, state)
        whole = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "config.json", model.to_hf_config())
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), model.end_of_text)
        write_json(folder / "generation_config.json", ids)


def load_model(folder: Path, compute_dtype: torch.dtype = torch.float32, qkv_groups: int | None = None) -> Decoder:
    """The decoder in `folder`, on the CPU, weights in fp32.

    Args:
        qkv_groups: of CodeGen's joint matrix; default: `qkv_groups` of config.json, else 4 as in transformers.

    Raises:
        ValueError: if the folder holds another architecture, or weights and config do not fit.
    """
    where = folder / "config.json"
    if not where.is_file():
        raise ValueError(f"{where}: no such file; expected the folder of a checkpoint")
    facts = read_json(where)
    config, vocab_size, sequence_length = families.from_config(facts, str(where))
    groups = qkv_groups or facts.get("qkv_groups")
    if config.family == "codegen" and groups is None:
        if "auto_map" in facts:
            raise ValueError(
                f"{where}: made for code of its own (auto_map), which decides how queries, keys and values are stored; "
                'add "qkv_groups" to the file: 8 for Salesforce\'s CodeGen2 1B and 3.7B, 4 for what transformers wrote'
            )
        groups = families.QKV_GROUPS
    weights = families.from_weights(config, _read_weights(folder), groups or families.QKV_GROUPS)
    end_of_text = facts.get("eos_token_id")
    end_of_text = end_of_text[0] if isinstance(end_of_text, list) else end_of_text or 0
    with torch.device("meta"):
        model = Decoder(config, vocab_size, sequence_length, compute_dtype=compute_dtype, end_of_text=end_of_text)
    _check_fit(folder, model.state_dict(), weights)
    model.load_state_dict(weights, assign=True)
    model.tie()
    return model


def initial_model(
    config: TrainConfig, vocab_size: int, end_of_text: int, seed: int, dtype: torch.dtype
) -> Decoder | ForeignModel:
    """What training starts from: random weights, or those in `config.init_from`.

    A checkpoint brings its own shape: `config.model` is not looked at then. With `backend: transformers` a folder with
    `config.json` alone gives random weights, for the tokenizer's vocabulary whatever the file says.

    Args:
        vocab_size: of the tokenizer.

    Raises:
        ValueError: if the folder cannot be read, was trained with another vocabulary, or for shorter sequences.
    """
    if config.init_from is None:
        return Decoder(config.model, vocab_size, config.sequence_length, seed, dtype, end_of_text)
    folder = Path(config.init_from)
    if not (folder / "config.json").is_file():
        raise ValueError(f"init_from: {folder}: no config.json there; expected the folder of a checkpoint")
    has_weights = any((folder / name).is_file() for name in WEIGHT_FILES)
    model: Decoder | ForeignModel
    if config.backend == "transformers":
        model = ForeignModel.load(folder, dtype, None if has_weights else seed, vocab_size, end_of_text)
        if model.longest and model.longest < config.sequence_length:
            raise ValueError(
                f"init_from: {folder}: made for {model.longest} tokens (max_position_embeddings, sliding_window) and "
                f"sequence_length is {config.sequence_length}; lower it, or change the checkpoint's config.json"
            )
    else:
        model = load_model(folder, dtype)
        model.end_of_text = end_of_text
        model.sequence_length = max(model.sequence_length, config.sequence_length)
    if has_weights:
        _check_vocabulary(folder, model.vocab_size, vocab_size)
    return model


def _check_vocabulary(folder: Path, rows: int, vocab_size: int) -> None:
    """The embedding may be longer than the vocabulary (padding), if the checkpoint's own tokenizer says so."""
    own = rows
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_json(folder / "tokenizer.json")
        vocabulary = tokenizer["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        own = 1 + max(ids + [token["id"] for token in tokenizer.get("added_tokens", [])])
    if vocab_size != own or vocab_size > rows:
        raise ValueError(
            f"init_from: {folder}: a model of {own} token ids ({rows} rows of embeddings), but the tokenizer has "
            f"{vocab_size}; set `tokenizer` to the one that the model was trained with"
        )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint in fp32, copied so that the files may be replaced."""
    found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder / WEIGHT_FILES[0]}: no such file, nor {', '.join(WEIGHT_FILES[1:])}")
    paths = found[:1]
    if paths[0].suffix == ".json":
        paths = [folder / name for name in sorted(set(read_json(paths[0])["weight_map"].values()))]
    weights: dict[str, Tensor] = {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{path}: no such file, but {found[0].name} names it")
        try:
            part = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read as weights: {error}") from error
        for name, tensor in part.items():
            if tensor.is_floating_point():  # else a mask of older versions; of quantised weights the floats are missed
                weights[name] = tensor.to(torch.float32, copy=True)
    return weights


def _check_fit(folder: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    shapes = [
        f"{name} is {list(found[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    missing = [f"{name} is missing" for name in expected if name not in found]
    excess = [f"{name} has no place" for name in found if name not in expected]
    wrong = shapes + missing + excess
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(f"{folder}: the weights do not fit config.json: {'; '.join(wrong[:SHOWN])}{more}")
