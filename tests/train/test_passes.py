import logging

import pytest
import torch
from codesieve.train import execution, passes
from codesieve.train.config import TrainConfig
from codesieve.train.execution import make_pass
from codesieve.train.passes import CompiledPass
from functorch.compile import make_boxed_func
from small_model import Layer, Small, assert_same, inputs, run
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests():
    torch._dynamo.reset()


def compiled(model, *, backend="aot_eager", is_required=False, by_layer=False):
    layers = list(model.layers) if by_layer else []
    return CompiledPass(model.loss, list(model.parameters()), backend, is_required=is_required, layers=layers)


def eager(batches):
    model = Small()
    return run(make_pass(model, TrainConfig(), CPU), model, batches)


def said(caplog):
    """Warnings of the module; torch has its own."""
    return [record.getMessage() for record in caplog.records if record.name == passes.log.name]


def failing_backwards(graph, inputs):
    raise RuntimeError("no kernel for this backward pass\nmore")


ONLY_FORWARDS = aot_autograd(
    fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=failing_backwards
)


class Picky(Small):
    """Cannot be compiled for batches of the second kind."""

    def loss(self, *arguments, z_loss=0.0):
        if arguments[3].kind == "second":
            torch._dynamo.graph_break()
        return super().loss(*arguments, z_loss=z_loss)


class PickyLayer(Layer):
    """Cannot be compiled for batches of more than two rows."""

    def forward(self, x):
        if len(x) > 2:
            torch._dynamo.graph_break()
        return super().forward(x)


def test_a_pass_adds_to_the_gradients_until_they_are_zeroed():
    once, twice = eager([inputs(0)]), eager([inputs(0), inputs(0)])
    for a, b in zip(once[1], twice[1], strict=True):
        torch.testing.assert_close(2 * a, b)


@pytest.mark.parametrize("limit", [10**9, 0], ids=["whole model", "by layer"])
def test_compiled_is_the_same_computation_and_compiles_once(limit, monkeypatch):
    monkeypatch.setattr(execution, "WHOLE_MODEL_PARAMETERS", limit)
    counter = CompileCounterWithBackend("aot_eager")
    batches = [inputs(seed) for seed in range(5)]
    model = Small()
    way = make_pass(model, TrainConfig(compile=True), CPU, backend=counter)
    assert_same(run(way, model, batches), eager(batches))
    assert counter.frame_count == 1
    assert way.description == ("compiled" if limit else "compiled by layer")


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_first_batch_that_cannot_be_compiled_makes_the_run_eager_and_says_so(caplog, number):
    model = Picky()
    way = compiled(model)
    batches = [inputs(seed, kind="second" if seed >= number else "first") for seed in range(5)]
    with caplog.at_level(logging.WARNING):
        assert_same(run(way, model, batches), eager(batches))
    assert way.description == "eager"
    [message] = said(caplog)
    assert message.startswith("not compiled, the model runs eagerly: Unsupported: ")


def test_layers_that_cannot_be_compiled_for_a_later_batch_run_eagerly(caplog):
    model = Small()
    model.layers = torch.nn.ModuleList(PickyLayer() for _ in range(2))
    reference = Small()
    reference.load_state_dict(model.state_dict())
    batches = [inputs(seed, rows) for seed, rows in enumerate((2, 2, 3, 2, 3))]
    with caplog.at_level(logging.WARNING):
        mine = run(compiled(model, by_layer=True), model, batches)
    assert_same(mine, run(make_pass(reference, TrainConfig(), CPU), reference, batches))
    assert len(said(caplog)) == 1


def test_compile_that_was_asked_for_and_fails_is_an_error_whenever_it_happens():
    way = compiled(Picky(), is_required=True)
    way(*inputs(0))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="compile: true, but the model cannot be compiled: Unsupported"):
            way(*inputs(1, kind="second"))
    way(*inputs(2))
    assert way.description == "compiled"


def test_more_kinds_of_batches_than_dynamo_takes_by_itself_are_compiled():
    counter = CompileCounterWithBackend("aot_eager")
    model = Small()
    way = compiled(model, backend=counter)
    for rows in range(1, 13):
        way(*inputs(rows, rows))
    assert counter.frame_count == 12 > torch._dynamo.config.recompile_limit
    assert way.description == "compiled"


def test_more_kinds_than_the_limit_run_eagerly(monkeypatch, caplog):
    monkeypatch.setattr(passes, "KINDS", 2)
    model = Small()
    batches = [inputs(rows, rows) for rows in range(1, 6)]
    with caplog.at_level(logging.WARNING):
        assert_same(run(compiled(model), model, batches), eager(batches))
    [message] = said(caplog)
    assert "RecompileLimit" in message


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_backward_pass_that_cannot_be_compiled_leaves_no_half_gradients(by_layer):
    model = Small()
    way = compiled(model, backend=ONLY_FORWARDS, by_layer=by_layer)
    batches = [inputs(seed) for seed in range(3)]
    assert_same(run(way, model, batches), eager(batches))
    assert way.description == "eager"


def test_a_backward_pass_that_fails_on_the_way_is_an_error_where_gradients_cannot_be_restored():
    model = Small()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(RuntimeError, match=r"backward pass cannot be compiled: .*no kernel.*; set compile: false"):
        compiled(model, backend=ONLY_FORWARDS, by_layer=True)(*inputs(0))


@pytest.mark.parametrize("is_required", [False, True])
def test_what_is_wrong_with_a_batch_is_no_failure_of_the_compiler(is_required, caplog):
    way = compiled(Small(), is_required=is_required)
    way(*inputs(0))
    tokens, *rest = inputs(1)
    with pytest.raises(IndexError):
        way(tokens + 100, *rest)
    assert way.description == "compiled"
    assert not said(caplog)


def test_running_out_of_memory_is_no_failure_of_the_compiler():
    def full(graph, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        compiled(Small(), backend=full)(*inputs(0))
