"""How each family looks in a Hugging Face checkpoint: `config.json` and the layout of the weights, both directions.

`to_config`/`from_config` translate the configuration, `to_weights`/`from_weights` the named tensors. The latter only
rename, cut and join rows: linear, so they serve for gradients as well. Llama and Cohere have the decoder's own names.
CodeGen stores queries, keys and values in one matrix, in groups left from tensor parallelism, each ordered (q, v, k):
4 groups in transformers, 8 in the code that Salesforce released beside CodeGen2, under the same `model_type`; read with
the wrong number, heads are mixed without an error. What a family's class in transformers can do and the decoder cannot
(biases in Llama, scaled rotation, norms of queries) is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..strict import parse
from .config import ModelConfig

QKV_GROUPS = 4
"""Of transformers' CodeGen; always written so."""

CLASSES = {"llama": "LlamaForCausalLM", "cohere": "CohereForCausalLM", "codegen": "CodeGenForCausalLM"}

_NO_WEIGHTS = ("rotary_emb.inv_freq", "attn.causal_mask", "attn.masked_bias", "attn.embed_positions")
"""Tables that older versions of transformers saved with the weights."""

_CODEGEN_KEYS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rotary_dim": "rotary_dim",
    "norm_eps": "layer_norm_epsilon",
}

_CODEGEN_NAMES = (
    ("model.embed_tokens.", "transformer.wte."),
    ("model.norm.", "transformer.ln_f."),
    ("model.layers.", "transformer.h."),
    (".input_layernorm.", ".ln_1."),
    (".self_attn.o_proj.", ".attn.out_proj."),
    (".mlp.up_proj.", ".mlp.fc_in."),
    (".mlp.down_proj.", ".mlp.fc_out."),
)

_PLAIN: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)},
    "cohere": {"hidden_act": ("silu",), "attention_bias": (False,), "use_qk_norm": (False, None)},
    "codegen": {"activation_function": ("gelu_new", "gelu_pytorch_tanh")},
}
"""Values of keys of `config.json` that the decoder computes; the first is the default."""


def to_config(config: ModelConfig, vocab_size: int, sequence_length: int, end_of_text: int) -> dict[str, Any]:
    """The content of `config.json`."""
    facts: dict[str, Any] = {
        "architectures": [CLASSES[config.family]],
        "model_type": config.family,
        "vocab_size": vocab_size,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "dtype": "float32",
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    }
    if config.family == "codegen":
        fields = {**config.model_dump(), "max_position_embeddings": sequence_length}
        facts |= {theirs: fields[ours] for ours, theirs in _CODEGEN_KEYS.items()}
        return facts | {
            "rotary_dim": config.rotary_dim or config.head_dim,
            "n_ctx": sequence_length,
            "activation_function": "gelu_new",
        }
    facts |= {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "hidden_act": "silu",
        "max_position_embeddings": sequence_length,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
    }
    if config.family == "llama":
        return facts | {"head_dim": config.head_dim, "rms_norm_eps": config.norm_eps, "mlp_bias": False}
    # Without pad_token_id transformers takes token 0 for padding and gives its embedding no gradient.
    scale = {"logit_scale": config.logit_scale, "use_qk_norm": False, "pad_token_id": None}
    return facts | {"layer_norm_eps": config.norm_eps, **scale}


def from_config(facts: Mapping[str, Any], where: str) -> tuple[ModelConfig, int, int]:
    """Configuration, vocabulary size and sequence length of a `config.json`; `where` names it in errors.

    Raises:
        ValueError: another architecture, a missing key, or something that the decoder does not compute.
    """
    family = facts.get("model_type")
    if family not in CLASSES:
        known = ", ".join(CLASSES)
        raise ValueError(f"{where}: model_type {family!r}; known: {known}. Others train with `backend: transformers`")
    for key, allowed in _PLAIN[family].items():
        if facts.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{where}: {key} {facts[key]!r}: not computed here; train with `backend: transformers`")

    def need(key: str) -> Any:
        if facts.get(key) is None:
            raise ValueError(f"{where}: no {key}")
        return facts[key]

    if family == "codegen":
        fields = _codegen_fields(facts, need)
        length = need("n_positions")
    else:
        fields = _llama_like_fields(family, facts, need, where)
        length = need("max_position_embeddings")
    fields |= {"family": family, "initializer_range": facts.get("initializer_range", 0.02)}
    fields["tie_word_embeddings"] = facts.get("tie_word_embeddings", family == "cohere")
    return parse(ModelConfig, fields, where), need("vocab_size"), length


