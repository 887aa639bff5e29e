"""A thin decoder of the Llama family whose parameters carry transformers' names.

`Decoder(tokens)` gives logits, `Decoder.hidden(tokens)` what comes before the head, for a loss that never holds all
logits. Logits and gradients equal `transformers.LlamaForCausalLM` with the same parameters (tested to fp32 rounding),
grouped key heads and packed rows included. Weights stay in fp32; `compute_dtype` is that of the matrix products, the
residual stream, norms, rotary embedding and softmax stay in fp32. Every parameter is drawn from a generator of its own
(seed, name), so equal seeds give equal models whatever the device or the order of construction.

Shapes: B rows, T tokens, D hidden, H heads, G key heads, K head dimension, F inner size, V vocabulary.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Mask, attend
from .config import ModelConfig
from .fused import rms_norm, rotary_tables, rotate_heads, swiglu
from .tokenizer import END_OF_TEXT_ID


class Decoder(nn.Module):
    """Embedding, layers, final norm and head. `lm_head` is the embedding itself where the config ties them."""

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        sequence_length: int,
        seed: int = 0,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Build and initialise.

        Args:
            sequence_length: written into the Hugging Face config; the model itself takes any length.
            seed: of the initial weights: normal with `initializer_range`, norms 1, as in transformers.
        """
        super().__init__()
        self.config, self.vocab_size, self.sequence_length = config, vocab_size, sequence_length
        self.compute_dtype = compute_dtype
        self.model = _Body(config, vocab_size)
        self.lm_head = _Matrix(vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._initialise(seed)

    def forward(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, segments_BT: Tensor | None = None
    ) -> Tensor:
        """Logits_BTV in fp32. `segments_BT` isolates documents packed into a row; then give their positions too."""
        hidden_BTD = self.hidden(tokens_BT, positions_BT, segments_BT)
        return _linear(hidden_BTD, self.lm_head.weight, self.compute_dtype).float()

    def hidden(
        self, tokens_BT: Tensor, positions_BT: Tensor | None = None, segments_BT: Tensor | None = None
    ) -> Tensor:
        """Output of the final norm, fp32."""
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        config = self.config
        tables = rotary_tables(positions_BT, config.hidden_size // config.num_attention_heads, config.rope_theta)
        mask = Mask.of(tokens_BT, segments_BT)
        x_BTD = F.embedding(tokens_BT, self.model.embed_tokens.weight)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, tables, mask, self.compute_dtype)
        return self.model.norm(x_BTD)  # type: ignore[no-any-return]

    def parameter_counts(self) -> dict[str, int]:
        """Parameters in all, and without embedding and head."""
        total = sum(parameter.numel() for parameter in self.parameters())
        tables = {id(self.lm_head.weight), id(self.model.embed_tokens.weight)}
        body = sum(parameter.numel() for parameter in self.parameters() if id(parameter) not in tables)
        return {"parameters": total, "parameters_without_embeddings": body}

    def to_hf_config(self) -> dict[str, Any]:
        """The content of `config.json`: with it `LlamaForCausalLM` computes what this module computes."""
        config = self.config
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "head_dim": config.hidden_size // config.num_attention_heads,
            "hidden_act": "silu",
            "max_position_embeddings": self.sequence_length,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "rms_norm_eps": config.norm_eps,
            "initializer_range": config.initializer_range,
            "tie_word_embeddings": config.tie_word_embeddings,
            "attention_bias": False,
            "mlp_bias": False,
            "dtype": "float32",
            "bos_token_id": END_OF_TEXT_ID,
            "eos_token_id": END_OF_TEXT_ID,
        }

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            parameter.normal_(0.0, self.config.initializer_range, generator=generator)


class _Body(nn.Module):
    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embed_tokens = _Matrix(vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(config)


class _Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _Feedforward(config)
        self.input_layernorm = _Norm(config)
        self.post_attention_layernorm = _Norm(config)

    def forward(self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Mask, dtype: torch.dtype) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), tables, mask, dtype)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD), dtype)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        size = config.hidden_size // config.num_attention_heads
        self.q_proj = _Matrix(self.heads * size, config.hidden_size)
        self.k_proj = _Matrix(self.key_heads * size, config.hidden_size)
        self.v_proj = _Matrix(self.key_heads * size, config.hidden_size)
        self.o_proj = _Matrix(config.hidden_size, self.heads * size)

    def forward(self, x_BTD: Tensor, tables: tuple[Tensor, Tensor], mask: Mask, dtype: torch.dtype) -> Tensor:
        # One product for the three: joining the weights costs far less than two more passes over the activations.
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        q_BHTK, k_BGTK, v_BGTK = rotate_heads(_linear(x_BTD, weight, dtype), tables, self.heads, self.key_heads)
        if x_BTD.device.type != "cpu":
            q_BHTK, k_BGTK, v_BGTK = q_BHTK.to(dtype), k_BGTK.to(dtype), v_BGTK.to(dtype)
        out_BTD = attend(q_BHTK, k_BGTK, v_BGTK, mask).flatten(2)
        return _linear(out_BTD, self.o_proj.weight, dtype)


class _Feedforward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = _Matrix(config.intermediate_size, config.hidden_size)
        self.up_proj = _Matrix(config.intermediate_size, config.hidden_size)
        self.down_proj = _Matrix(config.hidden_size, config.intermediate_size)

    def forward(self, x_BTD: Tensor, dtype: torch.dtype) -> Tensor:
        x_BTD = x_BTD.to(dtype)
        gate_BTF, up_BTF = _linear(x_BTD, self.gate_proj.weight, dtype), _linear(x_BTD, self.up_proj.weight, dtype)
        return _linear(swiglu(gate_BTF, up_BTF), self.down_proj.weight, dtype)


class _Matrix(nn.Module):
    """A weight [output, input] under its Hugging Face name; `nn.Linear` would draw it from the global generator."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))


class _Norm(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.epsilon = config.norm_eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return rms_norm(x_BTD, self.weight, self.epsilon)


def _linear(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight.to(dtype))
