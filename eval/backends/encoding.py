"""Texts and control tokens as ids, and ids as text: the conventions that decide what a model is asked.

* A text begins with what the tokenizer's own template puts before it (Llama's `<s>`; nothing for most others and for
  the models trained here, whose documents begin without a sign). A text of no tokens begins with the document start.
* White space at the end of a context belongs to its continuation, and the two are encoded together: the continuation
  is what follows as many tokens as the context alone has. So does lm-evaluation-harness (tests/eval/test_lm_eval.py).
* Control tokens come from `Special` only; one that a text spells is ordinary characters. A prompt that begins with a
  control token is taken as it is: it says itself how it begins.
* What does not fit the model's window is cut where it is farthest from the answer: a text at its beginning, a program
  with a hole at both ends, and at least half of the room is for what stands before the hole.
* An answer is put together from the bytes of its tokens, so control tokens drop out by id, a character that spans
  tokens appears when it is complete, and a token costs the same however long the answer is.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...files import read_json
from ...strict import ConfigError, nearest
from ...train.sentinels import is_control, token_bytes
from ...train.tokenizer import load_tokenizer
from .protocol import Continuation, Opening, Prompt, Special

END_OF_TEXT = "<|endoftext|>"


class Encoder:
    """The tokenizer of a model folder.

    Attributes:
        start_token: the document start, for texts of no tokens and for whole documents.
        lead: ids before every text that does not say itself how it begins.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], mode: str | None = None) -> None:
        """Read the folder's tokenizer.

        Args:
            config: the content of config.json.
            mode: a control token to put before every text (UL2's `<|S|>`).
        """
        self.tokenizer = load_tokenizer(folder)
        added = self.tokenizer.get_added_tokens_decoder()
        self.controls = {token.content: number for number, token in added.items()}
        self.start_token = self._start_token(config, folder)
        self.lead: list[int] = _template(folder, self.start_token)
        if mode is not None:
            self.lead = [*self.lead, self.control(mode)]
        self._spelling: list[bytes] | None = None
        self._blank: bool | None = None

    def text(self, text: str) -> list[int]:
        """Ids of a text, nothing put before it."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def begun(self, ids: Sequence[int]) -> list[int]:
        """With what stands before a text; at least one id."""
        return [*self.lead, *ids] or [self.start_token]

    def pairs(self, requests: Sequence[Continuation]) -> list[tuple[list[int], list[int]]]:
        """Ids of every context, begun, and of its continuation."""
        split = [moved(each) for each in requests]
        texts = list(dict.fromkeys([context for context, _ in split] + [context + text for context, text in split]))
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids: dict[str, list[int]] = {text: each.ids for text, each in zip(texts, encodings, strict=True)}
        found = []
        for context, text in split:
            before, whole = ids[context], ids[context + text]
            if len(before) >= len(whole) and text:  # one token spans the border: it counts
                before = whole[:-1]
            found.append((self.begun(before), whole[len(before) :]))
        return found

    def control(self, name: str) -> int:
        """Id of a control token.

        Raises:
            ConfigError: if it is not one added token of this tokenizer.
        """
        if name not in self.controls:
            named = [name for name in self.controls if not name.startswith(("<mask_", "<extra_id_", "<|reserved"))]
            raise ConfigError(
                f'control token "{name}": not an added token of the tokenizer{nearest(name, named)}; '
                f"it has {', '.join(named[:12]) or 'none'}"
            )
        return self.controls[name]

    def prompt(self, prompt: Prompt, room: int) -> tuple[list[int], int]:
        """Ids of a prompt in at most `room` tokens, and how many were lost for it."""
        if isinstance(prompt, str):
            lead, ids = self.begun([]), self.text(prompt)
            if ids and not self.lead:
                lead = []
            lost = max(0, len(lead) + len(ids) - room)
            return [*lead, *ids[lost:]], lost
        is_literal = bool(prompt) and isinstance(prompt[0], Special)
        parts: list[list[int]] = [] if is_literal else [self.lead]
        texts: list[int] = []
        for number, part in enumerate(prompt):
            if isinstance(part, Special):
                parts.append([self.control(part.name)])
                continue
            stands_alone, text = (True, part.text) if isinstance(part, Opening) else (not number, part)
            if text:
                texts.append(len(parts))
                parts.append(self.text(text) if stands_alone else self._bare(text))
        lost = _shorten(parts, texts, room)
        return [number for part in parts for number in part] or [self.start_token], lost

    def seen(self, ids: Sequence[int], lost: int) -> str | None:
        """What is left of a prompt that lost tokens, as text; None if it lost none."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False)) if lost else None

    def answer(self, prompt_ids: Sequence[int]) -> Spelling | Rereading:
        """What spells the tokens of one answer."""
        if self._spelling is None:
            try:
                self._spelling = token_bytes(self.tokenizer)
            except ValueError:
                self._spelling = []
        if self._spelling:
            return Spelling(self._spelling)
        hidden = {number for name, number in self.controls.items() if is_control(name)}
        return Rereading(self.tokenizer, hidden, prompt_ids)

    def _bare(self, text: str) -> list[int]:
        """Ids of a text inside a prompt: without the blank that SentencePiece puts before the first word."""
        if self._blank is None:
            self._blank = self.tokenizer.encode("a", add_special_tokens=False).tokens[0].startswith("▁")
        if not self._blank:
            return self.text(text)
        return self.text("\n" + text)[len(self.text("\n")) :]

    def _start_token(self, config: Mapping[str, Any], folder: Path) -> int:
        token = self.tokenizer.token_to_id(END_OF_TEXT)
        for found in (token, *as_list(config.get("bos_token_id")), *as_list(config.get("eos_token_id"))):
            if found is not None:
                return int(found)
        raise ConfigError(
            f"{folder}: no {END_OF_TEXT} in the tokenizer, no bos_token_id and no eos_token_id in config.json"
        )


