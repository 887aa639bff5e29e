"""A server with OpenAI's completions interface (`/v1/completions`): vLLM, llama.cpp, SGLang, TGI, hosted models.

Requests go out side by side and are repeated, with growing pauses, while the server is busy or failing (429, 5xx, no
connection). Likelihoods need a server that echoes the prompt with its log-probabilities; one that does not is refused
at its first answer. What a text's first token costs no server tells, so there are no likelihoods of whole texts.
Text is all that can be sent: control tokens in a prompt are refused. The same request to the same server need not have
the same answer; the record of an evaluation says address and model.
"""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from ...strict import ConfigError, fingerprint
from .encoding import moved
from .protocol import Continuation, Done, Generated, Generation, Likelihood, Sampling, Scored
from .sampling import seed_of

R = TypeVar("R")

KEY_VARIABLE = "OPENAI_API_KEY"
STOPS = 4
"""Stop texts that OpenAI's interface takes; others are cut here."""
BUSY = {408, 409, 425, 429}
LONGEST_PAUSE_SECONDS = 60.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class EndpointBackend:
    """One model of one server."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        workers: int = 8,
        tries: int = 7,
        pause_seconds: float = 1.0,
        timeout_seconds: float = 600.0,
    ) -> None:
        """Nothing is sent yet, unless `model` has to be asked for.

        Args:
            url: up to and including `/v1`.
            model: as the server calls it; None: the only one that it has.
            workers: requests at a time.
            tries: of each request; the pause between them begins with `pause_seconds` and doubles.

        Raises:
            ConfigError: if the address is none, or the server has several models.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url}: expected http(s)://host/v1#model")
        self.url, self.workers, self.tries = url.rstrip("/"), workers, tries
        self.pause_seconds, self.timeout_seconds = pause_seconds, timeout_seconds
        is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if is_local else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)
        self._stopping = threading.Event()
        self.model = model or self._only_model()
        self.identity = fingerprint("endpoint", self.url, self.model)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self.facts: Mapping[str, Any] = {"backend": "endpoint", "url": shown, "model": self.model}

    def loglikelihood(
        self, requests: Sequence[Continuation], done: Done[Scored] | None = None, known: Collection[int] = ()
    ) -> list[Scored | None]:
        """See `Backend`.

        Raises:
            RuntimeError: if the server does not give the log-probabilities of a prompt.
        """
        return self._each(requests, self._score, done, known)

    def rolling(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        done: Done[Likelihood] | None = None,
        known: Collection[int] = (),
    ) -> list[Likelihood | None]:
        """Refused."""
        raise ConfigError(
            f"{self.url}: a server does not tell how likely the first token of a text is, so bits per byte would not "
            "be comparable; give a model folder for this task"
        )

    def generate(
        self,
        requests: Sequence[Generation],
        sampling: Sampling,
        done: Done[Generated] | None = None,
        known: Collection[int] = (),
    ) -> list[Generated | None]:
        """See `Backend`."""
        if sampling.stop_tokens or any(not isinstance(each.prompt, str) for each in requests):
            raise ConfigError(
                f"{self.url}: a server takes text, in which control tokens cannot be told from characters; infilling "
                "needs a model folder"
            )
        return self._each(requests, lambda request: self._answer(request, sampling), done, known)

    def _answer(self, request: Generation, sampling: Sampling) -> Generated:
        body: dict[str, Any] = {
            "prompt": request.prompt,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed_of(sampling, request),
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop[:STOPS])
        if sampling.top_k is not None:  # not OpenAI's, but vLLM, SGLang and llama.cpp have it
            body["top_k"] = sampling.top_k
        reply = self._complete(body)
        choice = reply["choices"][0]
        text: str = choice["text"]
        tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
        places = [text.index(each) for each in sampling.stop if each in text]
        if places:
            return Generated(text[: min(places)], tokens, "stop")
        if choice.get("finish_reason") == "length":
            return Generated(text, tokens, "length")
        return Generated(text, tokens, "stop" if isinstance(choice.get("stop_reason"), str) else "end")

    def _score(self, request: Continuation) -> Scored:
        context, text = moved(request)
        if not text:
            return Scored(0.0, 0, True)
        whole = context + text
        # One token is generated because some servers refuse none; it begins behind the prompt and is left out.
        reply = self._complete({"prompt": whole, "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True})
        choice = reply["choices"][0]
        facts = choice.get("logprobs") or {}
        values, offsets = facts.get("token_logprobs"), facts.get("text_offset")
        if not values or not offsets or not choice["text"].startswith(whole):
            raise RuntimeError(
                f"{self.url}: the server does not echo a prompt with its log-probabilities (echo: true, logprobs: 1); "
                "choose a server that does, such as vLLM, or tasks that only generate"
            )
        tops = facts.get("top_logprobs") or [None] * len(values)
        ends = [*offsets[1:], len(choice["text"])]
        mine = [
            number
            for number, (begin, end) in enumerate(zip(offsets, ends, strict=True))
            if begin < len(whole) and (begin >= len(context) or end > len(context))
        ]
        if any(values[number] is None for number in mine):
            raise RuntimeError(
                f"{self.url}: no log-probability of the first token of {whole[:40]!r}; a server cannot score a "
                "continuation without a context"
            )
        is_greedy = all(tops[number] and values[number] >= max(tops[number].values()) for number in mine)
        return Scored(-sum(values[number] for number in mine), len(mine), is_greedy)

    def _each(
        self,
        requests: Sequence[Any],
        ask: Callable[[Any], R],
        done: Callable[[Sequence[int], Sequence[R]], None] | None,
        known: Collection[int],
    ) -> list[R | None]:
        results: list[R | None] = [None] * len(requests)
        is_known = set(known)
        self._stopping.clear()
        with ThreadPoolExecutor(self.workers) as pool:
            todo = {
                pool.submit(ask, request): position
                for position, request in enumerate(requests)
                if position not in is_known
            }
            try:
                for future in as_completed(todo):
                    result = future.result()
                    results[todo[future]] = result
                    if done:
                        done([todo[future]], [result])
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return results

    def _only_model(self) -> str:
        names = [str(each["id"]) for each in self._send("/models", None).get("data", [])]
        if len(names) != 1:
            raise ConfigError(
                f"{self.url}: name one of the server's models behind a #: {', '.join(names) or 'it has none'}"
            )
        return names[0]

    def _complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        reply = self._send("/completions", {"model": self.model, **body})
        if not reply.get("choices"):
            raise RuntimeError(f"{self.url}: an answer without choices: {str(reply)[:200]}")
        return reply

    def _send(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        reason = ""
        for number in range(self.tries):
            pause = min(self.pause_seconds * 2**number, LONGEST_PAUSE_SECONDS)
            try:
                with self._opener.open(request, timeout=self.timeout_seconds) as reply:
                    found: dict[str, Any] = json.loads(reply.read())
                    return found
            except urllib.error.HTTPError as error:
                text = error.read(2000).decode("utf-8", "replace")
                reason = f"status {error.code}: {text[:300]}"
                if error.code not in BUSY and error.code < 500:
                    raise RuntimeError(f"{self.url}{path}: {reason}") from error
                asked = error.headers.get("Retry-After", "")
                pause = min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdecimal() else pause
            except (OSError, ValueError) as error:  # no connection, a cut one, or half an answer
                reason = f"{type(error).__name__}: {error}"
            if number < self.tries - 1 and self._stopping.wait(pause):
                break
        raise RuntimeError(f"{self.url}{path}: no answer after {self.tries} tries; the last: {reason}")
