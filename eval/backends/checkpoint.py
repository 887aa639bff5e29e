"""Models behind one protocol: the log-likelihood of texts, and greedy continuations of prompts.

`CheckpointBackend` opens a folder in transformers' layout. Checkpoints that codesieve trained are scored by its own
decoder, all others by `AutoModelForCausalLM`; greedy decoding always uses transformers, for its key-value cache.
Inputs are sorted by length and batched by a token budget; results come in input order and do not depend on who shares
a batch, but for rounding (about 1e-6 nats a token in float32). Texts are data: a special token's name inside a text is
encoded as ordinary characters, and no text can end the document for the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer

from ..files import read_json
from ..train.tokenizer import load_tokenizer
from .windows import Window, cut_tokens, windows

END_OF_TEXT = "<|endoftext|>"

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}
"""Measured on one core with a model of 1M parameters: 12k tokens/s in batches of 1,024, 8k in batches of 8,192, whose
logits no longer fit the cache. A GPU needs many more to be busy."""

LOGITS_PER_BATCH = 1 << 26
"""Tokens × vocabulary in one batch at most: 256 MB of float32, and as much again for the log-softmax."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Likelihood:
    """−log p of a text given the document start, in nats, over `size_bytes` bytes of raw UTF-8 in `tokens` tokens."""

    nats: float
    size_bytes: int
    tokens: int


class Backend(Protocol):
    """A language model that can be measured."""

    def rolling(
        self, texts: Sequence[str], max_tokens: int | None = None, progress: Progress | None = None
    ) -> list[Likelihood]:
        """Likelihood of each text, or of its first `max_tokens` tokens; `progress` gets the fraction done."""
        ...

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, stop: Sequence[str], progress: Progress | None = None
    ) -> list[str]:
        """Greedy continuation of each prompt, cut before the first of `stop`; the prompt is not repeated."""
        ...


