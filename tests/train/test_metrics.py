import dataclasses
import json
import math

import numpy as np
import polars as pl
import pytest
from codesieve.train.metrics import (
    StepMetrics,
    ValidationMetrics,
    finish_metrics,
    losses_by_objective,
    losses_by_stream,
    read_metrics,
    scalars,
    truncate_metrics,
    write_step,
)
from hypothesis import given, settings
from hypothesis import strategies as st

STEP = StepMetrics(
    step=0,
    stage="train",
    tokens_seen=64,
    loss=2.5,
    losses={"code": 2.0, "text": None},
    losses_by_objective={"causal": 2.5},
    targets=60,
    learning_rate=1e-3,
    grad_norm=0.7,
    skipped=False,
    tokens_per_second=1000.0,
    mfu=None,
    wait_fraction=0.01,
)


def write(path, steps):
    with path.open("w", encoding="utf-8") as file:
        for step in steps:
            write_step(file, dataclasses.replace(STEP, step=step, tokens_seen=64 * (step + 1)))


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "metrics.jsonl", range(3))
    table = read_metrics(tmp_path / "metrics.jsonl")
    assert table["step"].to_list() == [0, 1, 2]
    assert table.row(1, named=True) == {**dataclasses.asdict(STEP), "step": 1, "tokens_seen": 128}
    assert table.schema["mfu"] == pl.Float64


def test_a_value_that_json_cannot_say_is_an_error_not_a_broken_file(tmp_path):
    with (tmp_path / "metrics.jsonl").open("w") as file, pytest.raises(ValueError, match="not JSON compliant"):
        write_step(file, dataclasses.replace(STEP, loss=math.nan))


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(3))
    path.write_bytes(path.read_bytes()[:-20])
    assert read_metrics(path)["step"].to_list() == [0, 1]
    path.write_bytes(b'{"step"')
    assert read_metrics(path).is_empty()


@pytest.mark.parametrize("torn", [b"", b'{"step": 5, "sta'])
def test_a_resumed_run_writes_the_file_of_the_uninterrupted_one(tmp_path, torn):
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    write(whole, range(8))
    write(resumed, range(5))
    resumed.write_bytes(resumed.read_bytes() + torn)
    truncate_metrics(resumed, 3)
    assert read_metrics(resumed)["step"].to_list() == [0, 1, 2]
    rest = tmp_path / "rest.jsonl"
    write(rest, range(3, 8))
    with resumed.open("ab") as file:
        file.write(rest.read_bytes())
    assert resumed.read_bytes() == whole.read_bytes()


def test_cutting_a_file_that_is_not_there_makes_none(tmp_path):
    truncate_metrics(tmp_path / "validation.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_has_both_files_as_parquet(tmp_path):
    write(tmp_path / "metrics.jsonl", range(4))
    with (tmp_path / "validation.jsonl").open("w") as file:
        write_step(file, ValidationMetrics(step=3, tokens_seen=256, bits_per_byte=1.5, by_stream={"code": 1.5}))
    finish_metrics(tmp_path)
    for name in ("metrics", "validation"):
        assert pl.read_parquet(tmp_path / f"{name}.parquet").equals(read_metrics(tmp_path / f"{name}.jsonl"))


def test_loggers_get_one_flat_name_a_number():
    assert scalars(STEP) == {
        "train/tokens_seen": 64.0,
        "train/loss": 2.5,
        "train/losses/code": 2.0,
        "train/losses_by_objective/causal": 2.5,
        "train/targets": 60.0,
        "train/learning_rate": 1e-3,
        "train/grad_norm": 0.7,
        "train/skipped": 0.0,
        "train/tokens_per_second": 1000.0,
        "train/wait_fraction": 0.01,
    }
    validation = ValidationMetrics(step=1, tokens_seen=2, bits_per_byte=0.5, by_stream={"text": 0.25})
    assert scalars(validation) == {
        "validation/tokens_seen": 2.0,
        "validation/bits_per_byte": 0.5,
        "validation/by_stream/text": 0.25,
    }


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_losses_of_groups_are_the_means_of_their_valid_targets(seed):
    random = np.random.default_rng(seed)
    losses_BT = random.random((4, 6), dtype=np.float32)
    valid_BT = random.random((4, 6)) < 0.5
    losses_BT[~valid_BT] = np.nan
    objectives_BT = random.integers(0, 3, (4, 6), dtype=np.int8)
    streams = ("text", "code", "code", "text")
    by_stream = losses_by_stream(("code", "text", "web"), streams, losses_BT, valid_BT)
    by_objective = losses_by_objective(("causal", "prefix_lm", "infill"), objectives_BT, losses_BT, valid_BT)
    for number, (name, found) in enumerate(by_objective.items()):
        values = losses_BT[valid_BT & (objectives_BT == number)]
        assert found == (pytest.approx(values.mean(dtype=np.float64)) if len(values) else None), name
    for name, found in by_stream.items():
        rows = [index for index, stream in enumerate(streams) if stream == name]
        values = losses_BT[rows][valid_BT[rows]]
        assert found == (pytest.approx(values.mean(dtype=np.float64)) if len(values) else None), name


def test_a_group_whose_loss_is_not_finite_is_null():
    losses_BT = np.array([[1.0, np.inf], [2.0, 3.0]])
    found = losses_by_stream(("a", "b"), ("a", "b"), losses_BT, np.ones((2, 2), dtype=bool))
    assert found == {"a": None, "b": 2.5}
    assert json.dumps(found, allow_nan=False)
