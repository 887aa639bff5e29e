"""A model of functions, so that evaluations are tested without one: what a text costs, what a prompt is answered."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesieve.eval.backends.protocol import Generated, Likelihood, Scored

ANSWERS = {"def add(a, b):": "\n    return a + b\nprint('more')\n", "France:": " the Paris."}


def answer(prompt: str, sample: int) -> str:
    """What a model of modest gifts says."""
    return ANSWERS.get(prompt, "\n    return 1\n")


def slow_run(config: Any, heldout: Any, output: Path) -> None:
    """An evaluation that takes a while, so that it can be killed on the way."""
    from codesieve.eval.evaluate import evaluate

    def slow(context: str, text: str) -> float:
        time.sleep(0.004)
        return float(len(text))

    evaluate(FunctionBackend(cost=slow, answer=answer), heldout, config, output)


def eight_bits(text: str) -> float:
    """Every byte costs eight bits."""
    return len(text.encode()) * math.log(256)


@dataclass
class FunctionBackend:
    """Answers by functions of the text alone, `batch` requests at a time; remembers what it was asked.

    cost: nats of a text after a context. answer: of a prompt and the number of the sample.
    """

    cost: Callable[[str, str], float] = lambda context, text: eight_bits(text)
    answer: Callable[[Any, int], str] = lambda prompt, sample: ""
    batch: int = 3
    identity: str = "functions"
    facts: dict[str, Any] = field(default_factory=lambda: {"device": "cpu"})
    asked: list[Any] = field(default_factory=list)

    def _each(self, requests, result, done, known):
        results = [None] * len(requests)
        for start in range(0, len(requests), self.batch):
            places = list(range(start, min(start + self.batch, len(requests))))
            if all(place in known for place in places):
                continue
            self.asked += [requests[place] for place in places]
            for place in places:
                results[place] = result(requests[place])
            if done:
                done(places, [results[place] for place in places])
        return results

    def loglikelihood(self, requests, done=None, known=()):
        def result(request):
            return Scored(self.cost(request.context, request.text), max(1, len(request.text.split())), False)

        return self._each(requests, result, done, known)

    def rolling(self, texts, max_tokens=None, done=None, known=()):
        def result(text):
            return Likelihood(self.cost("", text), len(text.encode()), len(text))

        return self._each(texts, result, done, known)

    def generate(self, requests, sampling, done=None, known=()):
        def result(request):
            return Generated(self.answer(request.prompt, request.sample), 1, "end")

        return self._each(requests, result, done, known)
