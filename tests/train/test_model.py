import pytest
import torch
from codesieve.train import families
from codesieve.train.attention import Mask
from codesieve.train.config import ModelConfig
from codesieve.train.model import Decoder
from torch.nn.functional import cross_entropy

VOCAB = 97
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FLAGS = {
    "llama": {},
    "llama-grouped": {"num_key_value_heads": 2, "tie_word_embeddings": False, "rope_theta": 500.0},
    "llama-one-key-head": {"num_key_value_heads": 1},
    "cohere": {"family": "cohere", "logit_scale": 0.25},
    "cohere-grouped": {"family": "cohere", "num_key_value_heads": 2, "tie_word_embeddings": False},
    "codegen": {"family": "codegen", "tie_word_embeddings": False, "rotary_dim": 4},
    "codegen-all-turn": {"family": "codegen", "tie_word_embeddings": False, "num_attention_heads": 8, "num_key_value_heads": 8},
}  # fmt: skip
POSITIONS = torch.tensor([[*range(12), *range(8)], [*range(1), *range(17), *range(2)]])
SEGMENTS = torch.tensor([[0] * 12 + [1] * 8, [0] + [1] * 17 + [2] * 2])

every_family = pytest.mark.parametrize("name", FLAGS)


def decoder(name="llama", dtype=torch.float32, seed=3):
    model = Decoder(ModelConfig(initializer_range=0.2, **SHAPE | FLAGS[name]), VOCAB, 64, seed, dtype)
    with torch.no_grad():  # norms that are not 1 and biases that are not 0
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.arange(len(parameter)).sin() + 0.01 * len(parameter_name))
    return model


def reference(model):
    import transformers

    facts = dict(model.to_hf_config())
    name = facts.pop("architectures")[0]
    config = getattr(transformers, name.replace("ForCausalLM", "Config"))(**facts)
    theirs = getattr(transformers, name)._from_config(config, attn_implementation="eager")
    weights = families.to_weights(model.config, model.state_dict())
    if model.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    theirs.load_state_dict(weights)
    return theirs


def tokens():
    return torch.randint(0, VOCAB, (2, 20), generator=torch.Generator().manual_seed(0))


@every_family
def test_logits_and_gradients_equal_those_of_transformers(name):
    model = decoder(name)
    theirs = reference(model)
    targets = torch.roll(tokens(), -1, 1)
    logits, expected = model(tokens()), theirs(tokens(), use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)

    loss, losses = model.loss(tokens(), targets, None, None, targets.numel())
    expected_loss = cross_entropy(expected.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(losses.mean(), expected_loss)
    loss.backward()
    expected_loss.backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    gradients = families.to_weights(model.config, gradients)
    assert set(gradients) == {key for key, _ in theirs.named_parameters()}
    for key, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, atol=2e-5, rtol=1e-4, msg=key)


@every_family
@pytest.mark.parametrize("training", [True, False])
def test_packed_rows_equal_separate_forwards_and_transformers(name, training):
    model = decoder(name)
    theirs = reference(model)
    with torch.set_grad_enabled(training):
        packed = model(tokens(), POSITIONS, Mask.from_segments(SEGMENTS))
        for row in range(2):
            for segment in SEGMENTS[row].unique():
                inside = SEGMENTS[row] == segment
                separate = theirs(tokens()[row, inside][None], use_cache=False).logits[0]
                torch.testing.assert_close(packed[row, inside], separate, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "cohere", "codegen"])
def test_gradients_of_packed_rows_equal_those_of_separate_documents(name):
    weight = torch.randn(2, 20, VOCAB, generator=torch.Generator().manual_seed(1))
    packed, separate = decoder(name), decoder(name)
    (packed(tokens(), POSITIONS, Mask.from_segments(SEGMENTS)) * weight).sum().backward()
    for row in range(2):
        for segment in SEGMENTS[row].unique():
            inside = SEGMENTS[row] == segment
            (separate(tokens()[row, inside][None])[0] * weight[row, inside]).sum().backward()
    for mine, theirs in zip(packed.parameters(), separate.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "cohere", "codegen"])
def test_prefixes_equal_transformers_with_the_same_4d_mask(name):
    model = decoder(name)
    prefixes = torch.tensor([[5] * 12 + [0] * 8, [1] + [17] * 17 + [0] * 2])
    mask = Mask.from_segments(SEGMENTS, prefixes)
    added = torch.zeros(2, 1, 20, 20).masked_fill(~mask.dense(), torch.finfo(torch.float32).min)
    expected = reference(model)(tokens(), attention_mask=added, position_ids=POSITIONS, use_cache=False).logits
    torch.testing.assert_close(model(tokens(), POSITIONS, mask), expected, atol=2e-5, rtol=1e-5)


