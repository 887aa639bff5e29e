import json

import numpy as np
import polars as pl
import pytest
import torch
from codesieve.train import loop, run_folder
from codesieve.train.checkpoint import Snapshot
from codesieve.train.metrics import read_metrics
from codesieve.train.model import Decoder
from training_world import CONFIG, VOCAB, changed, make_world, run

TIMING = ("tokens_per_second", "wall_seconds")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of 60 documents in two streams, and its tokenizer."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


def spoilt(monkeypatch, factor, calls):
    """The loss of the calls with these numbers is multiplied by `factor`."""
    real, count = Decoder.loss, iter(range(10**6))

    def loss(self, *arguments, **more):
        total, losses_BT = real(self, *arguments, **more)
        return total * (factor if next(count) in calls else 1.0), losses_BT

    monkeypatch.setattr(Decoder, "loss", loss)


def test_a_run_learns_and_writes_what_it_says(world, tmp_path):
    fractions = []
    report = run(world, tmp_path / "model", progress=fractions.append)
    assert report == json.loads((tmp_path / "model" / "training.json").read_text())
    assert report["steps"] == 30
    assert report["tokens"] == 1920
    assert report["tokens_per_stream"] == {"code": 45 * 32, "text": 15 * 32}
    assert report["config"] == CONFIG.model_dump(mode="json")
    assert report["final_loss"] < 4.2  # a uniform guess over 400 tokens costs 6.0
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)

    metrics = read_metrics(tmp_path / "model" / "metrics.jsonl")
    assert metrics["tokens_seen"].to_list() == list(range(64, 1921, 64))
    assert metrics["loss"][0] == pytest.approx(np.log(VOCAB), abs=0.2)
    assert metrics["targets"].sum() == report["targets"]
    assert not metrics["skipped"].any()
    code = metrics["losses"].struct.field("code")
    text = metrics["losses"].struct.field("text")
    assert code.null_count() == 0
    assert text.null_count() == 15  # every second step has a row of it


def test_two_runs_give_the_same_model_bit_by_bit(world, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(hash(name))
        run(world, tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        if path.name not in {"metrics.jsonl", "metrics.parquet", "training.json"}:
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    reports = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("a", "b")]
    assert len({json.dumps({k: v for k, v in report.items() if k not in TIMING}) for report in reports}) == 1
    timing = ("tokens_per_second", "wait_fraction")
    steps = [read_metrics(tmp_path / name / "metrics.jsonl").drop(timing) for name in ("a", "b")]
    assert steps[0].equals(steps[1])


def test_seeds_and_selections_give_different_models(world, tmp_path):
    run(world, tmp_path / "a")
    run(world, tmp_path / "b", seed=1)
    run(world, tmp_path / "c", documents=np.arange(1, 60))
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}) == 3


@pytest.mark.parametrize("objectives", ["causal", "codegen2", "fim", "prefix-lm", "ul2"])
def test_every_objective_trains_and_its_loss_is_told_apart(world, tmp_path, objectives):
    config = changed(objectives=objectives, sequence_length=64, window_tokens=40, step_tokens=128, tokens=128 * 12)
    report = run(world, tmp_path / "model", config)
    assert report["skipped_steps"] == 0
    metrics = read_metrics(tmp_path / "model" / "metrics.jsonl")
    by_objective = metrics["losses_by_objective"].struct.unnest()
    kinds = {each.type for each in config.objectives}
    for kind in kinds:
        names = [name for name in by_objective.columns if name.startswith(kind)]
        assert names
        assert any(by_objective[name].drop_nulls().len() for name in names)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "muon"},
        {"dtype": "bfloat16"},
        {"z_loss": 1e-4},
        {"model": {"family": "cohere", "hidden_size": 32, "intermediate_size": 48, "logit_scale": 0.5}},
        {
            "model": {
                "family": "codegen",
                "hidden_size": 32,
                "intermediate_size": 128,
                "rotary_dim": 4,
                "tie_word_embeddings": False,
            }
        },
    ],
    ids=lambda fields: next(iter(fields)) if "model" not in fields else fields["model"]["family"],
)
def test_other_optimizers_precisions_and_families_learn_too(world, tmp_path, fields):
    report = run(world, tmp_path / "model", changed(**fields))
    assert report["final_loss"] < 4.6


