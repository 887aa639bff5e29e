"""`codesieve eval` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
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
        (["{bare}", "--tasks", "heldout"], "needs held-out documents"),
        (["{model}", "--tasks", " , "], "--tasks: name at least one task or suite"),
        (["{model}", "--tasks", "heldout", "--set", "heldout_where=language = 'c'"], "give the documents"),
        (
            ["{bare}", "--tasks", "problems", "--judge", "{model}"],
            "--judge: none of the tasks has its answers compared",
        ),
        (["show", "codegen2"], '"codegen2" is a suite; name one of its tasks: humaneval'),
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
def test_bad_usage_exits_with_2_and_says_what_to_do(
    model: Path, arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")  # a model that cannot be loaded: what is said comes before
    result = codesieve(*(each.format(model=model, bare=tmp_path) for each in arguments))
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


def test_samples_of_others_are_an_evaluation_too_and_fenced_ones_are_taken_out_when_asked(tmp_path: Path) -> None:
    item = json.loads(codesieve("show", "problems", "--item", "clamp", "--json").stdout)
    path = tmp_path / "samples.jsonl"
    answer = f"So:\n```python\n{item['prompt']}\n{item['right']}```\n"
    path.write_text("\ufeff" + json.dumps({"task_id": "clamp", "completion": answer}) + "\n", encoding="utf-8")
    arguments = ["replay", "--task", "problems", "--samples", str(path), "--json"]
    assert json.loads(codesieve(*arguments).stdout)["passed"] == 0
    found = json.loads(codesieve(*arguments, "--extract-fenced").stdout)
    assert (found["passed"], found["title"]) == (1, "problems (1 of 53 items)")
    path.write_text(json.dumps({"task_id": "clamp", "completion": item["right"]}) + "\n")
    whole = codesieve(f"replay:{path}", "--tasks", "problems", "--out", str(tmp_path / "out"))
    assert whole.returncode == 2 and "`eval replay` judges what there is" in whole.stderr


DIALOGUE = """
kind: judge
name: dialogue
data: {files: [dialogue.jsonl]}
prompt: "{instruction}\\n"
max_new_tokens: 8
question: "{instruction}\\n<{boundary}>\\n{first}\\n<{boundary}>\\n{second}\\n<{boundary}>\\nBetter:"
"""


def test_win_rates_in_two_steps_can_be_compared_and_reported(model: Path, tmp_path: Path) -> None:
    (tmp_path / "dialogue.yaml").write_text(DIALOGUE)
    rows = "".join(json.dumps({"instruction": f"Say {number}"}) + "\n" for number in range(6))
    (tmp_path / "dialogue.jsonl").write_text(rows)
    first, second = tmp_path / "a", tmp_path / "b"
    arguments = [str(model), "--tasks", str(tmp_path / "dialogue.yaml"), "--out"]
    assert codesieve(*arguments, str(first)).returncode == 0
    other = ["--temperature", "1", "--against", str(first)]
    unjudged = codesieve(*arguments, str(second), *other)
    assert unjudged.returncode == 2 and "--judge" in unjudged.stderr
    judged = codesieve(*arguments, str(second), *other, "--judge", str(model))
    assert judged.returncode == 0, judged.stderr
    compared = codesieve("compare", str(first), str(second), "--page", str(tmp_path / "page.html"))
    assert compared.returncode == 0, compared.stderr
    assert "no score" in compared.stdout
    assert "dialogue: b is not compared with a: no answer of a has a score" in compared.stdout
    assert codesieve("report", str(first), "--out", str(tmp_path / "a.html")).returncode == 0
    again = codesieve(*arguments, str(second))
    assert again.returncode == 0 and "warning:" in again.stderr and "is replaced" in again.stderr


def test_held_out_documents_are_chosen_by_the_predicate(model: Path, tmp_path: Path) -> None:
    documents = [
        {"id": f"{language}{number}", "text": f"x = {number}\n" * 9, "stream": "code", "language": language,
         "family": f"f{number}"}
        for language in ("c", "python") for number in range(4)
    ]  # fmt: skip
    path = tmp_path / "heldout.parquet"
    pl.DataFrame(documents).write_parquet(path)
    arguments = [str(model), "--tasks", "heldout", "--documents", str(path), "--out", str(tmp_path / "out")]
    result = codesieve(*arguments, "--json", "--set", "heldout_where=language = 'c'")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["metrics"]["heldout"]["code"]
    assert (found["documents"], list(found["languages"])) == (4, ["c"])
    wrong = codesieve(*arguments, "--set", "heldout_where=languag = 'c'")
    assert wrong.returncode == 2 and 'unknown column "languag" (did you mean "language"?)' in wrong.stderr


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
