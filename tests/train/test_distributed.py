from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from codesieve.train import distributed
from codesieve.train.distributed import World, joined, shard
from torch import nn
from torch.distributed.tensor import DTensor


@pytest.fixture
def group():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Nested(nn.Module):
    """Two layers, of which each has more small parts than there are layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(nn.Linear(2, 2) for _ in range(3)) for _ in range(2))


def test_ranks_wait_for_days_while_the_first_one_tokenises(monkeypatch):
    asked = {}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **given: asked.update(given))
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with joined() as world:
        assert world == World(1, 2)
    assert asked["timeout"] >= timedelta(days=1)


def test_a_model_without_a_list_of_layers_is_sharded_as_one(group):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    shard(model, torch.device("cpu"), World())
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert model(torch.ones(1, 4)).shape == (1, 2)


def test_the_layers_are_the_list_with_the_most_parameters_not_the_longest(group, monkeypatch):
    sharded = []
    monkeypatch.setattr(distributed, "fully_shard", lambda part, mesh: sharded.append(part))
    model = Nested()
    shard(model, torch.device("cpu"), World())
    assert sharded == [*model.layers, model]
