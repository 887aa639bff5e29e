import pytest
import torch
from codesieve.train.config import ModelConfig
from codesieve.train.loss import linear_cross_entropy
from codesieve.train.model import Decoder
from torch.nn.functional import cross_entropy

VOCAB = 97
POSITIONS = [[*range(12), *range(8)], [*range(1), *range(17), *range(2)]]
SEGMENTS = [[0] * 12 + [1] * 8, [0] + [1] * 17 + [2] * 2]


def decoder(key_heads=4, tied=True, dtype=torch.float32):
    config = ModelConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    model = Decoder(config, VOCAB, 64, seed=3, compute_dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                model.get_parameter(name).add_(0.1 * torch.arange(len(parameter)).sin() + 0.01 * len(name))
    return model


def llama(model):
    from transformers import LlamaConfig, LlamaForCausalLM

    reference = LlamaForCausalLM(LlamaConfig(**model.to_hf_config(), attn_implementation="eager"))
    reference.load_state_dict(model.state_dict())
    return reference


def tokens():
    return torch.randint(0, VOCAB, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_gradients_equal_those_of_transformers(key_heads, tied):
    model = decoder(key_heads, tied)
    reference = llama(model)
    targets = torch.roll(tokens(), -1, 1)
    logits, expected = model(tokens()), reference(tokens(), use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)

    linear_cross_entropy(
        model.hidden(tokens()).flatten(0, 1), model.lm_head.weight, targets.flatten(), targets.numel()
    )[0].backward()
    cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    theirs = dict(reference.named_parameters())
    assert set(theirs) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_packed_rows_equal_separate_forwards_and_transformers(training):
    model = decoder(key_heads=2)
    reference = llama(model)
    positions, segments = torch.tensor(POSITIONS), torch.tensor(SEGMENTS)
    with torch.set_grad_enabled(training):
        packed = model(tokens(), positions, segments)
        for row in range(2):
            for segment in segments[row].unique():
                inside = segments[row] == segment
                separate = reference(tokens()[row, inside][None], use_cache=False).logits[0]
                torch.testing.assert_close(packed[row, inside], separate, atol=2e-5, rtol=1e-5)


def test_gradients_of_packed_rows_equal_those_of_separate_documents():
    positions, segments = torch.tensor(POSITIONS), torch.tensor(SEGMENTS)
    weight = torch.randn(2, 20, VOCAB, generator=torch.Generator().manual_seed(1))
    packed, separate = decoder(), decoder()
    (packed(tokens(), positions, segments) * weight).sum().backward()
    for row in range(2):
        for segment in segments[row].unique():
            inside = segments[row] == segment
            (separate(tokens()[row, inside][None])[0] * weight[row, inside]).sum().backward()
    for mine, theirs in zip(packed.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_initial_weights_depend_on_seed_and_name_alone():
    torch.manual_seed(1)
    one = decoder()
    torch.manual_seed(2)
    two, untied = decoder(), decoder(tied=False)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, two.get_parameter(name))
        assert torch.equal(parameter, untied.get_parameter(name))
    first, second = (one.get_parameter(f"model.layers.{number}.self_attn.q_proj.weight") for number in (0, 1))
    assert not torch.equal(first, second)
    other = Decoder(one.config, VOCAB, 64, seed=4)
    assert not torch.equal(other.lm_head.weight, one.lm_head.weight)
    spread = torch.cat([parameter.flatten() for parameter in other.parameters() if parameter.ndim == 2]).std()
    assert abs(spread - 0.2) < 0.01


def test_parameters_are_counted_with_and_without_embeddings():
    body = 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    assert decoder().parameter_counts() == {
        "parameters": body + VOCAB * 32,
        "parameters_without_embeddings": body,
    }
    assert decoder(tied=False).parameter_counts()["parameters"] == body + 2 * VOCAB * 32


def test_bfloat16_products_change_the_logits_little():
    exact, rounded = decoder()(tokens()), decoder(dtype=torch.bfloat16)(tokens())
    assert rounded.dtype == torch.float32
    assert (exact - rounded).norm() < 0.03 * exact.norm()
    assert not torch.equal(exact, rounded)


def test_bfloat16_gradients_reach_the_fp32_weights():
    exact, rounded = decoder(), decoder(dtype=torch.bfloat16)
    for model in (exact, rounded):
        model(tokens(), torch.tensor(POSITIONS), torch.tensor(SEGMENTS)).square().mean().backward()
    for mine, theirs in zip(rounded.parameters(), exact.parameters(), strict=True):
        assert mine.grad.dtype == torch.float32
        assert (mine.grad - theirs.grad).norm() < 0.06 * theirs.grad.norm()