def _codegen_fields(facts: Mapping[str, Any], need: Callable[[str], Any]) -> dict[str, Any]:
    return {
        "hidden_size": need("n_embd"),
        "intermediate_size": facts.get("n_inner") or 4 * need("n_embd"),
        "num_hidden_layers": need("n_layer"),
        "num_attention_heads": need("n_head"),
        "num_key_value_heads": need("n_head"),
        "rotary_dim": facts.get("rotary_dim", 64),
        "norm_eps": facts.get("layer_norm_epsilon", 1e-5),
    }


def _llama_like_fields(family: str, facts: Mapping[str, Any], need: Callable[[str], Any], where: str) -> dict[str, Any]:
    # `rope_parameters` since version 5 of transformers; before, rope_theta stood alone and rope_scaling beside it.
    rotation = facts.get("rope_parameters") or facts.get("rope_scaling") or {}
    kind = rotation.get("rope_type", rotation.get("type", "default"))
    if kind != "default" or rotation.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{where}: scaled or partial rotation ({kind}): train with `backend: transformers`")
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    fields = {name: need(name) for name in names}
    head_dim = facts.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    if head_dim * fields["num_attention_heads"] != fields["hidden_size"]:
        raise ValueError(f"{where}: head_dim {head_dim} times heads is not hidden_size: not computed here")
    fields["num_key_value_heads"] = facts.get("num_key_value_heads") or fields["num_attention_heads"]
    fields["rope_theta"] = rotation.get("rope_theta") or facts.get("rope_theta") or 10_000.0
    fields["norm_eps"] = need("rms_norm_eps" if family == "llama" else "layer_norm_eps")
    if family == "cohere":
        scale = facts.get("logit_scale", 0.0625)
        fields["logit_scale"] = 1.0 if scale is None else scale
    return fields


def to_weights(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's named tensors (weights or gradients) as transformers names and lays them out.

    A tied head is left out.
    """
    named = {name: tensor for name, tensor in state.items() if not (_is_head(name) and config.tie_word_embeddings)}
    if config.family != "codegen":
        return named
    for number in range(config.num_hidden_layers):
        parts = [named.pop(f"model.layers.{number}.self_attn.{part}_proj.weight") for part in "qvk"]
        groups = torch.stack([part.view(QKV_GROUPS, -1, part.shape[1]) for part in parts], dim=1)
        named[f"model.layers.{number}.attn.qkv_proj.weight"] = groups.flatten(0, 2)
    return {_renamed(name, to_theirs=True): tensor for name, tensor in named.items()}


def from_weights(config: ModelConfig, weights: Mapping[str, Tensor], qkv_groups: int = QKV_GROUPS) -> dict[str, Tensor]:
    """The inverse of `to_weights`; a tied head is there twice, as in a `state_dict`.

    Raises:
        ValueError: if queries, keys and values do not divide into `qkv_groups`.
    """
    named = {name: tensor for name, tensor in weights.items() if not name.endswith(_NO_WEIGHTS)}
    if config.family == "codegen":
        named = {_renamed(name, to_theirs=False): tensor for name, tensor in named.items()}
        if config.num_attention_heads % qkv_groups:
            raise ValueError(f"{config.num_attention_heads} heads do not divide into qkv_groups {qkv_groups}")
        for name in [name for name in named if name.endswith(".attn.qkv_proj.weight")]:
            joint = named.pop(name)
            if len(joint) % (3 * qkv_groups):
                raise ValueError(f"{name}: {len(joint)} rows do not divide into {qkv_groups} groups of q, v, k")
            groups = joint.reshape(qkv_groups, 3, -1, joint.shape[1])
            for place, part in enumerate("qvk"):
                named[name.replace("attn.qkv_proj", f"self_attn.{part}_proj")] = groups[:, place].flatten(0, 1)
    if config.tie_word_embeddings and "model.embed_tokens.weight" in named:
        named["lm_head.weight"] = named["model.embed_tokens.weight"]
    return named


def _is_head(name: str) -> bool:
    return name == "lm_head.weight"


def _renamed(name: str, to_theirs: bool) -> str:
    for ours, theirs in _CODEGEN_NAMES:
        name = name.replace(ours, theirs) if to_theirs else name.replace(theirs, ours)
    return name
