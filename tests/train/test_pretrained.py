import json

import pytest
import torch
from codesieve.train import families
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.foreign import ForeignModel
from codesieve.train.model import Decoder
from codesieve.train.pretrained import initial_model, load_model, save_model
from codesieve.train.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.3}
CONFIGS = {
    "tied llama": ModelConfig(**SHAPE, num_key_value_heads=2, rope_theta=5000.0),
    "untied llama": ModelConfig(**SHAPE, tie_word_embeddings=False),
    "tied cohere": ModelConfig(family="cohere", **SHAPE, num_key_value_heads=2, logit_scale=0.5),
    "untied cohere": ModelConfig(family="cohere", **SHAPE, tie_word_embeddings=False),
    "codegen": ModelConfig(family="codegen", **SHAPE, tie_word_embeddings=False, rotary_dim=4),
}
VOCAB = 300

every_family = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["def f(x):\n    return x + 1\n" * 20, "abc abd abe xyz uvw " * 20, "for i in range(10): print(i)\n" * 9]
    folder = tmp_path_factory.mktemp("tokenizer")
    made = train_tokenizer(texts, len(SPECIAL_TOKENS) + 256 + 30)
    save_tokenizer(made, folder)
    return folder, made.get_vocab_size()


def decoder(config=CONFIGS["tied llama"], vocab_size=VOCAB):
    model = Decoder(config, vocab_size, 64, end_of_text=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.arange(len(parameter)).sin())
    return model


def theirs(config, folder=None, **settings):
    """A random model of transformers with the shape of `config`, saved by transformers."""
    import transformers

    facts = families.to_config(config, VOCAB, 64, 0)
    settings = {**{key: value for key, value in facts.items() if key != "architectures"}, **settings}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**settings)).eval()
    if folder:
        model.save_pretrained(folder)
    return model


def tokens(vocab_size=VOCAB):
    return torch.randint(0, vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model):
    found = model(tokens())
    return getattr(found, "logits", found)


@every_family
def test_transformers_loads_the_folder_and_gives_the_same_logits(config, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, vocab_size = tokenizer
    model = decoder(config, vocab_size)
    save_model(model, folder, tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = AutoTokenizer.from_pretrained(tmp_path)("def f(abc):\n    return abc", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids), atol=1e-4, rtol=0)
    assert loaded.generation_config.eos_token_id == 0


@every_family
def test_a_checkpoint_of_transformers_loads_and_gives_the_same_logits(config, tmp_path):
    model = theirs(config, tmp_path)
    torch.testing.assert_close(logits(load_model(tmp_path)), logits(model), atol=1e-4, rtol=0)


@every_family
def test_a_saved_model_loads_back_bit_by_bit(config, tokenizer, tmp_path):
    save_model(decoder(config), tokenizer[0], tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == config
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == config.tie_word_embeddings
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for name, tensor in decoder(config).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_equal_models_give_equal_files(tokenizer, tmp_path):
    for name in ("a", "b"):
        save_model(decoder(), tokenizer[0], tmp_path / name)
    with safe_open(tmp_path / "a" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # older transformers refuse a file without it
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_shards_and_narrow_weights_and_files_of_pytorch_load_too(tmp_path):
    model = theirs(CONFIGS["codegen"])
    expected = logits(model)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20kB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(load_model(tmp_path / "shards")), logits(load_model_saved(model, tmp_path / "whole")))
    for name, dtype in (("half", torch.float16), ("brain", torch.bfloat16)):
        folder = tmp_path / name
        model.config.save_pretrained(folder)
        torch.save({key: tensor.to(dtype) for key, tensor in model.state_dict().items()}, folder / "pytorch_model.bin")
        loaded = load_model(folder)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
        assert (logits(loaded) - expected).norm() < 0.03 * expected.norm()


def load_model_saved(model, folder):
    model.save_pretrained(folder)
    return load_model(folder)


def test_eight_groups_as_in_the_code_beside_codegen2(tmp_path):
    """The checkpoint is built by the definition: group g holds q, then v, then k of its eighth of the heads."""
    config = CONFIGS["codegen"].model_copy(update={"num_attention_heads": 8, "num_key_value_heads": 8})
    model = theirs(config, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in [name for name in weights if name.endswith("qkv_proj.weight")]:
        four = weights[name].view(4, 3, 8, 32)
        queries, values, keys = (four[:, part].reshape(32, 32) for part in range(3))
        rows = [part[4 * group : 4 * group + 4] for group in range(8) for part in (queries, values, keys)]
        weights[name] = torch.cat(rows)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert (logits(load_model(tmp_path)) - logits(model)).abs().max() > 1e-3  # mixed without an error
    torch.testing.assert_close(logits(load_model(tmp_path, qkv_groups=8)), logits(model), atol=1e-4, rtol=0)

    change(tmp_path, auto_map={"AutoModelForCausalLM": "modeling_codegen.CodeGenForCausalLM"})
    with pytest.raises(ValueError, match=r'auto_map.*add "qkv_groups" to the file: 8 for'):
        load_model(tmp_path)
    change(tmp_path, qkv_groups=8)
    torch.testing.assert_close(logits(load_model(tmp_path)), logits(model), atol=1e-4, rtol=0)


def change(folder, **changes):
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, **changes}))


