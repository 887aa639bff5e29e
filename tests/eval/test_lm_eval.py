"""Log-likelihoods against lm-evaluation-harness, run as a program over the same model folder and the same choices.

    CODESIEVE_LM_EVAL=/path/to/python .venv/bin/pytest tests/eval/test_lm_eval.py

names a Python that can `import lm_eval` (0.4.x) with the same torch and transformers; the test is skipped without.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from codesieve.eval.backends.checkpoint import CheckpointBackend
from codesieve.eval.backends.protocol import Continuation
from codesieve.files import write_json
from codesieve.train.config import ModelConfig
from codesieve.train.model import Decoder
from codesieve.train.pretrained import save_model
from codesieve.train.tokenizer import save_tokenizer, train_tokenizer

NATS = 1e-4

PROGRAM = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / 2\n"

QUESTIONS: list[tuple[str, list[str]]] = [
    ("def mean(values):\n    ", ["return total / 2", "return", "pass\n", "total = 0\n    return total"]),
    ("def mean(values):\n    return ", ["total", " total", "\ttotal"]),
    ("for value in values:", ["\n        total += value\n", " pass", "\n"]),
    ("x =\t \n\n  ", ["1", "  1", "日本語"]),
    ("# naïve café — ", ["日本語 ✓", "é", "✓✓✓"]),
    ("s = '日本", ["語'", "'", "本語'\n"]),
    ("Question: which is a mean?\nAnswer:", [" A", " B", " C", " D"]),
    ("", ["def", "return total", "日本"]),
    (PROGRAM * 4, ["    return total / 2\n", "def mean", " x"]),
    ("total +", ["= value; total", " 1 + 2", "= value == 2"]),
    ("tot", ["al = 0", "ality"]),
]

TASK = """
task: parity
dataset_path: json
dataset_name: null
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
target_delimiter: ""
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture(scope="module")
def lm_eval() -> str:
    python = os.environ.get("CODESIEVE_LM_EVAL")
    if not python:
        pytest.skip("CODESIEVE_LM_EVAL names no Python with lm_eval")
    return python


def made_model(folder: Path, family: dict[str, Any]) -> Path:
    tokenizer = train_tokenizer([PROGRAM * 3, "# naïve café — 日本語 ✓\n"], 420)
    save_tokenizer(tokenizer, folder / "tokenizer")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.3}
    model = Decoder(ModelConfig(**{**shape, **family}), 420, sequence_length=96, seed=1)
    save_model(model, folder / "tokenizer", folder / "model")
    return folder / "model"


def theirs(python: str, model: Path, folder: Path) -> list[list[tuple[float, bool]]]:
    """(log-likelihood, is greedy) of every choice, as lm-evaluation-harness logs it."""
    rows = [{"id": number, "query": query, "choices": choices, "gold": 0} for number, (query, choices) in
            enumerate(QUESTIONS)]  # fmt: skip
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks").mkdir()
    (folder / "tasks/parity.yaml").write_text(TASK % data)
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"), "1")
    command = [python, "-m", "lm_eval", "run", "--model", "hf", "--tasks", "parity", "--device", "cpu"]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--include_path", str(folder / "tasks")]
    command += ["--batch_size", "4", "--output_path", str(folder / "out"), "--log_samples"]
    environment = {**os.environ, **offline, "HF_HOME": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [samples] = (folder / "out").rglob("samples_parity_*.jsonl")
    found = [json.loads(line) for line in samples.read_text().splitlines()]
    found.sort(key=lambda each: each["doc"]["id"])
    return [[(float(nats), str(greedy) == "True") for [[nats, greedy]] in each["resps"]] for each in found]


@pytest.mark.parametrize("family", [{}, {"family": "codegen", "tie_word_embeddings": False}], ids=["llama", "codegen2"])
def test_every_choice_has_the_log_likelihood_of_lm_evaluation_harness(
    lm_eval: str, tmp_path: Path, family: dict[str, Any]
) -> None:
    model = made_model(tmp_path, family)
    expected = theirs(lm_eval, model, tmp_path)
    requests = [Continuation(query, choice) for query, choices in QUESTIONS for choice in choices]
    for training in (None, {}):  # by transformers, then by codesieve's own decoder
        if training is not None:
            write_json(model / "training.json", training)
        backend = CheckpointBackend(model, device="cpu")
        ours = iter(backend.loglikelihood(requests))
        largest = 0.0
        for (query, choices), answers in zip(QUESTIONS, expected, strict=True):
            for choice, (log_likelihood, is_greedy) in zip(choices, answers, strict=True):
                found = next(ours)
                assert found
                assert -found.nats == pytest.approx(log_likelihood, abs=NATS), (query, choice)
                assert found.is_greedy == is_greedy
                largest = max(largest, abs(found.nats + log_likelihood))
        print(f"{backend.facts['scored_by']}: {len(requests)} choices, largest difference {largest:.2e} nats")
