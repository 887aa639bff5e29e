import pytest
import torch
import transformers
from codesieve.train.attention import Mask
from codesieve.train.foreign import ForeignModel
from codesieve.train.rows import IGNORED

VOCAB = 97
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
POSITIONS = torch.tensor([[*range(12), *range(8)], [*range(1), *range(17), *range(2)]])
SEGMENTS = torch.tensor([[0] * 12 + [1] * 8, [0] + [1] * 17 + [2] * 2])

every_architecture = pytest.mark.parametrize("kind", ["gpt_neox", "qwen2", "mistral", "gpt2", "codegen"])


def network(kind, **settings):
    shape = {**SHAPE, "sliding_window": None} if kind == "mistral" else dict(SHAPE)
    if kind in {"gpt_neox", "codegen", "gpt2"}:
        del shape["num_key_value_heads"]
    if kind in {"gpt2", "codegen"}:
        shape["n_inner"] = shape.pop("intermediate_size")
    if kind == "codegen":
        shape["rotary_dim"] = 4
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **shape, **settings))


def tokens():
    return torch.randint(0, VOCAB, (2, 20), generator=torch.Generator().manual_seed(0))


@every_architecture
def test_packed_rows_equal_separate_forwards(kind):
    model = ForeignModel(network(kind), torch.float32, 0)
    packed = model(tokens(), POSITIONS, Mask.from_segments(SEGMENTS))
    for row in range(2):
        for segment in SEGMENTS[row].unique():
            inside = SEGMENTS[row] == segment
            separate = model.network(tokens()[row, inside][None], use_cache=False).logits[0]
            torch.testing.assert_close(packed[row, inside], separate, atol=2e-5, rtol=1e-5)


@every_architecture
def test_the_loss_of_one_document_is_that_of_transformers(kind):
    ours, theirs = ForeignModel(network(kind), torch.float32, 0), network(kind).eval()
    theirs.get_input_embeddings().padding_idx = None
    targets = torch.full_like(tokens(), IGNORED)
    targets[:, :-1] = tokens()[:, 1:]
    loss, losses = ours.loss(tokens(), targets, None, None, int((targets != IGNORED).sum()))
    expected = theirs(tokens(), labels=tokens(), use_cache=False).loss
    torch.testing.assert_close(loss, expected)
    assert losses.shape == tokens().shape
    loss.backward()
    expected.backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, atol=2e-5, rtol=1e-4, msg=name)


def test_the_padding_token_is_learnt():
    model = ForeignModel(network("qwen2", tie_word_embeddings=False), torch.float32, 0)
    row = torch.zeros(1, 4, dtype=torch.long)
    model.loss(row, row + 1, None, None, 4)[0].backward()
    assert model.network.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_dropout_is_off_while_training():
    model = ForeignModel(network("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5), torch.float32, 0).train()
    assert torch.equal(model(tokens()), model(tokens()))


def test_bfloat16_products_change_the_logits_little_and_weights_stay():
    exact, rounded = (ForeignModel(network("qwen2"), dtype, 0) for dtype in (torch.float32, torch.bfloat16))
    mask = Mask.from_segments(SEGMENTS)
    one, two = (model(tokens(), POSITIONS, mask) for model in (exact, rounded))
    assert two.dtype == torch.float32
    assert not torch.equal(one, two)
    assert (one - two).norm() < 0.05 * one.norm()
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.float32}


def test_parameters_and_matrices_leave_the_tables_out():
    model = ForeignModel(network("gpt2"), torch.float32, 0)
    layer = 3 * 32 * 32 + 32 * 32 + 2 * 32 * 48
    biases_and_norms = 2 * (3 * 32 + 32 + 48 + 32 + 4 * 32) + 2 * 32
    counts = model.parameter_counts()
    assert counts["parameters_without_embeddings"] == 2 * layer + biases_and_norms
    assert counts["parameters"] == 2 * layer + biases_and_norms + (VOCAB + 1024) * 32  # the head is the embedding
    assert len(model.matrices()) == 2 * 4
    untied = ForeignModel(network("gpt_neox", tie_word_embeddings=False), torch.float32, 0)
    assert sum(matrix.numel() for matrix in untied.matrices()) == 2 * layer


class Deaf(torch.nn.Module):
    """A network whose attention takes a mask of four dimensions and does something else."""

    def __init__(self, inner, changed_mask):
        super().__init__()
        self.inner, self.config, self.changed_mask = inner, inner.config, changed_mask

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, input_ids, attention_mask, position_ids, use_cache):
        mask = self.changed_mask(attention_mask)
        return self.inner(input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=use_cache)


def causal(mask):
    return torch.full_like(mask, torch.finfo(mask.dtype).min).triu(1)


@pytest.mark.parametrize(
    ("changed_mask", "message"),
    [
        (lambda mask: torch.ones(mask.shape[0], mask.shape[-1]), "Deaf ignores .*: a document sees the one before it"),
        (causal, "a document sees the one before it"),
        (torch.zeros_like, "a document sees the one before it"),
        (lambda mask: torch.where(mask[:, :, -1:] == 0, mask[:, :, -1:], mask), "a token sees what comes after it"),
        (lambda mask: mask + causal(mask), "a prefix does not see itself both ways"),
    ],
)
def test_a_model_that_does_not_obey_the_mask_is_refused(changed_mask, message):
    with pytest.raises(ValueError, match=message):
        ForeignModel(Deaf(network("qwen2"), changed_mask), torch.float32, 0)


def test_a_model_without_attention_masks_is_refused():
    with pytest.raises(ValueError, match="MambaForCausalLM takes no position_ids"):
        ForeignModel(
            transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1)),
            torch.float32, 0,
        )  # fmt: skip
    bloom = transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2)
    )
    with pytest.raises(ValueError, match="BloomForCausalLM"):
        ForeignModel(bloom, torch.float32, 0)


def test_a_checkpoint_without_a_head_is_refused_instead_of_drawn(tmp_path):
    network("qwen2", tie_word_embeddings=False).model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"weights are missing.*lm_head\.weight"):
        ForeignModel.load(tmp_path, torch.float32, None, VOCAB, 0)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="transformers cannot load a causal language model"):
        ForeignModel.load(tmp_path, torch.float32, 0, VOCAB, 0)


def test_packed_rows_without_the_dense_mask_would_not_be_isolated():
    """The trap: a 2-D mask of ones switches off what transformers reads from the positions."""
    model = network("qwen2").eval()
    ones = torch.ones(2, 20, dtype=torch.long)
    trapped = model(tokens(), attention_mask=ones, position_ids=POSITIONS, use_cache=False).logits
    ours = ForeignModel(model, torch.float32, 0)(tokens(), POSITIONS, Mask.from_segments(SEGMENTS))
    assert (trapped - ours)[0, 12:].abs().max() > 1e-3
    torch.testing.assert_close(trapped[0, :12], ours[0, :12], atol=2e-5, rtol=1e-5)
