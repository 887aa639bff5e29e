"""A thin decoder of three families: Llama, Cohere's parallel block, CodeGen2. `ModelConfig.family` chooses.

`Decoder.loss` is what training calls; `Decoder(tokens)` gives logits. Logits and gradients equal those of transformers'
class with the same parameters (tested to fp32 rounding), grouped key heads and packed rows included. All families share
one module tree with the names of transformers' Llama, which are Cohere's too; `families.py` maps them to CodeGen's.
Weights stay in fp32; `compute_dtype` is that of the matrix products, the residual stream, norms, rotary embedding and
softmax stay in fp32. Every parameter is drawn from a generator of its own (seed, name), so equal seeds give equal
models whatever the device or the order of construction.

Queries, keys and values are one product. Joining gate and up to it in a parallel block, or the two ways out, gained
nothing on a CPU (within 5 % either way at hidden sizes of 128 to 512).

Shapes: B rows, T tokens, D hidden, H heads, G key heads, K head dimension, F inner size, V vocabulary.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import families
from .attention import Mask, attend
from .config import ModelConfig
from .fused import Tables, as_halves, rms_norm, rotary_tables, rotate_heads
from .loss import ValidTargets, linear_cross_entropy


class Decoder(nn.Module):
    """Embedding, layers, final norm and head. `lm_head` is the embedding itself where the config ties them."""

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        sequence_length: int,
        seed: int = 0,
        compute_dtype: torch.dtype = torch.float32,
        end_of_text: int = 0,
    ) -> None:
        """Build and initialise; on the meta device nothing is drawn.

        Args:
            sequence_length: written into the Hugging Face config; the model itself takes any length.
            seed: of the initial weights: normal with `initializer_range`, norms 1, biases 0, as in transformers.
            end_of_text: id written into the Hugging Face config.

        Raises:
            ValueError: if transformers' class of the family could not compute what `config` asks for.
        """
        super().__init__()
        self.config, self.vocab_size, self.sequence_length = config, vocab_size, sequence_length
        self.compute_dtype, self.end_of_text = compute_dtype, end_of_text
        self.model = _Body(config, vocab_size)
        self.lm_head = _Matrix(vocab_size, config.hidden_size, bias=config.family == "codegen")
        self.tie()
        self.initialise(seed)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, mask: Mask | None = None) -> Tensor:
        """Logits_BTV in fp32."""
        logits_BTV: Tensor = self.lm_head(self.hidden(tokens_BT, positions_BT, mask), self.compute_dtype).float()
        return logits_BTV if self.config.logit_scale == 1.0 else logits_BTV * self.config.logit_scale

    def hidden(self, tokens_BT: Tensor, positions_BT: Tensor | None = None, mask: Mask | None = None) -> Tensor:
        """Output of the final norm, fp32.

        Args:
            positions_BT: of each token in its document; default: in its row.
            mask: what each token sees; default: its row up to itself. Packed documents need positions too.
        """
        rows, time = tokens_BT.shape
        if positions_BT is None:
            positions_BT = torch.arange(time, device=tokens_BT.device)[None]
        if mask is None:
            mask = Mask.causal(rows, time, tokens_BT.device)
        config = self.config
        tables = rotary_tables(positions_BT, config.rotary_dim or config.head_dim, config.rope_theta)
        x_BTD = F.embedding(tokens_BT, self.model.embed_tokens.weight)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, tables, mask, self.compute_dtype)
        return self.model.norm(x_BTD)  # type: ignore[no-any-return]

    def loss(
        self,
        tokens_BT: Tensor,
        targets_BT: Tensor,
        positions_BT: Tensor | None,
        mask: Mask | None,
        valid_targets: ValidTargets,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The loss to differentiate and losses_BT in nats; see `linear_cross_entropy`."""
        hidden_BTD = self.hidden(tokens_BT, positions_BT, mask)
        loss, losses_N = linear_cross_entropy(
            hidden_BTD.flatten(0, 1),
            self.lm_head.weight,
            targets_BT.flatten(),
            valid_targets,
            self.compute_dtype,
            bias_V=self.lm_head.bias,
            logit_scale=self.config.logit_scale,
            z_loss=z_loss,
        )
        return loss, losses_N.view(targets_BT.shape)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters in all, and without embedding and head."""
        total = sum(parameter.numel() for parameter in self.parameters())
        body = sum(parameter.numel() for name, parameter in self.named_parameters() if _in_body(name))
        return {"parameters": total, "parameters_without_embeddings": body}

    def matrices(self) -> list[nn.Parameter]:
        """The 2-D parameters of the layers."""
        return [parameter for parameter in self.model.layers.parameters() if parameter.ndim == 2]

    def to_hf_config(self) -> dict[str, Any]:
        """The content of `config.json`: with it transformers computes what this module computes."""
        return families.to_config(self.config, self.vocab_size, self.sequence_length, self.end_of_text)

    def tie(self) -> None:
        """Make the head the embedding where the config says so; needed again after parameters were replaced."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw the initial weights of `seed`."""
        for name, parameter in self.named_parameters():
            if parameter.is_meta:
                continue
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            drawn = parameter if parameter.device.type == "cpu" else torch.empty(parameter.shape, device="cpu")
            parameter.copy_(drawn.normal_(0.0, self.config.initializer_range, generator=generator))


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
        self.is_parallel = config.family != "llama"
        if not self.is_parallel:
            self.post_attention_layernorm = _Norm(config)

    def forward(self, x_BTD: Tensor, tables: Tables, mask: Mask, dtype: torch.dtype) -> Tensor:
        normed_BTD = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.self_attn(normed_BTD, tables, mask, dtype)
        if not self.is_parallel:
            normed_BTD = self.post_attention_layernorm(x_BTD)
        return x_BTD + self.mlp(normed_BTD, dtype)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.interleaved = (config.rotary_dim or size) if config.family != "llama" else 0
        self.q_proj = _Matrix(self.heads * size, config.hidden_size)
        self.k_proj = _Matrix(self.key_heads * size, config.hidden_size)
        self.v_proj = _Matrix(self.key_heads * size, config.hidden_size)
        self.o_proj = _Matrix(config.hidden_size, self.heads * size)

    def forward(self, x_BTD: Tensor, tables: Tables, mask: Mask, dtype: torch.dtype) -> Tensor:
        # One product for the three: joining the weights costs far less than two more passes over the activations.
        query: Tensor = self.q_proj.weight
        key: Tensor = self.k_proj.weight
        if self.interleaved:
            query = as_halves(query, self.heads, self.interleaved)
            key = as_halves(key, self.key_heads, self.interleaved)
        weight = torch.cat((query, key, self.v_proj.weight))
        qkv_BTC = F.linear(x_BTD.to(dtype), weight.to(dtype))
        q_BHTK, k_BGTK, v_BGTK = rotate_heads(qkv_BTC, tables, self.heads, self.key_heads)
        if x_BTD.device.type != "cpu":
            q_BHTK, k_BGTK, v_BGTK = q_BHTK.to(dtype), k_BGTK.to(dtype), v_BGTK.to(dtype)
        out_BTD = attend(q_BHTK, k_BGTK, v_BGTK, mask).flatten(2)
        return self.o_proj(out_BTD, dtype)  # type: ignore[no-any-return]


