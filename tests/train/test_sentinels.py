"""The names are those of the published tokenizers; byte tables are checked against the library's own decoding."""

import json

import pytest
from codesieve.train.sentinels import END_OF_TEXT_NAMES, INFILL_NAMES, Sentinels, token_bytes, vocabulary_size
from codesieve.train.tokenizer import encode, load_tokenizer, train_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

CODE = "".join(f"def name_{n}(x, other):\n    return x * {n} + other_{n % 7}\n" for n in range(150))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def byte_level(folder, names, special=True):
    """As StarCoder's: 256 bytes without merges, then `names` as added tokens."""
    tokenizer = Tokenizer(
        models.BPE({sign: n for n, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(name, special=special, normalized=False) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def byte_fallback(folder, names):
    """As Code Llama's: a blank before every text, characters it lacks as bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdex=é", "▁a", "▁x"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("▁", "x")], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(list(steps))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", *names])
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def ours():
    return train_tokenizer([CODE], 380)


def test_our_own_tokenizer_has_every_sentinel(ours):
    found = Sentinels.of(ours)
    assert (found.end_of_text, found.fim_prefix, found.fim_middle, found.fim_suffix) == (0, 1, 2, 3)
    assert (found.separator, found.end_of_mask) == (4, 5)
    assert found.masks == tuple(range(6, 106))
    assert found.modes == {"R": 106, "S": 107, "X": 108}


@pytest.mark.parametrize("names", INFILL_NAMES)
@pytest.mark.parametrize("special", [True, False])
def test_every_naming_is_found_and_never_comes_from_text(tmp_path, names, special):
    tokenizer = byte_level(tmp_path, ["<|endoftext|>", *names], special)
    found = Sentinels.of(tokenizer)
    ids = (found.end_of_text, found.fim_prefix, found.fim_middle, found.fim_suffix)
    assert ids == (256, 257, 258, 259)
    assert (found.separator, found.end_of_mask, found.masks, found.modes) == (None, None, (), {})
    assert not set(ids) & set(encode(tokenizer, ["<|endoftext|>".join(names)])[0].tolist())


def test_deepseek_names_stand_for_what_follows_them(tmp_path):
    # DeepSeek-Coder's card: <｜fim▁begin｜>prefix<｜fim▁hole｜>suffix<｜fim▁end｜>middle
    names = ["<｜end▁of▁sentence｜>", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"]
    found = Sentinels.of(byte_level(tmp_path, names))
    assert (found.end_of_text, found.fim_suffix, found.fim_prefix, found.fim_middle) == (256, 257, 258, 259)


def test_code_llama_names_are_found_in_a_byte_fallback_tokenizer(tmp_path):
    tokenizer = byte_fallback(tmp_path, ["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"])
    found = Sentinels.of(tokenizer)
    first = tokenizer.token_to_id("▁<PRE>")
    assert (found.end_of_text, found.fim_prefix, found.fim_middle, found.fim_suffix) == (2, first, first + 1, first + 2)
    assert first not in encode(tokenizer, ["a ▁<PRE> <PRE>"])[0]


@pytest.mark.parametrize(("pattern", "first"), [("<mask_{}>", 1), ("<extra_id_{}>", 0)])
def test_masks_are_in_order_of_their_numbers_up_to_the_first_gap(tmp_path, pattern, first):
    numbers = [first + 2, first, first + 1, first + 4]
    found = Sentinels.of(byte_level(tmp_path, ["</s>", *(pattern.format(n) for n in numbers), "<sep>", "<eom>"]))
    assert found.masks == (258, 259, 257)
    assert (found.separator, found.end_of_mask) == (261, 262)


@pytest.mark.parametrize("name", END_OF_TEXT_NAMES)
def test_every_end_of_text_is_found(tmp_path, name):
    assert Sentinels.of(byte_level(tmp_path, ["<other>", name])).end_of_text == 257


def test_two_of_three_infill_tokens_are_none(tmp_path):
    found = Sentinels.of(byte_level(tmp_path, ["</s>", "<fim_prefix>", "<fim_middle>"]))
    assert (found.fim_prefix, found.fim_middle, found.fim_suffix) == (None, None, None)


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no end of text.*1 added tokens \(<stop>\); add one"):
        Sentinels.of(byte_level(tmp_path, ["<stop>"]))


def test_a_word_that_spells_a_sentinel_is_none():
    # "</s>" as an ordinary token, which documents can hold.
    vocabulary = {sign: n for n, sign in enumerate(sorted({*pre_tokenizers.ByteLevel.alphabet(), "</s>"}))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    with pytest.raises(ValueError, match="no end of text"):
        Sentinels.of(tokenizer)


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_the_bytes_of_a_text_are_those_of_its_tokens(ours, text):
    table = token_bytes(ours)
    assert b"".join(table[number] for number in encode(ours, [text])[0]) == text.encode()


def test_every_byte_has_its_token(tmp_path):
    assert sorted(token_bytes(byte_level(tmp_path, []))) == [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize("text", ["a x=é b", "\t☃\n", "", " a"])
def test_byte_fallback_gives_the_blank_before_the_text_too(tmp_path, text):
    tokenizer = byte_fallback(tmp_path, [])
    table = token_bytes(tokenizer)
    joined = b"".join(table[number] for number in encode(tokenizer, [text])[0])
    assert joined == (b" " + text.encode() if text else b"")
    assert (table[1], table[2]) == (b"", b"")


def test_added_text_has_bytes_and_control_tokens_have_none(tmp_path):
    tokenizer = byte_level(tmp_path, ["    ", "ключ", "<|fim_prefix|>"], special=False)
    assert token_bytes(tokenizer)[256:] == [b"    ", "ключ".encode(), b""]


def test_ids_that_are_not_in_use_count_for_the_size_and_have_no_bytes(tmp_path):
    byte_level(tmp_path, ["</s>"])
    facts = json.loads((tmp_path / "tokenizer.json").read_text())
    facts["model"]["vocab"]["Ċ"] = 300
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts))
    tokenizer = load_tokenizer(tmp_path)
    assert (vocabulary_size(tokenizer), tokenizer.get_vocab_size()) == (301, 257)
    assert token_bytes(tokenizer)[256:] == [b""] * 44 + [b"\n"]


def test_tokens_that_are_no_bytes_are_refused():
    with pytest.raises(ValueError, match="WordLevel"):
        token_bytes(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ValueError, match="neither byte-level nor byte-fallback"):
        token_bytes(Tokenizer(models.BPE({"a": 0}, [])))
