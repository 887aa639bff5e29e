import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from codesieve.benchmarks import train as benchmark
from codesieve.benchmarks import train_cases
from codesieve.benchmarks.nanogpt import NanoGPT
from codesieve.benchmarks.train_rows import made_up_rows
from codesieve.benchmarks.train_sides import SIDES, Side
from codesieve.strict import ConfigError
from codesieve.train.config import ModelConfig, TrainConfig
from codesieve.train.model import Decoder

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
CASE = benchmark.Case("small", SMALL, 400, 16, 64, dtype="float32", rounds=2, steps=1)
CPU = torch.device("cpu")
FAMILIES = {
    "llama": ModelConfig(**SMALL, num_key_value_heads=2),
    "cohere": ModelConfig(**SMALL, family="cohere", logit_scale=0.5),
    "codegen": ModelConfig(**SMALL, family="codegen", tie_word_embeddings=False, rotary_dim=2),
}


def our_names(state):
    """Weights of the reference under the decoder's names, queries, keys and values apart."""
    names = {
        "embedding.": "model.embed_tokens.",
        "blocks.": "model.layers.",
        "attention_norm.": "input_layernorm.",
        "feedforward_norm.": "post_attention_layernorm.",
        "attention.out.": "self_attn.o_proj.",
        "feedforward.gate.": "mlp.gate_proj.",
        "feedforward.up.": "mlp.up_proj.",
        "feedforward.down.": "mlp.down_proj.",
        "head.": "lm_head.",
    }
    ours = {}
    for name, tensor in state.items():
        new = f"model.{name}" if name.startswith("norm.") else name
        for theirs, mine in names.items():
            new = new.replace(theirs, mine)
        ours[new] = tensor
    for name in [name for name in ours if ".attention.qkv." in name]:
        joint = ours.pop(name)
        keys = (len(joint) - 16) // 2
        for part, weight in zip("qkv", joint.split((16, keys, keys)), strict=True):
            ours[name.replace("attention.qkv", f"self_attn.{part}_proj")] = weight
    return ours


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_computes_what_the_decoder_computes(family):
    config = FAMILIES[family]
    torch.manual_seed(0)
    reference = NanoGPT(config, 40, 12)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = Decoder(config, 40, 12)
    model.load_state_dict(our_names(reference.state_dict()))
    tokens = torch.randint(40, (2, 12))
    targets = tokens.roll(-1, 1)
    targets[:, -1] = -100
    loss, _ = model.loss(tokens, targets, None, None, 22)
    assert reference(tokens, targets).item() == pytest.approx(loss.item(), rel=1e-5)


def test_all_sides_train_and_are_compared():
    report = benchmark.measure(replace(CASE, against=("transformers", "nanogpt")))
    assert list(report["sides"]) == ["codesieve", "transformers", "nanogpt"]
    assert report["sides"]["codesieve"]["ratio"] == 1.0
    for side in report["sides"].values():
        assert side["tokens_per_second"] > 0
        assert side["ratio_range"][0] <= side["ratio"] <= side["ratio_range"][1]
        assert 0 <= side["wait_fraction"] <= 1
        assert side["mfu"] is None
        assert side["peak_gigabytes"] is None
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("name", SIDES)
def test_every_side_learns_from_the_same_rows(name):
    config = CASE.config()
    side = SIDES[name](config, CPU, torch.float32)
    rows = made_up_rows(config, documents=50)
    losses = [float(side.step(side.prepare(rows.batch(0, 4)))) for _ in range(8)]
    assert losses[0] == pytest.approx(np.log(400), abs=0.1)
    assert losses[-1] < losses[0] - 0.1


