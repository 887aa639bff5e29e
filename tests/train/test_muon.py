import pytest
import torch
from codesieve.train.muon import Muon, orthogonalise
from torch import nn

SHAPES = [(6, 4), (4, 6), (6, 4), (5, 5), (16, 3)]


def matrices(seed=0, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def run(optimizer, parameters, steps=3):
    for seed in range(steps):
        generator = torch.Generator().manual_seed(100 + seed)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def ours(parameters, dtype=None):
    return Muon([{"params": parameters, "kind": "muon", "lr": 0.1, "weight_decay": 0.2}], momentum=0.9, dtype=dtype)


def theirs(parameters):
    # torch 2.13; its defaults are Jordan's coefficients, 5 iterations, Nesterov and the scale "original".
    return torch.optim.Muon(parameters, lr=0.1, weight_decay=0.2, momentum=0.9)


def test_the_step_is_that_of_torch_in_fp32(monkeypatch):
    mine, other = matrices(), matrices()
    run(ours(mine), mine)
    # torch rounds to bf16 always; without the rounding the arithmetic is the same.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    run(theirs(other), other)
    for first, second in zip(mine, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_the_step_is_that_of_torch_in_bf16():
    mine, other, start = matrices(), matrices(), matrices()
    run(ours(mine, torch.bfloat16), mine, steps=1)
    run(theirs(other), other, steps=1)
    for first, second, before in zip(mine, other, start, strict=True):
        # 8 bits through five iterations: a few percent of the step.
        assert (first - second).norm() < 0.03 * (second - before).norm()


def test_adamw_inside_is_torch_adamw_bit_by_bit():
    mine, other = matrices(shapes=[(9, 4), (7,)]), matrices(shapes=[(9, 4), (7,)])
    run(Muon([{"params": mine, "kind": "adamw", "lr": 0.1, "weight_decay": 0.2}], betas=(0.8, 0.9)), mine)
    run(torch.optim.AdamW(other, lr=0.1, weight_decay=0.2, betas=(0.8, 0.9), fused=True), other)
    for first, second in zip(mine, other, strict=True):
        assert torch.equal(first, second)


def test_singular_values_become_about_one_and_directions_stay():
    x_NRC = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(x_NRC, full_matrices=False)
    found = left.mT @ orthogonalise(x_NRC) @ right.mT
    values = found.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.65 and values.max() < 1.25
    torch.testing.assert_close(found, torch.diag_embed(values), atol=1e-4, rtol=0)


def test_a_stack_is_its_matrices_one_by_one():
    stack = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalise(stack), torch.cat([orthogonalise(each[None]) for each in stack]))


def test_a_gradient_of_zeros_moves_nothing():
    parameters = matrices()
    optimizer = Muon([{"params": parameters, "kind": "muon", "lr": 0.1, "weight_decay": 0.0}])
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(found, before) for found, before in zip(parameters, matrices(), strict=True))


def test_a_parameter_without_gradient_is_left_alone():
    parameters = matrices()
    optimizer = ours(parameters)
    parameters[1].grad = torch.ones_like(parameters[1])
    optimizer.step()
    moved = [not torch.equal(found, before) for found, before in zip(parameters, matrices(), strict=True)]
    assert moved == [False, True, False, False, False]
    assert len(optimizer.state) == 1


def test_two_runs_give_the_same_bits():
    first, second = matrices(), matrices()
    run(ours(first), first)
    run(ours(second), second)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_vector_in_a_muon_group_is_refused():
    with pytest.raises(ValueError, match=r"shape \(7,\) is not a matrix"):
        ours(matrices(shapes=[(7,)]))
