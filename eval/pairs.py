"""Minimal pairs of code: a function as it was written, and the same with one small mistake.

In: texts with a cluster and a language. Out: pairs for a choice task; the model is right if it finds the function as it
was written more likely than the mutant. That needs no generated answer and no tests, so models that solve no problem at
all can be told apart, and every held-out document is a source of items.

What is scored: `prompt` is what both texts share, up to the beginning of the line that was changed (never less than the
signature); `right` and `wrong` are all that follows in the function. −log p of the two whole functions differs by the
same amount, less the rounding of what is common to both. Price: what stands before the place is only context, so a
model is asked what follows from it and not how well both fit together read backwards; and all that follows the place
is summed, in which the difference may drown where much follows.

What the pairs do not tell: a model that knows no context at all. Shorter text is more likely, `==` is more frequent
than `!=`, 1 than 7; so every change is taken as often as its opposite (`==` for `!=` and `!=` for `==`; variable `x`
for `y` and, mostly in the same function, `y` for `x`), which leaves such a model at one half: a unigram model has
0.52 ± 0.03 on the shipped pairs. Price: where the opposite is rare (code has few `!=`), most of the changes are not
used.

All is drawn by hashes of the seed and the function's text; the order of the texts changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .mutations import Change, Function, Mutant, find_functions, is_well_formed, known_languages

MAX_SHARE = 0.25
"""Of one kind of mutation. There are more variables and arguments in code than all the rest together."""


@dataclass(frozen=True)
class Pair:
    """A function's two versions.

    Attributes:
        id: text, place in it and mutation.
        cluster: what is not independent of it.
        prompt: what both begin with.
        right: the rest as it was written.
        wrong: the rest with one change.
        mutation: name of the change's kind.
        change: what it does, for balance.
        function: hash of the function's text.
        verified: whether tests have shown that the changed function is wrong.
    """

    id: str
    cluster: str
    language: str
    prompt: str
    right: str
    wrong: str
    mutation: str
    change: Change
    function: str
    verified: bool = False

    @property
    def gold(self) -> int:
        """Place of the right version among the choices; one half of all pairs has it second."""
        return int(_hash("gold", self.id)[0], 16) % 2

    @property
    def choices(self) -> tuple[str, str]:
        """Both versions in the order in which they are shown."""
        return (self.right, self.wrong) if self.gold == 0 else (self.wrong, self.right)

    def row(self) -> dict[str, Any]:
        """The pair as a line of a data file."""
        return {
            "id": self.id,
            "function": self.cluster,
            "language": self.language,
            "mutation": self.mutation,
            "verified": self.verified,
            "prompt": self.prompt,
            "choices": list(self.choices),
            "gold": self.gold,
        }


def make_pairs(
    texts: Iterable[tuple[str, str, str, str]],
    seed: int,
    max_pairs: int,
    max_bytes: int,
    per_function: int = 2,
    languages: Sequence[str] = (),
) -> list[Pair]:
    """Pairs of all texts, balanced in each language.

    Args:
        texts: (id, cluster, language, text); languages without mutations are skipped.
        max_pairs: a language.
        max_bytes: longer functions are left out.
        per_function: most pairs of one function.
        languages: only these.
    """
    wanted = set(languages or known_languages()) & set(known_languages())
    by_language: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for name, cluster, language, text in texts:
        if language in wanted:
            by_language[language].append((name, cluster, text))
    pairs = []
    for language in sorted(by_language):
        offers = (
            offer
            for name, cluster, text in in_turn(by_language[language], seed)
            for offer in candidates(name, cluster, language, text, seed, max_bytes)
        )
        pairs += balance(offers, max_pairs, per_function)
    return pairs


def candidates(
    name: str, cluster: str, language: str, text: str, seed: int, max_bytes: int, most: int | None = 12
) -> Iterator[list[Pair]]:
    """For every function of a text its pairs: one of each kind of mutation, then a second of each, …, by hash.

    Args:
        name: of the text; the id of a pair is made from it.
        most: pairs a function; None: all.
    """
    source = text.encode("utf-8", "surrogatepass")
    for function in find_functions(language, source, max_bytes):
        key = _hash(source[function.begin : function.end])
        mutants = sorted(function.mutants, key=lambda each: _hash(seed, key, each.begin, each.text))
        turns: Counter[str] = Counter()
        ranked = []
        for mutant in mutants:
            kind = mutant.change.mutation
            ranked.append((turns[kind], _hash(seed, key, kind), mutant))
            turns[kind] += 1
        ranked.sort(key=lambda each: each[:2])
        well_formed = (each for _, _, each in ranked if is_well_formed(language, source, function, each))
        yield [pair_of(name, cluster, language, source, function, each) for each in islice(well_formed, most)]


def pair_of(name: str, cluster: str, language: str, source: bytes, function: Function, mutant: Mutant) -> Pair:
    """The pair that a mutant makes."""
    line = source.rfind(b"\n", 0, mutant.begin) + 1
    cut = max(line, function.body)
    changed = mutant.apply(source)
    right, wrong = source[cut : function.end], changed[cut : function.end + mutant.change.added_bytes]
    return Pair(
        id=f"{name}:{mutant.begin}:{mutant.change.mutation}:{_hash(mutant.text)[:4]}",
        cluster=cluster,
        language=language,
        prompt=source[function.begin : cut].decode("utf-8", "surrogatepass"),
        right=right.decode("utf-8", "surrogatepass"),
        wrong=wrong.decode("utf-8", "surrogatepass"),
        mutation=mutant.change.mutation,
        change=mutant.change,
        function=_hash(source[function.begin : function.end]),
    )


def balance(offers: Iterable[Sequence[Pair]], max_pairs: int, per_function: int) -> list[Pair]:
    """The first `max_pairs` of the offers, in which every change is as frequent as its opposite.

    A pair waits until one with the opposite change comes; both are then taken. A function's text counts once, at most
    `per_function` pairs of it are taken, and of all pairs at most `MAX_SHARE` are of one kind of mutation.
    """
    taken: list[Pair] = []
    used: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    per_kind = max(2, int(MAX_SHARE * max_pairs))
    waiting: dict[Change, list[Pair]] = defaultdict(list)
    seen: set[str] = set()
    for offer in offers:
        if not offer or offer[0].function in seen:
            continue
        seen.add(offer[0].function)
        for pair in offer:
            opposite = pair.change.opposite()
            if kinds[pair.mutation] + (opposite != pair.change) >= per_kind:
                continue
            if used[pair.function] == per_function or len(taken) >= max_pairs:
                break
            if opposite == pair.change:
                couple = [pair]
            else:
                partner = next((each for each in waiting[opposite] if _fits(each, pair, used, per_function)), None)
                if partner is None or len(taken) + 2 > max_pairs:
                    waiting[pair.change].append(pair)
                    continue
                waiting[opposite].remove(partner)
                couple = [partner, pair]
            taken += couple
            used.update(each.function for each in couple)
            kinds.update(each.mutation for each in couple)
        if len(taken) >= max_pairs:
            break
    return taken


def _fits(waiting: Pair, pair: Pair, used: Counter[str], per_function: int) -> bool:
    return used[waiting.function] + (waiting.function == pair.function) < per_function


def in_turn(texts: Iterable[tuple[str, str, str]], seed: int) -> list[tuple[str, str, str]]:
    """Texts (id, cluster, text) in the order of a hash: first one of each cluster, then the second of each, …"""
    ordered = sorted(texts, key=lambda each: _hash(seed, each[0]))
    turns: Counter[str] = Counter()
    placed = []
    for each in ordered:
        placed.append((turns[each[1]], each))
        turns[each[1]] += 1
    return [each for _, each in sorted(placed, key=lambda item: item[0])]


def length_preference(pairs: Iterable[Mapping[str, Any]]) -> float:
    """Share of pairs (rows) that a model gets right which always takes the shorter text; a draw counts one half."""
    scores = []
    for row in pairs:
        sizes = [len(choice.encode("utf-8", "surrogatepass")) for choice in row["choices"]]
        right, wrong = sizes[row["gold"]], sizes[1 - row["gold"]]
        scores.append(0.5 if right == wrong else float(right < wrong))
    return sum(scores) / len(scores)


def _hash(*parts: object) -> str:
    data = b"\0".join(part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass") for part in parts)
    return hashlib.sha256(data).hexdigest()
