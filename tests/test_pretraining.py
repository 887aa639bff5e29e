"""`codesieve train` from corpus shards to models, as a user meets it."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from codesieve.config import TrainJobConfig
from codesieve.display import Display
from codesieve.pretraining import train_job
from codesieve.strict import ConfigError, parse
from codesieve.train.metrics import read_metrics

SETTINGS = {
    "model": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2},
    "vocab_size": 400,
    "sequence_length": 32,
    "window_tokens": 32,
    "step_tokens": 64,
    "tokens": 1280,
    "seeds": [0],
    "dtype": "float32",
}
STAGES = [
    {"name": "balanced", "tokens": 640, "weights": {"code": 0.5, "text": 0.5}},
    {"name": "text", "tokens": 384, "weights": {"code": 0.1, "text": 0.9}, "join": "fresh"},
    {
        "name": "cooldown",
        "tokens": 256,
        "weights": {"code": 1.0},
        "join": "anneal",
        "where": "quality_percentile > 0.5",
    },
]


def documents(count=60, **columns):
    chance = random.Random(0)
    names = ["".join(chance.choices("abcdefghij", k=5)) for _ in range(80)]
    texts = [
        "".join(f"def {chance.choice(names)}({chance.choice(names)}):\n    return {number}\n" for _ in range(6))
        for number in range(count)
    ]
    return pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(count)],
            "text": texts,
            "source": ["code" if number % 3 else "text" for number in range(count)],
            "kind": ["code" if number % 3 else "text" for number in range(count)],
            "language": ["python"] * count,
            "quality_percentile": [number / count for number in range(count)],
            **columns,
        }
    )


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    documents().write_parquet(folder / "code-00000.parquet")
    documents(0).write_parquet(folder / "empty-00000.parquet")
    return folder


def job(corpus, out, train=None, **fields):
    data = {"corpus": str(corpus), "out": str(out), "train": {**SETTINGS, **(train or {})}, **fields}
    if "stages" in data["train"]:
        del data["train"]["tokens"]
    return parse(TrainJobConfig, data, where="job")


def run(*arguments, **fields):
    return train_job(job(*arguments, **fields), Display(quiet=True))


def test_three_stages_from_shards_to_a_plot(corpus, tmp_path):
    held = tmp_path / "held.parquet"
    documents(5).write_parquet(held)
    rows = run(
        corpus, tmp_path / "out", {"stages": STAGES, "validate_tokens": 640}, streams="kind", validation=str(held)
    )
    model = tmp_path / "out" / "models" / "0"
    assert rows[0]["model"] == str(model)
    assert (model / "loss.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((model / "training.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == ["balanced", "text", "cooldown"]
    assert report["stages"][2]["tokens_per_stream"] == {"code": 256}
    assert read_metrics(model / "metrics.jsonl")["stage"].unique(maintain_order=True).to_list() == [
        "balanced",
        "text",
        "cooldown",
    ]
    assert read_metrics(model / "validation.jsonl").height == 2


def test_the_same_command_again_does_nothing_and_other_data_are_refused(corpus, tmp_path):
    first = run(corpus, tmp_path / "out")
    store = tmp_path / "out" / "tokens" / "tokens.bin"
    made = store.stat().st_mtime_ns
    assert run(corpus, tmp_path / "out") == first
    assert store.stat().st_mtime_ns == made
    with pytest.raises(ConfigError, match=r"(?s)trained on other data.*where: \"TRUE\" -> \"kind = 'code'\""):
        run(corpus, tmp_path / "out", where="kind = 'code'")
    same = tmp_path / "same"
    shutil.copytree(corpus, same)
    documents(61).write_parquet(corpus / "code-00000.parquet")
    with pytest.raises(ConfigError, match=r"(?s)trained on other data.*shards: "):
        run(corpus, tmp_path / "out")
    assert store.stat().st_mtime_ns == made
    assert (tmp_path / "out" / "models" / "0" / "training.json").is_file()
    with pytest.raises(ValueError, match=r"(?s)something else.*config\.learning_rate"):
        run(same, tmp_path / "out", {"learning_rate": 1.0})


def test_a_corpus_of_more_rows_than_polars_takes_in_one_piece_trains(tmp_path):
    """Of 16,384 rows on, Polars filters in pieces, to whose number a literal `TRUE` does not fit."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    documents(20_000).write_parquet(folder / "code-00000.parquet")
    (row,) = run(folder, tmp_path / "out", {"tokens": 128})
    assert row["tokens"] == 128


