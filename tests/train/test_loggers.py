import sys

import pytest
from codesieve.strict import ConfigError
from codesieve.train.loggers import open_loggers

CONFIG = {"learning_rate": 1e-3, "stages": [{"name": "text"}]}


def log(name, folder, steps, first_step=0):
    (logger,) = open_loggers([name], folder, "arm/0", CONFIG, first_step)
    for step in steps:
        logger.log(step, {"train/loss": float(step), "train/losses/code": 0.5})
    logger.close()


def test_no_logger_is_no_logger(tmp_path):
    assert open_loggers([], tmp_path, "arm/0", CONFIG) == []
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_holds_every_step_once_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log("tensorboard", tmp_path, range(6))
    log("tensorboard", tmp_path, range(4, 8), first_step=4)
    events = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(n, n) for n in range(8)]
    assert [event.value for event in events.Scalars("train/losses/code")] == [0.5] * 8
    assert events.Tags()["tensors"] == ["config/text_summary"]


def test_wandb_writes_an_offline_run_and_a_resumed_one_keeps_its_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")  # nothing listens there
    log("wandb", tmp_path, range(4))
    log("wandb", tmp_path, range(4, 6), first_step=4)
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    name = (tmp_path / "wandb-id").read_text()
    assert len(runs) in {1, 2}  # one a start, unless both fall into one second
    for run in runs:
        assert run.name.endswith(f"-{name}")
        assert (run / f"run-{name}.wandb").stat().st_size > 0


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_names_the_extra(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{name} is not installed; `pip install 'codesieve\[loggers\]'`"):
        open_loggers([name], tmp_path, "arm/0", CONFIG)
