"""How fast annotation is: all steps, gates off, against the bare tree-sitter parse of the same files in the same run.

    python benchmarks/annotate.py [PATH…] [--megabytes 20] [--runs 5] [--json]

Without a path: the standard library of the running interpreter and the packages installed beside it. Files are taken
whole, in the order of a hash of their path, until there are enough; only languages with a grammar, none over 1 MB. One
process, CPU time, parse and steps in turn on batches of 1 MB, so that a busy machine slows both; medians over the runs.
The ratio is the number to compare: other machines have other megabytes per second. Rules are not in it yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import xxhash
from codesieve.config import AnnotateConfig
from codesieve.curation.languages import HEAD_BYTES, identify, kind_of
from codesieve.curation.schema import IDENTITY
from codesieve.curation.signals.grammars import grammar
from codesieve.curation.signals.pipeline import standard_steps

MAX_FILE_BYTES = AnnotateConfig().max_parse_bytes
BATCH_BYTES = 1_000_000
BARE = "bare parse"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    paths = arguments.paths or [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    result = measure(list(batches(files(paths, int(arguments.megabytes * 1e6)))), arguments.runs)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['documents']} documents, {result['bytes'] / 1e6:.1f} MB, {result['runs']} runs")
    print(f"annotation  {result['mb_per_second']:6.2f} MB/s")
    print(f"bare parse  {result['bare_parse_mb_per_second']:6.2f} MB/s")
    print(f"ratio       {result['ratio']:6.2f}")
    for step, microseconds in result["microseconds_per_document"].items():
        print(f"  {step:10} {microseconds:8.1f} µs a document")


def measure(batches: Sequence[pl.DataFrame], runs: int) -> dict[str, Any]:
    """Medians over `runs` passes through the batches; the first pass warms up and is thrown away."""
    steps = standard_steps(AnnotateConfig(gates=False))
    for step in steps:
        step.setup()
    passes = []
    for _ in range(runs + 1):
        seconds: dict[str, float] = {BARE: 0.0} | {step.name: 0.0 for step in steps}
        for batch in batches:
            _timed(seconds, BARE, _bare_parse(batch))
            annotated = batch
            for step in steps:
                annotated = _timed(seconds, step.name, lambda step=step, batch=annotated: step(batch))
        passes.append(seconds)
    passes = passes[1:]
    documents = sum(batch.height for batch in batches)
    size = sum(int(batch["size_bytes"].sum()) for batch in batches)
    whole = statistics.median(sum(seconds.values()) - seconds[BARE] for seconds in passes)
    bare = statistics.median(seconds[BARE] for seconds in passes)
    ratio = statistics.median(seconds[BARE] / (sum(seconds.values()) - seconds[BARE]) for seconds in passes)
    return {
        "documents": documents,
        "bytes": size,
        "runs": runs,
        "mb_per_second": size / whole / 1e6,
        "bare_parse_mb_per_second": size / bare / 1e6,
        "ratio": ratio,
        "microseconds_per_document": {
            name: statistics.median(seconds[name] for seconds in passes) / documents * 1e6 for name in passes[0]
        },
    }


def files(roots: Sequence[Path], most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of files with a grammar, in the order of a hash of their name."""
    names = {
        f"{root.name}/{path.relative_to(root)}": path
        for root in roots
        for path in root.rglob("*")
        if path.suffix and "__pycache__" not in path.parts and "site-packages" not in path.relative_to(root).parts
    }
    total = 0
    for name in sorted(names, key=lambda name: xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape"))):
        path = names[name]
        if not path.is_file() or not 0 < path.stat().st_size <= MAX_FILE_BYTES:
            continue
        data = path.read_bytes()
        if b"\0" not in data and grammar(identify(name, data[:HEAD_BYTES])):
            total += len(data)
            yield name, data
        if total >= most_bytes:
            return


def batches(documents: Iterator[tuple[str, bytes]]) -> Iterator[pl.DataFrame]:
    """Batches as the readers make them."""
    schema = {column.name: column.dtype for column in IDENTITY}
    rows: list[dict[str, Any]] = []
    for name, data in documents:
        text = data.decode("utf-8", "replace")
        language = identify(name, data[:HEAD_BYTES])
        row = {"id": xxhash.xxh3_128_hexdigest(data), "text": text, "path": name, "language": language}
        row |= {"kind": kind_of(language), "size_bytes": len(text.encode())}
        rows.append({column: row.get(column, "") for column in schema})
        if sum(row["size_bytes"] for row in rows) >= BATCH_BYTES:
            yield pl.DataFrame(rows, schema=schema)
            rows = []
    if rows:
        yield pl.DataFrame(rows, schema=schema)


def _bare_parse(batch: pl.DataFrame) -> Callable[[], None]:
    """Parses every document of the batch and drops each tree at once."""
    grammars = [grammar(language) for language in batch["language"]]
    work = [(one.parser, text.encode()) for one, text in zip(grammars, batch["text"], strict=True) if one]

    def run() -> None:
        for parser, source in work:
            parser.parse(source)

    return run


def _timed(seconds: dict[str, float], name: str, call: Callable[[], Any]) -> Any:
    started = time.process_time()
    result = call()
    seconds[name] += time.process_time() - started
    return result


if __name__ == "__main__":
    main()
