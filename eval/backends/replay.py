"""Answers from a file in place of a model; `eval/samples.py` says in what form.

They go through an evaluation as a model's answers do, into items, metrics and comparisons, but they are completions of
others: no end of a prompt was left to them, and nothing is cut at a stop text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...strict import ConfigError, fingerprint, nearest
from ..samples import Sample, read_samples
from .protocol import Continuation, Done, Generated, Generation, Likelihood, Sampling, Scored


class ReplayBackend:
    """A file of samples."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: if it is not there, or a line is no sample.
        """
        self.path = path
        found = read_samples(path)
        self.samples: dict[str, list[Sample]] = {}
        for each in found:
            self.samples.setdefault(each.item, []).append(each)
        self.identity = fingerprint("samples", hashlib.sha256(path.read_bytes()).hexdigest())
        self.facts: Mapping[str, Any] = {"backend": "replay", "file": path.name, "samples": len(found)}

    def generate(
        self,
        requests: Sequence[Generation],
        sampling: Sampling,
        done: Done[Generated] | None = None,
        known: Collection[int] = (),
    ) -> list[Generated | None]:
        """See `Backend`.

        Raises:
            ConfigError: if the file has no such sample.
        """
        found = [self._answer(each) for each in requests]
        if done and found:
            done(range(len(found)), found)
        return list(found)

    def loglikelihood(
        self, requests: Sequence[Continuation], done: Done[Scored] | None = None, known: Collection[int] = ()
    ) -> list[Scored | None]:
        """Refused."""
        raise ConfigError(f"{self.path}: a file of answers has no likelihoods; give a model, or leave this task out")

    def rolling(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        done: Done[Likelihood] | None = None,
        known: Collection[int] = (),
    ) -> list[Likelihood | None]:
        """Refused."""
        raise ConfigError(f"{self.path}: a file of answers has no likelihoods; give a model, or leave this task out")

    def _answer(self, request: Generation) -> Generated:
        answers = self.samples.get(request.key)
        if answers is None:
            raise ConfigError(
                f'{self.path}: no answer to item "{request.key}"{nearest(request.key, self.samples)}; '
                "`eval replay` judges what there is"
            )
        if request.sample >= len(answers):
            raise ConfigError(
                f'{self.path}: {len(answers)} answers to item "{request.key}", {request.sample + 1} were asked for; '
                "lower `samples`"
            )
        answer = answers[request.sample]
        return Generated(answer.text, 0, "end", form=answer.form)
