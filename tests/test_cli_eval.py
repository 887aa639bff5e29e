"""`codesieve eval` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from made_evaluations import problems, write_evaluation
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SUBCOMMANDS = ["run", "tasks", "show", "fetch", "replay", "compare", "report", "plan", "export"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "CODESIEVE_BENCHMARKS"}


def codesieve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "codesieve", "eval", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that writes and scores bytes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("cli") / "model"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["def f(x):\n    return x\n"], trainer)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=260, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = codesieve(command, "--help")
    assert result.returncode == 0
    assert "Example: codesieve eval" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "pikaa"], 'did you mean "piqa"'),
        (["show", "humaneval"], "--data"),
        (["show", "problems", "--item", "count_vowel"], 'did you mean "count_vowels"'),
        (["{model}", "--tasks", "problem"], 'did you mean "problems"'),
        (["{model}", "--tasks", "problems", "--set", "temprature=1"], 'did you mean "temperature"'),
        (["{model}", "--tasks", "problems", "--samples", "3", "--temperature", "0"], "are the same answer"),
        (["{model}", "--tasks", "heldout"], "needs held-out documents"),
        (["{model}", "--tasks", "problems", "--data", "/nowhere"], "/nowhere: no such file"),
        (["{model}", "--tasks", "heldout", "--documents", "{model}/config.json"], "config.json: not a Parquet file"),
        (["nothing-here"], "not a model folder"),
        (["http://localhost:1/v1#m"], "--out"),
        (["replay", "--task", "pairs", "--samples", "{model}/config.json"], "has no tests"),
        (["replay", "--task", "problems", "--samples", "{model}/config.json"], "config.json: line 1"),
        (["compare", "{model}"], "at least two"),
        (["compare", "{model}", "{model}"], "{model}"),
    ],
)
def test_bad_usage_exits_with_2_and_says_what_to_do(model: Path, arguments: list[str], message: str) -> None:
    result = codesieve(*(each.format(model=model) for each in arguments))
    assert result.returncode == 2, result.stderr
    assert message.format(model=model) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_is_measured_and_shown_with_intervals(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = codesieve(str(model), "--tasks", "problems,pairs", "--set", "max_items=6", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert "pass_at_1" in result.stdout and "accuracy" in result.stdout and "sandbox level" in result.stdout
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["metrics"]["problems"]["problems"]["problems"] == 6
    assert evaluation["metrics"]["pairs"]["choice"]["items"] == 6
    page = codesieve("report", str(out), "--out", str(tmp_path / "page.html"))
    assert page.returncode == 0, page.stderr
    assert "pairs" in (tmp_path / "page.html").read_text()


def test_an_interrupted_evaluation_goes_on_and_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    arguments = ["--tasks", "pairs", "--set", "max_items=120", "--out"]
    whole = codesieve(str(model), *arguments, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "codesieve", "eval", str(model), *arguments, str(tmp_path / "cut")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    records = tmp_path / "cut" / "records.jsonl"
    while process.poll() is None and not (records.exists() and records.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command continues" in said
    done = len(records.read_text().splitlines())
    again = codesieve(str(model), *arguments, str(tmp_path / "cut"))
    assert again.returncode == 0, again.stderr
    assert 0 < done < len(records.read_text().splitlines())
    assert (tmp_path / "cut" / "items.parquet").read_bytes() == (tmp_path / "whole" / "items.parquet").read_bytes()


def test_samples_of_others_are_judged(tmp_path: Path) -> None:
    item = json.loads(codesieve("show", "problems", "--item", "clamp", "--json").stdout)
    samples = [{"task_id": "clamp", "completion": text} for text in (item["right"], "    return low\n", "\n")]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in samples))
    result = codesieve("replay", "--task", "problems", "--samples", str(path), "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["items"], found["samples"], found["passed"], found["missing"]) == (1, 3, 1, 52)
    assert found["pass_at_k"] == {"pass@1": pytest.approx(1 / 3)}
    assert found["outcomes"] == {"empty": 1, "passed": 1, "wrong": 1}
    assert found["sandbox_level"] >= 2


def test_two_models_are_compared_in_words_and_on_a_page(tmp_path: Path) -> None:
    facts = {"humaneval": {"kind": "code"}}
    weak = write_evaluation(tmp_path / "weak", problems(lambda item, sample: item < 20), facts)
    strong = write_evaluation(tmp_path / "strong", problems(lambda item, sample: item < 60), facts)
    page = tmp_path / "compare.html"
    result = codesieve("compare", str(weak), str(strong), "--page", str(page), "--metric", "humaneval=pass_at_1")
    assert result.returncode == 0, result.stderr
    assert "better" in result.stdout
    assert "<svg" in page.read_text()
    assert codesieve("compare", str(weak), str(strong), "--metric", "humaneval").returncode == 2


def test_a_plan_says_what_it_assumes() -> None:
    result = codesieve("plan", "--detect", "2", "--items", "164")
    assert result.returncode == 0, result.stderr
    assert "80 % power" in result.stdout and "never" in result.stdout
    assert json.loads(codesieve("plan", "--json").stdout)["detect"] == 0.02