@every_family
def test_compiled_code_takes_the_plain_expressions_and_gives_the_same(name, monkeypatch):
    eager, plain = decoder(name), decoder(name)
    mask = Mask.from_segments(SEGMENTS)
    loss = eager.loss(tokens(), tokens(), POSITIONS, mask, 40)[0]
    loss.backward()
    monkeypatch.setattr("codesieve.train.fused._by_hand", lambda _: False)
    other = plain.loss(tokens(), tokens(), POSITIONS, mask, 40)[0]
    other.backward()
    torch.testing.assert_close(loss, other)
    for mine, theirs in zip(eager.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_the_loss_compiles_to_one_graph():
    config = ModelConfig(**SHAPE | FLAGS["codegen"] | {"num_hidden_layers": 1})
    model = Decoder(config, VOCAB, 64)
    compiled = torch.compile(model.loss, fullgraph=True, dynamic=False, backend="eager")
    arguments = (tokens(), tokens(), POSITIONS, Mask.from_segments(SEGMENTS), torch.tensor(40.0))
    loss, losses = compiled(*arguments)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected, expected_losses = model.loss(*arguments)
    expected.backward()
    torch.testing.assert_close((loss, losses), (expected, expected_losses))
    for mine, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, atol=1e-5, rtol=1e-4)


def test_initial_weights_depend_on_seed_and_name_alone():
    torch.manual_seed(1)
    one = decoder()
    torch.manual_seed(2)
    two, untied, parallel = decoder(), decoder("llama-grouped"), decoder("codegen")
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, two.get_parameter(name))
        if ".layers." not in name or "mlp" in name:
            assert torch.equal(parameter, untied.get_parameter(name))
    assert torch.equal(one.model.embed_tokens.weight, parallel.model.embed_tokens.weight)
    first, second = (one.get_parameter(f"model.layers.{number}.self_attn.q_proj.weight") for number in (0, 1))
    assert not torch.equal(first, second)
    other = decoder(seed=4)
    assert not torch.equal(other.lm_head.weight, one.lm_head.weight)
    spread = torch.cat([parameter.flatten() for parameter in other.parameters() if parameter.ndim == 2]).std()
    assert abs(spread - 0.2) < 0.01


@every_family
def test_norms_start_at_one_and_biases_at_zero(name):
    model = Decoder(ModelConfig(**SHAPE | FLAGS[name]), VOCAB, 64)
    for parameter_name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (0 if parameter_name.endswith("bias") else 1)).all()
    has_biases = any(parameter_name.endswith("bias") for parameter_name, _ in model.named_parameters())
    assert has_biases == name.startswith("codegen")


def test_on_the_meta_device_nothing_is_drawn():
    with torch.device("meta"):
        model = Decoder(ModelConfig(hidden_size=8192, num_attention_heads=64, num_key_value_heads=64), 1 << 17, 64)
    assert model.lm_head.weight.is_meta
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_parameters_are_counted_with_and_without_embeddings():
    body = 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    assert decoder().parameter_counts() == {
        "parameters": body + VOCAB * 32,
        "parameters_without_embeddings": body,
    }
    grouped = body - 2 * 2 * 16 * 32
    assert decoder("llama-grouped").parameter_counts()["parameters"] == grouped + 2 * VOCAB * 32
    codegen = 2 * (4 * 32 * 32 + 2 * 32 * 48 + 48 + 32 + 2 * 32) + 2 * 32
    assert decoder("codegen").parameter_counts() == {
        "parameters": codegen + 2 * VOCAB * 32 + VOCAB,
        "parameters_without_embeddings": codegen,
    }


def test_matrices_are_the_weights_of_the_layers():
    for name, count in (("llama", 7), ("cohere", 7), ("codegen", 6)):
        model = decoder(name)
        assert len(model.matrices()) == 2 * count
        tables = {id(model.lm_head.weight), id(model.model.embed_tokens.weight)}
        assert not tables & {id(matrix) for matrix in model.matrices()}


@pytest.mark.parametrize("name", ["llama", "cohere", "codegen"])
def test_bfloat16_products_change_logits_and_gradients_little(name):
    exact, rounded = decoder(name), decoder(name, torch.bfloat16)
    mask = Mask.from_segments(SEGMENTS)
    outputs = [model(tokens(), POSITIONS, mask) for model in (exact, rounded)]
    assert outputs[1].dtype == torch.float32
    assert not torch.equal(*outputs)
    assert (outputs[0] - outputs[1]).norm() < 0.03 * outputs[0].norm()
    for output in outputs:
        output.square().mean().backward()
    for mine, theirs in zip(rounded.parameters(), exact.parameters(), strict=True):
        assert mine.grad.dtype == torch.float32
        assert (mine.grad - theirs.grad).norm() < 0.06 * theirs.grad.norm()


def test_what_transformers_cannot_compute_is_refused_before_training():
    with pytest.raises(ValueError, match="rope_theta 500; transformers' CodeGen"):
        Decoder(ModelConfig(family="codegen", tie_word_embeddings=False, rope_theta=500), VOCAB, 64)
