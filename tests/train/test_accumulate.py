import numpy as np
import pytest
import torch
from codesieve.train.accumulate import add_as_tree, exact_gradients
from codesieve.train.distributed import World
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


class Ranks(World):
    """All ranks of a step in one process, one after the other: what each would send is there already."""

    flats: list

    def all_gather(self, flat):
        return [part.clone() for part in self.flats]


def gradients(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 7, generator=generator) * 10.0 ** torch.randint(-6, 6, (rows, 7), generator=generator)


@given(levels=st.integers(0, 4), ranks=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
def test_the_sum_does_not_depend_on_who_adds_what(levels, ranks, seed):
    rows = ranks * 2**levels
    values = gradients(rows, seed)
    (whole,) = add_as_tree(0, rows, lambda row: [values[row].clone()])
    each = rows // ranks
    parts = [add_as_tree(n * each, (n + 1) * each, lambda row: [values[row].clone()])[0] for n in range(ranks)]
    (joined,) = add_as_tree(0, ranks, lambda rank: [parts[rank].clone()])
    assert torch.equal(whole, joined)
    torch.testing.assert_close(whole.double(), values.double().sum(0), rtol=1e-4, atol=0.2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_gradients_are_those_of_the_sum_over_rows(ranks):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1), nn.Linear(1, 1))
    used = nn.Sequential(model[0], model[1])  # the last layer is never touched
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    parameters = list(model.parameters())

    def backward_from(first):
        return lambda row: used(inputs[first + row]).sum().backward()

    sent = []
    for rank in range(ranks):
        exact_gradients(parameters, 4 // ranks, backward_from(rank * (4 // ranks)))
        sent.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        for parameter in parameters:
            parameter.grad = None
    world = Ranks(0, ranks)
    object.__setattr__(world, "flats", sent)
    exact_gradients(parameters, 4 // ranks, backward_from(0), world)
    found = [parameter.grad.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    used(inputs).sum().backward()
    for mine, parameter in zip(found[:4], parameters[:4], strict=True):
        torch.testing.assert_close(mine, parameter.grad)
    assert not found[4].any()


def test_alone_nothing_is_sent():
    alone = World()
    rows = np.array([[1.0, 2.0]])
    assert alone.collect(rows) is rows
    assert alone.total(3.0) == 3.0
    alone.wait()
