"""Likelihoods and answers of a model folder against brute force with transformers."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from codesieve.eval.backends import checkpoint
from codesieve.eval.backends.batching import Halving, check_batching, plan
from codesieve.eval.backends.checkpoint import CheckpointBackend
from codesieve.eval.backends.decoding import Answer
from codesieve.eval.backends.encoding import Spelling
from codesieve.eval.backends.protocol import Continuation, Generated, Generation, Likelihood, Sampling, Scored, Special
from codesieve.files import write_json
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor

TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "x",
    "",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n" * 3,
    "naïve café — 日本語のコメント # ✓\n",
    "a <|endoftext|> b",
]
PAIRS = [
    Continuation("def add(a, b):\n    ", "return a + b\n"),
    Continuation("for number in ", "range(10)"),
    Continuation("", "x = 1"),
    Continuation("  \n", "x = 1"),
    Continuation("# naïve café — ", "日本語 ✓"),
    Continuation("class Point:\n    def __init__(self, x, y):\n        self.x = x\n" * 2, "        self.y = y\n"),
    Continuation("x", ""),
    Continuation("def", " self.x = x\n" * 12),
]


@pytest.fixture(scope="module")
def backend(tiny_model: Path) -> CheckpointBackend:
    return CheckpointBackend(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)


def tokens_of(folder: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ids: list[int] = tokenizer.encode(text).ids
    return ids


def greedy(prompt: str, key: str = "") -> Generation:
    return Generation(prompt, key or prompt)


def texts_of(answers: Sequence[Generated | None]) -> list[str]:
    return [sure(each).text for each in answers]


def sure(result: Any) -> Any:
    assert result is not None
    return result


def token_by_token(model: Any, sequence: list[int], first: int) -> tuple[float, bool]:
    """One forward pass a token from number `first` on, on the last window that it belongs to; softmax in float64."""
    context = model.config.max_position_embeddings
    nats, start, is_greedy = 0.0, 0, True
    for position in range(1, len(sequence)):
        if position - start > context:  # the window is full: the next one keeps half a context
            start = position - 1 - context // 2
        if position < first:
            continue
        with torch.inference_mode():
            logits = model(torch.tensor([sequence[start:position]])).logits[0, -1]
        nats -= float(torch.log_softmax(logits, dim=-1)[sequence[position]])
        is_greedy &= int(logits.argmax()) == sequence[position]
    return nats, is_greedy


def test_likelihoods_equal_a_token_by_token_log_softmax_of_transformers(
    backend: CheckpointBackend, tiny_model: Path, reference: Any
) -> None:
    for text, found in zip(TEXTS, backend.rolling(TEXTS), strict=True):
        expected, _ = token_by_token(reference, [0, *tokens_of(tiny_model, text)], 1)
        assert sure(found).nats == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert sure(found).size_bytes == len(text.encode())


def test_a_continuation_has_the_likelihood_of_its_tokens_behind_those_of_the_context(
    backend: CheckpointBackend, tiny_model: Path, reference: Any
) -> None:
    found = backend.loglikelihood(PAIRS)
    for pair, scored in zip(PAIRS[:7], found, strict=False):
        context = tokens_of(tiny_model, pair.context.rstrip())
        text = tokens_of(tiny_model, pair.context + pair.text)[len(context) :]
        sequence = [*(context or [0]), *text]
        lost = max(0, len(sequence) - 1 - 24)
        expected, is_greedy = token_by_token(reference, sequence[lost:], len(sequence) - len(text) - lost)
        assert sure(scored).nats == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert (sure(scored).tokens, sure(scored).is_greedy) == (len(text), is_greedy)
        assert sure(scored).lost_tokens == lost
    assert sure(found[5]).lost_tokens > 0


def test_a_continuation_longer_than_the_context_is_scored_in_windows(
    backend: CheckpointBackend, tiny_model: Path, reference: Any
) -> None:
    [found] = backend.loglikelihood(PAIRS[7:])
    context = tokens_of(tiny_model, "def")
    sequence = tokens_of(tiny_model, "def" + PAIRS[7].text)
    expected, _ = token_by_token(reference, sequence, len(context))
    assert sure(found).tokens == len(sequence) - len(context) > 24
    assert sure(found).nats == pytest.approx(expected, rel=1e-5)


def test_the_most_probable_continuation_is_known_to_be_so(backend: CheckpointBackend) -> None:
    [answer] = backend.generate([greedy("def add")], Sampling(4))
    tokens = len(backend.encoder.text("def add"))
    whole = backend.encoder.text("def add" + sure(answer).text)
    if len(whole) == tokens + 4:  # else the text has another shortest encoding
        [found] = backend.loglikelihood([Continuation("def add", sure(answer).text)])
        assert sure(found).is_greedy


def test_choices_that_differ_in_the_last_token_share_a_row_and_keep_their_likelihoods(
    backend: CheckpointBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = [Continuation("for number in", f" {word}") for word in ("a", "b", "c", "range(10)")]
    alone = [sure(backend.loglikelihood([each])[0]).nats for each in choices]
    rows: list[int] = []
    original = checkpoint.score
    monkeypatch.setattr(
        checkpoint, "score", lambda network, batch, start: rows.append(len(batch)) or original(network, batch, start)
    )
    together = [sure(each).nats for each in backend.loglikelihood(choices)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert sum(rows) < len(choices)


def test_results_do_not_depend_on_the_batch(backend: CheckpointBackend) -> None:
    def nats(found: Sequence[Likelihood | Scored | None]) -> list[float]:
        return [sure(each).nats for each in found]

    together = nats(backend.rolling(TEXTS))
    assert nats(backend.rolling(TEXTS[::-1]))[::-1] == pytest.approx(together, abs=1e-4)
    assert [nats(backend.rolling([text]))[0] for text in TEXTS] == pytest.approx(together, abs=1e-4)
    assert check_batching(backend, PAIRS) < 1e-4


def test_each_batch_is_handed_over_and_known_ones_are_skipped(
    backend: CheckpointBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checkpoint.TOKENS_PER_BATCH, "cpu", 30)
    seen: list[tuple[list[int], list[Any]]] = []

    def done(positions: Sequence[int], results: Sequence[Any]) -> None:
        seen.append((list(positions), list(results)))

    whole = backend.loglikelihood(PAIRS, done)
    assert sorted(position for positions, _ in seen for position in positions) == list(range(len(PAIRS)))
    assert {p: r for positions, results in seen for p, r in zip(positions, results, strict=True)} == dict(
        enumerate(whole)
    )
    first = seen[1][0]
    seen.clear()
    rest = backend.loglikelihood(PAIRS, done, known=set(first))
    assert all((rest[position] is None) == (position in first) for position in range(len(PAIRS)))
    assert all(each is None or each == other for each, other in zip(rest, whole, strict=True))  # to the last bit
    assert not {position for positions, _ in seen for position in positions} & set(first)
    assert backend.rolling(TEXTS, known=range(len(TEXTS)))[0] is None
    requests = [greedy(text) for text in TEXTS]
    assert backend.generate(requests, Sampling(2), known=range(len(TEXTS))) == [None] * len(TEXTS)


def test_a_batch_that_does_not_fit_the_memory_is_halved_and_later_ones_too(
    backend: CheckpointBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backend.rolling(TEXTS)
    sizes: list[int] = []
    original = checkpoint.score

    def small_memory(network: Any, batch: Any, start: int) -> Any:
        sizes.append(len(batch) * max(len(row.inputs) for row in batch))
        if sizes[-1] > 60:
            raise torch.OutOfMemoryError("too much")
        return original(network, batch, start)

    monkeypatch.setattr(checkpoint, "score", small_memory)
    monkeypatch.setattr(backend, "_halving", Halving())
    halved = backend.rolling(TEXTS)
    assert [sure(each).nats for each in halved] == pytest.approx([sure(each).nats for each in whole], abs=1e-4)
    assert sizes[0] > 60
    assert max(sizes[3:]) <= 60

    def no_memory(network: Any, batch: Any, start: int) -> Any:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(checkpoint, "score", no_memory)
    with pytest.raises(RuntimeError, match="one row of 24 tokens does not fit"):
        backend.rolling(TEXTS)


@given(widths=st.lists(st.integers(1, 50)), budget=st.integers(1, 200))
def test_a_plan_holds_every_row_once_within_the_budget(widths: list[int], budget: int) -> None:
    rows = list(enumerate(widths))
    batches = plan(rows, lambda row: row[1], budget)
    assert sorted(row for batch in batches for row in batch) == rows
    assert all(len(batch) == 1 or len(batch) * max(row[1] for row in batch) <= budget for batch in batches)


def test_the_first_tokens_of_a_text_are_scored_as_the_text_of_those_tokens(backend: CheckpointBackend) -> None:
    text = "naïve café — 日本語のコメント"
    for limit in range(8, 40):
        cut = sure(backend.rolling([text], max_tokens=limit)[0])
        assert cut.tokens <= limit
        beginning = text.encode()[: cut.size_bytes].decode()  # raises if a character were split
        full = sure(backend.rolling([beginning])[0])
        if full.tokens == cut.tokens:  # else the tokenizer merges the shorter text in another way
            assert cut.nats == pytest.approx(full.nats, abs=1e-4)


def test_a_special_token_inside_a_text_is_ordinary_text(backend: CheckpointBackend) -> None:
    assert sure(backend.rolling(["a<|endoftext|>b"])[0]).tokens > 5
    assert backend.start_token == 0
    ids, _ = backend.encoder.prompt(("a<|endoftext|>", Special("<|endoftext|>")), 100)
    assert ids.count(0) == 1


def test_greedy_answers_do_not_depend_on_the_batch_and_equal_transformers_generate(
    backend: CheckpointBackend, reference: Any
) -> None:
    prompts = ["def", "for number in range(", "x = 1", "class Point:\n", "def"]
    together = texts_of(backend.generate([greedy(prompt) for prompt in prompts], Sampling(8)))
    assert together == [texts_of(backend.generate([greedy(prompt)], Sampling(8)))[0] for prompt in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        tokens = backend.encoder.text(prompt)
        output = reference.generate(torch.tensor([tokens]), max_new_tokens=8, do_sample=False, pad_token_id=0)
        new = output[0, len(tokens) :].tolist()
        new = new[: new.index(0)] if 0 in new else new
        assert answer == backend.encoder.tokenizer.decode(new)


def test_each_answer_ends_before_its_first_stop_text(backend: CheckpointBackend) -> None:
    requests = [greedy("def"), greedy("for number in range(")]
    free = texts_of(backend.generate(requests, Sampling(12)))
    assert all(len(answer) > 4 for answer in free)
    stop = free[0][2:4]
    stopped = backend.generate(requests, Sampling(12, stop=(stop, "never there")))
    for answer, unstopped in zip(stopped, free, strict=True):
        assert sure(answer).text == unstopped.split(stop)[0]
        assert sure(answer).finish == ("stop" if stop in unstopped else "length")
    assert sure(stopped[0]).tokens < 12


@given(
    text=st.text(alphabet="ab\né", max_size=30),
    stop=st.lists(st.text(alphabet="ab\né", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 5), min_size=1),
)
def test_a_stop_text_is_found_wherever_tokens_split_it(text: str, stop: list[str], cuts: list[int]) -> None:
    data, table = text.encode(), [b""]
    while data:
        size = cuts[len(table) % len(cuts)]
        table.append(data[:size])
        data = data[size:]
    answer = Answer(Spelling(table), stop, {0}, set())
    last = next(token for token in [*range(1, len(table)), 0] if answer.push(token)) or len(table)
    written = b"".join(table[1 : last + 1]).decode(errors="ignore")
    places = [written.index(each) for each in stop if each in written]
    assert answer.result().text == (written[: min(places)] if places else text)
    assert answer.result().finish == "stop"
    assert not any(each in b"".join(table[1:last]).decode(errors="ignore") for each in stop)  # it ended at once


def test_an_answer_ends_at_a_stop_token_by_its_id(
    backend: CheckpointBackend, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = backend.encoder.text("def")
    with torch.inference_mode():
        first = int(reference(torch.tensor([ids])).logits[0, -1].argmax())
    monkeypatch.setitem(backend.encoder.controls, "<|stop|>", first)
    [stopped] = backend.generate([greedy("def")], Sampling(6, stop_tokens=("<|stop|>",)))
    assert stopped == Generated("", 1, "stop")
    with pytest.raises(ConfigError, match=r'"<\|endoftxt\|>": not an added token.*did you mean "<\|endoftext\|>"'):
        backend.generate([greedy("def")], Sampling(6, stop_tokens=("<|endoftxt|>",)))


def test_a_prompt_longer_than_the_context_loses_its_beginning(backend: CheckpointBackend) -> None:
    long = "x = 1\n" * 50
    kept, lost = backend.encoder.prompt(long, 20)
    assert kept == backend.encoder.text(long)[-20:]
    [answer] = backend.generate([greedy(long)], Sampling(4))
    assert sure(answer).lost_tokens == lost == len(backend.encoder.text(long)) - 20
    with pytest.raises(ConfigError, match="no room for a prompt in a context of 24"):
        backend.generate([greedy("x")], Sampling(24))


MARK = Special("<|endoftext|>")


@pytest.mark.parametrize(
    ("prefix", "suffix", "room", "kept"),
    [
        (40, 40, 20, (10, 10)),
        (60, 20, 40, (30, 10)),  # as their lengths are
        (20, 60, 40, (20, 20)),  # but half for what stands before the hole
        (10, 90, 40, (10, 30)),  # of which there is less here
        (90, 5, 40, (38, 2)),
        (3, 3, 5, (3, 2)),
        (40, 40, 1, (1, 0)),
        (40, 40, 0, (0, 0)),
    ],
)
@pytest.mark.parametrize("order", ["psm", "spm"])
def test_a_program_with_a_hole_keeps_what_stands_around_the_hole(
    backend: CheckpointBackend, prefix: int, suffix: int, room: int, kept: tuple[int, int], order: str
) -> None:
    before, behind = "\x01\x02" * 50, "\x03\x04" * 50  # one token a character
    before, behind = before[:prefix], behind[:suffix]
    first, second = backend.encoder.text(before), backend.encoder.text(behind)
    assert (len(first), len(second)) == (prefix, suffix)
    first, second = first[prefix - kept[0] :], second[: kept[1]]
    if order == "psm":
        ids, lost = backend.encoder.prompt((MARK, before, MARK, behind, MARK), room + 3)
        assert ids == [0, *first, 0, *second, 0]
    else:
        ids, lost = backend.encoder.prompt((MARK, behind, MARK, before), room + 2)
        assert ids == [0, *second, 0, *first]
    assert lost == prefix + suffix - room


def test_control_tokens_that_do_not_fit_are_refused(backend: CheckpointBackend) -> None:
    for prompt in ((MARK, "x", MARK, "y", MARK), (MARK, MARK, MARK)):
        with pytest.raises(ValueError, match="control tokens of a prompt alone need 3 tokens; there is room for 2"):
            backend.encoder.prompt(prompt, 2)


def test_an_answer_says_what_was_left_of_its_prompt(backend: CheckpointBackend) -> None:
    before, behind = "x = 1\n" * 9, "return y\n" * 9
    requests = [
        Generation((MARK, before, MARK, behind, MARK), "a"),
        Generation("x", "b"),
        Generation("y = 2\n" * 30, "c"),
    ]
    hole, whole, text = backend.generate(requests, Sampling(4))
    assert sure(whole).seen is None
    prefix, suffix = sure(hole).seen.split("<|endoftext|>")[1:3]
    assert prefix and before.endswith(prefix)
    assert suffix and behind.startswith(suffix)
    assert sure(text).seen and ("y = 2\n" * 30).endswith(sure(text).seen)


def test_a_folder_that_is_no_model_is_refused_with_the_file_name(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: no such file"):
        CheckpointBackend(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json: no such file"):
        CheckpointBackend(folder)


@pytest.mark.parametrize("is_own", [False, True])
def test_weights_that_are_cut_short_are_named(tiny_model: Path, tmp_path: Path, is_own: bool) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    if is_own:
        write_json(folder / "training.json", {"config": {}})
    with pytest.raises(ValueError, match=rf"{folder}.*(transformers cannot load|cannot be read as weights).*header"):
        CheckpointBackend(folder, device="cpu")


def test_an_untrained_uniform_model_has_eight_bits_a_byte_over_bytes(
    tiny_model: Path, tmp_path: Path, backend: CheckpointBackend
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.nn.init.zeros_(model.lm_head.weight)
    folder = tmp_path / "uniform"
    model.save_pretrained(folder)
    shutil.copy(tiny_model / "tokenizer.json", folder)
    uniform = CheckpointBackend(folder, device="cpu")
    found = sure(uniform.rolling(["def add(a, b): return a + b"])[0])
    assert found.nats == pytest.approx(found.tokens * math.log(320), rel=1e-6)
    assert uniform.identity != backend.identity
    assert backend.identity == CheckpointBackend(backend.folder, device="cpu").identity


def test_what_a_tokenizer_puts_before_a_text_stands_before_it(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    facts = json.loads((folder / "tokenizer.json").read_text())
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    facts["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, sequence],
        "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    backend = CheckpointBackend(folder, device="cpu")
    assert backend.encoder.prompt("x", 9) == ([0, *backend.encoder.text("x")], 0)
    assert backend.encoder.pairs([Continuation("x", "y")])[0][0][0] == 0
    write_json(folder / "tokenizer_config.json", {"add_bos_token": False})
    assert CheckpointBackend(folder, device="cpu").encoder.prompt("x", 9)[0] == backend.encoder.text("x")


class EveryBatch:
    """Counts rows that go through transformers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backend: CheckpointBackend) -> None:
        self.sizes: list[int] = []
        network = backend._transformers()
        original = network._step

        def step(inputs_BT: Tensor, *rest: Any) -> Any:
            self.sizes.append(len(inputs_BT))
            return original(inputs_BT, *rest)

        monkeypatch.setattr(network, "_step", step)

    def __iter__(self) -> Iterator[int]:
        return iter(self.sizes)


def test_samples_of_a_prompt_share_its_first_pass_and_finished_rows_leave(
    backend: CheckpointBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Generation(prompt, prompt, sample) for sample in range(4) for prompt in ("def add", "x = ")]
    sampling = Sampling(8, temperature=1.0, stop=("e", "\n", " "), seed=1)
    sizes = EveryBatch(monkeypatch, backend)
    answers = texts_of(backend.generate(requests, sampling))
    found = list(sizes)
    assert found[:2] == [2, 8] or (found[0] == 2 and found[1] < 8)
    assert found[1:] == sorted(found[1:], reverse=True)
    assert found[-1] < found[1]
    assert len(set(answers[::2])) > 1
