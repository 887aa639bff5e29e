import json

import pytest
import torch
from codesieve.train import families
from codesieve.train.config import ModelConfig
from codesieve.train.model import Decoder
from hypothesis import given
from hypothesis import strategies as st

FAMILIES = {
    "llama": ModelConfig(num_key_value_heads=2, rope_theta=5000.0, tie_word_embeddings=False, norm_eps=1e-6),
    "cohere": ModelConfig(family="cohere", num_key_value_heads=1, logit_scale=0.5, rope_theta=5000.0),
    "codegen": ModelConfig(family="codegen", tie_word_embeddings=False, rotary_dim=16, intermediate_size=300),
}
PARTS = ("q_proj", "k_proj", "v_proj")


@pytest.mark.parametrize("config", FAMILIES.values(), ids=list(FAMILIES))
def test_a_config_survives_the_way_there_and_back(config):
    facts = json.loads(json.dumps(families.to_config(config, 500, 64, 7)))
    assert families.from_config(facts, "here") == (config, 500, 64)
    assert (facts["bos_token_id"], facts["eos_token_id"]) == (7, 7)


@pytest.mark.parametrize("config", FAMILIES.values(), ids=list(FAMILIES))
def test_weights_survive_the_way_there_and_back(config):
    state = Decoder(config, 40, 64).state_dict()
    back = families.from_weights(config, families.to_weights(config, state))
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_codegen_has_the_names_of_transformers():
    names = families.to_weights(FAMILIES["codegen"], Decoder(FAMILIES["codegen"], 40, 64).state_dict())
    layer = ("ln_1.weight", "ln_1.bias", "attn.qkv_proj.weight", "attn.out_proj.weight", "mlp.fc_in.weight",
             "mlp.fc_in.bias", "mlp.fc_out.weight", "mlp.fc_out.bias")  # fmt: skip
    expected = {f"transformer.h.{number}.{name}" for number in range(4) for name in layer}
    outside = {"transformer.wte.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"}
    assert set(names) == expected | outside | {"lm_head.weight", "lm_head.bias"}


@given(groups=st.sampled_from([1, 2, 4, 8]), heads_per_group=st.integers(1, 3), size=st.sampled_from([2, 4]))
def test_groups_of_queries_values_and_keys_are_taken_apart_by_their_definition(groups, heads_per_group, size):
    """Each group holds queries, then values, then keys of its heads; heads count on from group to group."""
    heads = groups * heads_per_group
    config = ModelConfig(
        family="codegen",
        hidden_size=4 * heads * size,
        num_attention_heads=4 * heads,
        num_key_value_heads=4 * heads,
        num_hidden_layers=1,
        tie_word_embeddings=False,
    )
    joint, rows = [], {"q": [], "k": [], "v": []}
    for group in range(groups):
        for part in "qvk":
            for head in range(group * 4 * heads_per_group, (group + 1) * 4 * heads_per_group):
                label = torch.full((size, 1), 3 * head + "qkv".index(part), dtype=torch.float32)
                joint.append(label)
                rows[part].append(label)
    weights = families.from_weights(config, {"transformer.h.0.attn.qkv_proj.weight": torch.cat(joint)}, groups)
    for part, name in zip("qkv", PARTS, strict=True):
        assert torch.equal(weights[f"model.layers.0.self_attn.{name}.weight"], torch.cat(rows[part]))


def test_groups_that_do_not_fit_are_refused():
    config = FAMILIES["codegen"]
    with pytest.raises(ValueError, match="4 heads do not divide into qkv_groups 8"):
        families.from_weights(config, {}, 8)


def facts(family="llama", **changes):
    return {**families.to_config(FAMILIES[family], 500, 64, 0), **changes}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (facts(model_type="gpt2"), "here: model_type 'gpt2'; known: llama, cohere, codegen"),
        (facts(attention_bias=True), "here: attention_bias True: not computed here; train with `backend"),
        (facts(mlp_bias=True), "mlp_bias True"),
        (facts(hidden_act="gelu"), "hidden_act 'gelu'"),
        (facts(rope_parameters={"rope_type": "llama3", "rope_theta": 1e4}), r"scaled or partial rotation \(llama3\)"),
        (facts(rope_parameters=None, rope_scaling={"type": "linear"}), r"scaled or partial rotation \(linear\)"),
        (facts(head_dim=64), "head_dim 64 times heads"),
        (facts(hidden_size=None), "here: no hidden_size"),
        (facts("cohere", use_qk_norm=True), "use_qk_norm True"),
        (facts("codegen", activation_function="relu"), "activation_function 'relu'"),
        (facts("codegen", n_head=3), "hidden_size must divide"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        families.from_config(changed, "here")


def test_keys_of_older_versions_are_understood():
    old = facts(rope_theta=500.0)
    for key in ("rope_parameters", "num_key_value_heads", "tie_word_embeddings", "head_dim", "attention_bias"):
        del old[key]
    config, _, _ = families.from_config(old, "here")
    assert (config.rope_theta, config.num_key_value_heads, config.tie_word_embeddings) == (500.0, 4, False)
    old = facts("codegen", n_inner=None)
    assert families.from_config(old, "here")[0].intermediate_size == 4 * 128


def test_tables_that_older_versions_saved_are_left_out():
    config = FAMILIES["codegen"]
    old = {"transformer.h.0.attn.causal_mask": torch.ones(1), "transformer.h.0.attn.masked_bias": torch.ones(1)}
    assert families.from_weights(config, old) == {}
    assert families.from_weights(FAMILIES["llama"], {"model.rotary_emb.inv_freq": torch.ones(1)}) == {}
