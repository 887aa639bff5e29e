"""The control tokens of a tokenizer by what they mean, whatever their names are, and the raw bytes of the others.

Objectives speak of "the separator" and "the middle"; `Sentinels.of` finds their ids in a tokenizer by the names that
code models use for them, a table below. A name counts only as an added token: an ordinary token that happens to spell
it could come from a document. `token_bytes` gives what an id stands for in the text, before any decoding to
characters, which a split inside a character or bits per byte need. Both read the tokenizer's own description once,
about 1 s for 256k tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

END_OF_TEXT_NAMES = (
    "<|endoftext|>",  # ours, GPT-2, CodeGen, StarCoder, Qwen
    "<|end_of_text|>",  # Llama 3
    "<｜end▁of▁sentence｜>",  # DeepSeek
    "</s>",  # Llama 2, Code Llama, Mistral, T5
    "<eos>",  # Gemma
    "<EOS_TOKEN>",  # Command
)
"""The first that a tokenizer has is its end of text."""

INFILL_NAMES = (
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),  # ours, Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>"),  # StarCoder
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>"),  # SantaCoder
    ("▁<PRE>", "▁<MID>", "▁<SUF>"),  # Code Llama
    ("<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>"),  # DeepSeek: the suffix follows the hole, the middle the end
    ("<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"),  # CodeGeeX
    ("[PREFIX]", "[MIDDLE]", "[SUFFIX]"),  # Codestral
)
"""What stands before the prefix, the middle and the suffix; a tokenizer has all three of a row or none of it."""

SEPARATOR_NAME, END_OF_MASK_NAME = "<sep>", "<eom>"  # CodeGen2
MASK_NAMES = (("<mask_{}>", 1), ("<extra_id_{}>", 0))  # CodeGen2; T5
"""Pattern and the number of the first; they go on as long as there is a next one."""

MODE_NAMES = {"R": "<|R|>", "S": "<|S|>", "X": "<|X|>"}
"""UL2's denoisers: regular, sequential, extreme. UL2 itself spells them as text, so the names are ours."""

_CONTROL = re.compile(r"<[|｜].+[|｜]>|<fim[_-]\w+>|<extra_id_\d+>|<mask_\d+>|<(?:s|unk|pad|bos)>")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Sentinels:
    """Ids of the control tokens in one tokenizer; None or empty where it has none."""

    end_of_text: int
    fim_prefix: int | None = None
    fim_middle: int | None = None
    fim_suffix: int | None = None
    separator: int | None = None
    end_of_mask: int | None = None
    masks: tuple[int, ...] = ()
    modes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Sentinels:
        """What `tokenizer` has of them.

        Raises:
            ValueError: if it has no end of text.
        """
        ids = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
        end_of_text = next((ids[name] for name in END_OF_TEXT_NAMES if name in ids), None)
        if end_of_text is None:
            raise ValueError(
                f"the tokenizer has no end of text: none of {', '.join(END_OF_TEXT_NAMES)} is among its "
                f"{len(ids)} added tokens ({', '.join(list(ids)[:8]) or 'none'}); add one to tokenizer.json"
            )
        infill = next((names for names in INFILL_NAMES if all(name in ids for name in names)), ("", "", ""))
        prefix, middle, suffix = (ids.get(name) for name in infill)
        return cls(
            end_of_text,
            prefix,
            middle,
            suffix,
            separator=ids.get(SEPARATOR_NAME),
            end_of_mask=ids.get(END_OF_MASK_NAME),
            masks=next((found for pattern, first in MASK_NAMES if (found := _numbered(ids, pattern, first))), ()),
            modes={mode: ids[name] for mode, name in MODE_NAMES.items() if name in ids},
        )


def is_control(name: str) -> bool:
    """Whether an added token is no text by its name, also where its tokenizer does not call it special.

    Qwen2.5-Coder and DeepSeek Coder publish their fill-in-the-middle tokens as `"special": false`.
    """
    known = {*END_OF_TEXT_NAMES, *(name for row in INFILL_NAMES for name in row), SEPARATOR_NAME, END_OF_MASK_NAME}
    return name in known or bool(_CONTROL.fullmatch(name))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Rows that an embedding needs: the largest id + 1. A vocabulary with gaps has fewer tokens than that."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The raw UTF-8 bytes of every id; `b""` for special tokens and for ids that are not in use.

    The bytes of a document's ids, joined, are its text; a byte-fallback tokenizer that sets a space before every
    document (Llama 2) gives that space as well.

    Raises:
        ValueError: if it is neither a byte-level nor a byte-fallback BPE: its tokens then do not stand for bytes.
    """
    facts = json.loads(tokenizer.to_str())
    if facts["model"]["type"] != "BPE":
        raise ValueError(f"a {facts['model']['type']} tokenizer: only the tokens of a BPE stand for bytes")
    parts = [part["type"] for key in ("pre_tokenizer", "decoder") for part in _flat(facts[key])]
    signs = {sign: byte for byte, sign in enumerate(_byte_signs())} if "ByteLevel" in parts else None
    if signs is None and not facts["model"].get("byte_fallback"):
        raise ValueError("the tokenizer is neither byte-level nor byte-fallback: its tokens do not stand for bytes")
    table = [b""] * vocabulary_size(tokenizer)
    for token, number in tokenizer.get_vocab(with_added_tokens=False).items():
        table[number] = _byte_level(token, signs) if signs else _byte_fallback(token)
    for number, added in tokenizer.get_added_tokens_decoder().items():
        table[number] = b"" if added.special or is_control(added.content) else added.content.encode()
    return table


def _numbered(ids: Mapping[str, int], pattern: str, first: int) -> tuple[int, ...]:
    found: list[int] = []
    while pattern.format(first + len(found)) in ids:
        found.append(ids[pattern.format(first + len(found))])
    return tuple(found)


def _flat(part: Any) -> list[dict[str, Any]]:
    """A pre-tokenizer or decoder as a list of its steps."""
    if part is None:
        return []
    steps = part.get("pretokenizers") or part.get("decoders")
    return [step for each in steps for step in _flat(each)] if steps else [part]


def _byte_signs() -> list[str]:
    """The characters that stand for bytes 0 to 255 in a byte-level vocabulary (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = (sign for sign in range(256, 512))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


def _byte_level(token: str, signs: Mapping[str, int]) -> bytes:
    """A token with a character outside the table stands for itself, as in the library's decoder."""
    try:
        return bytes(signs[sign] for sign in token)
    except KeyError:
        return token.encode()


def _byte_fallback(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
