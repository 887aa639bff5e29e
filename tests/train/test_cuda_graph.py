import copy
import dataclasses
import gc
import logging
import weakref

import numpy as np
import pytest
import torch
from codesieve.train import cuda_graph
from codesieve.train.attention import Mask, attend, attend_reference
from codesieve.train.batches import kept_positions
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.cuda_graph import ReplayedPass
from codesieve.train.execution import make_pass
from codesieve.train.model import Decoder
from codesieve.train.passes import CompiledPass, Pass
from codesieve.train.rows import IGNORED
from small_model import Small, Weights, assert_same, captured, inputs, run

CPU = torch.device("cpu")
GPU = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


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
    assert len(captures) == cuda_graph.GRAPHS


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
    (static,) = cuda_graph._static((first,))
    assert cuda_graph._flat(first)[1] == cuda_graph._flat(second)[1]
    for old, new in zip(cuda_graph._flat(static)[0], cuda_graph._flat(second)[0], strict=True):
        old.copy_(new)
    if lowering == "varlen":
        assert static.offsets.documents.tolist() == second.offsets.documents.tolist()
    else:
        torch.testing.assert_close(attend(q, k, v, static), attend_reference(q, k, v, second))
    assert not torch.equal(static.begins_BT, first.begins_BT)


def test_running_out_of_memory_at_a_capture_leaves_the_plain_pass(caplog):
    def full(function):
        function()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    eager, model = Small(), Small()
    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=full)
    batches = [inputs(seed) for seed in range(3)]
    with caplog.at_level(logging.WARNING):
        assert_same(run(way, model, batches), run(make_pass(eager, TrainConfig(), CPU), eager, batches))
    assert way.description == "eager"
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graph: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    ]


class Memory:
    """What a graph holds; while it is there, a plain pass has no room."""

    room_for_passes = 0

    def __init__(self, function):
        self._function, self._outputs = function, function()

    def replay(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Crowded, "held", None)  # a replay is no pass of its own
            for output, new in zip(self._outputs, self._function(), strict=True):
                output.copy_(new)


class Crowded(Small):
    held = None

    def loss(self, *arguments, z_loss=0.0):
        if self.held is not None and (memory := self.held()) is not None:
            memory.room_for_passes -= 1
            if memory.room_for_passes < 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(*arguments, z_loss=z_loss)


@pytest.mark.parametrize("checks", [0, 1])
def test_a_graph_that_leaves_no_room_to_check_it_is_freed(caplog, monkeypatch, checks):
    """At its first batch, or at a later one."""
    eager, model = Small(), Crowded()

    def capture(function):
        memory = Memory(function)
        memory.room_for_passes = checks
        monkeypatch.setattr(Crowded, "held", weakref.ref(memory))
        return memory.replay, memory._outputs

    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=capture)
    batches = [inputs(seed) for seed in range(4)]
    gc.disable()  # as it is while a run trains
    try:
        with caplog.at_level(logging.WARNING):
            assert_same(run(way, model, batches), run(make_pass(eager, TrainConfig(), CPU), eager, batches))
    finally:
        gc.enable()
    assert Crowded.held() is None
    assert [record.getMessage() for record in caplog.records] == ["no CUDA graph: OutOfMemoryError: CUDA out of memory"]


def test_a_kind_of_batch_that_cannot_be_compiled_is_captured_eagerly(caplog):
    class Picky(Small):
        def loss(self, *arguments, z_loss=0.0):
            if arguments[3].kind == "second":
                torch._dynamo.graph_break()
            return super().loss(*arguments, z_loss=z_loss)

    torch._dynamo.reset()
    eager, model = Small(), Picky()
    plain = CompiledPass(model.loss, list(model.parameters()), "aot_eager", is_required=False)
    way = ReplayedPass(plain, captured)
    batches = [inputs(seed, kind="second" if seed > 1 else "plain") for seed in range(6)]
    assert_same(run(way, model, batches), run(make_pass(eager, TrainConfig(), CPU), eager, batches))
    assert way.description == "eager, CUDA graph"


def batch_of(segments_BT, prefixes_BT=None, seed=0, device=CPU, vocabulary=64):
    """Tokens, targets, positions and mask of packed documents, and which positions have a target."""
    generator = torch.Generator().manual_seed(seed)
    mask = Mask.from_segments(segments_BT, prefixes_BT)
    tokens = torch.randint(vocabulary, segments_BT.shape, generator=generator)
    targets = tokens.roll(-1, 1)
    positions = torch.arange(segments_BT.shape[1], dtype=torch.int32) - mask.begins_BT
    if prefixes_BT is not None:
        targets[positions < torch.from_numpy(prefixes_BT)] = IGNORED
    kept = kept_positions(targets.numpy())
    valid = int((targets != IGNORED).sum())
    kept_K = None if kept is None else torch.from_numpy(kept).to(device)
    return *(x.to(device) for x in (tokens, targets, positions, mask)), valid, kept_K


def packed(kind, seed, rows=4, time=256):
    """Rows of one document, of several, or of several with prefixes."""
    generator = np.random.default_rng(seed)
    starts = generator.random((rows, time)) < (0.0 if kind == "whole" else 0.02)
    segments = np.cumsum(starts, axis=1)
    if kind != "prefixes":
        return (segments,)
    sizes = np.array([np.bincount(row, minlength=time + 1) for row in segments])
    lengths = (sizes * generator.uniform(0.5, 1.0, sizes.shape)).astype(int)
    return segments, np.take_along_axis(lengths, segments, 1)


