"""Floating-point operations of training, and what a device can do at most: the two sides of MFU.

Counted as usual for comparison: forward and backward of every matrix product (6 operations per weight and token, the
head included whether tied or not; a look-up in the embedding is none), and causal attention at half a square,
6 L T D per token. Norms, rotations, softmax and anything computed twice do not count. The count is that of a causal row
of one document with a target everywhere: document masks let less attention be computed, bidirectional prefixes need
more, and positions without a target skip the head, uncounted all three.
"""

from __future__ import annotations

from .config import ModelConfig

PEAK_FLOPS = {
    # Dense bf16 with fp32 accumulation, without sparsity, from NVIDIA's data sheets of the products.
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,  # SXM
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA A40": 149.7e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA A10": 125e12,
    "NVIDIA A10G": 70e12,  # made for AWS's g5 instances, slower than an A10: 70 in NVIDIA's A10G data sheet
    "NVIDIA GeForce RTX 3090": 71e12,  # GA102 white paper: half the rate with fp32 accumulation
    "NVIDIA GeForce RTX 4090": 165.2e12,  # Ada white paper, likewise
}
"""Operations a second, by the name that `torch.cuda.get_device_name` gives. Whole names only: a part of an A100 (MIG)
has a longer one, and a guess would be shown as a fact."""


def peak_flops(device_name: str) -> float | None:
    """Peak of a device, or None where it is not known for sure."""
    return PEAK_FLOPS.get(device_name)


def matmul_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Weights that every token is multiplied by: those of layers and head, without embedding, norms and biases."""
    width = config.hidden_size
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * width * width + 2 * width * keys
    feedforward = (2 if config.family == "codegen" else 3) * width * config.intermediate_size
    return config.num_hidden_layers * (attention + feedforward) + vocab_size * width


def training_flops(matmul_parameters: int, layers: int, width: int, sequence_length: int) -> float:
    """Operations per token, forward and backward, of any decoder; `width` is heads times head dimension."""
    return 6.0 * matmul_parameters + 6.0 * layers * sequence_length * width


def flops_per_token(config: ModelConfig, vocab_size: int, sequence_length: int) -> float:
    """Operations per training token of one of our families."""
    parameters = matmul_parameters(config, vocab_size)
    return training_flops(parameters, config.num_hidden_layers, config.hidden_size, sequence_length)


def mfu(tokens_per_second: float, flops_per_token: float, peak: float | None, devices: int = 1) -> float | None:
    """Model FLOPs utilisation, 0 to 1, or None where the peak is not known."""
    return None if peak is None else tokens_per_second * flops_per_token / (peak * devices)
