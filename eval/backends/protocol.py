"""What a language model has to offer to be measured: three methods over plain text.

A backend gets all requests of a task at once, makes its batches from the whole list (so that the composition of a
batch, and with it the last bits of a likelihood, do not depend on what an interrupted run had finished), and hands
each batch's results to `done` as soon as it has them. A batch of which every request is in `known` is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

Result_contra = TypeVar("Result_contra", contravariant=True)


class Done(Protocol[Result_contra]):
    """Called once a batch: the positions of its requests, and their results."""

    def __call__(self, positions: Sequence[int], results: Sequence[Result_contra], /) -> None: ...


@dataclass(frozen=True)
class Special:
    """A control token by its name. A backend refuses it if it is not exactly one added token of its tokenizer."""

    name: str


@dataclass(frozen=True)
class Opening:
    """A text inside a prompt that is encoded as one that stands alone.

    SentencePiece puts a blank before such a text, and some models have learnt it so behind a control token.
    """

    text: str


Prompt = str | tuple[str | Special | Opening, ...]
"""Text, or texts and control tokens in turn. A control token's name inside a text is ordinary characters."""


def spelled(prompt: Prompt) -> str:
    """A prompt as text, control tokens by their names: for people, not for models."""
    if isinstance(prompt, str):
        return prompt
    return "".join(
        part.name if isinstance(part, Special) else part.text if isinstance(part, Opening) else part for part in prompt
    )


@dataclass(frozen=True)
class Likelihood:
    """−log p of a text given the document start, in nats, over `size_bytes` bytes of raw UTF-8 in `tokens` tokens."""

    nats: float
    size_bytes: int
    tokens: int


@dataclass(frozen=True)
class Continuation:
    """A question to `loglikelihood`: how likely is `text` after `context`?"""

    context: str
    text: str


@dataclass(frozen=True)
class Scored:
    """−log p of a continuation given its context.

    Attributes:
        nats: over the whole continuation.
        tokens: of the continuation; white space at the end of the context counts as its beginning.
        is_greedy: every token of it is the model's most probable one.
        lost_tokens: of the context, cut from its beginning because the model's window is too short.
    """

    nats: float
    tokens: int
    is_greedy: bool
    lost_tokens: int = 0


@dataclass(frozen=True)
class Sampling:
    """How answers are generated; temperature 0 is greedy.

    Attributes:
        stop: an answer ends before the first of these texts.
        stop_tokens: names of control tokens that end an answer, besides the model's own end tokens.
        top_p: the smallest set of tokens whose probability reaches it (Holtzman et al. 2020); 1: all.
        top_k: None: all.
        seed: of the draws, which depend on it, the request's key and sample, and the position; not on the batch.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Generation:
    """A question to `generate`: one answer to `prompt`.

    Attributes:
        key: names the item, for the draws.
        sample: number of the answer among those to the same item.
    """

    prompt: Prompt
    key: str
    sample: int = 0


Form = Literal["continuation", "completion", "program"]
"""What an answer is. continuation: what follows the prompt that was asked, whose end may have been left to the model.
completion: what others generated behind the item's own prompt, and have cut themselves. program: all of it."""


@dataclass(frozen=True)
class Generated:
    """An answer, without the prompt and without what ended it.

    Attributes:
        tokens: that were generated, the one that ended it included.
        finish: end of text, a stop text, a stop token, or the length limit.
        lost_tokens: of the prompt, because the model's window is too short.
        seen: what is left of the prompt then; None: all of it.
    """

    text: str
    tokens: int
    finish: Literal["end", "stop", "length"]
    lost_tokens: int = 0
    seen: str | None = None
    form: Form = "continuation"


class Backend(Protocol):
    """A language model that can be measured.

    Attributes:
        identity: hash of all that decides what it answers: weights, tokenizer, dtype, kind of attention; or of a
            file of samples; or of an endpoint's address and model name.
        facts: for the record of an evaluation: device, dtype, context_tokens, attention, …
    """

    identity: str
    facts: Mapping[str, Any]

    def loglikelihood(
        self,
        requests: Sequence[Continuation],
        done: Done[Scored] | None = None,
        known: Collection[int] = (),
    ) -> list[Scored | None]:
        """Likelihood of each continuation; None for those of skipped batches."""
        ...

    def rolling(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        done: Done[Likelihood] | None = None,
        known: Collection[int] = (),
    ) -> list[Likelihood | None]:
        """Likelihood of each text, or of its first `max_tokens` tokens."""
        ...

    def generate(
        self,
        requests: Sequence[Generation],
        sampling: Sampling,
        done: Done[Generated] | None = None,
        known: Collection[int] = (),
    ) -> list[Generated | None]:
        """One answer a request."""
        ...


Progress = Callable[[float], None]
