import hashlib

import numpy as np
import polars as pl
import pytest
from codesieve.train import tokens as module
from codesieve.train.tokenizer import encode, train_tokenizer
from codesieve.train.tokens import TokenStore, build_store

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
    return train_tokenizer(TEXTS, 290)


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


def test_a_damaged_store_is_refused(tokenizer, tmp_path):
    store = build_store([frame()], tokenizer, tmp_path / "store", "f")
    path = store.folder / "tokens.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="delete the folder and build it again"):
        TokenStore.open(store.folder)
    with pytest.raises(ValueError, match=r"store\.json is missing"):
        TokenStore.open(tmp_path)


def test_no_documents_make_an_empty_store(tokenizer, tmp_path):
    store = build_store([], tokenizer, tmp_path / "store", "f")
    assert (store.documents.height, len(store.tokens)) == (0, 0)
