"""Backends that are not a model folder in this process: a server, a file, vLLM (a stand-in for its package)."""

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from codesieve.config import EvalConfig
from codesieve.eval.backends.checkpoint import CheckpointBackend
from codesieve.eval.backends.endpoint import EndpointBackend
from codesieve.eval.backends.open import open_backend
from codesieve.eval.backends.protocol import Continuation, Generated, Generation, Sampling, Scored, Special
from codesieve.strict import ConfigError


@dataclass
class Server:
    """A model whose answers are the prompt's last word three times; each word costs its length in nats."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    has_echo: bool = True
    models: tuple[str, ...] = ("words",)
    together: int = 0
    most_together: int = 0

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        if body.get("echo") and self.has_echo:
            return {"choices": [{"text": prompt + " x", "logprobs": self.words(prompt + " x")}]}
        word = prompt.split()[-1]
        words = [f" {word}"] * 3
        text = "".join(words[: body["max_tokens"]])
        reason = "length" if body["max_tokens"] < 3 else "stop"
        for stop in body.get("stop", []):
            text = text.split(stop)[0]
        return {"choices": [{"text": text, "finish_reason": reason}], "usage": {"completion_tokens": 3}}

    def words(self, text: str) -> dict[str, Any]:
        starts = [0, *(place for place, sign in enumerate(text) if sign == " ")]
        tokens = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
        values = [None, *(-float(len(token)) for token in tokens[1:])]
        tops = [{token: value, " other": -4.0} for token, value in zip(tokens, values, strict=True)]
        return {"tokens": tokens, "token_logprobs": values, "text_offset": starts, "top_logprobs": tops}


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(200, {"data": [{"id": name} for name in state.models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.bodies.append(body)
                state.keys.append(self.headers.get("Authorization"))
                state.together += 1
                state.most_together = max(state.most_together, state.together)
                status = state.failures.pop() if state.failures else 200
            threading.Event().wait(0.02)
            with lock:
                state.together -= 1
            self.send(status, state.reply(body) if status == 200 else {"error": "not now"})

        def send(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{listener.server_port}/v1"
        yield state
        listener.shutdown()
        thread.join()


def requests_for(words: str) -> list[Generation]:
    return [Generation(f"say {word}", word) for word in words]


def test_a_server_answers_in_the_order_of_the_requests_several_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    backend = EndpointBackend(server.url, workers=4)
    assert backend.model == "words"
    assert backend.facts == {"backend": "endpoint", "url": server.url, "model": "words"}
    seen: dict[int, Generated] = {}

    def done(positions: Sequence[int], results: Sequence[Generated]) -> None:
        seen.update(zip(positions, results, strict=True))

    found = backend.generate(requests_for("abcdefgh"), Sampling(8, temperature=0.5, top_k=4), done, known={2})
    assert [each.text if each else None for each in found] == [
        None if word == "c" else f" {word}" * 3 for word in "abcdefgh"
    ]
    assert seen == {position: each for position, each in enumerate(found) if each}
    assert found[0] == Generated(" a a a", 3, "end")
    assert server.most_together > 1
    assert {body["top_k"] for body in server.bodies} == {4}
    assert len({body["seed"] for body in server.bodies}) == 7
    assert set(server.keys) == {"Bearer secret"}


def test_no_key_is_sent_where_none_is_set(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    EndpointBackend(server.url, "words").generate(requests_for("a"), Sampling(2))
    assert server.keys == [None]


def test_an_answer_of_a_server_is_cut_at_stop_texts_beyond_the_four_that_it_takes(server: Server) -> None:
    backend = EndpointBackend(server.url, "words")
    stop = ("1", "2", "3", "4", "b b")
    [found] = backend.generate(requests_for("b"), Sampling(8, stop=stop))
    assert found == Generated(" ", 3, "stop")
    assert server.bodies[0]["stop"] == ["1", "2", "3", "4"]
    assert backend.generate(requests_for("b"), Sampling(2)) == [Generated(" b b", 3, "length")]


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server: Server) -> None:
    backend = EndpointBackend(server.url, "words", pause_seconds=0.01, workers=1)
    server.failures = [429, 503, 500]
    assert backend.generate(requests_for("a"), Sampling(8)) == [Generated(" a a a", 3, "end")]
    assert len(server.bodies) == 4
    server.failures = [400]
    with pytest.raises(RuntimeError, match=r"completions: status 400.*not now"):
        backend.generate(requests_for("a"), Sampling(8))
    server.failures = [503] * 9
    with pytest.raises(RuntimeError, match="no answer after 3 tries; the last: status 503"):
        EndpointBackend(server.url, "words", tries=3, pause_seconds=0.01, workers=1).generate(
            requests_for("a"), Sampling(8)
        )
    with pytest.raises(RuntimeError, match="no answer after 2 tries"):
        EndpointBackend("http://127.0.0.1:9/v1", "m", tries=2, pause_seconds=0.01).generate(
            requests_for("a"), Sampling(8)
        )


def test_a_server_that_echoes_scores_continuations(server: Server) -> None:
    backend = EndpointBackend(server.url, "words")
    pairs = [Continuation("one two", " abc de"), Continuation("one two ", "abcdef"), Continuation("one", "")]
    assert backend.loglikelihood(pairs) == [Scored(7.0, 2, True), Scored(7.0, 1, False), Scored(0.0, 0, True)]
    with pytest.raises(RuntimeError, match="cannot score a continuation without a context"):
        backend.loglikelihood([Continuation("", "one")])
    server.has_echo = False
    with pytest.raises(RuntimeError, match="does not echo a prompt"):
        backend.loglikelihood(pairs)
    with pytest.raises(ConfigError, match="bits per byte"):
        backend.rolling(["x"])


def test_what_a_server_cannot_do_is_refused(server: Server) -> None:
    backend = EndpointBackend(server.url, "words")
    with pytest.raises(ConfigError, match="control tokens cannot be told from characters"):
        backend.generate([Generation((Special("<fim_prefix>"), "x"), "a")], Sampling(2))
    server.models = ("a", "b")
    with pytest.raises(ConfigError, match="name one of the server's models behind a #: a, b"):
        EndpointBackend(server.url)
    with pytest.raises(ConfigError, match="expected http"):
        EndpointBackend("https:///v1", "m")


def test_a_name_opens_its_backend(server: Server, tiny_model: Path, tmp_path: Path) -> None:
    config = EvalConfig()
    assert open_backend(f"{server.url}#m", config).facts["model"] == "m"
    assert open_backend(str(tiny_model), config, "cpu").facts["backend"] == "checkpoint"
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"task_id": "a", "completion": "1"}\n')
    assert open_backend(f"replay:{samples}", config).facts["samples"] == 1
    with pytest.raises(ConfigError, match="vllm: is not installed"):
        open_backend(f"vllm:{tiny_model}", config)
    with pytest.raises(ConfigError, match="prefix needs a model folder"):
        open_backend(f"{server.url}#m", EvalConfig(attention="prefix"))


def test_answers_from_a_file_are_an_items_samples_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    rows = [{"task_id": "a", "completion": "1"}, {"item": "b", "completion": "2"}, {"task_id": "a", "completion": "3"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    backend = open_backend(f"replay:{path}", EvalConfig())
    requests = [Generation("", "a", 1), Generation("", "b"), Generation("", "a", 0)]
    assert [each.text for each in backend.generate(requests, Sampling(1)) if each] == ["3", "2", "1"]
    with pytest.raises(ConfigError, match='2 answers to item "a", 3 were asked for'):
        backend.generate([Generation("", "a", 2)], Sampling(1))
    with pytest.raises(ConfigError, match='no answer to item "c"'):
        backend.generate([Generation("", "c")], Sampling(1))
    with pytest.raises(ConfigError, match="has no likelihoods"):
        backend.rolling(["x"])
    path.write_text('{"task_id": "a", "completion": "1"}\n{"task_id": "a"}\n')
    with pytest.raises(ConfigError, match=r'samples\.jsonl: line 2: no "completion"'):
        open_backend(f"replay:{path}", EvalConfig())


@dataclass
class SamplingParams:
    """The arguments of vLLM 0.8's class that are used."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)
    skip_special_tokens: bool = True
    prompt_logprobs: int | None = None
    detokenize: bool = True


