import hashlib
import json
import resource
import threading

import numpy as np
import polars as pl
import pytest
from codesieve.train import tokens as module
from codesieve.train.tokenizer import encode, train_tokenizer
from codesieve.train.tokens import SCHEMA, TokenStore, build_store
from tokenizers import Tokenizer, models

TEXTS = [f"def f{number}(x):\n    return x + {number}\n" * (1 + number % 5) for number in range(40)] + ["", "é <sep>"]


def frame(texts=TEXTS):
    return pl.DataFrame(
        {
            "id": [hashlib.md5(f"{number}".encode()).hexdigest() for number in range(len(texts))],
            "text": texts,
            "stream": ["code" if number % 3 else "text" for number in range(len(texts))],
            "language": "python",
        }
    )


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 375)


def test_documents_lie_in_input_order_at_their_offsets(tokenizer, tmp_path):
    store = build_store([frame()[:10], frame()[10:]], tokenizer, tmp_path / "store", "f")
    assert store.tokens.dtype == np.uint16
    assert store.documents["id"].to_list() == frame()["id"].to_list()
    assert store.documents["stream"].to_list() == frame()["stream"].to_list()
    for row, ids in zip(store.documents.iter_rows(named=True), encode(tokenizer, TEXTS), strict=True):
        assert store.tokens[row["offset"] : row["offset"] + row["tokens"]].tolist() == ids.tolist()
    assert store.documents["bytes"].to_list() == [len(text.encode()) for text in TEXTS]


def test_the_end_of_text_token_never_comes_from_text(tokenizer, tmp_path):
    store = build_store([frame(["a <|endoftext|> b", "<|endoftext|>"])], tokenizer, tmp_path / "store", "f")
    assert store.tokens.min() > 0


def test_batch_borders_do_not_show(tokenizer, tmp_path, monkeypatch):
    whole = build_store([frame()], tokenizer, tmp_path / "whole", "f")
    monkeypatch.setattr(module, "ENCODE_BYTES", 100)
    parts = build_store([frame()[:7], frame()[7:7], frame()[7:]], tokenizer, tmp_path / "parts", "f")
    for name in ("tokens.bin", "documents.parquet", "store.json"):
        assert (whole.folder / name).read_bytes() == (parts.folder / name).read_bytes()


