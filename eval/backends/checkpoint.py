"""A model folder as a backend: config.json, tokenizer.json and weights, as transformers lays them out.

What is asked is `encoding.py`'s and `batching.py`'s, what is computed `scoring.py`'s, `decoding.py`'s and
`network.py`'s; here they meet. Results come in the order of the requests and do not depend on who shares a batch, but
for rounding: about 1e-6 nats a token in float32 (`check_batching` measures it).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from ...files import read_json
from ...strict import ConfigError, fingerprint
from ...train.pretrained import WEIGHT_FILES
from ...train.sentinels import MODE_NAMES
from .asking import Ask, Complete, Scorer, complete_requests, width
from .batching import Found, Halving, Row, check_batching, plan, unknown_batches
from .decoding import Answer, continue_prompts
from .encoding import Encoder, as_list
from .network import Network, OwnNetwork, Training, TransformersNetwork
from .protocol import Done, Generated, Generation, Sampling, Special
from .sampling import Chooser
from .scoring import score

__all__ = ["CheckpointBackend", "check_batching"]

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}
"""Measured on one core with a model of 1M parameters: 12k tokens/s in batches of 1,024, 8k in batches of 8,192, whose
logits no longer fit the cache. A GPU needs many more to be busy."""

POSITIONS_PER_GENERATION = {"cpu": 8192, "cuda": 131_072}
"""Prompts, answers and padding of one batch."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CheckpointBackend(Scorer):
    """A model folder."""

    def __init__(
        self,
        folder: Path | str,
        device: str = "auto",
        attention: Literal["auto", "causal", "prefix"] = "auto",
        dtype: Literal["float32", "bfloat16"] = "float32",
        threads: int | None = None,
    ) -> None:
        """Open the folder.

        Args:
            device: auto: the first GPU, else the CPU.
            attention: prefix: contexts and prompts see themselves both ways; auto: if the model was trained so, but
                for prompts that begin with a control token, which no prefix-LM objective has.
            dtype: of weights and products.
            threads: of one computation; None: as PyTorch is set.

        Raises:
            ConfigError: if the folder is no model, or its class cannot do what `attention` asks.
        """
        self.folder = Path(folder)
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.dtype, self.threads = DTYPES[dtype], threads
        path = self.folder / "config.json"
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; a model folder holds config.json, tokenizer.json and weights")
        config = read_json(path)
        self.context_tokens = self.window = context_tokens_of(config, path)
        self.training = Training.of(self.folder)
        self.is_prefix = attention == "prefix" or (attention == "auto" and self.training.is_prefix)
        self._is_prefix_everywhere = attention == "prefix"
        mode = MODE_NAMES[self.training.mode] if self.is_prefix and self.training.mode else None
        self.encoder = Encoder(self.folder, config, mode)
        self.start_token, self.controls = self.encoder.start_token, self.encoder.controls
        more = self.folder / "generation_config.json"
        ends = [config.get("eos_token_id"), read_json(more).get("eos_token_id") if more.is_file() else None]
        self.end_tokens = {self.start_token, *(token for each in ends for token in as_list(each))}
        self._generator: TransformersNetwork | None = None
        self._halving = Halving()
        self.network: Network = (
            OwnNetwork(self.folder, self.device, self.dtype) if self.training.is_own else self._transformers()
        )
        self.facts: Mapping[str, Any] = {
            "backend": "checkpoint",
            "device": self.device.type,
            "dtype": dtype,
            "attention": "prefix" if self.is_prefix else "causal",
            "attention_asked": attention,
            "mode": self.training.mode if mode else None,
            "context_tokens": self.context_tokens,
            "text_begins_with": [self.encoder.tokenizer.id_to_token(number) for number in self.encoder.lead],
            "scored_by": "codesieve" if self.training.is_own else "transformers",
            "torch": str(torch.__version__),
            "transformers": version("transformers"),
        }
        self.identity = fingerprint(
            file_digests(self.folder), dtype, self.is_prefix, self._is_prefix_everywhere, self.facts["mode"]
        )

    def generate(
        self,
        requests: Sequence[Generation],
        sampling: Sampling,
        done: Done[Generated] | None = None,
        known: Collection[int] = (),
    ) -> list[Generated | None]:
        """See `Backend`."""
        room = self.context_tokens - sampling.max_new_tokens
        if room < 1:
            raise ConfigError(
                f"max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in a context of "
                f"{self.context_tokens}"
            )
        stop_tokens = {self.encoder.control(name) for name in sampling.stop_tokens}
        encoded = [self.encoder.prompt(each.prompt, room) for each in requests]
        # Requests of one prompt side by side, so that they share a batch and its first pass.
        first: dict[tuple[int, ...], int] = {}
        groups = [first.setdefault(tuple(ids), position) for position, (ids, _) in enumerate(encoded)]
        order = sorted(range(len(requests)), key=lambda position: (groups[position], position))
        results: list[Generated | None] = [None] * len(requests)

        def positions_of(position: int) -> int:
            return len(encoded[position][0]) + sampling.max_new_tokens

        def compute(positions: Sequence[int]) -> list[Generated]:
            prompts = list(dict.fromkeys(groups[position] for position in positions))
            number = {group: place for place, group in enumerate(prompts)}
            answers = [
                Answer(self.encoder.answer(encoded[position][0]), sampling.stop, stop_tokens, self.end_tokens)
                for position in positions
            ]
            continue_prompts(
                self._transformers(),
                [encoded[group][0] for group in prompts],
                [number[groups[position]] for position in positions],
                answers,
                Chooser(sampling, [requests[position] for position in positions]),
                sampling.max_new_tokens,
                self.start_token,
                is_prefix,
            )
            return [
                answer.result(encoded[position][1], self.encoder.seen(*encoded[position]))
                for position, answer in zip(positions, answers, strict=True)
            ]

        budget = POSITIONS_PER_GENERATION.get(self.device.type, POSITIONS_PER_GENERATION["cuda"])
        with self._with_threads():
            for is_prefix in (False, True):
                chosen = [each for each in order if self._sees_prefix(requests[each]) == is_prefix]
                for batch in unknown_batches(plan(chosen, positions_of, budget), lambda position: (position,), known):
                    found = self._halving.run(batch, positions_of, compute)
                    for position, each in zip(batch, found, strict=True):
                        results[position] = each
                    if done:
                        done(batch, found)
        return results

    def _sees_prefix(self, request: Generation) -> bool:
        is_literal = not isinstance(request.prompt, str) and isinstance(next(iter(request.prompt), None), Special)
        return self.is_prefix and (self._is_prefix_everywhere or not is_literal)

    def asking(self, known: Collection[int]) -> Ask:
        """See `Scorer`."""
        budget = TOKENS_PER_BATCH.get(self.device.type, TOKENS_PER_BATCH["cuda"])
        budget = min(budget, self.network.most_logits or budget)

        def compute(batch: Sequence[Row]) -> list[Found]:
            return self._halving.run(batch, width, lambda some: score(self.network, some, self.start_token))

        def ask(rows: Sequence[Row], count: int) -> Iterator[Complete]:
            with self._with_threads():
                yield from complete_requests(plan(rows, width, budget), count, known, compute)

        return ask

    def _transformers(self) -> TransformersNetwork:
        """The model as transformers loads it; on first use, because the import alone takes seconds."""
        if self._generator is None:
            self._generator = TransformersNetwork(self.folder, self.device, self.dtype)
            if self.is_prefix:
                self._generator.check_prefixes()
        return self._generator

    @contextlib.contextmanager
    def _with_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a model folder that decide what it answers."""
    names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is not None and weights.suffix == ".json":
        names += sorted(set(read_json(weights)["weight_map"].values()))
    elif weights is not None:
        names.append(weights.name)
    return {name: _digest(folder / name) for name in names if (folder / name).is_file()}


def context_tokens_of(config: dict[str, Any], path: Path) -> int:
    """Tokens that the positions of a model reach; `path` of its config.json, for the error."""
    for key in ("max_position_embeddings", "n_positions"):
        if config.get(key):
            return int(config[key])
    raise ConfigError(f"{path}: neither max_position_embeddings nor n_positions gives the context")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