def test_a_folder_that_does_not_fit_is_named(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        load_model(tmp_path)
    save_model(decoder(), tokenizer[0], tmp_path)
    change(tmp_path, intermediate_size=64)
    with pytest.raises(ValueError, match=r"do not fit config\.json: .*weight is \[.*and \d+ more"):
        load_model(tmp_path)
    change(tmp_path, intermediate_size=48, vocab_size=VOCAB + 1)
    with pytest.raises(ValueError, match=r"embed_tokens\.weight is \[300, 32\], not \[301, 32\]"):
        load_model(tmp_path)
    change(tmp_path, vocab_size=VOCAB, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"layers\.2\.\S+ is missing"):
        load_model(tmp_path)
    change(tmp_path, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"layers\.1\.\S+ has no place"):
        load_model(tmp_path)
    change(tmp_path, model_type="gpt2")
    with pytest.raises(ValueError, match="model_type 'gpt2'"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file"):
        save_model(decoder(), tmp_path / "nowhere", tmp_path / "out")


def test_weights_that_are_not_there_or_not_readable_are_named(tokenizer, tmp_path):
    save_model(decoder(), tokenizer[0], tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read as weights"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: cannot be read as weights"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file, nor"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": "part-1.safetensors"}}')
    with pytest.raises(ValueError, match=r"part-1\.safetensors: no such file, but"):
        load_model(tmp_path)


def test_a_fresh_model_has_the_shape_that_is_configured():
    model = initial_model(TrainConfig(model=CONFIGS["codegen"]), 400, 5, 1, torch.bfloat16)
    assert (model.config, model.vocab_size, model.end_of_text) == (CONFIGS["codegen"], 400, 5)
    assert (model.compute_dtype, model.sequence_length) == (torch.bfloat16, 512)
    assert not torch.equal(model.lm_head.weight, initial_model(TrainConfig(), 400, 5, 2, torch.float32).lm_head.weight)


@every_family
def test_a_checkpoint_brings_its_own_shape(config, tmp_path):
    model = theirs(config, tmp_path)
    ours = initial_model(TrainConfig(init_from=str(tmp_path)), VOCAB, 0, 1, torch.float32)
    assert ours.config.num_hidden_layers == 2
    torch.testing.assert_close(logits(ours), logits(model), atol=1e-4, rtol=0)


def test_any_checkpoint_trains_through_transformers(tokenizer, tmp_path):
    model = theirs(CONFIGS["tied llama"], tmp_path)
    config = TrainConfig(init_from=str(tmp_path), backend="transformers", sequence_length=64)
    wrapped = initial_model(config, VOCAB, 0, 1, torch.float32)
    assert isinstance(wrapped, ForeignModel)
    torch.testing.assert_close(logits(wrapped), logits(model), atol=1e-4, rtol=0)
    (tmp_path / "model.safetensors").unlink()
    folder, vocab_size = tokenizer
    one, two = (initial_model(config, vocab_size, 0, seed, torch.float32) for seed in (1, 1))
    assert one.vocab_size == vocab_size
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second)
    save_model(one, folder, tmp_path / "out")
    torch.testing.assert_close(logits(load_model(tmp_path / "out")), logits(one), atol=1e-4, rtol=0)


def test_rows_longer_than_the_positions_or_the_window_of_another_architecture_are_refused(tmp_path):
    theirs(CONFIGS["tied llama"], tmp_path)
    config = TrainConfig(init_from=str(tmp_path), backend="transformers", sequence_length=128)
    with pytest.raises(ValueError, match=r"made for 64 tokens .* and sequence_length is 128"):
        initial_model(config, VOCAB, 0, 1, torch.float32)
    change(tmp_path, max_position_embeddings=128)
    assert initial_model(config, VOCAB, 0, 1, torch.float32).longest == 128
    change(tmp_path, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=32)
    with pytest.raises(ValueError, match="made for 32 tokens"):
        initial_model(config, VOCAB, 0, 1, torch.float32)


@pytest.mark.parametrize("backend", ["codesieve", "transformers"])
def test_a_checkpoint_of_another_vocabulary_is_refused(backend, tokenizer, tmp_path):
    folder, vocab_size = tokenizer
    theirs(CONFIGS["tied llama"], tmp_path)
    config = TrainConfig(init_from=str(tmp_path), backend=backend, sequence_length=64)
    for wrong in (VOCAB - 1, VOCAB + 1):
        with pytest.raises(ValueError, match=f"a model of 300 token ids .*but the tokenizer has {wrong}; set `token"):
            initial_model(config, wrong, 0, 1, torch.float32)
    padded = decoder(vocab_size=vocab_size + 20)
    save_model(padded, folder, tmp_path / "padded")
    config = TrainConfig(init_from=str(tmp_path / "padded"), backend=backend, sequence_length=64)
    assert initial_model(config, vocab_size, 0, 1, torch.float32).vocab_size == vocab_size + 20
    with pytest.raises(ValueError, match="set `tokenizer` to the one"):
        initial_model(config, vocab_size + 20, 0, 1, torch.float32)


def test_an_init_from_without_a_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"init_from: .*no config\.json there"):
        initial_model(TrainConfig(init_from=str(tmp_path / "none")), VOCAB, 0, 1, torch.float32)
