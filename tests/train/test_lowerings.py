"""GPU lowerings on a CPU: `varlen_attn` by a stand-in with its documented meaning, FlexAttention uncompiled."""

import math

import numpy as np
import pytest
import torch
from codesieve.train import lowerings
from codesieve.train.attention import Mask, attend, attend_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import flex_attention

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def random_mask(seed, rows=2, time=200, prefixes=True):
    """Rows cut at random into segments; half of them with a prefix of random length."""
    rng = np.random.default_rng(seed)
    is_start = rng.random((rows, time)) < rng.choice([0, 0.01, 0.05])
    segments = np.cumsum(is_start, axis=1)
    sizes = np.array([np.bincount(row, minlength=time + 1) for row in segments])
    prefix = (sizes * rng.random(sizes.shape)).astype(int) * (rng.random(sizes.shape) < 0.5)
    return Mask.from_segments(segments, np.take_along_axis(prefix, segments, 1) if prefixes else None)


def heads(mask, query_heads=4, key_heads=2, size=16, dtype=torch.float32, grad=True):
    rows, time = mask.begins_BT.shape
    torch.manual_seed(0)
    return [
        torch.randn(rows, count, time, size, dtype=dtype, requires_grad=grad)
        for count in (query_heads, key_heads, key_heads)
    ]


def varlen_stand_in(q, k, v, offsets, longest):
    """What torch documents: sequence i is tokens offsets[i] to offsets[i + 1]; tokens of no sequence are not written."""
    out = torch.full_like(q, math.nan)
    assert offsets.dtype == torch.int32
    for begin, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        assert 0 <= end - begin <= longest
        if end > begin:
            parts = (x[begin:end].transpose(0, 1)[None] for x in (q, k, v))
            alone = attend_reference(*parts, Mask.causal(1, end - begin))[0]
            out = out.index_copy(0, torch.arange(begin, end), alone)
    return out


