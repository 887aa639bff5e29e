"""A byte-level BPE for code: trained from texts, saved so that `transformers` loads it, used without it.

Text goes in unchanged (no normaliser, no prefix space), so decoding gives back every character. A token never crosses
the pieces that `PIECES` cuts: a word with the one character before it, a single digit, line ends with the indentation
after them, a run of punctuation, a run of blanks. Indentation is therefore one token where it is common, and
`x = 10` and `x = 11` differ in one token. Every piece is bounded in length, which keeps training and encoding linear
on minified files; the price is that a run of more than 64 equal characters is at least two tokens.

Training gives the same bytes in every process: the library breaks ties between pairs by their ids and orders its
alphabet by code point, and the texts are counted, not sampled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..files import write_json

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<sep>",
    "<eom>",
    *(f"<mask_{number}>" for number in range(1, 17)),
)
"""Ids 0 to 21. The names of the fill-in-the-middle tokens are Qwen2.5-Coder's, those of `<sep>`, `<eom>` and
`<mask_n>` CodeGen2's; they are reserved now so that a later objective does not change the vocabulary."""

PIECES = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]{0,63}",
        r"\p{N}",
        r"\s{0,64}\n[ \t]{0,128}",
        r" ?[^\s\p{L}\p{N}]{1,64}",
        r"\s{1,128}(?!\S)",
        r"\s{1,128}",
    )
)
"""As in GPT-4's pattern (tiktoken cl100k_base), but digits one by one and indentation together with its line end."""

LONGEST_TEXT = 1 << 20
"""Characters that are encoded in one call. The library keeps about 100 bytes of bookkeeping a character, so a 50 MB
file would need gigabytes; 1 Mi characters need 0.1 GB and lose no speed."""

_PIECE_BORDER = re.compile(r"[!-~]\n")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` tokens; special tokens first, then the 256 bytes, then merges.

    Raises:
        ValueError: if `vocab_size` has no room for bytes and special tokens, or the texts are too few to fill it.
    """
    smallest = len(SPECIAL_TOKENS) + 256
    if vocab_size < smallest:
        raise ValueError(f"vocab_size {vocab_size}: at least {smallest} are needed for bytes and special tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for text in texts for part in _parts(text)), trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise ValueError(
            f"the texts give only {tokenizer.get_vocab_size()} tokens, {vocab_size} were asked for; "
            "train on more text or lower vocab_size"
        )
    return _text_is_text(tokenizer)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that `transformers.AutoTokenizer.from_pretrained(folder)` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": False,
        },
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a folder written by save_tokenizer")
    return _text_is_text(Tokenizer.from_file(str(path)))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, `uint32`, without special tokens.

    A document that contains the characters `<|endoftext|>` is text like any other. Texts above `LONGEST_TEXT` are
    encoded in parts that end where a piece ends anyway, so the ids are those of the whole; only a single line above
    four times that length is cut elsewhere.
    """
    parts = [list(_parts(text)) for text in texts]
    encodings = tokenizer.encode_batch_fast([part for group in parts for part in group], add_special_tokens=False)
    ids = iter(encodings)
    return [np.concatenate([_ids(next(ids)) for _ in group]) if group else _EMPTY for group in parts]


_EMPTY = np.zeros(0, dtype=np.uint32)


def _ids(encoding: object) -> np.ndarray:
    return np.array(encoding.ids, dtype=np.uint32)  # type: ignore[attr-defined]


def _parts(text: str, longest: int = LONGEST_TEXT) -> Iterator[str]:
    """`text` in parts of about `longest` characters, cut where `PIECES` cuts: before a line end, after ASCII."""
    begin = 0
    while len(text) - begin > longest:
        border = _PIECE_BORDER.search(text, begin + longest - 1, begin + 4 * longest)
        end = border.start() + 1 if border else min(begin + 4 * longest, len(text))
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


def _text_is_text(tokenizer: Tokenizer) -> Tokenizer:
    """Without this a document that quotes `<|endoftext|>` would end there. The library does not save the setting."""
    tokenizer.encode_special_tokens = True
    return tokenizer