class Engine:
    """vLLM's LLM.generate, by transformers, one prompt at a time."""

    def __init__(self, model: str, dtype: str, max_model_len: int, seed: int) -> None:
        from transformers import AutoModelForCausalLM

        self.network: Any = AutoModelForCausalLM.from_pretrained(model)
        self.longest = max_model_len

    def generate(self, prompts: Any, sampling_params: list[SamplingParams], use_tqdm: bool) -> list[Any]:
        return [self.one(each["prompt_token_ids"], s) for each, s in zip(prompts, sampling_params, strict=True)]

    @torch.inference_mode()
    def one(self, ids: list[int], setting: SamplingParams) -> Any:
        assert len(ids) + setting.max_tokens <= self.longest
        logs = torch.log_softmax(self.network(torch.tensor([ids])).logits[0], -1)
        places: list[Any] = [None]
        for row, token in zip(logs, ids[1:], strict=False):
            rank = int((row > row[token]).sum()) + 1
            places.append({token: SimpleNamespace(logprob=float(row[token]), rank=rank)})
        output = SimpleNamespace(text="ab", token_ids=[7, 8], finish_reason="stop", stop_reason="\n")
        return SimpleNamespace(prompt_logprobs=places, outputs=[output])


def test_vllm_is_asked_for_the_same_tokens(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    backend = open_backend(f"vllm:{tiny_model}", EvalConfig())
    own = CheckpointBackend(tiny_model, device="cpu")
    pairs = [Continuation("def add(a, b):\n    ", "return a"), Continuation("", "x"), Continuation("x", "=")]
    for found, expected in zip(backend.loglikelihood(pairs), own.loglikelihood(pairs), strict=True):
        assert found
        assert expected
        assert found.nats == pytest.approx(expected.nats, rel=1e-5)
        assert (found.tokens, found.is_greedy) == (expected.tokens, expected.is_greedy)
    [found_text], [expected_text] = backend.rolling(["naïve = 1\n"]), own.rolling(["naïve = 1\n"])
    assert found_text
    assert expected_text
    assert found_text.nats == pytest.approx(expected_text.nats, rel=1e-5)
    answers = backend.generate([Generation("x", "a")], Sampling(4, stop=("\n",)))
    assert answers == [Generated("ab", 2, "stop")]
