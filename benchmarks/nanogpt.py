"""The baseline a good engineer writes in an afternoon: one decoder in plain PyTorch, after Karpathy's nanoGPT.

`nn.Linear`, `scaled_dot_product_attention(is_causal=True)`, `F.cross_entropy` on whole logits, autocast, fused AdamW
and `torch.compile` around all of it. No document masks, no packing, no chunked loss, nothing of `codesieve.train` but
the shapes (`ModelConfig`), so that `benchmarks/train.py` can compare. It computes the same function as `Decoder` with
the same weights (tested), for the three families: sequential block with RMSNorm (llama), parallel block with LayerNorm
and SwiGLU (cohere), parallel block with biases and GELU (codegen).
"""

from __future__ import annotations

import torch
from codesieve.train.config import ModelConfig
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100


class NanoGPT(nn.Module):
    """tokens_BT, targets_BT -> mean loss over the targets that are not `IGNORED`."""

    def __init__(self, config: ModelConfig, vocab_size: int, sequence_length: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = _norm(config)
        self.head = nn.Linear(config.hidden_size, vocab_size, bias=config.family == "codegen")
        if config.tie_word_embeddings:
            self.head.weight = self.embedding.weight
        cosine_TK, sine_TK = _angles(config, sequence_length)
        self.register_buffer("cosine_TK", cosine_TK, persistent=False)
        self.register_buffer("sine_TK", sine_TK, persistent=False)
        self.apply(self._initialise)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        time = tokens_BT.shape[1]
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.cosine_TK[:time], self.sine_TK[:time])
        logits_BTV = self.head(self.norm(x_BTD)) * self.config.logit_scale
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED)

    def optimizer(self, rate: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
        """Matrices decay, vectors do not, as in nanoGPT."""
        parameters = list(self.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class Block(nn.Module):
    """Attention and feed-forward: one after the other, or side by side on the same norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.is_parallel = config.family != "llama"
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.feedforward = GELU(config) if config.family == "codegen" else SwiGLU(config)
        if not self.is_parallel:
            self.feedforward_norm = _norm(config)

    def forward(self, x_BTD: Tensor, cosine_TK: Tensor, sine_TK: Tensor) -> Tensor:
        normed_BTD = self.attention_norm(x_BTD)
        if self.is_parallel:
            return x_BTD + self.attention(normed_BTD, cosine_TK, sine_TK) + self.feedforward(normed_BTD)
        x_BTD = x_BTD + self.attention(normed_BTD, cosine_TK, sine_TK)
        return x_BTD + self.feedforward(self.feedforward_norm(x_BTD))


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.is_interleaved = config.family != "llama"
        self.qkv = nn.Linear(config.hidden_size, (self.heads + 2 * self.key_heads) * self.size, bias=False)
        self.out = nn.Linear(self.heads * self.size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cosine_TK: Tensor, sine_TK: Tensor) -> Tensor:
        batch, time, _ = x_BTD.shape
        heads_BATK = self.qkv(x_BTD).view(batch, time, -1, self.size).transpose(1, 2)
        q_BHTK, k_BGTK, v_BGTK = heads_BATK.split((self.heads, self.key_heads, self.key_heads), dim=1)
        q_BHTK = rotate(q_BHTK, cosine_TK, sine_TK, self.is_interleaved)
        k_BGTK = rotate(k_BGTK, cosine_TK, sine_TK, self.is_interleaved)
        is_grouped = self.heads != self.key_heads
        out_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=is_grouped)
        return self.out(out_BHTK.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))


class GELU(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD), approximate="tanh"))


def rotate(x_BHTK: Tensor, cosine_TK: Tensor, sine_TK: Tensor, is_interleaved: bool) -> Tensor:
    """Turn pairs of the first dimensions: (i, i + half) or (2 i, 2 i + 1); the tables have half of those dimensions."""
    turned = 2 * cosine_TK.shape[-1]
    part_BHTK, rest_BHTK = x_BHTK[..., :turned], x_BHTK[..., turned:]
    a, b = (part_BHTK[..., ::2], part_BHTK[..., 1::2]) if is_interleaved else part_BHTK.chunk(2, dim=-1)
    pair = (a * cosine_TK - b * sine_TK, b * cosine_TK + a * sine_TK)
    part_BHTK = torch.stack(pair, dim=-1).flatten(-2) if is_interleaved else torch.cat(pair, dim=-1)
    return torch.cat((part_BHTK, rest_BHTK), dim=-1).to(x_BHTK.dtype)


def _angles(config: ModelConfig, sequence_length: int) -> tuple[Tensor, Tensor]:
    turned = config.rotary_dim or config.head_dim
    frequencies = config.rope_theta ** (-torch.arange(0, turned, 2) / turned)
    angles_TK = torch.outer(torch.arange(sequence_length).float(), frequencies)
    return angles_TK.cos(), angles_TK.sin()


def _norm(config: ModelConfig) -> nn.Module:
    if config.family == "llama":
        return nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.family == "codegen")
