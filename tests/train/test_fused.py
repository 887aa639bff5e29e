import pytest
import torch
from codesieve.train import fused
from torch.autograd import gradcheck


def random(*shape, seed=0):
    drawn = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn.requires_grad_()


def tables(turning, dtype=torch.float64):
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    return tuple(table.to(dtype) for table in fused.rotary_tables(positions, turning, 10_000.0))


def test_the_gradient_of_the_norm_is_that_of_finite_differences():
    assert gradcheck(lambda x, weight: fused.rms_norm(x, weight, 1e-3), (random(2, 3, 8), random(8, seed=1)))


@pytest.mark.parametrize("turning", [6, 4])
def test_the_gradient_of_the_rotation_is_that_of_finite_differences(turning):
    assert gradcheck(lambda x: fused.rotate_heads(x, tables(turning), 4, 2), (random(2, 5, 8 * 6),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turning", [6, 4])
def test_both_ways_give_the_same_values_and_gradients(turning, dtype, monkeypatch):
    results = []
    for by_hand in (True, False):
        monkeypatch.setattr(fused, "_by_hand", lambda _, by_hand=by_hand: by_hand)
        qkv = random(2, 5, 8 * 6).detach().to(dtype).requires_grad_()
        x, weight = (random(*shape).detach().float().requires_grad_() for shape in ((2, 3, 8), (8,)))
        parts = fused.rotate_heads(qkv, tables(turning, torch.float32), 4, 2)
        out = fused.rms_norm(x, weight, 1e-5)
        assert {part.dtype for part in parts} == {torch.float32}
        (sum((part * part.shape[1]).sin().sum() for part in parts) + out.sin().sum()).backward()
        results.append((*parts, out, qkv.grad, x.grad, weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_reordered_projections_rotated_by_halves_have_the_products_of_the_interleaved_rotation():
    heads, size, turning, width = 2, 8, 4, 16
    x = random(1, 5, width).detach()
    query, key, value = (random(heads * size, width, seed=seed).detach() for seed in (1, 2, 3))
    weight = torch.cat((fused.as_halves(query, heads, turning), fused.as_halves(key, heads, turning), value))
    q, k, v = fused.rotate_heads(x @ weight.T, tables(turning), heads, heads)
    cosine, sine = (table[0, :, 0] for table in tables(turning))
    parts = []
    for matrix in (query, key):  # the definition: pairs (2i, 2i + 1) of the first dimensions are complex numbers
        part = (x @ matrix.T).unflatten(-1, (heads, size)).transpose(1, 2).contiguous()
        turned = torch.view_as_complex(part[..., :turning].unflatten(-1, (-1, 2))) * torch.complex(cosine, sine)
        parts.append(torch.cat((torch.view_as_real(turned).flatten(-2), part[..., turning:]), dim=-1))
    torch.testing.assert_close(q @ k.mT, parts[0] @ parts[1].mT)
    torch.testing.assert_close(v, (x @ value.T).unflatten(-1, (heads, size)).transpose(1, 2))


def test_positions_far_out_turn_by_the_exact_angle():
    cosine, _ = fused.rotary_tables(torch.tensor([[8191]]), 4, 10_000.0)
    torch.testing.assert_close(
        cosine[0, 0, 0].double(), torch.tensor([8191.0, 81.91]).double().cos(), atol=1e-5, rtol=0
    )
