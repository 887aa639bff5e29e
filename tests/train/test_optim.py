import torch
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.model import Decoder
from codesieve.train.optim import make_optimizer, set_learning_rate

CONFIG = TrainConfig(
    model=ModelConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1),
    vocab_size=400,
    learning_rate=0.5,
    weight_decay=0.2,
)


def test_decay_shrinks_the_matrices_of_the_layers_and_nothing_else():
    model = Decoder(CONFIG.model, 300, 8)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(CONFIG, model).step()
    for name, parameter in model.named_parameters():
        decays = "_proj" in name
        torch.testing.assert_close(parameter.detach(), before[name] * (0.9 if decays else 1.0), msg=name)


def test_the_step_is_adamw_of_the_paper():
    # Loshchilov and Hutter 2019, algorithm 2, two steps by hand on one matrix.
    model = Decoder(CONFIG.model, 300, 8)
    name, gradients = "model.layers.0.mlp.up_proj.weight", [0.3, -0.1]
    expected, first, second = model.get_parameter(name).detach().clone(), 0.0, 0.0
    optimizer = make_optimizer(CONFIG, model)
    for number, gradient in enumerate(gradients, start=1):
        rate = 0.1 / number
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        move = (first / (1 - 0.9**number)) / ((second / (1 - 0.95**number)) ** 0.5 + 1e-8)
        expected = expected * (1 - rate * 0.2) - rate * move
    torch.testing.assert_close(model.get_parameter(name).detach(), expected)


def test_every_parameter_is_optimised_once():
    for tied in (True, False):
        model = Decoder(CONFIG.model.model_copy(update={"tie_word_embeddings": tied}), 300, 8)
        held = [id(parameter) for group in make_optimizer(CONFIG, model).param_groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