def on_cpu(mask, lowering):
    return mask.to("cpu", lowering)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_varlen_equals_the_definition_in_values_and_gradients(seed):
    mask = random_mask(seed, time=60, prefixes=False)
    tensors, weight = heads(mask, dtype=torch.float64), torch.randn(2, 60, 4, 16, dtype=torch.float64)
    ours = lowerings.varlen(*tensors, on_cpu(mask, "varlen").offsets, varlen_stand_in)
    reference = attend_reference(*tensors, mask)
    torch.testing.assert_close(ours, reference)
    mine, theirs = (torch.autograd.grad((out * weight).sum(), tensors) for out in (ours, reference))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_offsets_have_a_length_that_seldom_changes():
    few, many = random_mask(3, prefixes=False), Mask.from_segments(np.tile(np.arange(200) // 10, (2, 1)))
    assert [len(on_cpu(mask, "varlen").offsets.documents) for mask in (few, many)] == [17, 65]
    assert on_cpu(few, "varlen").offsets.documents[-1] == 400


def test_the_installed_varlen_is_called_as_it_wants_to_be(monkeypatch):
    calls = []
    module = pytest.importorskip("torch.nn.attention.varlen")

    def current(q, k, v, cu_q, cu_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):
        calls.append((max_q, window_size, enable_gqa))
        return q

    def first(q, k, v, cu_q, cu_k, max_q, max_k, is_causal=False):
        calls.append((max_q, is_causal))
        return q

    mask = on_cpu(random_mask(1, time=60, prefixes=False), "varlen")
    for function in (current, first):
        monkeypatch.setattr(module, "varlen_attn", function)
        lowerings._varlen_options.cache_clear()
        lowerings.varlen(*heads(mask), mask.offsets)
    lowerings._varlen_options.cache_clear()
    assert calls == [(60, (-1, 0), True), (60, True)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), time=st.sampled_from([100, 256, 700]))
def test_tiles_equal_those_that_torch_finds_by_trying_every_pair(seed, time):
    mask = random_mask(seed, time=time)
    begins_BT, ends_BT = mask.begins_BT, mask.ends_BT

    def is_visible(b, h, q, kv):
        return (begins_BT[b, q] <= kv) & (kv < ends_BT[b, q])

    theirs = flex_attention.create_block_mask(is_visible, 2, None, time, time, device="cpu")
    ours = on_cpu(mask, "flex").blocks
    assert ours.shape == theirs.shape and ours.BLOCK_SIZE == theirs.BLOCK_SIZE
    for kind in ("kv", "full_kv", "q", "full_q"):
        numbers = [getattr(blocks, f"{kind}_num_blocks") for blocks in (ours, theirs)]
        assert torch.equal(*numbers), kind
        lists = [getattr(blocks, f"{kind}_indices") for blocks in (ours, theirs)]
        is_used = torch.arange(lists[0].shape[-1]) < numbers[0][..., None]
        assert torch.equal(lists[0][is_used], lists[1][is_used]), kind
        assert lists[0].shape == lists[1].shape and lists[0].dtype == lists[1].dtype == torch.int32


@pytest.mark.parametrize(("query_heads", "key_heads", "size"), [(4, 4, 16), (6, 2, 32), (3, 1, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flex_equals_the_definition(query_heads, key_heads, size, dtype):
    for seed in range(3):
        mask = random_mask(seed, time=300)
        with torch.no_grad():
            tensors = heads(mask, query_heads, key_heads, size, dtype, grad=False)
            out = attend(*tensors, on_cpu(mask, "flex"))
            reference = attend_reference(*(x.float() for x in tensors), mask)
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(out.float(), reference, atol=tolerance, rtol=tolerance)


def test_flex_takes_intervals_that_are_no_segments():
    ends = np.arange(1, 301, dtype=np.int32)[None]
    window = Mask.of(np.maximum(ends - 150, 0), ends)
    with torch.no_grad():
        tensors = heads(window, grad=False)
        out = attend(*tensors, on_cpu(window, "flex"))
        torch.testing.assert_close(out, attend_reference(*tensors, window), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("key_heads", [1, 4])
def test_dense_and_boolean_masks_equal_the_definition(key_heads):
    for lowering, mask in (("dense", Mask.causal(2, 50)), ("sdpa-mask", random_mask(0))):
        tensors = heads(mask, key_heads=key_heads)
        out = attend(*tensors, on_cpu(mask, lowering))
        torch.testing.assert_close(out, attend_reference(*tensors, mask), atol=1e-5, rtol=1e-5)


def test_a_gpu_gets_the_lowering_that_fits_the_mask(monkeypatch):
    packed, prefixed = random_mask(2, prefixes=False), random_mask(2)
    assert packed.has_prefix < prefixed.has_prefix
    assert [mask._choice()[0] for mask in (Mask.causal(1, 9), packed, prefixed)] == ["dense", "varlen", "flex"]
    monkeypatch.setattr(lowerings, "has_varlen", lambda: False)
    assert packed._choice()[0] == "flex"


def test_a_lowering_that_cannot_express_the_mask_is_refused():
    with pytest.raises(ValueError, match="several segments"):
        random_mask(2).to("cpu", "dense")
    ends = np.arange(1, 9)[None]
    window = Mask.of(np.maximum(ends - 3, 0), ends)
    for mask, lowering in ((window, "varlen"), (random_mask(2), "varlen"), (window, "blocked")):
        with pytest.raises(ValueError, match='use "flex"'):
            mask.to("cpu", lowering)


def test_varlen_in_fp32_falls_back_to_the_boolean_mask():
    mask = random_mask(5, time=60, prefixes=False)
    tensors = heads(mask)
    torch.testing.assert_close(attend(*tensors, on_cpu(mask, "varlen")), attend_reference(*tensors, mask))


@pytest.mark.parametrize("lowering", ["dense", "sdpa-mask", "varlen", "flex"])
def test_one_compiled_graph_serves_all_steps(lowering, monkeypatch):
    """`fullgraph` refuses graph breaks; the counter shows that other documents need no other graph."""
    torch._dynamo.reset()
    monkeypatch.setattr(lowerings, "_torch_varlen", lambda q, k, v, offsets, *_: q + offsets.sum())
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def layer(q, k, v, mask):
        return attend(q * 2, k, v, mask) + 1

    with torch.no_grad():
        for seed in (2, 5, 7):
            mask = random_mask(seed, prefixes=lowering != "varlen") if lowering != "dense" else Mask.causal(2, 200)
            tensors = heads(mask, dtype=torch.bfloat16, grad=False)
            out = layer(*tensors, on_cpu(mask, lowering))
            if lowering != "varlen":
                expected = attend_reference(tensors[0] * 2, *tensors[1:], mask) + 1
                torch.testing.assert_close(out, expected, atol=5e-2, rtol=5e-2)
    assert counter.frame_count == 1


def test_a_compiled_cpu_function_trains_with_the_boolean_mask():
    torch._dynamo.reset()
    mask = random_mask(2, time=60)
    tensors = heads(mask)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def layer(q, k, v, mask):
        return attend(q, k, v, mask)

    mine = torch.autograd.grad(layer(*tensors, mask).sin().sum(), tensors)
    theirs = torch.autograd.grad(attend_reference(*tensors, mask).sin().sum(), tensors)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_causal_mask_can_be_made_inside_a_compiled_function():
    torch._dynamo.reset()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def layer(q, k, v):
        return attend(q, k, v, Mask.causal(q.shape[0], q.shape[2], q.device))

    tensors = heads(Mask.causal(2, 30))
    torch.testing.assert_close(layer(*tensors), attend_reference(*tensors, Mask.causal(2, 30)), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("lowering", ["dense", "varlen", "flex", "sdpa-mask"])
@pytest.mark.parametrize(("query_heads", "key_heads", "size"), [(4, 4, 32), (4, 2, 64), (6, 6, 128)])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_on_a_gpu_each_lowering_trains_as_the_definition_does(lowering, query_heads, key_heads, size, is_compiled):
    torch._dynamo.reset()
    function = torch.compile(attend, fullgraph=True) if is_compiled else attend
    for seed in (2, 5):
        mask = {"dense": Mask.causal(2, 320), "varlen": random_mask(seed, time=320, prefixes=False)}.get(
            lowering, random_mask(seed, time=320)
        )
        tensors = heads(mask, query_heads, key_heads, size)
        weight = torch.randn(2, 320, query_heads, size)
        reference = attend_reference(*tensors, mask)
        expected = [reference, *torch.autograd.grad((reference * weight).sum(), tensors)]
        moved = [tensor.detach().to("cuda", torch.bfloat16).requires_grad_() for tensor in tensors]
        out = function(*moved, mask.to("cuda", lowering))
        found = [out, *torch.autograd.grad((out * weight.to(out)).sum(), moved)]
        assert out.dtype == torch.bfloat16
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.isfinite(mine).all()
            assert (mine.float().cpu() - theirs).norm() < 0.02 * theirs.norm()
