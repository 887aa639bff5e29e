import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from codesieve.train import tokenizer as module
from codesieve.train.tokenizer import (
    END_OF_TEXT,
    END_OF_TEXT_ID,
    SPECIAL_TOKENS,
    _parts,
    copy_tokenizer,
    encode,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CODE = "\n".join(
    f"def function_{number}(argument, other):\n"
    f"    # adds {number * 37} and returns it\n"
    f"    if argument:\n"
    f"        return argument + other * {number}\n"
    f"\treturn None\n"
    for number in range(200)
)
TRAIN_AND_HASH = """
import hashlib, sys
from codesieve.train.tokenizer import train_tokenizer
texts = [f"alpha{i % 7} beta{i % 11} gamma{i % 5}\\n    delta_{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(700)]
print(hashlib.sha256(train_tokenizer(texts, 500).to_str().encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([CODE], 410)


def test_two_trainings_in_two_processes_give_the_same_bytes():
    # Every word occurs about equally often, so that nearly every merge is decided between ties.
    runs = [
        subprocess.run([sys.executable, "-c", TRAIN_AND_HASH], capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_special_tokens_have_the_first_ids(tokenizer):
    assert [tokenizer.id_to_token(number) for number in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)
    assert tokenizer.token_to_id(END_OF_TEXT) == END_OF_TEXT_ID == 0


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_round_trips_exactly(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, [text])[0].tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("text", ["a\r\nb\rc\n\n", "\t\t x  \n", "ﬁ é e\u0301 ﷺ 🇩🇪 \u0000\x85", " ", "\n", "x" * 5000])
def test_awkward_text_round_trips_exactly(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, [text])[0].tolist(), skip_special_tokens=False) == text


def test_digits_are_single_tokens(tokenizer):
    tokens = tokenizer.encode("x = 370 + 111").tokens
    assert [token for token in tokens if any(sign.isdigit() for sign in token)] == list("370111")


def test_a_line_end_and_its_indentation_become_one_token(tokenizer):
    tokens = tokenizer.encode("if argument:\n        return").tokens
    assert "ĊĠĠĠĠĠĠĠĠ" in tokens


def test_text_that_spells_a_special_token_is_encoded_as_text(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    for each in (tokenizer, load_tokenizer(tmp_path)):
        for special in SPECIAL_TOKENS:
            ids = encode(each, [f"a {special} b"])[0]
            assert ids.min() >= len(SPECIAL_TOKENS)
            assert each.decode(ids.tolist(), skip_special_tokens=False) == f"a {special} b"


def test_transformers_loads_the_same_tokenizer(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(CODE)["input_ids"] == encode(tokenizer, [CODE])[0].tolist()
    assert loaded.decode(loaded("  a . b ,c\n")["input_ids"]) == "  a . b ,c\n"
    assert (loaded.eos_token_id, len(loaded)) == (END_OF_TEXT_ID, 410)


def test_saving_and_loading_gives_the_same_ids(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    assert np.array_equal(encode(load_tokenizer(tmp_path), [CODE])[0], encode(tokenizer, [CODE])[0])


def test_long_texts_encode_as_a_whole(tokenizer):
    parts = list(_parts(CODE, longest=100))
    assert "".join(parts) == CODE
    assert len(parts) > 100
    ids = np.concatenate(encode(tokenizer, parts))
    assert ids.tolist() == tokenizer.encode(CODE).ids


def test_a_single_long_line_is_cut(tokenizer):
    parts = list(_parts("x" * 1000, longest=100))
    assert "".join(parts) == "x" * 1000
    assert max(map(len, parts)) == 400


def byte_level(folder: Path, **changes):
    """A tokenizer.json as Qwen2.5-Coder's: byte-level, with infill tokens that it does not call special."""
    trained = json.loads(train_tokenizer([CODE], 410).to_str())
    trained["added_tokens"] = [{**token, "special": False} for token in trained["added_tokens"]]
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(trained | changes))
    return load_tokenizer(folder)


