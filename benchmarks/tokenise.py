"""How fast a token store is built, against the bare call to the `tokenizers` library on the same texts.

    python benchmarks/tokenise.py [PATH…] [--megabytes 20] [--rounds 5] [--vocab-size 32768] [--json]
    python benchmarks/tokenise.py --tokenizer FOLDER        of a published model, in place of one trained on the sample

One side is all that a store costs: Parquet in, ids, the token file and the table of documents out, on disk. The other
is `encode_batch_fast` alone on lists of strings that are ready, as many a call as the store takes, its results thrown
away. They take turns, a round each; the ratio is the median of the rounds' ratios, by the clock and by the processor
time of all threads. The second is the one to trust on a busy machine. On which files: see `sample.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import tokenizers
from codesieve.benchmarks.sample import batches, default_paths, sample, write_shards
from codesieve.curation.shards import read_batches
from codesieve.train.tokenizer import load_tokenizer, train_tokenizer
from codesieve.train.tokens import ENCODE_BYTES, build_store

TRAINED_CHARACTERS = 20_000
"""Of each document, for the tokenizer."""


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    frame = sample(arguments.paths or default_paths(), int(arguments.megabytes * 1e6), parsed_only=False)
    if arguments.tokenizer:
        try:
            tokenizer = load_tokenizer(arguments.tokenizer)
        except ValueError as error:
            raise SystemExit(str(error)) from error
    else:
        tokenizer = train_tokenizer((text[:TRAINED_CHARACTERS] for text in frame["text"]), arguments.vocab_size)
    with tempfile.TemporaryDirectory(prefix="codesieve-benchmark-") as name:
        report = measure(frame, tokenizer, arguments.rounds, Path(name))
    if arguments.json:
        print(json.dumps(report, indent=2, sort_keys=True))
    else:
        for key, value in report.items():
            print(f"{key:32} {value}")


def measure(frame: pl.DataFrame, tokenizer: tokenizers.Tokenizer, rounds: int, folder: Path) -> dict[str, Any]:
    """Medians over `rounds`, of which one more runs first and is thrown away."""
    [shard] = write_shards(frame, folder / "shards")
    calls = [batch["text"].to_list() for batch in batches(frame, ENCODE_BYTES)]
    tokens = 0

    def bare(_: int) -> None:
        for texts in calls:
            tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def store(number: int) -> None:
        nonlocal tokens
        documents = (
            batch.select("id", "text", pl.col("source").alias("stream"), "language") for batch in read_batches(shard)
        )
        tokens = len(build_store(documents, tokenizer, folder / "store", str(number)).tokens)

    sides: dict[str, Callable[[int], None]] = {"bare": bare, "store": store}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            wall_begun, processor_begun = time.perf_counter(), time.process_time()
            sides[name](number)
            wall[name].append(time.perf_counter() - wall_begun)
            processor[name].append(time.process_time() - processor_begun)
    size = int(frame["size_bytes"].sum())
    report: dict[str, Any] = {
        "documents": frame.height,
        "bytes": size,
        "tokens": tokens,
        "vocab_size": tokenizer.get_vocab_size(),
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "tokenizers": tokenizers.__version__,
    }
    for name in sides:
        seconds = statistics.median(wall[name][1:])
        report[f"{name}_mb_per_second"] = round(size / seconds / 1e6, 2)
        report[f"{name}_tokens_per_second"] = round(tokens / seconds)
        report[f"{name}_tokens_per_cpu_second"] = round(tokens / statistics.median(processor[name][1:]))
    for key, seconds_of in (("ratio", wall), ("ratio_cpu", processor)):
        ratios = [theirs / ours for theirs, ours in zip(seconds_of["bare"][1:], seconds_of["store"][1:], strict=True)]
        report[key] = round(statistics.median(ratios), 3)
        report[f"{key}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="folders; see sample.py for what is taken without one")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
