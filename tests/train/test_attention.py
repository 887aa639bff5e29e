import itertools
import logging

import numpy as np
import pytest
import torch
from codesieve.train import attention
from codesieve.train.attention import Mask, attend, attend_reference
from codesieve.train.lowerings import announce
from hypothesis import given, settings
from hypothesis import strategies as st

TIME = 40


def heads(rows=2, time=TIME, query_heads=4, key_heads=2, size=8, dtype=torch.float32):
    torch.manual_seed(rows * 1000 + time)
    return [
        torch.randn(rows, count, time, size, dtype=dtype, requires_grad=True)
        for count in (query_heads, key_heads, key_heads)
    ]


@st.composite
def masks(draw, rows=2, time=TIME):
    """Rows cut at random into segments with prefixes of 0 to all of their tokens."""
    segments, prefixes = np.zeros((rows, time), np.int32), np.zeros((rows, time), np.int32)
    for row in range(rows):
        borders = sorted({0, time, *draw(st.sets(st.integers(1, time - 1), max_size=4))})
        for number, (begin, end) in enumerate(itertools.pairwise(borders)):
            segments[row, begin:end] = number
            prefixes[row, begin:end] = draw(st.integers(0, end - begin))
    return Mask.from_segments(segments, prefixes)


def segments_of(*borders, rows=2, time=TIME):
    """Row r gets the borders that fall into it."""
    segments = torch.zeros(rows * time, dtype=torch.int32)
    for border in borders:
        segments[border:] += 1
    return segments.view(rows, time)


@settings(max_examples=40, deadline=None)
@given(mask=masks(), key_heads=st.sampled_from([1, 2, 4]), block=st.sampled_from([1, 7, 16, 128]))
def test_blocks_equal_the_definition_in_values_and_gradients(mask, key_heads, block):
    tensors = heads(key_heads=key_heads, dtype=torch.float64)
    weight = torch.randn(2, TIME, 4, 8, dtype=torch.float64)
    block_before, attention.BLOCK = attention.BLOCK, block
    try:
        ours, reference = attend(*tensors, mask), attend_reference(*tensors, mask)
        torch.testing.assert_close(ours, reference, atol=1e-12, rtol=1e-12)
        mine, theirs = (torch.autograd.grad((out * weight).sum(), tensors) for out in (ours, reference))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)
    finally:
        attention.BLOCK = block_before


def test_blocks_pass_gradcheck():
    segments, prefixes = torch.tensor([[0, 0, 0, 0, 1, 1]]), torch.tensor([[3, 3, 3, 3, 0, 0]])
    mask = Mask.from_segments(segments, prefixes)
    tensors = heads(1, 6, 2, 1, 2, torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, mask), tensors)


@settings(max_examples=20, deadline=None)
@given(mask=masks())
def test_without_gradients_the_result_is_the_same(mask):
    tensors = heads()
    with torch.no_grad():
        torch.testing.assert_close(attend(*tensors, mask), attend_reference(*tensors, mask), atol=1e-5, rtol=1e-5)


def test_long_rows_use_the_dense_mask_with_the_same_result(monkeypatch):
    tensors, mask = heads(), Mask.from_segments(segments_of(7, 50))
    blocked = attend(*tensors, mask)
    monkeypatch.setattr(attention, "LONGEST_BLOCKED", TIME - 1)
    torch.testing.assert_close(attend(*tensors, mask), blocked, atol=1e-5, rtol=1e-5)


def test_a_row_alone_gets_the_same_bits_as_in_a_batch():
    mask = Mask.from_segments(segments_of(7, 50))
    alone = Mask.of(mask.begins_BT[1:], mask.ends_BT[1:])
    results = []
    for part, own in ((slice(0, 2), mask), (slice(1, 2), alone)):
        tensors = [tensor.detach()[part].requires_grad_() for tensor in heads()]
        out = attend(*tensors, own)
        results.append([out[-1], *(gradient[-1] for gradient in torch.autograd.grad(out.sin().sum(), tensors))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_any_intervals_are_computed_with_a_dense_mask():
    ends = np.arange(1, 9, dtype=np.int32)[None]
    window = Mask.of(np.maximum(ends - 3, 0), ends)
    assert window.pieces is None
    tensors = heads(1, 8)
    torch.testing.assert_close(attend(*tensors, window), attend_reference(*tensors, window), atol=1e-5, rtol=1e-5)


def test_a_mask_finds_the_segments():
    mask = Mask.from_segments(np.array([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]]))
    assert mask.pieces == ((0, 0, 2, 0), (0, 2, 5, 0), (0, 5, 6, 0), (1, 0, 6, 0))
    assert mask.dense().sum() == 3 + 6 + 1 + 21
    assert not mask.is_plain_causal and not mask.has_prefix


def test_a_prefix_sees_itself_both_ways_and_nothing_behind_it():
    mask = Mask.from_segments(np.array([[0, 0, 0, 1, 1]]), np.array([[2, 2, 2, 0, 0]]))
    assert mask.pieces == ((0, 0, 3, 2), (0, 3, 5, 0)) and mask.has_prefix
    assert mask.dense()[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]


def test_rows_of_one_document_are_plain_causal():
    for mask in (Mask.from_segments(np.zeros((2, 6))), Mask.causal(2, 6), Mask.from_segments(*np.ones((2, 2, 6)))):
        assert mask.is_plain_causal
        assert mask.pieces == ((0, 0, 6, 0), (1, 0, 6, 0))
        assert torch.equal(mask.dense(), torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 1, 6, 6))


@settings(max_examples=30, deadline=None)
@given(mask=masks())
def test_intervals_hold_all_that_a_mask_is(mask):
    again = Mask.of(mask.begins_BT, mask.ends_BT)
    assert (again.pieces, again.has_prefix, again.is_plain_causal) == (
        mask.pieces,
        mask.has_prefix,
        mask.is_plain_causal,
    )


@pytest.mark.parametrize(
    ("begins", "ends", "message"),
    [
        ([[0, 0]], [[1, 3]], "row 0, token 1: sees keys 0 to 3 of 2"),
        ([[0, 2]], [[1, 2]], "row 0, token 1: sees keys 2 to 2 of 2"),
        ([[0, 0]], [[1]], "expected one shape"),
    ],
)
def test_intervals_that_leave_the_row_or_hold_nothing_are_refused(begins, ends, message):
    with pytest.raises(ValueError, match=message):
        Mask.of(np.array(begins), np.array(ends))


@pytest.mark.parametrize("prefixes", [[3, 3, 0], [-1, -1, 0], [1, 2, 0]])
def test_prefixes_that_do_not_fit_their_segment_are_refused(prefixes):
    with pytest.raises(ValueError, match=r"row 0, token [01]: prefix"):
        Mask.from_segments(np.array([[0, 0, 1]]), np.array([prefixes]))


def test_a_document_sees_nothing_of_its_neighbours():
    tensors, mask = heads(1), Mask.from_segments(segments_of(15, rows=1))
    before = attend(*tensors, mask)
    with torch.no_grad():
        for tensor in tensors:
            tensor[:, :, :15] += 1
    after = attend(*tensors, mask)
    assert torch.equal(before[:, 15:], after[:, 15:])
    assert not torch.equal(before[:, :15], after[:, :15])


def test_the_way_is_said_once(caplog):
    announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            attend(*heads(), Mask.causal(2, TIME))
    assert [record.getMessage() for record in caplog.records] == ["attention: blocked (cpu, with gradients)"]