def test_ids_of_any_form_will_do(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    documents().with_columns(id=pl.format("file {}", pl.int_range(pl.len()))).write_parquet(folder / "a-00000.parquet")
    (row,) = run(folder, tmp_path / "out", {"tokens": 128})
    assert row["unique_documents"] > 0


def test_a_stage_may_select_one_stream_only_where_no_weights_are_given(corpus, tmp_path):
    stages = [{"name": "all", "tokens": 640}, {"name": "code", "tokens": 128, "where": "kind = 'code'"}]
    run(corpus, tmp_path / "out", {"stages": stages})
    report = json.loads((tmp_path / "out" / "models" / "0" / "training.json").read_text())
    assert set(report["stages"][0]["tokens_per_stream"]) == {"code", "text"}
    assert report["stages"][1]["tokens_per_stream"] == {"code": 128}


def test_a_tokenizer_and_a_model_can_be_given(corpus, tmp_path):
    run(corpus, tmp_path / "first")
    model = tmp_path / "first" / "models" / "0"
    rows = run(corpus, tmp_path / "second", {"tokenizer": str(model), "tokens": 128})
    assert (tmp_path / "second" / "tokenizer" / "tokenizer.json").read_bytes() == (
        model / "tokenizer.json"
    ).read_bytes()
    rows = run(corpus, tmp_path / "third", {"init_from": str(model), "tokens": 128})
    assert rows[0]["final_loss"] < 5.9


def test_several_corpora_are_one(corpus, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    documents(70)[60:].drop("quality_percentile").write_parquet(other / "more-00000.parquet")
    data = {"corpus": [str(corpus), str(other)], "out": str(tmp_path / "out"), "train": SETTINGS}
    train_job(parse(TrainJobConfig, data, where="job"), Display(quiet=True))
    stored = pl.read_parquet(tmp_path / "out" / "tokens" / "documents.parquet")
    assert stored.height == 70
    assert stored["score"].null_count() == 10


@pytest.mark.parametrize(
    ("train", "fields", "message"),
    [
        ({}, {"where": "quality_percentil > 0.5"}, 'did you mean "quality_percentile"'),
        ({"stages": [{**STAGES[0], "where": "stars > 3"}]}, {}, 'stage "balanced": stars > 3: unknown column "stars"'),
        ({"stages": [{**STAGES[0], "weights": {"kode": 1}}]}, {}, r'unknown stream "kode" \(did you mean "code"'),
        ({"stages": [{**STAGES[0], "where": "text LIKE 'def%'"}]}, {}, 'unknown column "text"'),
        ({"validate_tokens": 64}, {}, "needs `validation`"),
        ({"tokenizer": "nowhere"}, {}, "nowhere/tokenizer.json"),
        ({"max_epochs": 0.1}, {}, "max_epochs"),
        ({}, {"where": "FALSE"}, "tokens"),
    ],
)
def test_what_cannot_work_is_said(corpus, tmp_path, train, fields, message):
    with pytest.raises(ValueError, match=message):
        run(corpus, tmp_path / "out", train, **fields)
    assert not (tmp_path / "out" / "models").exists()


def test_shards_without_what_is_needed_are_named(corpus, tmp_path):
    with pytest.raises(ConfigError, match="no Parquet shards here"):
        run(tmp_path / "nothing", tmp_path / "out")
    (corpus / "torn-00000.parquet").write_bytes((corpus / "code-00000.parquet").read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"torn-00000\.parquet: not a Parquet file that can be read"):
        run(corpus, tmp_path / "out")
    (corpus / "torn-00000.parquet").unlink()
    documents().drop("language").write_parquet(corpus / "code-00000.parquet")
    (corpus / "empty-00000.parquet").unlink()
    with pytest.raises(ConfigError, match='the shards have no column "language"'):
        run(corpus, tmp_path / "out")


def test_a_shard_that_is_damaged_inside_is_named(corpus, tmp_path):
    documents(40).with_columns(id=pl.lit("b") + pl.col("id")).write_parquet(corpus / "text-00001.parquet")
    path = corpus / "text-00001.parquet"
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"text-00001\.parquet: the shard is damaged"):
        run(corpus, tmp_path / "out")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_same_command_goes_on(corpus, tmp_path, sent):
    command = [sys.executable, "-m", "codesieve", "train", "codegen2", "--corpus", str(corpus), "--out"]
    settings = [f"train.{key}={json.dumps(value)}" for key, value in SETTINGS.items() if key not in {"model", "tokens"}]
    settings += ["train.tokens=12800", f"train.model={json.dumps(SETTINGS['model'])}", "train.max_epochs=null"]
    flags = [part for item in settings for part in ("--set", item)]
    metrics = tmp_path / "out" / "models" / "0" / "metrics.jsonl"
    process = subprocess.Popen([*command, str(tmp_path / "out"), *flags], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, sent)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "the same command continues" in said
    assert list((metrics.parent / "checkpoints").glob("step-*"))

    done = subprocess.run(
        [*command, str(tmp_path / "out"), *flags, "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)[0]["tokens"] == 12800
    table = read_metrics(metrics)
    assert table["step"].to_list() == list(range(200))
    subprocess.run([*command, str(tmp_path / "straight"), *flags], capture_output=True, check=True)
    name = "models/0/model.safetensors"
    assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
