import json
from pathlib import Path

import numpy as np
import pytest
from codesieve.train.config import InfillObjective
from codesieve.train.infill import SPARE, CharacterSplit, split_tokens
from codesieve.train.objectives import restore, transform
from codesieve.train.sentinels import Sentinels
from codesieve.train.tokenizer import encode, train_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

SOURCES = [path.read_text() for path in sorted(Path(json.__file__).parent.parent.glob("[a-f]*.py"))][:40]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([text[:20_000] for text in SOURCES[::2]], 1024)


@pytest.fixture(scope="module")
def split(tokenizer):
    return CharacterSplit(tokenizer)


def raw(split, ids):
    return b"".join(split.bytes[token] for token in ids)


def test_parts_of_real_code_are_those_of_three_texts_encoded_alone(tokenizer, split):
    generator = np.random.default_rng(0)
    same = []
    for source in SOURCES[1::2]:
        begin = int(generator.integers(max(1, len(source) - 3000)))
        text = source[begin : begin + 3000]
        ids = encode(tokenizer, [text])[0].astype(np.int64)
        for _ in range(5):
            parts = split(ids, np.sort(generator.random(2)))
            texts = [raw(split, part).decode() for part in parts]
            assert "".join(texts) == text
            assert sum(map(len, parts)) <= len(ids) + SPARE
            same += [list(part) == list(alone) for part, alone in zip(parts, encode(tokenizer, texts), strict=True)]
    assert np.mean(same) > 0.95


def test_cuts_fall_inside_words_as_often_as_characters_do(tokenizer, split):
    text = "def parse(argument): return argument\n"
    ids = encode(tokenizer, [text])[0].astype(np.int64)
    generator = np.random.default_rng(0)
    cuts = [len(raw(split, split(ids, np.sort(generator.random(2)))[0])) for _ in range(1000)]
    assert len(ids) < len(text) / 1.5
    counts = np.bincount(cuts, minlength=len(text) + 1)
    expected = 1000 * (1 - (2 * np.arange(len(text) + 1) + 1) / (2 * len(text) + 2)) * 2 / (len(text) + 1)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected.max())


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab =()\n\t0é中🙂", min_size=1, max_size=60),
    part=st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted),
    draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)).map(sorted),
)
def test_bytes_stay_also_where_a_window_begins_inside_a_character(tokenizer, split, text, part, draws):
    ids = encode(tokenizer, [text])[0].astype(np.int64)[part[0] : part[1]]
    parts = split(ids, np.array(draws))
    assert raw(split, np.concatenate(parts)) == raw(split, ids)
    assert sum(map(len, parts)) <= len(ids) + SPARE


@pytest.fixture(scope="module")
def crossing():
    """Of a tokenizer whose tokens go over the borders of characters, three bytes each."""
    characters = "".join(map(chr, range(0x4E00, 0x4E40)))
    return CharacterSplit(train_tokenizer([characters * 3], 420))


@settings(deadline=None)
@given(
    text=st.text(alphabet="专东丰丁七", min_size=1, max_size=20),
    draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)).map(sorted),
)
@example(text="专东丰", draws=[0.0, 0.4])
def test_bytes_stay_where_the_borders_of_tokens_lie_inside_characters(crossing, text, draws):
    ids = encode(crossing._tokenizer, [text])[0].astype(np.int64)
    for begin in range(min(3, len(ids))):
        parts = crossing(ids[begin:-1], np.array(draws))
        assert raw(crossing, np.concatenate(parts)) == raw(crossing, ids[begin:-1])


@pytest.mark.parametrize("order", ["psm", "spm", "spm_separate"])
def test_an_item_gives_its_text_back(tokenizer, split, order):
    text = SOURCES[1][:500]
    ids, sentinels = encode(tokenizer, [text])[0].astype(np.int64), Sentinels.of(tokenizer)
    for key in range(20):
        objective = InfillObjective(type="infill", order=order)
        item = transform(objective, np.append(ids, 0), True, key, sentinels, split)
        assert raw(split, restore(objective, item.tokens, sentinels)).decode() == text


def test_a_cut_that_no_encoding_can_follow_moves_to_a_token_border(tokenizer):
    changing = Tokenizer.from_str(tokenizer.to_str())
    changing.normalizer = normalizers.Lowercase()
    ids = encode(tokenizer, ["HELLO WORLD AGAIN"])[0].astype(np.int64)
    generator = np.random.default_rng(0)
    for _ in range(50):
        parts = CharacterSplit(changing)(ids, np.sort(generator.random(2)))
        assert np.concatenate(parts).tolist() == ids.tolist()


def test_a_tokenizer_that_sets_a_blank_before_every_text_is_cut_inside_words_all_the_same():
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "ab", "▁ab"]
    merges = [("a", "b"), ("▁", "ab")]
    model = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True, unk_token="<unk>")
    llama = Tokenizer(model)
    llama.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    llama.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    ids = np.array(llama.encode("ab abc\nab").ids)
    prefix, middle, suffix = CharacterSplit(llama)(ids, np.array([0.25, 0.55]))
    names = [[llama.id_to_token(token) for token in part] for part in (prefix, middle, suffix)]
    assert names == [["▁", "a"], ["b", "▁ab"], ["c", "<0x0A>", "ab"]]


def test_token_cuts_are_between_tokens():
    parts = split_tokens(np.arange(4), np.array([0.3, 0.7]))
    assert [part.tolist() for part in parts] == [[0], [1, 2], [3]]
