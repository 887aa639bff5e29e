"""Windows and cuts: every token once, every byte counted."""

import pytest
from codesieve.eval.windows import cut_bytes, cut_tokens, excerpt, windows
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


@given(tokens=st.integers(0, 200), context=st.integers(1, 40))
def test_every_token_is_scored_once_within_the_context(tokens: int, context: int) -> None:
    scored = []
    for window in windows(tokens, context):
        assert 0 <= window.start <= window.scored < window.stop <= tokens
        assert window.stop - window.start <= context
        scored += range(window.scored, window.stop)
    assert scored == list(range(tokens))


@given(tokens=st.integers(0, 200), context=st.integers(1, 40))
def test_no_token_after_the_first_window_has_less_than_half_a_context_before_it(tokens: int, context: int) -> None:
    for window in list(windows(tokens, context))[1:]:
        assert window.scored - window.start == context // 2


@given(text=st.text(), limit=st.integers(8, 40))
def test_a_cut_by_bytes_is_the_longest_beginning_that_fits(text: str, limit: int) -> None:
    cut = cut_bytes(text, limit)
    assert text.startswith(cut)
    assert len(cut.encode()) <= limit
    assert cut == text or len(text[: len(cut) + 1].encode()) > limit


@given(text=st.text(alphabet="aé€𝄞\n", max_size=200), limit=st.integers(8, 40), position=st.floats(0, 1))
def test_an_excerpt_is_a_piece_of_the_text_that_fills_the_limit(text: str, limit: int, position: float) -> None:
    piece = excerpt(text, limit, position)
    assert piece in text
    assert limit - 6 <= len(piece.encode()) <= limit or piece == text  # up to 3 bytes of a split character at each end


@given(lines=st.lists(st.text(alphabet="abc ", max_size=7), min_size=10), position=st.floats(0, 1))
def test_an_excerpt_starts_with_a_line(lines: list[str], position: float) -> None:
    text = "\n".join(lines)
    piece = excerpt(text, 8, position)
    assert text.startswith(piece) or f"\n{piece}" in text


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token, so that most cuts fall inside a character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={each: number for number, each in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(text=st.text(min_size=1), limit=st.integers(8, 30))
def test_a_cut_by_tokens_counts_the_bytes_of_exactly_those_tokens(text: str, limit: int) -> None:
    encoding = byte_tokenizer().encode(text)
    tokens, size_bytes = cut_tokens(text, encoding.offsets, limit)
    assert tokens == size_bytes <= limit  # one byte a token
    kept = byte_tokenizer().decode(encoding.ids[:tokens])
    assert text.startswith(kept)
    assert len(kept.encode()) == size_bytes


@pytest.mark.parametrize(("limit", "tokens"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 6), (9, 6)])
def test_a_cut_inside_a_character_steps_back_to_its_start(limit: int, tokens: int) -> None:
    text = "aé€"  # 1, 2 and 3 bytes
    assert cut_tokens(text, byte_tokenizer().encode(text).offsets, limit) == (tokens, tokens)
