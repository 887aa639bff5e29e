import json

import pytest
import torch
from codesieve.strict import CONFIGS, parse, read_yaml
from codesieve.train.checkpoint import load_model, save_model
from codesieve.train.config import ModelConfig
from codesieve.train.model import Decoder
from codesieve.train.tokenizer import save_tokenizer, train_tokenizer
from safetensors import safe_open


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(["def f(x):\n    return x + 1\n" * 20, "abc abd abe xyz uvw " * 20], 285), folder)
    return folder


def decoder(tied=True):
    config = ModelConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        rope_theta=5000.0,
        initializer_range=0.3,
    )
    return Decoder(config, 285, 64)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_the_folder_and_gives_the_same_logits(tied, tokenizer_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(decoder(tied), tokenizer_folder, tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = AutoTokenizer.from_pretrained(tmp_path)("def f(abc):\n    return abc", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, decoder(tied)(ids), atol=1e-4, rtol=0)
    assert loaded.generation_config.eos_token_id == 0


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_back_bit_by_bit(tied, tokenizer_folder, tmp_path):
    save_model(decoder(tied), tokenizer_folder, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == decoder(tied).config
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    for name, tensor in decoder(tied).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_equal_models_give_equal_files(tokenizer_folder, tmp_path):
    for name in ("a", "b"):
        save_model(decoder(), tokenizer_folder, tmp_path / name)
    with safe_open(tmp_path / "a" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # older transformers refuse a file without it
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_that_does_not_fit_is_named(tokenizer_folder, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        load_model(tmp_path)
    save_model(decoder(), tokenizer_folder, tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, "hidden_size": 64}))
    with pytest.raises(ValueError, match="does not fit"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**facts, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type 'gpt2'"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file"):
        save_model(decoder(), tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("path", sorted((CONFIGS / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_a_model_config(path):
    assert parse(ModelConfig, read_yaml(path), str(path)).num_hidden_layers > 0
