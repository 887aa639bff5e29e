import pytest
import torch
from codesieve.train import loss as module
from codesieve.train.loss import linear_cross_entropy
from codesieve.train.rows import IGNORED
from torch.nn.functional import cross_entropy


def case(count=50, width=8, vocab_size=30, ignored=7):
    torch.manual_seed(0)
    hidden, weight = torch.randn(count, width, requires_grad=True), torch.randn(vocab_size, width, requires_grad=True)
    targets = torch.randint(0, vocab_size, (count,))
    targets[torch.randperm(count)[:ignored]] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize("chunk", [1, 16, 50, 1000])
def test_value_and_gradients_equal_cross_entropy_on_all_logits(monkeypatch, chunk):
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", chunk * 4 * 30)
    hidden, weight, targets = case()
    loss, losses = linear_cross_entropy(hidden, weight, targets, 43)
    expected = cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(losses, cross_entropy(hidden @ weight.t(), targets, reduction="none"))
    for mine, theirs in zip(
        torch.autograd.grad(3 * loss, (hidden, weight)),
        torch.autograd.grad(3 * expected, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_a_step_in_parts_has_the_gradient_of_the_whole():
    hidden, weight, targets = case()
    valid = int((targets != IGNORED).sum())
    whole = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, valid)[0], weight)[0]
    parts = [slice(0, 9), slice(9, 40), slice(40, 50)]
    summed = sum(
        torch.autograd.grad(linear_cross_entropy(hidden[part], weight, targets[part], valid)[0], weight)[0]
        for part in parts
    )
    torch.testing.assert_close(summed, whole, atol=1e-6, rtol=1e-4)


def test_confident_and_wrong_predictions_stay_finite():
    hidden = torch.tensor([[400.0], [-400.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss, losses = linear_cross_entropy(hidden, weight, torch.tensor([1, 1]), 2)
    assert losses.tolist() == [800.0, 0.0]
    assert torch.isfinite(torch.autograd.grad(loss, hidden)[0]).all()


def test_bfloat16_products_are_close_to_fp32():
    hidden, weight, targets = case()
    exact, rounded = (
        linear_cross_entropy(hidden, weight, targets, 43, dtype)[0] for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    assert abs(rounded - exact) < 0.02 * exact
    for mine, theirs in zip(
        torch.autograd.grad(rounded, (hidden, weight)), torch.autograd.grad(exact, (hidden, weight)), strict=True
    ):
        assert (mine - theirs).norm() < 0.03 * theirs.norm()
