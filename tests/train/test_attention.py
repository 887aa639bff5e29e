import pytest
import torch
from codesieve.train import attention
from codesieve.train.attention import Mask, attend, attend_reference
from hypothesis import given, settings
from hypothesis import strategies as st


def heads(rows, time, query_heads=4, key_heads=2, size=8):
    torch.manual_seed(rows * 1000 + time)
    return [torch.randn(rows, count, time, size, requires_grad=True) for count in (query_heads, key_heads, key_heads)]


def segments_of(borders, rows, time):
    """Row r gets the borders that fall into it."""
    segments = torch.zeros(rows * time, dtype=torch.int32)
    for border in borders:
        segments[border:] += 1
    return segments.view(rows, time)


def gradients(function, tensors, weight):
    return torch.autograd.grad((function * weight).sum(), tensors)


@settings(max_examples=40, deadline=None)
@given(borders=st.sets(st.integers(1, 79), max_size=6), key_heads=st.sampled_from([1, 2, 4]))
def test_blocks_equal_the_definition_in_values_and_gradients(borders, key_heads):
    q, k, v = heads(2, 40, 4, key_heads)
    mask = Mask.of(torch.zeros(2, 40), segments_of(borders, 2, 40))
    weight = torch.randn(2, 40, 4, 8)
    block_before, attention.BLOCK = attention.BLOCK, 16
    try:
        ours, reference = attend(q, k, v, mask), attend_reference(q, k, v, mask)
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)
        for mine, theirs in zip(
            gradients(ours, (q, k, v), weight), gradients(reference, (q, k, v), weight), strict=True
        ):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    finally:
        attention.BLOCK = block_before


@pytest.mark.parametrize("borders", [[], [5, 40, 61]])
def test_without_gradients_the_result_is_the_same(borders):
    q, k, v = heads(2, 40)
    mask = Mask.of(torch.zeros(2, 40), segments_of(borders, 2, 40))
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, mask), attend_reference(q, k, v, mask), atol=1e-5, rtol=1e-5)


def test_long_rows_use_the_dense_mask_with_the_same_result(monkeypatch):
    q, k, v = heads(2, 40)
    mask = Mask.of(torch.zeros(2, 40), segments_of([7, 50], 2, 40))
    blocked = attend(q, k, v, mask)
    monkeypatch.setattr(attention, "LONGEST_BLOCKED", 39)
    torch.testing.assert_close(attend(q, k, v, mask), blocked, atol=1e-5, rtol=1e-5)


def test_a_mask_finds_the_segments():
    mask = Mask.of(torch.zeros(2, 6), torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]]))
    assert mask.pieces == ((0, 0, 2), (0, 2, 5), (0, 5, 6), (1, 0, 6))
    assert mask.dense().sum() == 3 + 6 + 1 + 21


def test_rows_of_one_segment_need_no_dense_mask():
    assert Mask.of(torch.zeros(2, 6), torch.zeros(2, 6, dtype=torch.int32)).dense() is None
    assert Mask.of(torch.zeros(2, 6), None) == Mask.of(torch.zeros(2, 6), torch.zeros(2, 6, dtype=torch.int32))


def test_a_document_sees_nothing_of_its_neighbours():
    q, k, v = heads(1, 40)
    mask = Mask.of(torch.zeros(1, 40), segments_of([15], 1, 40))
    before = attend(q, k, v, mask)
    with torch.no_grad():
        for tensor in (q, k, v):
            tensor[:, :, :15] += 1
    after = attend(q, k, v, mask)
    assert torch.equal(before[:, 15:], after[:, 15:])
    assert not torch.equal(before[:, :15], after[:, :15])
