import pytest
import torch
from codesieve.train import loss as module
from codesieve.train.batches import kept_positions
from codesieve.train.loss import Shortened, cross_entropy, linear_cross_entropy
from codesieve.train.rows import IGNORED
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

VOCABULARY = 30
EXTRAS = {"bias_V": True, "logit_scale": 0.25, "z_loss": 0.1}


def case(count=50, width=8, ignored=7, dtype=torch.float32):
    torch.manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*shape, dtype=dtype, requires_grad=True)
        for shape in ((count, width), (VOCABULARY, width), (VOCABULARY,))
    )
    targets = torch.randint(0, VOCABULARY, (count,))
    targets[torch.randperm(count)[:ignored]] = IGNORED
    return hidden, weight, bias, targets


def definition(hidden, weight, targets, valid, bias_V=None, logit_scale=1.0, z_loss=0.0):
    logits = hidden @ weight.t() if bias_V is None else hidden @ weight.t() + bias_V
    logits = logits * logit_scale
    losses = F.cross_entropy(logits, targets, reduction="none")
    squares = logits.logsumexp(1).square()[targets != IGNORED]
    return (losses.sum() + z_loss * squares.sum()) / valid, losses


def assert_equal(ours, theirs, tensors, atol=1e-6, rtol=1e-4):
    torch.testing.assert_close(ours[0], theirs[0], atol=atol, rtol=rtol)
    torch.testing.assert_close(ours[1], theirs[1].detach(), atol=atol, rtol=rtol)
    gradients = [torch.autograd.grad(3 * loss, tensors) for loss in (ours[0], theirs[0])]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, atol=atol, rtol=rtol)


@pytest.mark.parametrize("chunk", [1, 16, 50, 1000])
@pytest.mark.parametrize("ignored", [0, 2, 30, 49])
@pytest.mark.parametrize("extras", [{}, EXTRAS, {"z_loss": 0.1}, {"logit_scale": 2.0}])
def test_value_and_gradients_equal_cross_entropy_on_all_logits(monkeypatch, chunk, ignored, extras):
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", chunk * 8 * VOCABULARY)
    hidden, weight, bias, targets = case(ignored=ignored, dtype=torch.float64)
    tensors = [hidden, weight]
    if extras.get("bias_V"):
        extras, tensors = {**extras, "bias_V": bias}, [*tensors, bias]
    ours = linear_cross_entropy(hidden, weight, targets, 43, torch.float64, **extras)
    theirs = definition(hidden, weight, targets, 43, **extras)
    assert_equal(ours, theirs, tensors, atol=1e-13, rtol=1e-12)


def test_the_gradient_passes_gradcheck():
    hidden, weight, bias, targets = case(6, 3, 1, torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_cross_entropy(h, w, targets, 9, torch.float64, b, 0.5, 0.2)[0], (hidden, weight, bias)
    )


def test_a_step_in_parts_has_the_gradient_of_the_whole():
    hidden, weight, _, targets = case()
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


def test_the_number_of_targets_may_be_a_tensor_with_the_same_bits():
    hidden, weight, _, targets = case()
    logits = hidden @ weight.t()
    for valid in (0, 43):
        number, tensor = (linear_cross_entropy(hidden, weight, targets, n)[0] for n in (valid, torch.tensor(valid)))
        assert torch.equal(number, tensor)
        assert torch.equal(*(torch.autograd.grad(loss, weight)[0] for loss in (number, tensor)))
        assert torch.equal(*(cross_entropy(logits, targets, n)[0] for n in (valid, torch.tensor(valid))))


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_without_any_target_loss_and_gradients_are_zero(z_loss):
    hidden, weight, _, _ = case()
    targets = torch.full((50,), IGNORED)
    for loss, losses in (
        linear_cross_entropy(hidden, weight, targets, 0, z_loss=z_loss),
        cross_entropy(hidden @ weight.t(), targets, 0, z_loss),
    ):
        assert loss == 0 and not losses.any()
        assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (hidden, weight)))


