"""A byte-level BPE for code: trained from texts, saved so that `transformers` loads it, used without it.

Text goes in unchanged (no normaliser, no prefix space), so decoding gives back every character. A token never crosses
the pieces that `PIECES` cuts: a word with the one character before it, a single digit, line ends with the indentation
after them, a run of punctuation, a run of blanks. Indentation is therefore one token where it is common, and
`x = 10` and `x = 11` differ in one token. Every piece is bounded in length, which keeps training and encoding linear
on minified files; the price is that a run of more than 64 equal characters is at least two tokens.

Training gives the same bytes in every process: the library breaks ties between pairs by their ids and orders its
alphabet by code point, and the texts are counted, not sampled.

Any other tokenizer.json is loaded as it is published and used the same way: no token is added to a document, and one
that it quotes stays text.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..files import read_json, write_atomic, write_json
from .sentinels import is_control

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<sep>",
    "<eom>",
    *(f"<mask_{number}>" for number in range(1, 101)),
    "<|R|>",
    "<|S|>",
    "<|X|>",
)
"""Ids 0 to 108. The names of the fill-in-the-middle tokens are Qwen2.5-Coder's, those of `<sep>`, `<eom>` and
`<mask_n>` CodeGen2's, as many masks as T5 has; the last three are UL2's modes. All are reserved whatever the objective
is, so that another one does not change the vocabulary."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""What a model folder has of its tokenizer; only the first is needed to encode."""

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

_BORDER = re.compile(r"[A-Za-z0-9](?=\r?\n)")
"""No token goes over such a place: not of our pieces, nor of those of GPT-2, GPT-4, Llama 3, Qwen or DeepSeek (where
the signs before a line end may share a token with it), nor of SentencePiece, which has line ends as bytes."""


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
    """The tokenizer of a model folder, ours or any fast one of transformers, ready to encode documents.

    Nothing is added to a text, cut off it or filled up, whatever tokenizer.json says about templates, truncation and
    padding. Control tokens that it does not call special (see `is_control`) are made special, so that a document that
    spells one keeps it as text.

    Raises:
        ValueError: if there is no tokenizer.json, or the library cannot read it.
    """
    path = _present(folder)
    facts = read_json(path)
    try:
        for token in facts["added_tokens"]:
            token["special"] = token["special"] or is_control(token["content"])
        tokenizer = Tokenizer.from_str(json.dumps(facts))
    except Exception as error:  # the library raises no narrower class
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a tokenizer that the `tokenizers` library reads: {reason}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.post_processor = None
    return _text_is_text(tokenizer)


def copy_tokenizer(folder: Path, into: Path) -> None:
    """Copy the tokenizer's files of a model folder, byte by byte; those that are not there are left out.

    Raises:
        ValueError: if there is no tokenizer.json.
    """
    _present(folder)
    for name in FILES:
        if (folder / name).is_file():
            write_atomic(into / name, (folder / name).read_bytes())


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text, `uint32`, without special tokens.

    A document that contains the characters `<|endoftext|>` is text like any other. Texts above `LONGEST_TEXT` are
    encoded in parts that end where a token ends anyway, so the ids are those of the whole; only where no line ends in
    a letter or digit for four times that length they are cut elsewhere.
    """
    lead = _lead(tokenizer) if any(len(text) > LONGEST_TEXT for text in texts) else None
    parts = [list(_parts(text)) if lead is not None else [text] for text in texts]
    encodings = tokenizer.encode_batch_fast([part for group in parts for part in group], add_special_tokens=False)
    ids = map(_ids, encodings)
    return [np.concatenate([next(ids)[lead if number else 0 :] for number in range(len(group))]) for group in parts]


def _ids(encoding: object) -> np.ndarray:
    # By way of an array: three times as fast as numpy's own reading of a list.
    return np.array(array("I", encoding.ids), dtype=np.uint32)  # type: ignore[attr-defined]


def _lead(tokenizer: Tokenizer) -> int | None:
    """Ids that a part starts with for being a text of its own: 1 for SentencePiece's blank; None: it cannot be cut."""
    encodings = tokenizer.encode_batch_fast(["a\nb", "a", "\nb"], add_special_tokens=False)
    whole, left, right = (encoding.ids for encoding in encodings)
    lead = len(left) + len(right) - len(whole)
    return lead if lead in (0, 1) and left + right[lead:] == whole else None


def _parts(text: str, longest: int = LONGEST_TEXT) -> Iterator[str]:
    """`text` in parts of about `longest` characters, cut at a `_BORDER`; an empty text is one part."""
    begin = 0
    while len(text) - begin > longest:
        border = _BORDER.search(text, begin + longest - 1, begin + 4 * longest)
        end = border.end() if border else min(begin + 4 * longest, len(text))
        yield text[begin:end]
        begin = end
    if begin < len(text) or not text:
        yield text[begin:]


def _present(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; a tokenizer without it is converted by "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of transformers"
        )
    return path


def _text_is_text(tokenizer: Tokenizer) -> Tokenizer:
    """Without this a document that quotes `<|endoftext|>` would end there. The library does not save the setting."""
    tokenizer.encode_special_tokens = True
    return tokenizer
