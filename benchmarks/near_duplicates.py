"""Near duplicates and contamination: speed of the two searches over text, time and memory of clustering.

    python benchmarks/near_duplicates.py [PATH…] [--documents 10000 100000 1000000] [--json]

Without a path: the standard library of the running interpreter and the packages installed beside it. Text goes through
the compiled loops in one process, CPU time, best of three. Clustering takes made-up signatures, three in ten of which
are copies of another with 15 % of their values changed (so about 0.85 alike); each size in a process of its own, whose
peak memory less that of a process without documents is what the documents cost: signatures, index and result.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from codesieve.curation.benchmark_items import read_items
from codesieve.curation.decontaminate import MatchStep, build_index
from codesieve.curation.dedup.near import cluster
from codesieve.curation.dedup.signatures import SignatureStep
from codesieve.curation.dedup.sketch import VALUES

COPIES, CHANGED = 0.3, 0.15
THRESHOLD = 0.7
BLOCK = 50_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--documents", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cluster", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cluster is not None:
        print(json.dumps(clustering(arguments.cluster)))
        return
    paths = arguments.paths or [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    # First, because on Linux the peak memory of a child begins with that of its parent.
    result: dict[str, Any] = {"clustering": [in_a_process(number) for number in arguments.documents]}
    result["text"] = searches(paths)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    text = result["text"]
    print(f"{text['documents']:,} documents, {text['bytes'] / 1e6:.0f} MB")
    print(f"signatures     {text['signatures_mb_per_second']:6.0f} MB/s")
    print(f"contamination  {text['contamination_mb_per_second']:6.0f} MB/s against {text['ngrams']:,} n-grams")
    for row in result["clustering"]:
        print(
            f"clustering {row['documents']:>10,} documents  {row['seconds']:7.2f} s  "
            f"{row['microseconds_per_document']:5.1f} µs and {row['bytes_per_document']:5.0f} bytes a document, "
            f"{row['removed']:,} removed"
        )


def searches(paths: Sequence[Path]) -> dict[str, Any]:
    """Megabytes a second of the two steps that read text."""
    files = (file for path in paths for file in sorted(path.rglob("*.py")) if file.is_file())
    batch = pl.DataFrame({"text": [file.read_text(encoding="utf-8", errors="replace") for file in files]})
    size = int(batch["text"].str.len_bytes().sum())
    index = build_index(read_items(("configs:tasks/problems.jsonl",), (), 13), 13)
    speeds = {}
    for name, step in (("signatures", SignatureStep()), ("contamination", MatchStep(index))):
        step.setup()
        speeds[f"{name}_mb_per_second"] = size / best(lambda step=step: step(batch)) / 1e6
    return {"documents": batch.height, "bytes": size, "ngrams": len(index.hashes), **speeds}


def best(call: Callable[[], object], runs: int = 3) -> float:
    """CPU seconds of the fastest of `runs` calls."""
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def in_a_process(documents: int) -> dict[str, Any]:
    """`clustering` of that many documents, its memory without what an empty process takes."""
    rows = []
    for number in (0, documents):
        command = [sys.executable, __file__, "--cluster", str(number)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    empty, row = rows
    row["bytes_per_document"] = (row["peak_bytes"] - empty["peak_bytes"]) / documents
    row["microseconds_per_document"] = row["seconds"] / documents * 1e6
    return row


def clustering(documents: int) -> dict[str, Any]:
    """Cluster made-up signatures: CPU seconds, peak memory, how many were removed."""
    rng = np.random.default_rng(0)
    signatures = np.zeros((documents, VALUES), np.uint16)
    originals = documents - int(documents * COPIES)
    for start in range(0, documents, BLOCK):
        block = signatures[start : start + BLOCK]
        block[:] = rng.integers(0, 1 << 16, block.shape, dtype=np.uint16)
        copies = np.arange(start, start + len(block)) >= originals
        source = signatures[rng.integers(0, originals, int(copies.sum()))]
        changed = rng.random(source.shape, np.float32) < CHANGED
        block[copies] = np.where(changed, block[copies], source)
    start_seconds = time.process_time()
    leader, _ = cluster(signatures, np.arange(documents), THRESHOLD)
    return {
        "documents": documents,
        "seconds": time.process_time() - start_seconds,
        "removed": int((leader != np.arange(documents)).sum()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    main()