def test_bfloat16_products_are_close_to_fp32():
    hidden, weight, _, targets = case()
    exact, rounded = (
        linear_cross_entropy(hidden, weight, targets, 43, dtype)[0] for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.float32
    assert abs(rounded - exact) < 0.02 * exact
    for mine, theirs in zip(
        torch.autograd.grad(rounded, (hidden, weight)), torch.autograd.grad(exact, (hidden, weight)), strict=True
    ):
        assert (mine - theirs).norm() < 0.03 * theirs.norm()


def test_the_sum_over_many_chunks_stays_in_fp32(monkeypatch):
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 16 * VOCABULARY)
    hidden, weight, _, targets = case(800, ignored=0)
    exact, rounded = (
        torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, 1, dtype)[0], weight)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert (rounded - exact).norm() < 0.005 * exact.norm()


def test_without_gradients_the_losses_are_the_same_bits():
    hidden, weight, _, targets = case()
    with_gradients = linear_cross_entropy(hidden, weight, targets, 43, z_loss=0.1)
    with torch.no_grad():
        without = linear_cross_entropy(hidden, weight, targets, 43, z_loss=0.1)
    assert all(torch.equal(a, b) for a, b in zip(with_gradients, without, strict=True))


@pytest.mark.parametrize("others", [0, 5])
def test_positions_that_are_named_and_the_rest_left_out_give_the_same(others):
    hidden, weight, _, targets = case(ignored=30, dtype=torch.float64)
    valid, ignored = (targets != IGNORED).nonzero().flatten(), (targets == IGNORED).nonzero().flatten()
    divisor = Shortened(43, torch.cat((ignored[:others], valid)))
    for short in (
        linear_cross_entropy(hidden, weight, targets, divisor, torch.float64),
        cross_entropy(hidden @ weight.t(), targets, divisor),
    ):
        whole = linear_cross_entropy(hidden, weight, targets, 43, torch.float64)
        assert_equal(short, whole, (hidden, weight), atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("bad", [VOCABULARY, -1])
def test_targets_outside_the_vocabulary_are_refused(bad):
    hidden, weight, _, targets = case()
    targets[3] = bad
    message = f"id {bad} at position 3 is outside the vocabulary of 30 tokens"
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(hidden, weight, targets, 43)
    with pytest.raises(ValueError, match=message):
        cross_entropy(hidden @ weight.t(), targets, 43)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_whole_logits_give_the_same(z_loss):
    hidden, weight, _, targets = case(dtype=torch.float64)
    ours = cross_entropy(hidden @ weight.t(), targets, 43, z_loss)
    assert_equal(ours, definition(hidden, weight, targets, 43, z_loss=z_loss), (hidden, weight))
    assert not ours[1].requires_grad


@pytest.mark.parametrize(
    ("budget", "is_short", "dtype"), [(1 << 30, False, torch.bfloat16), (4 * VOCABULARY * 20, True, torch.float32)]
)
def test_compiled_as_one_expression_or_in_chunks_it_is_the_same(monkeypatch, budget, is_short, dtype):
    torch._dynamo.reset()
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", budget)
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(backend=counter, fullgraph=True)
    def head(hidden, weight, bias, targets, valid):
        return linear_cross_entropy(hidden * 1, weight, targets, valid, dtype, bias, 0.5, 0.1)

    for valid in map(torch.tensor, (18.0, 20.0, 17.0)):
        hidden, weight, bias, targets = case(ignored=50 - int(valid))
        theirs = definition(hidden, weight, targets, valid, bias, 0.5, 0.1)
        tolerance = {} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
        kept = (targets == IGNORED).int().argsort(stable=True)[:20]
        ours = head(hidden, weight, bias, targets, Shortened(valid, kept) if is_short else valid)
        assert_equal(ours, theirs, (hidden, weight, bias), **tolerance)
    assert counter.frame_count == 1


def test_compiled_the_head_computes_no_more_logits_than_it_is_told_to():
    torch._dynamo.reset()
    shapes = []

    def spy(graph, inputs):
        for node in graph.graph.nodes:
            value = node.meta.get("example_value")
            if isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] == VOCABULARY:
                shapes.append(value.shape[0])
        return graph.forward

    @torch.compile(backend=spy, fullgraph=True, dynamic=False)
    def head(hidden, weight, targets, valid):
        return linear_cross_entropy(hidden, weight, targets, valid)[0]

    hidden, weight, _, targets = case(ignored=35)
    kept = torch.from_numpy(kept_positions(targets.numpy()))
    head(hidden, weight, targets, Shortened(torch.tensor(15.0), kept))
    assert set(shapes) == {len(kept)} == {19}  # three eighths of 50
