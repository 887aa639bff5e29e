"""A run that was cut short goes on as if nothing had happened, bit by bit."""

import errno
import shutil

import polars as pl
import pytest
import torch
from codesieve.train.checkpoint import Checkpoints, Snapshot
from codesieve.train.distributed import World
from codesieve.train.metrics import read_metrics
from training_world import VOCAB, changed, make_world, run, run_ranks
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

STAGES = [
    {"name": "mixed", "tokens": 320, "objectives": "codegen2"},
    {"name": "fresh", "tokens": 192, "weights": {"code": 0.25, "text": 0.75}, "join": "fresh", "objectives": "fim"},
    {"name": "cooldown", "tokens": 128, "join": "anneal", "where": "score >= 0.5"},
]
BASE = {"sequence_length": 16, "window_tokens": 24, "step_tokens": 64}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    make_world(folder, documents=30)
    return folder


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """The uninterrupted runs, by configuration."""
    done = {}

    def get(config):
        key = config.model_dump_json()
        if key not in done:
            done[key] = tmp_path_factory.mktemp("straight") / "model"
            run(world, done[key], config)
        return done[key]

    return get


def assert_same(one, other):
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    timing = ("tokens_per_second", "wait_fraction")
    first, second = (read_metrics(folder / "metrics.jsonl").drop(timing) for folder in (one, other))
    assert first.equals(second)
    assert pl.read_parquet(other / "metrics.parquet").height == first.height


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("after", [1, 5, 8])
def test_ten_steps_are_five_and_a_resume_across_stage_joins(world, straight, tmp_path, after, optimizer):
    config = changed(**BASE, stages=STAGES, optimizer=optimizer)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=after)
    assert not (tmp_path / "model" / "training.json").exists()
    run(world, tmp_path / "model", config)
    assert_same(straight(config), tmp_path / "model")


def test_a_resume_across_the_end_of_an_epoch_and_twice(world, straight, tmp_path):
    config = changed(**BASE, tokens=64 * 60, objectives="codegen2")
    for after in (20, 25):
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path / "model", config, stop_after=after)
    report = run(world, tmp_path / "model", config)
    assert min(report["epochs_per_stream"].values()) > 1
    assert_same(straight(config), tmp_path / "model")


def test_a_resume_with_another_micro_batch_and_thread_count_of_the_loader(world, straight, tmp_path):
    config = changed(**BASE, stages=STAGES)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=5)
    run(world, tmp_path / "model", changed(**BASE, stages=STAGES, micro_batch_tokens=32))
    assert_same(straight(config), tmp_path / "model")


def test_a_resume_with_another_number_of_processes(world, straight, tmp_path):
    config = changed(**BASE, stages=STAGES)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=5)
    shutil.copytree(tmp_path / "model", tmp_path / "first")
    run_ranks(2, world, tmp_path / "model", config)
    assert_same(straight(config), tmp_path / "model")

    run_ranks(2, world, tmp_path / "back", config, stop_after=5)
    run(world, tmp_path / "back", config)
    assert_same(straight(config), tmp_path / "back")


def test_sharded_processes_train_the_same_model_to_rounding(world, straight, tmp_path):
    config = changed(**BASE, stages=STAGES)
    run_ranks(2, world, tmp_path / "model", changed(**BASE, stages=STAGES, parallel="fsdp"))
    ours, theirs = (read_metrics(folder / "metrics.jsonl")["loss"] for folder in (straight(config), tmp_path / "model"))
    assert (ours - theirs).abs().max() < 1e-4


def test_sharded_processes_train_a_model_of_transformers_and_go_on(world, tmp_path):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCAB, **shape)).save_pretrained(tmp_path / "neox")
    foreign = {**BASE, "tokens": 640, "backend": "transformers", "init_from": str(tmp_path / "neox")}
    run(world, tmp_path / "alone", changed(**foreign))
    run_ranks(2, world, tmp_path / "model", changed(**foreign, parallel="fsdp"), stop_after=5)
    run_ranks(2, world, tmp_path / "model", changed(**foreign, parallel="fsdp"))
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl")["loss"] for name in ("alone", "model"))
    assert (ours - theirs).abs().max() < 1e-4
    GPTNeoXForCausalLM.from_pretrained(tmp_path / "model")


def test_checkpoints_every_so_many_tokens_are_kept_and_hold_models(world, straight, tmp_path):
    from codesieve.train.pretrained import load_model

    config = changed(**BASE, stages=STAGES, checkpoint_tokens=128, keep_checkpoints=2)
    run(world, tmp_path / "model", config)
    assert_same(straight(changed(**BASE, stages=STAGES)), tmp_path / "model")
    names = [path.name for path in sorted((tmp_path / "model" / "checkpoints").iterdir())]
    assert names == ["step-00000008", "step-00000010"]
    load_model(tmp_path / "model" / "checkpoints" / names[0])


