import numpy as np
import pytest
import torch
from codesieve.train.batches import HEAD_LENGTHS, Prepared, kept_positions
from codesieve.train.rows import IGNORED, Batch
from hypothesis import given
from hypothesis import strategies as st


def batch_with(is_target_BT):
    """Rows of one document that count where `is_target_BT`."""
    rows, time = is_target_BT.shape
    columns = np.broadcast_to(np.arange(time, dtype=np.int32), is_target_BT.shape)
    targets = np.where(is_target_BT, 7, IGNORED)
    return Batch(
        np.zeros_like(targets),
        targets,
        columns.copy(),
        np.zeros_like(columns),
        columns + 1,
        np.zeros(is_target_BT.shape, np.int8),
        ("code",) * rows,
    )


@given(size=st.integers(8, 200), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_every_target_is_kept_once_and_lengths_are_few(size, share, seed):
    is_target = np.random.default_rng(seed).random((2, size)) < share
    kept = kept_positions(np.where(is_target, 7, IGNORED))
    count, total = int(is_target.sum()), is_target.size
    if kept is None:
        assert count > (HEAD_LENGTHS - 1) / HEAD_LENGTHS * total
        return
    assert len(set(kept.tolist())) == len(kept)
    assert set(np.flatnonzero(is_target)) <= set(kept.tolist())
    assert len(kept) in {-(-total * eighths // HEAD_LENGTHS) for eighths in range(1, HEAD_LENGTHS)}
    assert len(kept) - count <= total / HEAD_LENGTHS + 1


def test_a_gpu_is_told_which_positions_of_each_part_reach_the_head():
    is_target = np.zeros((4, 16), bool)
    is_target[0, 2:] = is_target[1] = is_target[3, 15] = True
    batch = batch_with(is_target)
    parts = Prepared.of(batch, 2, torch.device("meta")).parts
    assert [None if part.kept_K is None else part.kept_K.shape for part in parts] == [None, (4,)]
    assert Prepared.of(batch, 2, torch.device("cpu")).parts[1].kept_K is None


@pytest.mark.parametrize("rows_per_part", [1, 2, 4])
def test_parts_hold_all_rows_in_order_and_targets_are_counted_once(rows_per_part):
    is_target = np.random.default_rng(0).random((4, 8)) < 0.5
    batch = batch_with(is_target)
    prepared = Prepared.of(batch, rows_per_part, torch.device("cpu"))
    assert prepared.targets == is_target.sum()
    assert np.array_equal(torch.cat([part.targets_BT for part in prepared.parts]), batch.targets_BT)
    assert [len(part.mask.begins_BT) for part in prepared.parts] == [rows_per_part] * (4 // rows_per_part)