def test_a_replayed_head_takes_the_positions_of_each_batch():
    config = ModelConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1)
    plain, model = Decoder(config, 64, 32), Decoder(config, 64, 32)
    batches = [batch_of(*packed("prefixes", seed, 2, 32), seed=seed) for seed in range(4)]
    assert len({batch[-1].shape for batch in batches}) < len(batches)  # a graph is used again
    whole = [batch[:-1] for batch in batches]
    way = make_pass(model, TrainConfig(), CPU, graph=True, capture=captured)
    assert_same(run(way, model, batches), run(make_pass(plain, TrainConfig(), CPU), plain, whole))
    assert way.description == "eager, CUDA graph"


@needs_cuda
def test_a_captured_model_trains_on_a_gpu_as_on_the_cpu():
    eager, model = Small(), Small().to(GPU)
    way = make_pass(model, TrainConfig(compile=False), GPU, graph=True)
    plain = make_pass(eager, TrainConfig(), CPU)
    for step in range(3):
        batches = [inputs(10 * step + part) for part in range(3)]
        moved = [
            (tokens.to(GPU), targets.to(GPU), None, Weights(mask.weight_BT.to(GPU)), valid)
            for tokens, targets, _, mask, valid in batches
        ]
        losses, found = run(way, model, moved)
        assert_same((losses, [gradient.cpu() for gradient in found]), run(plain, eager, batches))
    assert way.description.endswith("CUDA graph")


def close(ours, reference):
    """As close as bfloat16 products are."""
    assert ours[0] == pytest.approx(reference[0], rel=2e-2)
    differences = torch.cat([(a.cpu() - b).flatten() for a, b in zip(ours[1], reference[1], strict=True)])
    assert differences.norm() < 0.05 * torch.cat([b.flatten() for b in reference[1]]).norm()


@needs_cuda
@pytest.mark.parametrize("kind", ["whole", "documents", "prefixes"])
@pytest.mark.parametrize(("is_compiled", "is_replayed"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_decoder_on_a_gpu_gives_the_same_eagerly_compiled_and_replayed(kind, is_compiled, is_replayed):
    torch._dynamo.reset()
    config = ModelConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2)
    plain, model = Decoder(config, 64, 256), Decoder(config, 64, 256, compute_dtype=torch.bfloat16).to(GPU)
    way = make_pass(model, TrainConfig(compile=is_compiled), GPU, graph=is_replayed)
    for step in range(3):
        arrays = [packed(kind, 10 * step + part) for part in range(2)]
        reference = run(make_pass(plain, TrainConfig(), CPU), plain, [batch_of(*array) for array in arrays])
        batches = [batch_of(*array, device=GPU) for array in arrays]
        assert {batch[3].lowering for batch in batches} == {
            {"whole": "dense", "documents": "varlen", "prefixes": "flex"}[kind]
        }
        close(run(way, model, batches), reference)
    expected = "compiled" if is_compiled else "eager"
    assert way.description == expected + ", CUDA graph" * is_replayed


def reserved():
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def large_decoder():
    config = ModelConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=4)
    return Decoder(config, 4096, 512, compute_dtype=torch.bfloat16).to(GPU)


@needs_cuda
def test_a_capture_takes_the_memory_of_a_pass_and_further_ones_share_it():
    batches = [batch_of(*packed("documents", 0, rows, 512), device=GPU, vocabulary=4096) for rows in (16, 12, 8)]
    model = large_decoder()
    plain = make_pass(model, TrainConfig(compile=False), GPU, graph=False)
    run(plain, model, batches)
    before = reserved()
    torch.cuda.reset_peak_memory_stats()
    plain(*batches[0])
    of_a_pass = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    way = make_pass(model, TrainConfig(compile=False), GPU, graph=True)
    taken = []
    for batch in batches:
        way(*batch)
        taken.append(reserved() - before)
    assert way.description == "eager, CUDA graph"
    assert taken[0] < 2 * of_a_pass
    assert taken[2] < 1.2 * taken[0]


@needs_cuda
def test_a_gpu_without_room_for_graph_and_check_trains_without_a_graph(caplog):
    batches = [batch_of(*packed("documents", seed, 16, 512), device=GPU, vocabulary=4096) for seed in range(3)]
    model = large_decoder()
    plain = make_pass(model, TrainConfig(compile=False), GPU, graph=False)
    run(plain, model, batches)
    reserved()
    torch.cuda.reset_peak_memory_stats()
    expected = run(plain, model, batches)
    _, total = torch.cuda.mem_get_info()
    try:
        torch.cuda.set_per_process_memory_fraction(1.3 * torch.cuda.max_memory_reserved() / total)
        way = make_pass(model, TrainConfig(compile=False), GPU, graph=True)
        with caplog.at_level(logging.WARNING):
            ours = run(way, model, batches)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    close(ours, (expected[0], [gradient.cpu() for gradient in expected[1]]))
    assert way.description == "eager"
    assert "no CUDA graph: OutOfMemoryError" in caplog.text