@pytest.mark.parametrize("every", [{}, {"checkpoint_tokens": 128}])
def test_checkpoints_for_good_stay_beside_the_last_ones(world, tmp_path, every):
    config = changed(**BASE, **every, tokens=640, keep_checkpoints_every_tokens=192, keep_checkpoints=1)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=4)
    run(world, tmp_path / "model", config)
    names = [int(path.name[5:]) for path in sorted((tmp_path / "model" / "checkpoints").iterdir())]
    assert names == [3, 6, 9, 10] if every else [3, 6, 9]


def fail_in_checkpoints(monkeypatch, steps):
    """The disk is full when the checkpoint after one of these steps is written."""
    real = Snapshot.write

    def write(self, folder):
        if self.state["step"] in steps:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, folder)

    monkeypatch.setattr(Snapshot, "write", write)


def test_a_stop_is_saved_though_the_checkpoint_before_it_failed(world, straight, tmp_path, monkeypatch, caplog):
    config = changed(**BASE, stages=STAGES, checkpoint_tokens=256)
    fail_in_checkpoints(monkeypatch, {4})
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=7)
    assert [path.name for path in (tmp_path / "model" / "checkpoints").iterdir()] == ["step-00000007"]
    assert "No space left on device" in caplog.text
    run(world, tmp_path / "model", config)
    assert_same(straight(changed(**BASE, stages=STAGES)), tmp_path / "model")


def test_a_model_is_written_though_the_last_checkpoint_failed(world, straight, tmp_path, monkeypatch, caplog):
    fail_in_checkpoints(monkeypatch, {10})
    run(world, tmp_path / "model", changed(**BASE, stages=STAGES, checkpoint_tokens=320))
    assert_same(straight(changed(**BASE, stages=STAGES)), tmp_path / "model")
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(("failing", "error"), [({7}, OSError), ((), KeyboardInterrupt)])
def test_all_ranks_stop_when_the_checkpoint_is_written_or_has_failed(world, tmp_path, monkeypatch, failing, error):
    events = []
    wait, checkpoint = World.wait, Checkpoints.wait
    monkeypatch.setattr(World, "wait", lambda self: (events.append("ranks"), wait(self)))
    monkeypatch.setattr(Checkpoints, "wait", lambda self: (events.append("checkpoint"), checkpoint(self)))
    fail_in_checkpoints(monkeypatch, failing)
    with pytest.raises(error):
        run(world, tmp_path / "model", changed(**BASE, stages=STAGES), stop_after=7)
    assert events[-2:] == ["checkpoint", "ranks"]


def test_what_a_run_starts_from_is_known_by_content_not_by_path(world, tmp_path):
    for seed in (0, 1):
        run(world, tmp_path / f"base-{seed}", changed(**BASE, tokens=128), seed=seed)
    shutil.copytree(tmp_path / "base-0", tmp_path / "moved")
    config = changed(**BASE, tokens=640, init_from=str(tmp_path / "base-0"))
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=2)
    shutil.rmtree(tmp_path / "base-0")
    shutil.copytree(tmp_path / "base-1", tmp_path / "base-0")
    with pytest.raises(ValueError, match=r"something else.*\n  config\.init_from\.model\.safetensors: "):
        run(world, tmp_path / "model", config)
    run(world, tmp_path / "model", config.model_copy(update={"init_from": str(tmp_path / "moved")}))


def test_a_branch_takes_the_optimizer_of_a_checkpoint(world, tmp_path):
    trunk = changed(**BASE, tokens=640, schedule="constant", warmup_fraction=0.0, checkpoint_tokens=320)
    run(world, tmp_path / "trunk", trunk)
    source = str(tmp_path / "trunk" / "checkpoints" / "step-00000010")
    losses = {}
    for kept in (True, False):
        branch = changed(**BASE, tokens=128, init_from=source, init_optimizer=kept, warmup_fraction=0.0)
        run(world, tmp_path / str(kept), branch)
        losses[kept] = read_metrics(tmp_path / str(kept) / "metrics.jsonl")["loss"].to_list()
    assert losses[True][0] == losses[False][0]
    assert losses[True][1] != losses[False][1]


def test_changed_data_or_settings_are_refused_by_name(world, tmp_path):
    config = changed(**BASE, stages=STAGES)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path / "model", config, stop_after=2)
    with pytest.raises(ValueError, match=r"something else.*\n  config.learning_rate: 0.01 -> 0.02"):
        run(world, tmp_path / "model", changed(**BASE, stages=STAGES, learning_rate=0.02))
    with pytest.raises(ValueError, match=r"\n  data\.documents: "):
        run(world, tmp_path / "model", config, documents=range(29))
    make_world(tmp_path / "other", documents=31)
    run(world, tmp_path / "model", config)
    with pytest.raises(ValueError, match=r"training.json belongs to a run of something else"):
        run(world, tmp_path / "model", config, seed=1)
    run(world, tmp_path / "model", config, seed=1, restart=True)


def test_a_finished_run_is_not_done_again(world, tmp_path):
    config = changed(**BASE, stages=STAGES)
    report = run(world, tmp_path / "model", config)
    before = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert run(world, tmp_path / "model", config) == report
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == before
