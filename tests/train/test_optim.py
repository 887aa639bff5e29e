import pytest
import torch
from codesieve.train.config import TrainConfig
from codesieve.train.optim import make_optimizer, set_learning_rate
from torch import nn

FIELDS = {"learning_rate": 0.5, "muon_learning_rate": 0.25, "weight_decay": 0.2, "betas": (0.9, 0.95)}
CONFIG = TrainConfig(**FIELDS)
MUON = TrainConfig(**FIELDS, optimizer="muon")


class Small(nn.Module):
    """Two matrices of layers, an embedding and a norm: the interface of a model, no more."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        for name, shape in {"embedding": (9, 4), "up": (6, 4), "down": (4, 6), "norm": (4,)}.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, generator=generator)))

    def matrices(self):
        return [self.up, self.down]


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def trained(config, model, seeds, optimizer=None):
    optimizer = optimizer or make_optimizer(config, model)
    for seed in seeds:
        gradients(model, seed)
        set_learning_rate(optimizer, 1 / (1 + seed))
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_decay_shrinks_the_matrices_of_the_layers_and_nothing_else(config):
    model = Small()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(config, model).step()
    peak = config.learning_rate if config is CONFIG else config.muon_learning_rate
    for name, parameter in model.named_parameters():
        factor = 1 - peak * 0.2 if name in {"up", "down"} else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)


def test_the_step_is_adamw_of_the_paper():
    # Loshchilov and Hutter 2019, algorithm 2, two steps by hand on one matrix.
    model = Small()
    expected, first, second = model.up.detach().clone(), 0.0, 0.0
    optimizer = make_optimizer(CONFIG, model)
    for number, gradient in enumerate([0.3, -0.1], start=1):
        rate = 0.1 / number
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        set_learning_rate(optimizer, rate / CONFIG.learning_rate)
        optimizer.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        move = (first / (1 - 0.9**number)) / ((second / (1 - 0.95**number)) ** 0.5 + 1e-8)
        expected = expected * (1 - rate * 0.2) - rate * move
    torch.testing.assert_close(model.up.detach(), expected)


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_every_parameter_is_optimised_once(config):
    model = Small()
    held = [id(parameter) for group in make_optimizer(config, model).param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_the_peaks_of_muon_and_adamw_follow_one_schedule():
    optimizer = make_optimizer(MUON, Small())
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.05])


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_a_resumed_optimizer_goes_on_bit_by_bit(config, tmp_path):
    whole = Small()
    trained(config, whole, range(6))
    first = Small()
    torch.save(trained(config, first, range(3)).state_dict(), tmp_path / "optimizer.pt")
    second = Small()
    second.load_state_dict(first.state_dict())
    optimizer = make_optimizer(config, second)
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    trained(config, second, range(3, 6), optimizer)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name


@pytest.mark.parametrize("config", [CONFIG, MUON])
def test_a_cleared_state_is_the_state_of_a_new_optimizer(config):
    model = Small()
    optimizer = trained(config, model, range(3))
    twin = Small()
    twin.load_state_dict(model.state_dict())
    optimizer.state.clear()
    trained(config, model, range(3, 5), optimizer)
    trained(config, twin, range(3, 5))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, twin.get_parameter(name)), name
