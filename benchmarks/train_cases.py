"""What `benchmarks/train.py` measures: a case is one line, or one table, and the suite is all that a GPU owes.

`minutes` is a guess, made to choose cases for a machine that is lent for a quarter of an hour: no case has run on a GPU
yet. It counts the start of a process, compiling by layers of the model, and the steps at a third of an H200's peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from codesieve.strict import CONFIGS, parse
from codesieve.train.config import TrainConfig
from codesieve.train.flops import flops_per_token, peak_flops
from codesieve.train.model import Decoder

OBJECTIVES = tuple(path.stem for path in sorted((CONFIGS / "objectives").glob("*.yaml")))
PEERS = ("transformers", "nanogpt")
WARM_UP_STEPS = 3
"""At least, of every side; on a GPU what is compiled is compiled in them."""

START_SECONDS = 30
"""Of a process: Python, CUDA and made-up documents."""
LAYER_SECONDS = 5
"""Of compiling one layer forwards and backwards, and a share of the rest of the model."""


@dataclass(frozen=True)
class Case:
    """What is trained, and against whom; a `table` compares ours with ours."""

    name: str
    model: str | dict[str, Any]
    vocab_size: int
    sequence_length: int
    step_tokens: int
    against: tuple[str, ...] = ()
    objective: str = "causal"
    attention: Literal["documents", "causal"] = "documents"
    optimizer: str = "adamw"
    micro_batch_tokens: int | None = None
    dtype: str = "auto"
    compile: bool | None = None
    threads: int = 1
    rounds: int = 5
    steps: int = 10
    table: Literal["", "attention", "objective"] = ""

    @property
    def warm_up_steps(self) -> int:
        """A round, so that a batch of a rarer kind has probably been compiled too."""
        return max(WARM_UP_STEPS, self.steps)

    def config(self) -> TrainConfig:
        """The same as a run's configuration, long enough for every round."""
        fields = ("model", "vocab_size", "sequence_length", "step_tokens", "optimizer", "dtype", "compile", "threads")
        return parse(
            TrainConfig,
            {
                **{name: getattr(self, name) for name in fields},
                "micro_batch_tokens": self.micro_batch_tokens,
                "window_tokens": self.sequence_length,
                "tokens": (self.warm_up_steps + self.rounds * self.steps) * self.step_tokens,
                "objectives": self.objective,
            },
            self.name,
        )

    def sides(self) -> dict[str, tuple[str, Case]]:
        """Name -> (which maker of `train_sides.SIDES`, with what): the first is compared with every other."""
        if self.table == "attention":  # whole rows causal, documents apart, documents with bidirectional prefixes
            prefixes = replace(self, objective="prefix-lm")
            return {
                "causal": ("codesieve causal", self),
                "documents": ("codesieve documents", self),
                "prefix-LM": ("codesieve documents", prefixes),
            }
        if self.table == "objective":
            names = ("causal", *(name for name in OBJECTIVES if name != "causal"))
            return {name: ("codesieve documents", replace(self, objective=name)) for name in names}
        ours = (f"codesieve {self.attention}", self)
        return {"codesieve": ours, **{name: (name, self) for name in self.against}}

    def decoder(self) -> Decoder:
        """The model, without weights."""
        config = self.config()
        with torch.device("meta"):
            return Decoder(config.model, config.vocab_size, config.sequence_length)

    def minutes(self) -> float:
        """Roughly what it takes on an H200."""
        config = self.config()
        operations = config.tokens * flops_per_token(config.model, config.vocab_size, config.sequence_length)
        steps = operations / (peak_flops("NVIDIA H200") or 1) * 3
        return (START_SECONDS + len(self.sides()) * (LAYER_SECONDS * config.model.num_hidden_layers + steps)) / 60


GPT2_124M: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12}
GPT2_124M |= {"num_attention_heads": 6, "num_key_value_heads": 6}
GPT2_350M: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24}
GPT2_350M |= {"num_attention_heads": 8, "num_key_value_heads": 8}
# The size and block of Aryabumi et al.'s smaller model with a vocabulary that leaves it to its layers.
PARALLEL_470M: dict[str, Any] = {"family": "cohere", "hidden_size": 1024, "intermediate_size": 4096}
PARALLEL_470M |= {"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 8}
SUITE = (
    # Full causal attention is what the others do: the plain comparison. Head dimension 128 for all sides.
    Case("124m", GPT2_124M, 50_304, 1024, 65_536, PEERS, attention="causal"),
    Case("350m", GPT2_350M, 50_304, 2048, 65_536, PEERS, attention="causal"),
    Case("470m parallel", PARALLEL_470M, 32_768, 2048, 65_536, PEERS, attention="causal"),
    Case("codegen2-1b", "codegen2-1b", 51_200, 2048, 65_536, PEERS, attention="causal", rounds=3),
    Case("proxy-15m", "proxy-15m", 16_384, 1024, 131_072, PEERS, attention="causal"),
    Case("proxy-30m", "proxy-30m", 16_384, 1024, 131_072, PEERS, attention="causal"),
    # Infilling between characters costs the data thread most, and a small model leaves it least time.
    Case("proxy-15m objectives", "proxy-15m", 16_384, 1024, 131_072, table="objective"),
    Case("to-code-470m", "to-code-470m", 256_000, 2048, 65_536, PEERS, attention="causal", rounds=3),
    Case("124m masks", GPT2_124M, 50_304, 1024, 65_536, table="attention"),
    Case("350m masks", GPT2_350M, 50_304, 2048, 65_536, table="attention"),
    Case(
        "124m muon", GPT2_124M, 50_304, 1024, 524_288, attention="causal", optimizer="muon", micro_batch_tokens=65_536
    ),
)
