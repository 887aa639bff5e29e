import pytest
from codesieve.train.config import ModelConfig
from codesieve.train.flops import flops_per_token, matmul_parameters, mfu, peak_flops
from codesieve.train.model import Decoder

# Shapes of GPT with 12 width² weights a layer, counted by hand: width, layers, vocabulary, length, GFLOP, head share.
TABLE = [
    (256, 4, 8192, 1024, 0.038, 0.33),
    (384, 8, 16384, 1024, 0.142, 0.27),
    (768, 12, 50304, 1024, 0.798, 0.29),
    (768, 12, 50304, 2048, 0.855, 0.27),
    (1024, 24, 50304, 2048, 2.42, 0.13),
    (2048, 24, 50304, 2048, 8.47, 0.07),
    (2560, 32, 50304, 2048, 16.9, 0.05),
]


@pytest.mark.parametrize("family", ["llama", "codegen"])
@pytest.mark.parametrize(("width", "layers", "vocabulary", "length", "gflop", "head"), TABLE)
def test_operations_are_those_of_the_published_table(family, width, layers, vocabulary, length, gflop, head):
    # Both have 12 width² weights a layer: two matrices of 4 times the width, or three of 8/3.
    config = ModelConfig(
        family=family,
        hidden_size=width,
        intermediate_size=4 * width if family == "codegen" else round(8 * width / 3),
        num_hidden_layers=layers,
        tie_word_embeddings=family == "llama",
    )
    found = flops_per_token(config, vocabulary, length)
    assert found / 1e9 == pytest.approx(gflop, rel=0.02)
    assert 6 * vocabulary * width / found == pytest.approx(head, abs=0.006)


def test_grouped_keys_and_families_count_what_they_multiply():
    grouped = ModelConfig(hidden_size=64, intermediate_size=96, num_attention_heads=8, num_key_value_heads=2)
    parallel = grouped.model_copy(update={"family": "cohere"})
    # q and o 64 x 64, k and v 16 x 64, three matrices of 96 x 64, four layers, and the head.
    expected = 4 * (2 * 64 * 64 + 2 * 16 * 64 + 3 * 96 * 64) + 100 * 64
    assert matmul_parameters(grouped, 100) == matmul_parameters(parallel, 100) == expected


@pytest.mark.parametrize("family", ["llama", "cohere", "codegen"])
def test_the_count_is_of_the_matrices_that_the_decoder_has(family):
    config = ModelConfig(
        family=family,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        tie_word_embeddings=family != "codegen",
    )
    held = sum(parameter.numel() for parameter in Decoder(config, 100, 8).matrices())
    assert matmul_parameters(config, 100) == held + 100 * 64


def test_only_whole_known_names_have_a_peak():
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    for name in ("cpu", "", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA H300", "Tesla V100-SXM2-16GB"):
        assert peak_flops(name) is None


def test_mfu_is_unknown_where_the_peak_is():
    # nanoGPT-sized: 620 k tokens/s at 0.798 GFLOP are half of an H200 (the table's 50 % column).
    assert mfu(620e3, 0.798e9, 989e12) == pytest.approx(0.5, abs=0.001)
    assert mfu(620e3, 0.798e9, 989e12, devices=2) == pytest.approx(0.25, abs=0.001)
    assert mfu(620e3, 0.798e9, None) is None