def test_micro_batches_change_neither_the_loss_nor_the_step():
    config = CASE.config()
    rows = made_up_rows(config, documents=50)
    losses = []
    for micro in (64, 16):
        torch.manual_seed(0)
        side = SIDES["nanogpt"](config.model_copy(update={"micro_batch_tokens": micro}), CPU, torch.float32)
        batch = side.prepare(rows.batch(0, 4))
        assert len(batch) == 64 // micro
        losses.append([float(side.step(batch)) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)  # a mean of means where rows have unequal targets


@pytest.mark.parametrize("objective", train_cases.OBJECTIVES)
def test_every_named_objective_has_rows(objective):
    config = replace(CASE, objective=objective, sequence_length=32).config()
    assert config.objectives == TrainConfig(objectives=objective).objectives
    rows = made_up_rows(config, 50)
    assert rows.batch(0, 2).tokens_BT.shape == (2, 32)
    assert rows.batch(0, 2).tokens_BT.max() < config.vocab_size


def test_infilling_between_characters_gets_text_that_it_can_cut():
    rows = made_up_rows(replace(CASE, objective="fim", sequence_length=256, step_tokens=256).config(), 50)
    split, cuts = rows._split, []
    rows._split = lambda ids, draws: cuts.append((ids, split(ids, draws))) or cuts[-1][1]
    rows.batch(0, 5)
    borders = [set(np.cumsum([len(split.bytes[token]) for token in ids]).tolist()) for ids, _ in cuts]
    ends = [sum(len(split.bytes[token]) for token in parts[0]) for _, parts in cuts]
    assert np.mean([end in border for end, border in zip(ends, borders, strict=True)]) < 0.7  # others inside a token


def test_the_attention_table_compares_masks_with_plain_causal():
    report = benchmark.measure(replace(CASE, table="attention"))
    assert list(report["sides"]) == ["causal", "documents", "prefix-LM"]


def test_the_objective_table_compares_every_named_objective_with_plain_prediction():
    report = benchmark.measure(replace(CASE, table="objective", rounds=1))
    assert list(report["sides"]) == ["causal", "codegen2", "fim", "prefix-lm", "ul2"]
    assert all("wait_fraction" in side for side in report["sides"].values())


def test_what_does_not_fit_has_its_micro_batch_halved():
    tried = []

    def maker(config, device, dtype):
        tried.append(config.micro_batch_tokens)
        if config.micro_batch_tokens > 16:
            raise torch.OutOfMemoryError
        return Side(lambda batch: batch, lambda batch: torch.zeros(()), lambda: "fake")

    config = CASE.config()
    rows = made_up_rows(config, documents=50)
    side, facts = benchmark._built(maker, CASE, rows, CPU, torch.float32)
    assert tried == [64, 32, 16]
    assert side is not None
    assert facts["micro_batch_tokens"] == 16


def test_what_never_fits_is_a_row_that_says_so():
    def maker(config, device, dtype):
        raise torch.OutOfMemoryError

    side, facts = benchmark._built(maker, CASE, made_up_rows(CASE.config(), 50), CPU, torch.float32)
    assert side is None
    assert facts == {"error": "out of memory with 16 tokens a pass"}


REPORT = {
    "name": "124m",
    "parameters": 123_600_000,
    "sequence_length": 1024,
    "sides": {
        "codesieve": {
            "computed": "compiled",
            "tokens_per_second": 600_000,
            "ratio": 1.0,
            "ratio_range": [1.0, 1.0],
            "wait_fraction": 0.001,
            "mfu": 0.4841,
            "peak_gigabytes": 40.25,
            "micro_batch_tokens": 65536,
        },
        "transformers": {"error": "out of memory with 1024 tokens a pass"},
    },
}


def test_the_table_is_markdown_with_a_row_a_side():
    failed = {"name": "350m", "error": "CUDA error"}
    lines = benchmark.table([REPORT, failed]).splitlines()
    assert lines[2] == (
        "| 124m, 124 M, T = 1,024 | codesieve (compiled) | 600,000 | **1.00** (1.00–1.00) | 0.1% | 48.4% | 40.2 | 65,536 |"
    )
    assert "| transformers | out of memory with 1024 tokens a pass |" in lines[3]
    assert lines[4].startswith("| 350m | failed: CUDA error |")
    assert {line.count("|") for line in lines} == {9}


def test_the_suite_goes_on_after_a_failure_and_keeps_what_is_there(tmp_path):
    asked = []

    def run(name):
        asked.append(name)
        return {"name": name, "error": "no"} if name == "350m" else {**REPORT, "name": name}

    out = tmp_path / "runs" / "suite.jsonl"
    benchmark.suite(["350m", "124m"], out, run)
    reports = benchmark.suite(["124m", "codegen2-1b"], out, run)
    assert asked == ["124m", "350m", "codegen2-1b"]
    assert [report["name"] for report in reports] == ["124m", "350m", "codegen2-1b"]
    benchmark.suite([*asked], out, run)
    assert asked[3:] == ["350m"]  # what failed is tried again


def test_a_wrong_name_in_the_suite_is_refused(tmp_path):
    for refusing in (lambda: benchmark.suite(["124"], tmp_path / "out"), lambda: benchmark.listed(["124"])):
        with pytest.raises(ConfigError, match='unknown case "124"; known: 124m, 350m'):
            refusing()


def test_the_suite_lists_minutes_for_each_of_its_cases(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--gpu-suite", "--list", "--only", "124m", "proxy-15m"])
    benchmark.main()
    *cases, total = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, *_ in cases] == ["124m", "proxy-15m"]
    assert total[0] == "all"
    assert float(total[1]) == pytest.approx(sum(float(minutes) for _, minutes, _ in cases), abs=0.11)
    assert all(case.minutes() < 13 for case in benchmark.SUITE)  # of the 15 that a machine is lent for


def test_the_suite_has_the_shipped_objectives_of_a_proxy():
    [case] = [case for case in benchmark.SUITE if case.table == "objective"]
    assert {"causal", "codegen2", "fim"} <= set(case.sides())
    assert case.sides()["fim"][1].config().objectives == TrainConfig(objectives="fim").objectives


@pytest.mark.parametrize("case", benchmark.SUITE, ids=lambda case: case.name)
def test_every_case_of_the_suite_is_a_valid_run_of_the_size_it_says(case):
    millions = sum(p.numel() for p in case.decoder().parameters()) / 1e6
    named = {"124m": 124, "350m": 360, "470m": 470, "codegen2-1b": 1015, "proxy-15m": 22, "proxy-30m": 37}
    named |= {"to-code-470m": 468}
    assert millions == pytest.approx(named[case.name.split()[0]], rel=0.02)


def test_the_command_prints_json(monkeypatch, capsys):
    options = [
        "--preset",
        "proxy-1m",
        "--step-tokens",
        "32",
        "--sequence-length",
        "32",
        "--rounds",
        "1",
        "--steps",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *options, "--vocab-size", "512", "--json"])
    benchmark.main()
    assert json.loads(capsys.readouterr().out)["sides"]["codesieve"]["computed"] == "eager"