class CheckpointBackend:
    """A model folder: config.json, tokenizer.json and safetensors weights."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        """Open the folder; weights are float32 on `device` (auto: the first GPU, else the CPU)."""
        self.folder = folder
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        config = read_json(_present(folder / "config.json"))
        self.vocab_size = int(config["vocab_size"])
        self.context_tokens = _context_tokens(config, folder)
        self.tokenizer = load_tokenizer(folder)
        self.start_token = _start_token(self.tokenizer, config, folder)
        self.end_tokens = {self.start_token, *_as_list(config.get("eos_token_id"))}
        self._transformers_model: Any = None
        self._logits = self._load_scorer()

    def rolling(
        self, texts: Sequence[str], max_tokens: int | None = None, progress: Progress | None = None
    ) -> list[Likelihood]:
        rows: list[tuple[int, list[int], Window]] = []
        found: list[Likelihood] = []
        for position, text in enumerate(texts):
            tokens, size_bytes = self._tokens(text, max_tokens)
            sequence = [self.start_token, *tokens]
            rows += [(position, sequence, window) for window in windows(len(tokens), self.context_tokens)]
            found.append(Likelihood(0.0, size_bytes, len(tokens)))
        nats = [0.0] * len(texts)
        done, total = 0, sum(window.stop - window.start for _, _, window in rows)
        for batch in _batches(rows, self._budget()):
            for (position, _, window), loss in zip(batch, self._losses(batch), strict=True):
                nats[position] += loss
                done += window.stop - window.start
            if progress:
                progress(done / total)
        return [Likelihood(value, each.size_bytes, each.tokens) for value, each in zip(nats, found, strict=True)]

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int, stop: Sequence[str], progress: Progress | None = None
    ) -> list[str]:
        room = self.context_tokens - max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_new_tokens {max_new_tokens} leaves no room for a prompt in a context of {self.context_tokens}"
            )
        # A prompt that does not fit loses its beginning: what is next to the answer matters most.
        encoded = [[self.start_token, *self._tokens(prompt, None)[0]][-room:] for prompt in prompts]
        rows = [
            (position, tokens, Window(0, len(tokens) + max_new_tokens, 0)) for position, tokens in enumerate(encoded)
        ]
        answers = [""] * len(prompts)
        done = 0
        for batch in _batches(rows, self._budget()):
            texts = self._continue([tokens for _, tokens, _ in batch], max_new_tokens, stop)
            for (position, _, _), text in zip(batch, texts, strict=True):
                answers[position] = text
            done += len(batch)
            if progress:
                progress(done / len(prompts))
        return answers

    def _tokens(self, text: str, max_tokens: int | None) -> tuple[list[int], int]:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        if max_tokens is None:
            return encoding.ids, len(text.encode("utf-8"))
        kept, size_bytes = cut_tokens(text, encoding.offsets, max_tokens)
        return encoding.ids[:kept], size_bytes

    def _budget(self) -> int:
        tokens = TOKENS_PER_BATCH.get(self.device.type, TOKENS_PER_BATCH["cuda"])
        return min(tokens, LOGITS_PER_BATCH // self.vocab_size)

    def _losses(self, batch: Sequence[tuple[int, list[int], Window]]) -> list[float]:
        """Nats of the scored tokens of each row. Padding is on the right, where a causal model cannot see it."""
        width = max(window.stop - window.start for _, _, window in batch)
        inputs = torch.full((len(batch), width), self.start_token, dtype=torch.long)
        targets = torch.full((len(batch), width), -100, dtype=torch.long)
        for row, (_, sequence, window) in enumerate(batch):
            inputs[row, : window.stop - window.start] = torch.tensor(sequence[window.start : window.stop])
            targets[row, window.scored - window.start : window.stop - window.start] = torch.tensor(
                sequence[window.scored + 1 : window.stop + 1]
            )
        with torch.inference_mode():
            logits = self._logits(inputs.to(self.device)).float()
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), targets.to(self.device).flatten(), ignore_index=-100, reduction="none"
            )
        per_row: list[float] = losses.view(len(batch), width).double().sum(dim=1).tolist()
        return per_row

    def _continue(self, prompts: Sequence[list[int]], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        """Greedy continuation of one batch, padded on the left; each row stops on its own."""
        model = self._transformers()
        width = max(len(prompt) for prompt in prompts)
        step = torch.tensor([[self.start_token] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        step, mask = step.to(self.device), mask.to(self.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        generated: list[list[int]] = [[] for _ in prompts]
        texts: list[str | None] = [None] * len(prompts)
        cache = None
        for _ in range(max_new_tokens):
            with torch.inference_mode():
                output = model(
                    input_ids=step, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
                )
            chosen = output.logits[:, -1].argmax(dim=-1)
            for row, token in enumerate(chosen.tolist()):
                if texts[row] is None:
                    texts[row] = self._finished(generated[row], token, stop)
            if all(text is not None for text in texts):
                break
            cache, step, positions = output.past_key_values, chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        return [self._decode(tokens) if text is None else text for text, tokens in zip(texts, generated, strict=True)]

    def _finished(self, generated: list[int], token: int, stop: Sequence[str]) -> str | None:
        """Append the token; the answer if it ends here."""
        if token in self.end_tokens:
            return self._decode(generated)
        generated.append(token)
        text = self._decode(generated)
        ends = [text.index(each) for each in stop if each in text]
        return text[: min(ends)] if ends else None

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def _load_scorer(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if (self.folder / "training.json").is_file():  # written by our trainer, so its decoder knows the model
            from ..train.pretrained import load_model

            return load_model(self.folder).to(self.device, torch.float32).eval()
        model = self._transformers()
        return lambda tokens: model(input_ids=tokens, use_cache=False).logits

    def _transformers(self) -> Any:
        """The model as transformers loads it; on first use, because the import alone takes seconds."""
        if self._transformers_model is None:
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging

            bars: Any = logging
            draws = bars.is_progress_bar_enabled()
            bars.disable_progress_bar()
            model: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32, local_files_only=True)
            if draws:
                bars.enable_progress_bar()
            self._transformers_model = model.to(self.device).eval()
        return self._transformers_model


def _batches(
    rows: Sequence[tuple[int, list[int], Window]], budget: int
) -> Iterator[list[tuple[int, list[int], Window]]]:
    """Rows by length, longest first, so that a batch too big for the memory shows at once; at least one a batch."""
    batch: list[tuple[int, list[int], Window]] = []
    for row in sorted(rows, key=lambda row: row[2].start - row[2].stop):
        width = batch[0][2].stop - batch[0][2].start if batch else 0
        if batch and width * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _present(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a model folder holds config.json, tokenizer.json and weights")
    return path


def _context_tokens(config: dict[str, Any], folder: Path) -> int:
    for key in ("max_position_embeddings", "n_positions"):
        if config.get(key):
            return int(config[key])
    raise ValueError(f"{folder / 'config.json'}: neither max_position_embeddings nor n_positions gives the context")


def _start_token(tokenizer: Tokenizer, config: dict[str, Any], folder: Path) -> int:
    token = tokenizer.token_to_id(END_OF_TEXT)
    for found in (token, *_as_list(config.get("bos_token_id")), *_as_list(config.get("eos_token_id"))):
        if found is not None:
            return int(found)
    raise ValueError(f"{folder}: no {END_OF_TEXT} in the tokenizer, no bos_token_id and no eos_token_id in the config")


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
