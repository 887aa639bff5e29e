"""Likelihoods of continuations and of texts, for any model that scores rows of ids.

Here the two questions of the protocol become rows (what goes through the model once), and what was found for rows
becomes results, as soon as all rows of a request are there. `Scorer` is that half of a backend; how a row is computed
is the backend's own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence

from ..windows import cut_tokens, windows
from .batching import Found, Question, Row, merged, unknown_batches
from .encoding import Encoder
from .protocol import Continuation, Done, Likelihood, Scored

Complete = tuple[list[int], list[Found]]
"""Positions of requests that are complete, and what was found for each."""
Ask = Callable[[Sequence[Row], int], Iterator[Complete]]
"""From rows and the number of requests."""


class Scorer(ABC):
    """The likelihoods of a backend.

    Attributes:
        is_prefix: contexts see themselves both ways.
        window: inputs that a row may have.
    """

    encoder: Encoder
    is_prefix: bool
    window: int

    def loglikelihood(
        self, requests: Sequence[Continuation], done: Done[Scored] | None = None, known: Collection[int] = ()
    ) -> list[Scored | None]:
        """See `Backend`."""
        return score_pairs(self.encoder, requests, self.window, self.is_prefix, self.asking(known), done)

    def rolling(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        done: Done[Likelihood] | None = None,
        known: Collection[int] = (),
    ) -> list[Likelihood | None]:
        """See `Backend`."""
        return score_texts(self.encoder, texts, max_tokens, self.window, self.asking(known), done)

    @abstractmethod
    def asking(self, known: Collection[int]) -> Ask:
        """What computes rows; batches of which every request is known are left out."""


def score_pairs(
    encoder: Encoder,
    requests: Sequence[Continuation],
    context_tokens: int,
    is_prefix: bool,
    ask: Ask,
    done: Done[Scored] | None,
) -> list[Scored | None]:
    """`Backend.loglikelihood`; `is_prefix`: contexts see themselves both ways."""
    pairs = encoder.pairs(requests)
    rows: list[Row] = []
    lost = []
    for position, (context, text) in enumerate(pairs):
        its_rows, cut = rows_of_pair(position, context, text, context_tokens, is_prefix)
        rows += its_rows
        lost.append(cut)
    results: list[Scored | None] = [None] * len(requests)
    for positions, found in ask(merged(rows), len(requests)):
        new = [
            Scored(_sum(parts), len(pairs[position][1]), all(part[1] for part in parts), lost[position])
            for position, parts in zip(positions, found, strict=True)
        ]
        for position, result in zip(positions, new, strict=True):
            results[position] = result
        if done:
            done(positions, new)
    return results


def score_texts(
    encoder: Encoder,
    texts: Sequence[str],
    max_tokens: int | None,
    context_tokens: int,
    ask: Ask,
    done: Done[Likelihood] | None,
) -> list[Likelihood | None]:
    """`Backend.rolling`."""
    rows: list[Row] = []
    sizes = []
    tokenizer = encoder.tokenizer  # the fast way gives no offsets, which only a cut needs
    encode = tokenizer.encode_batch_fast if max_tokens is None else tokenizer.encode_batch
    for position, encoding in enumerate(encode(list(texts), add_special_tokens=False)):
        text, ids = texts[position], encoding.ids
        kept, size_bytes = len(ids), len(text.encode("utf-8"))
        if max_tokens is not None:
            kept, size_bytes = cut_tokens(text, encoding.offsets, max_tokens)
        rows += rows_of_text(position, [encoder.start_token, *ids[:kept]], context_tokens)
        sizes.append((size_bytes, kept))
    results: list[Likelihood | None] = [None] * len(texts)
    for positions, found in ask(merged(rows), len(texts)):
        new = [Likelihood(_sum(parts), *sizes[position]) for position, parts in zip(positions, found, strict=True)]
        for position, result in zip(positions, new, strict=True):
            results[position] = result
        if done:
            done(positions, new)
    return results


def rows_of_text(position: int, sequence: Sequence[int], context_tokens: int) -> Iterator[Row]:
    """The windows over a whole text, whose sequence begins with the document start."""
    for start, stop, scored in windows(len(sequence) - 1, context_tokens):
        targets = tuple(sequence[scored + 1 : stop + 1])
        yield Row(tuple(sequence[start:stop]), 0, [Question(position, scored - start, targets)])


def rows_of_pair(
    position: int, context: Sequence[int], text: Sequence[int], context_tokens: int, is_prefix: bool
) -> tuple[list[Row], int]:
    """The rows of a continuation, and how many tokens of its context no row has.

    One row that is cut on the left, as in lm-evaluation-harness; windows only where the text alone is too long.
    """
    if not text:
        return [], 0
    sequence, first = [*context, *text], len(context) - 1
    inputs = len(sequence) - 1
    begin = max(0, inputs - context_tokens) if len(text) <= context_tokens else max(0, first - context_tokens // 2)
    rows = []
    for window in windows(inputs - begin, context_tokens):
        start, stop, scored = window.start + begin, window.stop + begin, max(window.scored + begin, first)
        if stop > first:
            prefix = max(0, len(context) - start) if is_prefix else 0
            question = Question(position, scored - start, tuple(sequence[scored + 1 : stop + 1]))
            rows.append(Row(tuple(sequence[start:stop]), prefix if prefix > 1 else 0, [question]))
    return rows, begin


def complete_requests(
    batches: Sequence[list[Row]],
    count: int,
    known: Collection[int],
    compute: Callable[[Sequence[Row]], list[Found]],
) -> Iterator[Complete]:
    """After each batch that holds something unknown, the requests of which now all rows are there."""
    missing = [0] * count
    for batch in batches:
        for row in batch:
            for question in row.questions:
                missing[question.position] += 1
    empty = [position for position in range(count) if not missing[position]]
    if empty:
        yield empty, [[] for _ in empty]
    parts: dict[int, Found] = {}
    for batch in unknown_batches(batches, lambda row: [question.position for question in row.questions], known):
        complete = []
        for row, found in zip(batch, compute(batch), strict=True):
            for question, value in zip(row.questions, found, strict=True):
                own = parts.setdefault(question.position, [])
                own.append(value)
                if len(own) == missing[question.position]:
                    complete.append(question.position)
        if complete:
            yield complete, [parts.pop(position) for position in complete]


def width(row: Row) -> int:
    """Inputs of a row."""
    return len(row.inputs)


def _sum(parts: Found) -> float:
    """Exactly rounded: the windows of a text come in the order of batches."""
    return math.fsum(nats for nats, _ in parts)
