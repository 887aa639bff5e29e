"""A model folder in vLLM (0.8 or later, not a dependency): fast on a GPU, with batches that vLLM makes itself.

Prompts are encoded here, so text, control tokens and the border between context and continuation are as everywhere
else. Likelihoods are vLLM's log-probabilities of prompt tokens. Its samples depend on its own seeds, one for each
(seed, item, sample), and its numbers on its kernels: results are near those of the other backends, not equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...files import read_json
from ...strict import ConfigError, fingerprint
from .asking import Ask, Complete, Scorer, complete_requests, width
from .batching import Found, Row, plan, unknown_batches
from .checkpoint import context_tokens_of, file_digests
from .encoding import Encoder
from .network import Training
from .protocol import Done, Generated, Generation, Sampling
from .sampling import seed_of

POSITIONS_PER_CALL = 1 << 20
"""Tokens handed to vLLM at a time; what is recorded is recorded after each call."""


class VllmBackend(Scorer):
    """A model folder, served by vLLM in this process."""

    is_prefix = False

    def __init__(self, folder: Path | str, dtype: str = "auto", **options: Any) -> None:
        """Open the folder.

        Args:
            options: of `vllm.LLM`, such as tensor_parallel_size.

        Raises:
            ConfigError: if vLLM is not installed, or the folder is no model.
        """
        try:
            import vllm  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ConfigError("vllm: is not installed; pip install vllm, or give the folder without `vllm:`") from error
        self.folder = Path(folder)
        path = self.folder / "config.json"
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; a model folder holds config.json, tokenizer.json and weights")
        config = read_json(path)
        self.context_tokens = context_tokens_of(config, path)
        # With its last target a row has to fit, and vLLM generates one token more.
        self.window = self.context_tokens - 2
        self.training = Training.of(self.folder)
        self.encoder = Encoder(self.folder, config)
        self.controls = self.encoder.controls
        self._vllm = vllm
        # max_model_len counts what is generated, and scoring needs one more token than the context.
        self._engine: Any = vllm.LLM(
            model=str(self.folder), dtype=dtype, max_model_len=self.context_tokens, seed=0, **options
        )
        try:
            installed = version("vllm")
        except PackageNotFoundError:
            installed = "unknown"
        self.facts: Mapping[str, Any] = {
            "backend": "vllm",
            "vllm": installed,
            "dtype": dtype,
            "attention": "causal",
            "context_tokens": self.context_tokens,
        }
        self.identity = fingerprint("vllm", file_digests(self.folder), dtype, sorted(map(str, options.items())))

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
                f"max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in {self.context_tokens} tokens"
            )
        encoded = [self.encoder.prompt(each.prompt, room) for each in requests]
        stop_tokens = [self.encoder.control(name) for name in sampling.stop_tokens]
        results: list[Generated | None] = [None] * len(requests)
        batches = plan(range(len(requests)), lambda position: len(encoded[position][0]), POSITIONS_PER_CALL)
        for batch in unknown_batches(batches, lambda position: (position,), known):
            settings = [
                self._vllm.SamplingParams(
                    max_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=-1 if sampling.top_k is None else sampling.top_k,
                    seed=seed_of(sampling, requests[position]),
                    stop=list(sampling.stop),
                    stop_token_ids=[*stop_tokens, self.encoder.start_token],
                    skip_special_tokens=True,
                )
                for position in batch
            ]
            outputs = self._run([encoded[position][0] for position in batch], settings)
            found = []
            for position, output in zip(batch, outputs, strict=True):
                ids, lost = encoded[position]
                results[position] = _generated(output.outputs[0], stop_tokens, lost, self.encoder.seen(ids, lost))
                found.append(results[position])
            if done:
                done(batch, [each for each in found if each is not None])
        return results

    def asking(self, known: Collection[int]) -> Ask:
        """See `Scorer`."""
        setting = self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)

        def compute(batch: Sequence[Row]) -> list[Found]:
            # A row's questions may have several targets at one place; each is a prompt of its own.
            asked = [(number, each) for number, row in enumerate(batch) for each in row.questions]
            prompts = [
                [*batch[number].inputs[: each.first + len(each.targets)], each.targets[-1]] for number, each in asked
            ]
            found: list[Found] = [[] for _ in batch]
            for (number, each), output in zip(asked, self._run(prompts, [setting] * len(prompts)), strict=True):
                places = output.prompt_logprobs[each.first + 1 : each.first + 1 + len(each.targets)]
                chosen = [place[target] for place, target in zip(places, each.targets, strict=True)]
                found[number].append((-sum(one.logprob for one in chosen), all(one.rank == 1 for one in chosen)))
            return found

        def ask(rows: Sequence[Row], count: int) -> Iterator[Complete]:
            yield from complete_requests(plan(rows, width, POSITIONS_PER_CALL), count, known, compute)

        return ask

    def _run(self, prompts: Sequence[Sequence[int]], settings: Sequence[Any]) -> list[Any]:
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        outputs: list[Any] = self._engine.generate(inputs, list(settings), use_tqdm=False)
        return outputs


def _generated(output: Any, stop_tokens: Sequence[int], lost: int, seen: str | None) -> Generated:
    """VLLM's `stop_reason` is the stop text, the id of a stop token, or None for the model's own end."""
    if output.finish_reason == "length":
        return Generated(output.text, len(output.token_ids), "length", lost, seen)
    is_stop = isinstance(output.stop_reason, str) or output.stop_reason in stop_tokens
    return Generated(output.text, len(output.token_ids), "stop" if is_stop else "end", lost, seen)
