"""Makes `configs/tasks/pairs.jsonl`: minimal pairs from our own problems and from our own source.

In: the references of `configs/tasks/problems.jsonl`, whose mutants are run in the sandbox and kept if a test fails, and
the Python files of the rooms (no tests, no benchmarks). Out: one line a pair, with the function it comes from; both
parts are balanced apart, so that the verified ones can be looked at alone. Deterministic for a state of the source;
half a minute of two cores.

    python benchmarks/make_pairs.py
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from codesieve.eval.pairs import Pair, balance, candidates, in_turn, length_preference
from codesieve.sandbox.judge import CallTests, Trial, judge_all, parse_tests
from codesieve.sandbox.limits import Limits
from codesieve.strict import CONFIGS

SEED = 0
MAX_BYTES = 1000
"""Of a function: both versions fit the 512-token window of a small proxy."""

MAX_PROBLEM_BYTES = 2000
"""The hard problems need more, most of it prompt."""

PER_PROBLEM = 4
PER_FUNCTION = 2
MUTANTS = 24
"""That are run, of one problem."""

LIMITS = Limits(cpu_seconds=0.5, wall_seconds=20)
"""The references take some milliseconds. Only a wrong answer or an exception verifies a mutant; one that does not end
may be slow and right."""

FROM_PROBLEMS = 150
FROM_SOURCE = 450
FIRST = ("arguments", "arithmetic", "boolean", "called", "constant", "integer", "relation")
"""Taken first from source: of these n-gram models already know something; of negation, for example, they do not. On the
result, n-gram models of 7.9 million tokens of quickstart's corpus are right in 0.52 (n = 1), 0.62 (2), 0.66 (3) and
0.69 (5). The verified pairs are of all kinds alike."""

ROOMS = ("classifiers", "curation", "eval", "report", "sandbox", "train", ".")
"""Folders that source is taken from; "." is the package's own modules."""


def main() -> None:
    """Write the file and say what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=CONFIGS / "tasks" / "pairs.jsonl")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    pairs = [*problem_pairs(arguments.workers), *source_pairs(CONFIGS.parent)]
    rows = [pair.row() for pair in sorted(pairs, key=lambda pair: (not pair.verified, pair.id))]
    arguments.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    described(rows)


def problem_pairs(workers: int) -> list[Pair]:
    """Pairs of the problems' references whose wrong version fails its tests."""
    offers, trials = [], []
    for line in (CONFIGS / "tasks" / "problems.jsonl").read_text(encoding="utf-8").splitlines():
        problem: dict[str, Any] = json.loads(line)
        tests = CallTests(problem["entry_point"], parse_tests(problem["tests"], problem["name"]))
        origin = f"problems.jsonl#{problem['name']}"
        text = problem["prompt"] + problem["reference"]
        for offer in candidates(origin, origin, "python", text, SEED, MAX_PROBLEM_BYTES, MUTANTS):
            offers.append(offer)
            trials += [Trial(pair.prompt + pair.wrong, tests, limits=LIMITS) for pair in offer]
    found = [outcome.status for outcome in judge_all(trials, workers=workers, rerun_timeouts=False)]
    print("mutants of problems: " + ", ".join(f"{name} {count}" for name, count in Counter(found).most_common()))
    statuses = iter(found)
    verified = [
        [replace(pair, verified=True) for pair in offer if next(statuses) in {"wrong", "exception"}] for offer in offers
    ]
    return balance(verified, FROM_PROBLEMS, PER_PROBLEM)


def source_pairs(root: Path) -> list[Pair]:
    """Pairs of the functions in our own modules."""
    files = sorted(file for room in ROOMS for file in root.joinpath(room).glob("*.py" if room == "." else "**/*.py"))
    texts = [(name := file.relative_to(root).as_posix(), name, file.read_text(encoding="utf-8")) for file in files]
    return balance(_source_offers(texts), FROM_SOURCE, PER_FUNCTION)


def _source_offers(texts: Iterable[tuple[str, str, str]]) -> Iterable[Sequence[Pair]]:
    for name, cluster, text in in_turn(texts, SEED):
        for offer in candidates(name, cluster, "python", text, SEED, MAX_BYTES, None):
            ordered = sorted(offer, key=lambda pair: pair.mutation not in FIRST)
            yield [replace(pair, cluster=f"{name}:{pair.function[:8]}") for pair in ordered]


def described(rows: Sequence[dict[str, Any]]) -> None:
    """Print what a reader of the file asks first."""
    print(f"{len(rows)} pairs of {len({row['function'] for row in rows})} functions")
    print(f"verified: {sum(row['verified'] for row in rows)}")
    kinds = Counter(row["mutation"] for row in rows)
    print("mutations: " + ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
    first = sum(row["gold"] == 0 for row in rows) / len(rows)
    print(f"right by taking always the shorter text: {length_preference(rows):.3f}; the first: {first:.3f}")


if __name__ == "__main__":
    main()