def byte_fallback(folder: Path, metaspace: bool):
    """A tokenizer.json as Llama 2's: no pieces, a blank before every text, unknown characters as bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefx=+1", "▁a", "▁x", "ab"]
    model = models.BPE(
        {word: number for number, word in enumerate(words)},
        [("▁", "a"), ("▁", "x"), ("a", "b")],
        byte_fallback=True,
        unk_token="<unk>",
    )
    tokenizer = Tokenizer(model)
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0))
        tokenizer.decoder = decoders.Sequence(list(steps))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def test_control_tokens_that_are_not_called_special_stay_text_too(tmp_path):
    tokenizer = byte_level(tmp_path)
    for special in SPECIAL_TOKENS:
        ids = encode(tokenizer, [f"a {special} b"])[0]
        assert ids.min() >= len(SPECIAL_TOKENS)
        assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == f"a {special} b"


def test_added_tokens_that_are_text_are_still_used(tmp_path):
    blanks = {"id": 410, "content": "        ", "special": False}
    facts = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = json.loads(train_tokenizer([CODE], 410).to_str())["added_tokens"]
    tokenizer = byte_level(tmp_path, added_tokens=[*tokens, blanks | facts])
    assert 410 in encode(tokenizer, ["x        y"])[0].tolist()


@pytest.mark.parametrize("metaspace", [False, True])
def test_nothing_is_added_to_a_text_nor_cut_off_whatever_the_file_says(tmp_path, metaspace):
    tokenizer = byte_fallback(tmp_path, metaspace)
    texts = ["a x = a + 1\n\té", "ab </s>", ""]
    for text, ids in zip(texts, encode(tokenizer, texts), strict=True):
        assert not {0, 1, 2} & set(ids.tolist())
        assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text


@pytest.mark.parametrize("make", [byte_level, lambda f: byte_fallback(f, False), lambda f: byte_fallback(f, True)])
def test_the_ids_of_a_long_text_are_those_of_the_whole(tmp_path, monkeypatch, make):
    tokenizer = make(tmp_path)
    text = "ab x = a + 1\r\nx();\n\n  x = b\n" * 40
    whole = encode(tokenizer, ["a", text, ""])
    monkeypatch.setattr(module, "LONGEST_TEXT", 50)
    monkeypatch.setattr(module._parts, "__defaults__", (50,))
    assert len(list(_parts(text))) > 10
    for ours, expected in zip(encode(tokenizer, ["a", text, ""]), whole, strict=True):
        assert ours.tolist() == expected.tolist()


def test_a_copied_tokenizer_is_the_same_bytes_without_what_was_not_there(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "from")
    (tmp_path / "from" / "special_tokens_map.json").write_text("{}")
    (tmp_path / "from" / "model.safetensors").write_text("not ours")
    copy_tokenizer(tmp_path / "from", tmp_path / "into")
    names = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in (tmp_path / "into").iterdir()) == names
    for name in names:
        assert (tmp_path / "from" / name).read_bytes() == (tmp_path / "into" / name).read_bytes()


def test_an_empty_text_has_no_tokens(tokenizer):
    assert [len(ids) for ids in encode(tokenizer, ["", "a", ""])] == [0, 1, 0]


def test_too_small_a_vocabulary_and_too_little_text_are_named():
    with pytest.raises(ValueError, match="at least 365"):
        train_tokenizer([CODE], 364)
    with pytest.raises(ValueError, match=r"give only .* 5000 were asked for"):
        train_tokenizer([CODE[:2000]], 5000)


@pytest.mark.parametrize(
    "text", ["{", '{"model": {}}', "[1]", '{"added_tokens": [], "model": {"type": "Odd"}}', "\xff"]
)
def test_a_broken_or_missing_tokenizer_is_named(tmp_path: Path, text):
    for use in (load_tokenizer, lambda folder: copy_tokenizer(folder, tmp_path / "into")):
        with pytest.raises(ValueError, match=r"tokenizer\.json: no such file.*save_pretrained"):
            use(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"tokenizer\.json: not (a tokenizer|valid JSON)"):
        load_tokenizer(tmp_path)


def test_saved_files_depend_on_the_tokenizer_only(tokenizer, tmp_path):
    digests = []
    for name in ("a", "b"):
        save_tokenizer(tokenizer, tmp_path / name)
        files = sorted((tmp_path / name).iterdir())
        digests.append([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
    assert digests[0] == digests[1]