def test_the_model_is_what_transformers_loads(world, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(world, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    ids = tokenizer("def abcd(x):\n    return", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (*ids.shape, VOCAB)


def test_training_goes_on_from_a_model_and_with_another_architecture(world, tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    run(world, tmp_path / "first")
    later = changed(init_from=str(tmp_path / "first"), tokens=320, learning_rate=1e-3)
    run(world, tmp_path / "later", later)
    metrics = read_metrics(tmp_path / "later" / "metrics.jsonl")
    assert metrics["loss"][0] < 4.5

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCAB, **shape)).save_pretrained(tmp_path / "neox")
    foreign = changed(init_from=str(tmp_path / "neox"), backend="transformers", tokens=640)
    report = run(world, tmp_path / "foreign", foreign)
    assert report["final_loss"] < 5.0
    GPTNeoXForCausalLM.from_pretrained(tmp_path / "foreign")


def test_held_out_documents_are_measured_during_the_run(world, tmp_path):
    held = pl.DataFrame(
        {"id": ["a", "b"], "text": ["def abcd(x):\n    return x + 1\n"] * 2, "stream": ["code", "text"]}
    )
    run(world, tmp_path / "model", changed(validate_tokens=640), validation=held)
    lines = [json.loads(line) for line in (tmp_path / "model" / "validation.jsonl").read_text().splitlines()]
    assert [line["tokens_seen"] for line in lines] == [640, 1280, 1920]
    assert set(lines[0]["by_stream"]) == {"code", "text"}
    assert lines[2]["bits_per_byte"] < lines[0]["bits_per_byte"] < 8


def test_the_seen_data_is_counted(world, tmp_path):
    report = run(world, tmp_path / "model", documents=np.r_[0:10, 40:60])
    assert report["documents"] == 30
    assert report["epochs_per_stream"]["code"] > 1 > report["epochs_per_stream"]["text"] > 0.2
    assert 10 + 5 < report["unique_documents"] <= 30


def test_a_step_that_is_not_finite_is_skipped_and_counted(world, tmp_path, monkeypatch):
    spoilt(monkeypatch, float("nan"), {9})  # two rows a step
    report = run(world, tmp_path / "model")
    assert report["skipped_steps"] == 1
    metrics = read_metrics(tmp_path / "model" / "metrics.jsonl")
    assert metrics["skipped"].arg_true().to_list() == [4]
    assert metrics["grad_norm"][4] is None
    assert report["final_loss"] < 4.3


@pytest.mark.parametrize(("first", "last"), [(0, 9), (7, 16)])
def test_a_run_that_is_not_finite_any_more_ends_after_ten_steps(world, tmp_path, monkeypatch, first, last):
    spoilt(monkeypatch, float("nan"), range(2 * first, 10**6))
    with pytest.raises(
        FloatingPointError, match=rf"step {last}: .* 10 steps in a row.*lower learning_rate \(0\.01 now\)"
    ):
        run(world, tmp_path / "model")
    metrics = read_metrics(tmp_path / "model" / "metrics.jsonl")
    assert metrics["skipped"].arg_true().to_list() == list(range(first, last + 1))  # the last ones are written, too


def test_a_run_that_mostly_fails_is_not_taken_for_a_model(world, tmp_path, monkeypatch):
    spoilt(monkeypatch, float("inf"), [row for row in range(60) if row // 2 % 5])
    with pytest.raises(FloatingPointError, match="24 of 30 steps"):
        run(world, tmp_path / "model")
    assert not (tmp_path / "model" / "training.json").exists()
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_a_gpu_that_is_too_small_names_the_setting(world, tmp_path, monkeypatch):
    def loss(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Decoder, "loss", loss)
    with pytest.raises(torch.OutOfMemoryError, match=r"step 0 .* lower micro_batch_tokens \(64 now.*Tried to allocate"):
        run(world, tmp_path / "model")


def test_use_of_the_peak_is_shown_for_the_precision_that_it_is_the_peak_of(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert loop._peak_flops(torch.device("cuda"), torch.bfloat16) == 989e12
    assert loop._peak_flops(torch.device("cuda"), torch.float32) is None
    assert loop._peak_flops(torch.device("cpu"), torch.bfloat16) is None


def test_lines_are_in_the_file_before_a_checkpoint_is_begun(world, tmp_path, monkeypatch):
    seen = []
    real = Snapshot.of.__func__

    def of(kind, *arguments, **more):
        seen.append(len((tmp_path / "model" / "metrics.jsonl").read_text().splitlines()))
        return real(kind, *arguments, **more)

    monkeypatch.setattr(Snapshot, "of", classmethod(of))
    run(world, tmp_path / "model", changed(checkpoint_tokens=640))
    assert seen == [10, 20, 30, 30]


def test_an_error_of_the_thread_that_writes_lines_ends_the_run(world, tmp_path, monkeypatch):
    def full(file, metrics):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_step", full)
    with pytest.raises(OSError, match="No space left"):
        run(world, tmp_path / "model")


def test_threads_and_determinism_are_put_back(world, tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(world, tmp_path / "model", changed(tokens=64))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_impossible_runs_are_named(world, tmp_path):
    with pytest.raises(ValueError, match=r'unknown stream "kode" \(did you mean "code"\?\)'):
        run(world, tmp_path / "model", weights={"kode": 1.0})
    with pytest.raises(ValueError, match=r'stream "text" has weight 0\.25, but the selection has no documents in it'):
        run(world, tmp_path / "model", documents=np.arange(10))
    with pytest.raises(ValueError, match="fewer than one step of 64"):
        run(world, tmp_path / "model", documents=np.array([0]), weights={"code": 1.0})
    with pytest.raises(ValueError, match="max_epochs"):
        run(world, tmp_path / "model", changed(tokens=64 * 2000, max_epochs=2.0))
    with pytest.raises(ValueError, match=r"no config\.json there"):
        run(world, tmp_path / "model", changed(init_from=str(tmp_path / "nowhere")))
    assert not (tmp_path / "model" / "training.json").exists()