def test_what_is_written_depends_on_no_thread(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ENCODE_BYTES", 100)
    for name, parallelism, at_a_time in (("a", "true", 4), ("b", "false", 1)):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallelism)
        monkeypatch.setattr(module, "AT_A_TIME", at_a_time)
        build_store([frame()], tokenizer, tmp_path / name, "f")
    for name in ("tokens.bin", "documents.parquet", "store.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_reading_is_never_far_ahead_of_writing(tokenizer, tmp_path, monkeypatch):
    read, ahead = 0, []

    def batches():
        nonlocal read
        for row in range(40):
            read += 1
            yield frame()[row : row + 1]

    build_store(batches(), tokenizer, tmp_path / "store", "f", lambda _: ahead.append(read - len(ahead)))
    assert len(ahead) == 40
    assert max(ahead) <= module.AT_A_TIME + 1


def test_an_error_while_encoding_comes_out_and_ends_the_threads(tokenizer, tmp_path, monkeypatch):
    def broken(_, texts):
        raise RuntimeError(f"{len(texts)} texts")

    threads = threading.active_count()
    monkeypatch.setattr(module, "encode", broken)
    with pytest.raises(RuntimeError, match="42 texts"):
        build_store([frame(), frame()], tokenizer, tmp_path / "store", "f")
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_scores_and_further_columns_are_kept(tokenizer, tmp_path):
    plain = build_store([frame()], tokenizer, tmp_path / "plain", "f").documents
    assert plain.schema == pl.Schema(SCHEMA)
    assert plain["score"].null_count() == plain.height
    rich = frame().with_columns(
        score=pl.int_range(pl.len()) / 2, stars=pl.lit(3, pl.Int32), licence=pl.lit(None, pl.String)
    )
    kept = build_store([rich[:9], rich[9:]], tokenizer, tmp_path / "rich", "f").documents
    assert kept.schema == pl.Schema({**SCHEMA, "licence": pl.String, "stars": pl.Int32})
    assert kept["score"].to_list() == [number / 2 for number in range(42)]
    assert kept.drop("score", "stars", "licence").equals(plain.drop("score"))
    assert (kept["stars"].unique().to_list(), kept["licence"].null_count()) == ([3], 42)


def test_the_store_knows_its_end_of_text_and_its_tokenizer(tokenizer, tmp_path):
    store = build_store([frame()], tokenizer, tmp_path / "store", "f")
    assert (store.end_of_text, store.vocab_size) == (0, 375)
    facts = json.loads((tmp_path / "store" / "store.json").read_text())
    assert (facts["end_of_text"], facts["tokenizer"], facts["format"]) == (0, store.tokenizer, 2)
    with pytest.raises(ValueError, match="no end of text"):
        build_store([frame()], Tokenizer(models.BPE()), tmp_path / "other", "f")


def test_another_tokenizer_or_format_means_another_store(tokenizer, tmp_path):
    store = build_store([frame()], tokenizer, tmp_path / "store", "f")
    other = build_store([frame()], train_tokenizer(TEXTS, 370), tmp_path / "store", "f")
    assert (other.vocab_size, other.tokenizer == store.tokenizer) == (370, False)
    path = tmp_path / "store" / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(ValueError, match="format 1, this version reads 2"):
        TokenStore.open(tmp_path / "store")
    assert build_store([frame()], tokenizer, tmp_path / "store", "f").vocab_size == 375


def test_ids_outside_the_vocabulary_are_refused(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "encode", lambda _, texts: [np.array([7, 375], np.uint32) for _ in texts])
    with pytest.raises(ValueError, match="id 375 from a tokenizer of 375 ids"):
        build_store([frame()], tokenizer, tmp_path / "store", "f")


def test_a_full_disk_leaves_the_old_store(tokenizer, tmp_path):
    build_store([frame()[:5]], tokenizer, tmp_path / "store", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(OSError, match=f"no token store was written.*{tmp_path / 'store'}"):
            build_store([frame()], tokenizer, tmp_path / "store", "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert TokenStore.open(tmp_path / "store").documents.height == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_store_with_the_same_fingerprint_is_opened_not_built(tokenizer, tmp_path):
    def unread():
        raise AssertionError("the batches were read")
        yield

    build_store([frame()], tokenizer, tmp_path / "store", "same")
    assert build_store(unread(), tokenizer, tmp_path / "store", "same").documents.height == len(TEXTS)
    with pytest.raises(AssertionError, match="were read"):
        build_store(unread(), tokenizer, tmp_path / "store", "other")


def test_a_failed_build_leaves_the_old_store(tokenizer, tmp_path):
    def broken():
        yield frame()
        raise RuntimeError("interrupted")

    build_store([frame()[:5]], tokenizer, tmp_path / "store", "old")
    with pytest.raises(RuntimeError, match="interrupted"):
        build_store(broken(), tokenizer, tmp_path / "store", "new")
    assert TokenStore.open(tmp_path / "store").documents.height == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_progress_counts_bytes(tokenizer, tmp_path):
    seen = []
    build_store([frame()[:20], frame()[20:]], tokenizer, tmp_path / "store", "f", seen.append)
    assert sum(seen) == sum(len(text.encode()) for text in TEXTS)


def test_bad_input_is_named(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="column 'language' is missing"):
        build_store([frame().drop("language")], tokenizer, tmp_path / "a", "f")
    null = frame().with_columns(text=pl.when(pl.int_range(pl.len()) != 3).then("text"))
    with pytest.raises(ValueError, match="null text in row 3"):
        build_store([null], tokenizer, tmp_path / "b", "f")
    with pytest.raises(ValueError, match="comes more than once"):
        build_store([frame(), frame()], tokenizer, tmp_path / "c", "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.lit([1]).alias("lines"), "'lines' is List"),
        (pl.struct("id").alias("facts"), "'facts' is Struct"),
        (pl.lit(1).alias("offset"), "'offset' is the store's own"),
        (pl.lit("high").alias("score"), "'score' is String; a number"),
    ],
)
def test_columns_that_a_store_cannot_keep_are_named(tokenizer, tmp_path, column, message):
    with pytest.raises(ValueError, match=message):
        build_store([frame().with_columns(column)], tokenizer, tmp_path / "a", "f")


def test_batches_with_other_columns_are_refused(tokenizer, tmp_path):
    for other in (pl.lit("3").alias("stars"), pl.lit(3).alias("forks")):
        batches = [frame()[:9].with_columns(pl.lit(3).alias("stars")), frame()[9:].with_columns(other)]
        with pytest.raises(ValueError, match=r"the first one had.*stars"):
            build_store(batches, tokenizer, tmp_path / "a", "f")


def test_a_damaged_store_is_refused(tokenizer, tmp_path):
    store = build_store([frame()], tokenizer, tmp_path / "store", "f")
    path = store.folder / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="delete the folder and build it again"):
        TokenStore.open(store.folder)
    with pytest.raises(ValueError, match=r"store\.json is missing"):
        TokenStore.open(tmp_path)
    store = build_store([frame()], tokenizer, tmp_path / "moved", "f")
    table = store.folder / "documents.parquet"
    store.documents.reverse().write_parquet(table)
    with pytest.raises(ValueError, match=r"documents\.parquet is not that of tokens\.bin"):
        TokenStore.open(store.folder)
    table.write_bytes(table.read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a whole token store"):
        TokenStore.open(store.folder)
    table.unlink()
    with pytest.raises(ValueError, match="not a whole token store"):
        TokenStore.open(store.folder)


def test_no_documents_make_an_empty_store(tokenizer, tmp_path):
    for name, batches in (("none", []), ("empty", [frame()[:0]]), ("blank", [frame(["", ""])])):
        store = build_store(batches, tokenizer, tmp_path / name, "f")
        assert (store.documents.height, len(store.tokens)) == (2 if name == "blank" else 0, 0)
        assert store.documents.schema == pl.Schema(SCHEMA)