class Spelling:
    """The characters of tokens one after the other, from their bytes."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def piece(self, token: int) -> str:
        """The characters that are complete with this token."""
        return self._decoder.decode(self._table[token] if token < len(self._table) else b"")

    def rest(self) -> str:
        """The sign for a character that is not complete at the end."""
        return self._decoder.decode(b"", final=True)


class Rereading:
    """The same for a tokenizer whose tokens do not stand for bytes: a few tokens before each are decoded again."""

    def __init__(self, tokenizer: Tokenizer, hidden: set[int], prompt_ids: Sequence[int]) -> None:
        self._tokenizer, self._hidden = tokenizer, hidden
        self._ids = [number for number in prompt_ids[-8:] if number not in hidden]
        self._begin, self._read = 0, len(self._ids)

    def piece(self, token: int) -> str:
        """The characters that are complete with this token."""
        if token in self._hidden:
            return ""
        self._ids.append(token)
        new = self._new()
        if not new or new.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return new

    def rest(self) -> str:
        """What is not complete at the end."""
        return self._new()

    def _new(self) -> str:
        known = self._tokenizer.decode(self._ids[self._begin : self._read], skip_special_tokens=False)
        whole: str = self._tokenizer.decode(self._ids[self._begin :], skip_special_tokens=False)
        return whole[len(known) :]


def as_list(value: int | list[int] | None) -> list[int]:
    """Ids as config files give them: one, several or none."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def moved(request: Continuation) -> tuple[str, str]:
    """Context and continuation with the white space between them in the latter."""
    context = request.context.rstrip()
    return context, request.context[len(context) :] + request.text


def _template(folder: Path, start_token: int) -> list[int]:
    """Ids that the tokenizer itself puts before a text. `add_bos_token` of its configuration has the last word."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoding = tokenizer.encode("a", add_special_tokens=True)
    lead: list[int] = []
    for number, is_special in zip(encoding.ids, encoding.special_tokens_mask, strict=True):
        if not is_special:
            break
        lead.append(number)
    path = folder / "tokenizer_config.json"
    facts = read_json(path) if path.is_file() else {}
    if facts.get("add_bos_token") is False:
        return []
    if facts.get("add_bos_token") is True and not lead:
        bos = facts.get("bos_token")
        found = tokenizer.token_to_id(bos["content"] if isinstance(bos, dict) else bos) if bos else None
        return [start_token if found is None else found]
    return lead


def _shorten(parts: list[list[int]], texts: Iterable[int], room: int) -> int:
    """Cut texts until the parts fit; returns the tokens lost.

    The text before the hole (the one that the answer follows at once, else the first) keeps its end, those behind it
    keep their beginnings. They share the room as their lengths are, but the first of them has at least half of it.
    """
    texts = list(texts)
    lost = max(0, sum(map(len, parts)) - room)
    if not lost:
        return 0
    sizes = {number: len(parts[number]) for number in texts}
    left = sum(sizes.values()) - lost
    if left < 0:
        raise ValueError(f"the control tokens of a prompt alone need {room - left} tokens; there is room for {room}")
    before = texts[-1] if texts[-1] == len(parts) - 1 else texts[0]
    behind = sum(sizes.values()) - sizes[before]
    share = max((left + 1) // 2, round(left * sizes[before] / (sizes[before] + behind)))
    kept = min(sizes[before], max(share, left - behind))
    parts[before] = parts[before][sizes[before] - kept :]
    left -= kept
    for number in texts:
        if number != before:
            parts[number] = parts[number][:left]
            left -= len(parts[number])
    return lost
