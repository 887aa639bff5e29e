"""Which way forward and backward are computed on a device.

On a CPU the model runs as it is written: compiling needs a C++ compiler and gains little. On a GPU it is one compiled
graph (`passes.py`); above 1 B parameters one a layer, whose code all layers share, so that compiling takes seconds. A
small model is replayed as a CUDA graph (`cuda_graph.py`). The price is a minute at the first step, and again where a
later stage brings another kind of batch. What cannot be done falls back to the slower path with one line in the log;
`Pass.description` says which path runs. Only with sharded
parameters there is no way back, since FSDP2 cannot begin a pass anew that broke off: there a failure ends the run.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .config import TrainConfig
from .cuda_graph import Capture, CudaCapture, ReplayedPass
from .passes import CompiledPass, Pass
from .trainable import Losses, Trainable

log = logging.getLogger(__name__)

WHOLE_MODEL_PARAMETERS = 1_200_000_000
"""Compiled as one graph up to here (CodeGen2 1B included); torchtitan and OLMo-core compile larger models by block."""
GRAPH_PARAMETERS = 160_000_000
"""Captured as a CUDA graph up to here: above, the kernels of a full micro-batch are far longer than their launches."""


def make_pass(
    model: Trainable,
    config: TrainConfig,
    device: torch.device,
    *,
    graph: bool | None = None,
    is_sharded: bool = False,
    capture: Capture | None = None,
    backend: str = "inductor",
) -> Pass:
    """The way to compute a pass of `model` on `device`.

    Args:
        graph: capture a CUDA graph; default: where it pays.
        is_sharded: the parameters belong to several processes (FSDP2): compile by layer, capture nothing.
        capture: in place of CUDA's, and `backend` in place of inductor: for tests.
    """

    def compute(*arguments: Any) -> Losses:
        return model.loss(*arguments, z_loss=config.z_loss)

    is_cuda = device.type == "cuda"
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() for parameter in parameters)
    is_compiled = is_cuda if config.compile is None else config.compile
    layers = _layers(model) if is_sharded or size > WHOLE_MODEL_PARAMETERS else []
    plain = Pass(compute, parameters)
    if is_compiled and is_sharded:
        for layer in layers:
            layer.compile(dynamic=False, fullgraph=True, backend=backend)
        plain = Pass(compute, parameters, "compiled by layer")
    elif is_compiled:
        plain = CompiledPass(compute, parameters, backend, is_required=bool(config.compile), layers=layers)
    if graph and (is_sharded or (capture is None and not is_cuda)):
        log.warning("no CUDA graph: %s", "parameters are sharded" if is_sharded else f"the device is {device.type}")
        graph = False
    if graph is None:
        graph = is_cuda and is_compiled and not is_sharded and size <= GRAPH_PARAMETERS
    return ReplayedPass(plain, capture or CudaCapture()) if graph else plain


def _layers(model: Trainable) -> list[nn.Module]:
    """The layers, whatever the architecture calls them."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


@contextlib.contextmanager
def garbage_later() -> Iterator[None]:
    """Python's cycle collector off inside: over the objects of a model it pauses a step by up to half a second.

    Reference counting goes on, and a training step makes no cycles; a loop may call `gc.collect()` at checkpoints.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
