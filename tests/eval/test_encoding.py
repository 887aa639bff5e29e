"""Tokenizers that put a blank before a text (SentencePiece), and ones whose tokens do not stand for bytes."""

import pytest
from codesieve.eval.backends.encoding import Encoder, Rereading, Spelling
from codesieve.eval.backends.protocol import Continuation, Special
from codesieve.eval.infilling import formats, infill_prompt
from codesieve.files import write_json
from codesieve.strict import ConfigError
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

SPECIAL = ["<unk>", "<s>", "</s>", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>", "[PREFIX]", "[SUFFIX]"]


def like_llama() -> Tokenizer:
    """Characters with byte fallback and a blank before every text, as in Llama 2's tokenizer.json."""
    names = [*SPECIAL, *(f"<0x{number:02X}>" for number in range(256)), "▁", *"abcdef()=:"]
    model = models.BPE({name: number for number, name in enumerate(names)}, [], byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return tokenizer


def of_words() -> Tokenizer:
    """A unigram model, whose tokens are no bytes."""
    words = ["▁def", "▁add", "(", "a", "b", ",", ")", "▁", "é", "d", "e", "f"]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *((word, -1.0) for word in words)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return tokenizer


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("llama")
    like_llama().save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"add_bos_token": True, "bos_token": "<s>"})
    return Encoder(folder, {"bos_token_id": 1, "eos_token_id": 2})


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("words")
    of_words().save(str(folder / "tokenizer.json"))
    return Encoder(folder, {"eos_token_id": 13})


def names(encoder: Encoder, ids: list[int]) -> list[str]:
    return [encoder.tokenizer.id_to_token(number) for number in ids]


def test_a_text_begins_with_the_sign_that_the_tokenizer_asks_for(llama: Encoder) -> None:
    ids, lost = llama.prompt("ab", 99)
    assert (names(llama, ids), lost) == (["<s>", "▁", "a", "b"], 0)
    assert llama.prompt("abcdef", 4)[0] == [1, *llama.text("abcdef")[-3:]]  # the sign stays
    [(context, text)] = llama.pairs([Continuation("a = ", "b")])
    assert names(llama, context) == ["<s>", "▁", "a", "▁", "="]
    assert names(llama, text) == ["▁", "b"]
    assert llama.pairs([Continuation("", "b")])[0][0] == [1]


def test_a_text_behind_a_control_token_has_no_blank_that_it_does_not_spell(llama: Encoder) -> None:
    ids, _ = llama.prompt((Special("<s>"), Special("▁<PRE>"), "ab", Special("▁<MID>"), " c"), 99)
    assert names(llama, ids) == ["<s>", "▁<PRE>", "a", "b", "▁<MID>", "▁", "c"]
    with pytest.raises(ConfigError, match='control token "▁<FILL>": not an added token of the tokenizer'):
        llama.control("▁<FILL>")


@pytest.mark.parametrize(("prefix", "suffix"), [("ab", "c"), ("ab\n", " c"), (" a", "b"), ("", "b"), ("a", "")])
def test_code_llama_and_codestral_begin_the_prefix_with_a_blank_and_the_suffix_without(
    llama: Encoder, prefix: str, suffix: str
) -> None:
    # Meta's `infilling_prompt_tokens`: encode(prefix) behind ▁<PRE>, encode_infilling(suffix), which has no blank, behind
    # ▁<SUF>. mistral-common's `encode_fim` does the same. (transformers 5.0 puts
    # a blank before the suffix as well.)
    def pieces(text: str) -> list[str]:
        return [each if each in "abc" else {"\n": "<0x0A>", " ": "▁"}[each] for each in text]

    first = ["▁", *pieces(prefix)] if prefix else []
    ids, _ = llama.prompt(infill_prompt(formats()["codellama"], prefix, suffix), 99)
    assert names(llama, ids) == ["<s>", "▁<PRE>", *first, "▁<SUF>", *pieces(suffix), "▁<MID>"]
    ids, _ = llama.prompt(infill_prompt(formats()["codestral"], prefix, suffix), 99)
    assert names(llama, ids) == ["<s>", "[SUFFIX]", *pieces(suffix), "[PREFIX]", *first]


@given(text=st.text(alphabet="ab (é日\n", min_size=1, max_size=12))
def test_an_answer_keeps_its_blanks_and_characters_whole(llama: Encoder, text: str) -> None:
    spelling = llama.answer([])
    assert isinstance(spelling, Spelling)
    ids = llama.prompt((Special("<s>"), text), 99)[0][1:]
    pieces = [spelling.piece(number) for number in [*ids, 2]] + [spelling.rest()]
    assert "".join(pieces) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)


def test_tokens_that_are_no_bytes_are_spelled_by_reading_a_few_of_them_again(words: Encoder) -> None:
    ids = words.text("def add(a, b) def")
    for border in range(1, len(ids)):
        spelling = words.answer(ids[:border])
        assert isinstance(spelling, Rereading)
        answer = "".join(spelling.piece(number) for number in [*ids[border:], 13]) + spelling.rest()
        assert words.tokenizer.decode(ids[:border]) + answer == words.tokenizer.decode(ids)