class _Feedforward(nn.Module):
    """SwiGLU, or for codegen GELU (tanh form) with biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_gated = config.family != "codegen"
        if self.is_gated:
            self.gate_proj = _Matrix(config.intermediate_size, config.hidden_size)
        self.up_proj = _Matrix(config.intermediate_size, config.hidden_size, bias=not self.is_gated)
        self.down_proj = _Matrix(config.hidden_size, config.intermediate_size, bias=not self.is_gated)

    def forward(self, x_BTD: Tensor, dtype: torch.dtype) -> Tensor:
        x_BTD = x_BTD.to(dtype)
        up_BTF = self.up_proj(x_BTD, dtype)
        if self.is_gated:
            inner_BTF = F.silu(self.gate_proj(x_BTD, dtype)) * up_BTF
        else:
            inner_BTF = F.gelu(up_BTF, approximate="tanh")
        return self.down_proj(inner_BTF, dtype)  # type: ignore[no-any-return]


class _Matrix(nn.Module):
    """A weight [output, input] and perhaps a bias; `nn.Linear` would draw them from the global generator."""

    def __init__(self, outputs: int, inputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        bias = None if self.bias is None else self.bias.to(dtype)
        return F.linear(x.to(dtype), self.weight.to(dtype), bias)


class _Norm(nn.Module):
    """RMSNorm for llama, LayerNorm for the others, with a bias for codegen."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self.bias = nn.Parameter(torch.empty(config.hidden_size)) if config.family == "codegen" else None
        self.epsilon, self.is_rms = config.norm_eps, config.family == "llama"

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.is_rms:
            return rms_norm(x_BTD, self.weight, self.epsilon)
        return F.layer_norm(x_BTD, self.weight.shape, self.weight, self.bias, self.epsilon)


def _in_body(name: str) -> bool:
    return not name.startswith(("lm_head.", "model.embed_tokens."))
