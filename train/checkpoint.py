"""A trained model as a folder that transformers loads as is, and that loads back into `Decoder`.

`config.json`, `model.safetensors` (fp32; a tied head is stored once, as the embedding), `generation_config.json` and
the tokenizer's files. Nothing in it depends on time or machine: equal weights give equal bytes. transformers itself is
not needed for either direction.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..files import read_json, write_json
from .config import ModelConfig
from .model import Decoder
from .tokenizer import END_OF_TEXT_ID

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
TIED = "lm_head.weight"


def save_model(model: Decoder, tokenizer_folder: Path, folder: Path) -> None:
    """Write `model` and the tokenizer from `tokenizer_folder` into `folder` (made if need be, not cleared)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
        if not (name == TIED and model.config.tie_word_embeddings)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", model.to_hf_config())
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": END_OF_TEXT_ID, "eos_token_id": END_OF_TEXT_ID, "pad_token_id": END_OF_TEXT_ID},
    )
    for name in TOKENIZER_FILES:
        if not (tokenizer_folder / name).is_file():
            raise ValueError(f"{tokenizer_folder / name}: no such file; expected a folder written by save_tokenizer")
        shutil.copyfile(tokenizer_folder / name, folder / name)


def load_model(folder: Path, compute_dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder in `folder`, on the CPU.

    Raises:
        ValueError: if the folder holds another architecture, or weights and config do not fit.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file; expected a folder written by save_model")
    facts = read_json(folder / "config.json")
    if facts.get("model_type") != "llama":
        raise ValueError(f"{folder}/config.json: model_type {facts.get('model_type')!r}; load_model reads llama only")
    fields = {name: facts[name] for name in ModelConfig.model_fields if name in facts}
    config = ModelConfig(
        **{**fields, "norm_eps": facts["rms_norm_eps"], "rope_theta": facts["rope_parameters"]["rope_theta"]}
    )
    model = Decoder(config, facts["vocab_size"], facts["max_position_embeddings"], compute_dtype=compute_dtype)
    weights = load_file(folder / "model.safetensors")
    if config.tie_word_embeddings:
        weights[TIED] = weights["model.embed_tokens.weight"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder}/model.safetensors does not fit config.json: {error}") from error
    return model
