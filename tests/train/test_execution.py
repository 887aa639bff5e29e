import copy
import dataclasses
import gc
import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from codesieve.train import execution
from codesieve.train.attention import Mask, attend, attend_reference
from codesieve.train.config import TrainConfig
from codesieve.train.execution import Pass, Prefetcher, ReplayedPass, garbage_later, make_pass, spans
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

CPU = torch.device("cpu")
VOCABULARY = 11


@dataclass(frozen=True)
class Weights:
    """In place of an attention mask: a value with a tensor, one without, and a part of its own."""

    weight_BT: torch.Tensor
    kind: str = "plain"
    inner: tuple[torch.Tensor, ...] = ()


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


class Small(nn.Module):
    """Embedding, two layers and a head with the interface of `Decoder`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.head = nn.Linear(8, VOCABULARY)

    def loss(self, tokens_BT, targets_BT, positions_BT, mask, valid_targets, z_loss=0.0):
        x = self.embedding(tokens_BT)
        for layer in self.layers:
            x = layer(x)
        losses = nn.functional.cross_entropy(self.head(x).flatten(0, 1), targets_BT.flatten(), reduction="none")
        losses = losses.view_as(targets_BT) * (mask.weight_BT if mask is not None else 1.0)
        return losses.sum() / valid_targets + z_loss, losses


def inputs(seed, rows=2, kind="plain"):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (rows, 6), generator=generator)
    mask = Weights(torch.rand(rows, 6, generator=generator), kind, (torch.ones(1),))
    return tokens, tokens.roll(-1, 1), None, mask, 5 + seed


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def run(way, model, batches):
    """Losses and gradients of a step of several micro-batches."""
    way.zero_grad()
    losses = [way(*batch)[0].item() for batch in batches]
    return losses, gradients(model)


def captured(function):
    """What CUDA does, by hand: the outputs stay where they are and every replay computes into them."""
    outputs = function()

    def replay():
        for output, new in zip(outputs, function(), strict=True):
            output.copy_(new)

    return replay, outputs


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_cpu_runs_the_model_as_it_is_written():
    assert make_pass(Small(), TrainConfig(), CPU).description == "eager"


def test_a_pass_adds_to_the_gradients_until_they_are_zeroed():
    model = Small()
    way = make_pass(model, TrainConfig(), CPU)
    once = run(way, model, [inputs(0)])
    twice = run(way, model, [inputs(0), inputs(0)])
    for a, b in zip(once[1], twice[1], strict=True):
        torch.testing.assert_close(2 * a, b)


def test_z_loss_of_the_config_reaches_the_model():
    plain, weighted = (make_pass(Small(), TrainConfig(z_loss=z), CPU)(*inputs(0))[0] for z in (0.0, 0.5))
    assert weighted.item() == pytest.approx(plain.item() + 0.5)


@pytest.mark.parametrize("limit", [10**9, 0], ids=["whole model", "by layer"])
def test_compiled_is_the_same_computation_and_compiles_once(limit, monkeypatch):
    monkeypatch.setattr(execution, "WHOLE_MODEL_PARAMETERS", limit)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    batches = [inputs(seed) for seed in range(5)]
    eager, model = Small(), Small()
    way = make_pass(model, TrainConfig(compile=True), CPU, backend=counter)
    assert_same(run(way, model, batches), run(make_pass(eager, TrainConfig(), CPU), eager, batches))
    assert counter.frame_count == 1
    assert way.description == ("compiled" if limit else "compiled by layer")


class Uncompilable(Small):
    def loss(self, *arguments, z_loss=0.0):
        torch._dynamo.graph_break()
        return super().loss(*arguments, z_loss=z_loss)


def test_compile_that_was_asked_for_and_fails_is_an_error():
    way = make_pass(Uncompilable(), TrainConfig(compile=True), CPU, backend="aot_eager")
    with pytest.raises(RuntimeError, match="compile: true, but the model cannot be compiled"):
        way(*inputs(0))


def test_compile_that_is_only_the_default_falls_back_and_says_so(caplog):
    model = Uncompilable()
    way = execution.CompiledPass(model.loss, list(model.parameters()), "aot_eager", is_required=False)
    with caplog.at_level(logging.WARNING):
        losses = [way(*inputs(0))[0].item() for _ in range(2)]
    assert losses[0] == losses[1]
    assert way.description == "eager"
    assert len(caplog.records) == 1


def test_replays_give_the_losses_and_gradients_of_the_pass():
    eager, model = Small(), Small()
    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=captured)
    plain = make_pass(eager, TrainConfig(), CPU)
    assert isinstance(way, ReplayedPass)
    for step in range(4):
        batches = [inputs(10 * step + part) for part in range(3)]
        assert_same(run(way, model, batches), run(plain, eager, batches))
    assert way.description == "eager, CUDA graph"


def test_gradients_stay_where_the_graph_knows_them():
    model = Small()
    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=captured)
    run(way, model, [inputs(0)])
    before = [parameter.grad.data_ptr() for parameter in model.parameters()]
    run(way, model, [inputs(1), inputs(2)])
    assert [parameter.grad.data_ptr() for parameter in model.parameters()] == before


def test_every_shape_and_kind_of_mask_has_a_graph_of_its_own_up_to_the_limit():
    eager, model = Small(), Small()
    captures = []
    way = make_pass(
        model, TrainConfig(), CPU, graph=True, capture=lambda function: captures.append(1) or captured(function)
    )
    plain = make_pass(eager, TrainConfig(), CPU)
    batches = [inputs(rows, rows, kind) for rows in (1, 2, 3) for kind in ("plain", "prefix")] * 2
    assert_same(run(way, model, batches), run(plain, eager, batches))
    assert len(captures) == execution.GRAPHS


def test_a_graph_that_baked_in_a_tensor_is_given_up(caplog):
    eager, model = Small(), Small()
    baked = copy.deepcopy(inputs(0))

    def careless(function):
        inner = Pass(lambda *_: model.loss(*baked), list(model.parameters()), "")
        return captured(lambda: inner(*baked))

    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=careless)
    batches = [inputs(seed) for seed in (0, 1, 2)]
    with caplog.at_level(logging.WARNING):
        assert_same(run(way, model, batches), run(make_pass(eager, TrainConfig(), CPU), eager, batches))
    assert way.description == "eager"
    assert [record.message for record in caplog.records] == [
        "no CUDA graph: ArithmeticError: a replay gave other losses than the pass it stands for"
    ]


def test_a_capture_that_fails_is_given_up_once(caplog):
    def failing(function):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    eager, model = Small(), Small()
    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=failing)
    batches = [inputs(seed) for seed in range(3)]
    with caplog.at_level(logging.WARNING):
        assert_same(run(way, model, batches), run(make_pass(eager, TrainConfig(), CPU), eager, batches))
    assert len(caplog.records) == 1
    assert "operation not permitted" in caplog.text


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("lowering", ["flex", "varlen", None])
def test_a_static_mask_becomes_another_when_its_tensors_are_copied_in(lowering):
    """What a graph replays: the tensors of the copy at their addresses, with the values of the new batch."""
    segments = np.array([[0, 0, 0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1, 1, 1]])
    others = np.array([[0, 0, 1, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 1, 1]])
    first, second = (
        dataclasses.replace(Mask.from_segments(array).to(CPU, lowering), pieces=None) for array in (segments, others)
    )
    q, k, v = (torch.randn(2, 2, 8, 16) for _ in range(3))
    (static,) = execution._static((first,))
    assert execution._flat(first)[1] == execution._flat(second)[1]
    for old, new in zip(execution._flat(static)[0], execution._flat(second)[0], strict=True):
        old.copy_(new)
    if lowering == "varlen":
        assert static.offsets.documents.tolist() == second.offsets.documents.tolist()
    else:
        torch.testing.assert_close(attend(q, k, v, static), attend_reference(q, k, v, second))
    assert not torch.equal(static.begins_BT, first.begins_BT)


@pytest.mark.parametrize(("options", "reason"), [({}, "the device is cpu"), ({"is_sharded": True}, "sharded")])
def test_a_graph_that_cannot_be_is_refused_with_its_reason(caplog, options, reason):
    with caplog.at_level(logging.WARNING):
        way = make_pass(Small(), TrainConfig(), CPU, graph=True, **options)
    assert way.description == "eager"
    assert reason in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_captured_model_trains_on_a_gpu_as_on_the_cpu():
    device = torch.device("cuda")
    eager, model = Small(), Small().to(device)
    way = make_pass(model, TrainConfig(compile=False), device, graph=True)
    plain = make_pass(eager, TrainConfig(), CPU)
    for step in range(3):
        batches = [inputs(10 * step + part) for part in range(3)]
        moved = [
            (tokens.to(device), targets.to(device), None, Weights(mask.weight_BT.to(device)), valid)
            for tokens, targets, _, mask, valid in batches
        ]
        losses, found = run(way, model, moved)
        assert_same((losses, [gradient.cpu() for gradient in found]), run(plain, eager, batches))
    assert way.description.endswith("CUDA graph")


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_the_ranks_share_the_rows_of_every_step(first, steps, rows, world):
    """Together they have each row of the steps that are left once, whatever their number."""
    parts = [list(spans(first, first + steps, rows * world, rank, world)) for rank in range(world)]
    seen = sorted(row for part in parts for begin, count in part for row in range(begin, begin + count))
    assert seen == list(range(first * rows * world, (first + steps) * rows * world))


def test_rows_that_ranks_cannot_share_are_refused():
    with pytest.raises(ValueError, match="6 rows a step cannot be shared equally by 4"):
        list(spans(0, 1, 6, 0, 4))


def test_prefetched_batches_come_in_order_and_no_more_than_two_ahead():
    made = []

    def make(first, count):
        made.append(first)
        return first, count

    with Prefetcher(make, spans(0, 6, 4)) as batches:
        for step, batch in enumerate(batches):
            assert batch == (4 * step, 4)
            assert len(made) <= step + 3
    assert made == [0, 4, 8, 12, 16, 20]


def test_waiting_is_measured_and_batches_that_are_ready_cost_none():
    with Prefetcher(lambda first, count: time.sleep(0.05), spans(0, 2, 1), ahead=1) as batches:
        next(batches)
        waited = batches.wait_seconds
        time.sleep(0.15)
        next(batches)
        assert waited >= 0.04
        assert batches.wait_seconds - waited < 0.03


def test_an_exception_is_raised_where_its_batch_would_have_come():
    def make(first, count):
        if first == 2:
            raise OSError("the store is gone")
        return first

    with Prefetcher(make, spans(0, 9, 1)) as batches:
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(OSError, match="the store is gone"):
            next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_closing_early_ends_the_thread_and_makes_nothing_more():
    made = []
    with Prefetcher(lambda first, count: made.append(first), spans(0, 1000, 1)) as batches:
        next(batches)
    assert len(made) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_the_garbage_collector_rests_inside_and_returns():
    with garbage_later():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
