import gc
import logging

import pytest
import torch
from codesieve.train.config import TrainConfig
from codesieve.train.execution import garbage_later, make_pass
from small_model import Small, inputs

CPU = torch.device("cpu")


def test_a_cpu_runs_the_model_as_it_is_written():
    assert make_pass(Small(), TrainConfig(), CPU).description == "eager"


def test_z_loss_of_the_config_reaches_the_model():
    plain, weighted = (make_pass(Small(), TrainConfig(z_loss=z), CPU)(*inputs(0))[0] for z in (0.0, 0.5))
    assert weighted.item() == pytest.approx(plain.item() + 0.5)


@pytest.mark.parametrize(("options", "reason"), [({}, "the device is cpu"), ({"is_sharded": True}, "sharded")])
def test_a_graph_that_cannot_be_is_refused_with_its_reason(caplog, options, reason):
    with caplog.at_level(logging.WARNING):
        way = make_pass(Small(), TrainConfig(), CPU, graph=True, **options)
    assert way.description == "eager"
    assert reason in caplog.text


def test_the_garbage_collector_rests_inside_and_returns():
    with garbage_later():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
