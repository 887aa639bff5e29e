import errno
import json

import pytest
import torch
from codesieve.train.checkpoint import Checkpoints, Snapshot, restore_optimizer
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.model import Decoder
from codesieve.train.optim import make_optimizer
from codesieve.train.pretrained import load_model
from training_world import make_world

SMALL = ModelConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)


def writer(text):
    def write(folder):
        (folder / "model.bin").write_text(text)
        (folder / "state.json").write_text(json.dumps({"step": 1}))

    return write


def full(folder):
    (folder / "model.bin").write_text("ha")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_last_ones_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(step, writer(str(step)))
    checkpoints.wait()
    assert [path.name for path in checkpoints.all()] == ["step-00000010", "step-00000015"]
    assert (checkpoints.latest() / "model.bin").read_text() == "15"


def test_a_full_disk_costs_the_new_checkpoint_only_and_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(5, writer("whole"))
    checkpoints.save(10, full)
    with pytest.raises(OSError, match=r"No space left on device.*last whole one is .*step-00000005"):
        checkpoints.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    checkpoints.wait()  # said once
    checkpoints.save(15, writer("again"))
    checkpoints.wait()
    assert checkpoints.latest().name == "step-00000015"


def test_a_checkpoint_that_failed_does_not_cost_the_next_one(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(5, full)
    checkpoints.save(10, writer("whole"))
    checkpoints.wait()  # the old failure was told, and is over
    assert checkpoints.latest().name == "step-00000010"
    assert "No space left on device" in caplog.text


def test_those_that_are_kept_do_not_count_and_stay_when_the_others_go(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 8):
        checkpoints.save(step, writer(str(step)), is_kept=step in {2, 4})
    checkpoints.wait()
    assert [path.name[-1] for path in checkpoints.all()] == ["2", "4", "6", "7"]
    checkpoints.remove()
    assert [path.name[-1] for path in tmp_path.iterdir()] in (["2", "4"], ["4", "2"])


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path):
    (tmp_path / "step-00000007").mkdir()
    torn = tmp_path / ".tmp-1-step-00000009"
    torn.mkdir()
    writer("torn")(torn)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    checkpoints.save(10, writer("whole"))
    checkpoints.wait()
    assert checkpoints.latest().name == "step-00000010"
    assert not torn.exists()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_snapshot_does_not_change_with_the_model_and_brings_everything_back(tmp_path, kind):
    make_world(tmp_path, documents=30)
    config = TrainConfig(model=SMALL, optimizer=kind)
    model = Decoder(SMALL, 400, 16)
    optimizer = make_optimizer(config, model)

    def step(model, optimizer, seed):
        tokens = torch.randint(0, 400, (1, 16), generator=torch.Generator().manual_seed(seed))
        model(tokens).logsumexp(-1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(model, optimizer, 0)
    snapshot = Snapshot.of(model, optimizer, tmp_path / "tokenizer", {"step": 1})
    step(model, optimizer, 1)
    (tmp_path / "saved").mkdir()
    snapshot.write(tmp_path / "saved")

    again = load_model(tmp_path / "saved")
    resumed = make_optimizer(config, again)
    restore_optimizer(resumed, again, tmp_path / "saved")
    step(again, resumed, 1)
    for (name, mine), theirs in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs), name

    others = Snapshot.of(model, optimizer, tmp_path / "tokenizer", {}, is_first=False)
    assert not others.weights  # only the rank that writes holds a copy
    assert not others.optimizer

    other = Decoder(SMALL.model_copy(update={"hidden_size": 32}), 400, 16)
    with pytest.raises(ValueError, match="does not fit the model"):
        restore_optimizer(make_optimizer(config, other), other, tmp_path / "saved")
    with pytest.raises(ValueError, match="only checkpoints of a run hold the optimiser's state"):
        restore_optimizer(resumed, again, tmp_path / "tokenizer")
