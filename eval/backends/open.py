"""From what a user names to a backend.

models/a                     a model folder
vllm:models/a                the same in vLLM
http://localhost:8000/v1#m   model m of a server with OpenAI's completions interface
replay:samples.jsonl         answers from a file
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...strict import ConfigError
from .protocol import Backend

if TYPE_CHECKING:
    from ...config import EvalConfig


def open_backend(spec: str, config: EvalConfig, device: str = "auto", threads: int | None = None) -> Backend:
    """The backend that `spec` names.

    Args:
        config: its `attention` decides how a model folder sees contexts.
        device: of a model folder; auto: the first GPU, else the CPU.
        threads: of one computation of a model folder; None: as PyTorch is set.

    Raises:
        ConfigError: if it cannot be opened, or cannot do what `config` asks.
    """
    kind, separator, rest = spec.partition(":")
    if separator and kind in ("http", "https"):
        from .endpoint import EndpointBackend

        _causal_only(spec, config)
        url, _, model = spec.partition("#")
        return EndpointBackend(url, model or None)
    if separator and kind == "vllm":
        from .vllm import VllmBackend

        _causal_only(spec, config)
        return VllmBackend(Path(rest))
    if separator and kind == "replay":
        from .replay import ReplayBackend

        return ReplayBackend(Path(rest))
    from .checkpoint import CheckpointBackend

    return CheckpointBackend(Path(spec), device, config.attention, threads=threads)


def _causal_only(spec: str, config: EvalConfig) -> None:
    if config.attention == "prefix":
        raise ConfigError(f"{spec}: attention: prefix needs a model folder; vLLM and servers attend causally")
