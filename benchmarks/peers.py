"""Peers on the same files: megabytes a second of each, and of codesieve with the matching signals only.

    python benchmarks/peers.py --peer dolma-starcoder=/venvs/dolma/bin/python --peer opencoder=/venvs/opc/bin/python \\
        --opc /sources/opc_data_filtering [--megabytes 10] [--languages python,javascript,c] [PATH…] [--json]

A peer lives in a virtual environment of its own, named by its interpreter; `docs/performance.md` has the commands that
make them. Documents are in memory before the clock starts, on both sides; one pass, one process, CPU time; ours is the
mean of a pass before and one after. The matched set holds the steps that measure what the peer measures, and always
measures more than that; `also` says what the peer has beyond it. For a signal that both have, the agreement is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from codesieve.benchmarks.sample import batches, default_paths, sample
from codesieve.config import AnnotateConfig
from codesieve.curation.rules import RulesStep, load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.curation.signals.pipeline import standard_steps
from codesieve.curation.steps import Step

INSIDE = Path(__file__).with_name("peers_inside.py")
MOST_SECONDS = 1200


@dataclass(frozen=True)
class Peer:
    """What a peer computes, and the steps of ours that compute the same."""

    computes: str
    steps: tuple[str, ...]
    also: str = "nothing"
    rules: str = ""


PEERS = {
    "data-prep-toolkit": Peer(
        "17 columns: line lengths, alphanumeric and alphabetic share, frequent words, encoded data, auto-generated, "
        "configuration or test, keywords, assignments, XML, HTML",
        ("text", "origin"),
        "keywords and assignments by substring; its tokenizer ratio is left out on both sides",
    ),
    "nemo-curator": Peer(
        "comment share (ast, tokenize, comment_parser), lines, alphabetic share, XML header",
        ("text", "origin", "syntax"),
        "its tokenizer ratio is left out on both sides",
    ),
    "dolma-starcoder": Peer("comment share (ast, tokenize, Pygments), XML header", ("origin", "syntax")),
    "dolma-redpajama": Peer("line lengths, alphanumeric share, letters a token", ("text",)),
    "opencoder": Peer(
        "38 to 42 signals: comment share (Pygments), lines, words, duplicates, encoded data, functions by ast and "
        "esprima or regular expressions, … and its rules",
        ("text", "origin", "syntax"),
        "its language identification is left out on both sides",
        "refinecode",
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--peer", action="append", required=True, help="NAME=INTERPRETER: " + ", ".join(PEERS))
    parser.add_argument("--opc", type=Path, help="a checkout of OpenCoder's opc_data_filtering")
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--languages", default="python,javascript,c")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    languages = arguments.languages.split(",")
    frame = sample(arguments.paths or default_paths(), int(arguments.megabytes * 1e6), languages=languages)
    results = {}
    with tempfile.TemporaryDirectory(prefix="codesieve-peers-") as name:
        for one in arguments.peer:
            peer, _, interpreter = one.partition("=")
            if peer not in PEERS or not interpreter:
                parser.error(f"--peer {one}: NAME=INTERPRETER, with a name of {', '.join(PEERS)}")
            results[peer] = compare(peer, interpreter, arguments.opc, frame, Path(name))
            if not arguments.json:
                print(_line(peer, results[peer]), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


def compare(peer: str, interpreter: str, source: Path | None, frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """The peer's speed, ours with the matched steps, and how far a common signal agrees."""
    known = PEERS[peer]
    steps = matched_steps(known)
    before, ours = run_ours(frame, steps)
    theirs = run_peer(peer, interpreter, source, frame, folder)
    after, _ = run_ours(frame, steps)
    size = int(frame["size_bytes"].sum())
    result = {
        "documents": frame.height,
        "bytes": size,
        "computes": known.computes,
        "matched_steps": [step.name for step in steps],
        "also": known.also,
        "codesieve_mb_per_second": size / ((before + after) / 2) / 1e6,
    }
    if "error" in theirs:
        return result | theirs
    result["peer_mb_per_second"] = size / theirs["seconds"] / 1e6
    result["ratio"] = result["codesieve_mb_per_second"] / result["peer_mb_per_second"]
    return result | {
        "agreement": {name: agreement(values, ours[name].to_list()) for name, values in theirs["values"].items()}
    }


def matched_steps(peer: Peer) -> list[Step]:
    """The steps of ours that a peer's signals need, in their order."""
    steps = [step for step in standard_steps(AnnotateConfig(gates=False)) if step.name in peer.steps]
    if peer.rules:
        rules = load_rules(peer.rules, [column.name for column in (*IDENTITY, *SIGNALS)])
        steps.append(RulesStep(rules))
    return steps


def run_ours(frame: pl.DataFrame, steps: Sequence[Step]) -> tuple[float, pl.DataFrame]:
    """CPU seconds of one pass in batches, after one that warms up on a little, and the columns."""
    for step in steps:
        step.setup()
    # A column that a step requires and no matched step makes is there, and empty.
    made = {name for step in steps for name in step.provides}
    missing = {name for step in steps for name in step.requires} - made - set(frame.columns)
    types = {column.name: column.dtype for column in SIGNALS}
    full = frame.with_columns(pl.lit(None, dtype=types[name]).alias(name) for name in sorted(missing))
    _annotate(full.head(50), steps)
    parts = list(batches(full))
    started = time.process_time()
    done = [_annotate(part, steps) for part in parts]
    return time.process_time() - started, pl.concat(done)


def _annotate(batch: pl.DataFrame, steps: Sequence[Step]) -> pl.DataFrame:
    for step in steps:
        batch = step(batch)
    return batch


def run_peer(peer: str, interpreter: str, source: Path | None, frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """Seconds and values of the peer, or why there are none."""
    documents, result = folder / "documents.jsonl", folder / f"{peer}.json"
    with documents.open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in frame.select("text", "language", "path").to_dicts())
    extra = [str(source)] if peer == "opencoder" and source else []
    command = [interpreter, str(INSIDE), peer, str(documents), str(result), *extra]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=MOST_SECONDS)
    if answer.returncode:
        return {"error": (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]}
    measured: dict[str, Any] = json.loads(result.read_text())
    return measured


def agreement(theirs: Sequence[float | None], ours: Sequence[float | None]) -> dict[str, float]:
    """Documents with both values, correlation and median difference. Outside 0..1 is a peer's word for a failure."""
    pairs = [
        (left, right)
        for left, right in zip(theirs, ours, strict=True)
        if left is not None and right is not None and 0 <= left <= 1
    ]
    if len(pairs) < 2:
        return {"documents": len(pairs)}
    left, right = zip(*pairs, strict=True)
    return {
        "documents": len(pairs),
        "correlation": statistics.correlation(left, right),
        "median_difference": statistics.median(abs(one - other) for one, other in pairs),
    }


def _line(peer: str, result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{peer:18} {result['error']}"
    checks = ", ".join(
        f"{name} r = {one['correlation']:.3f}, median difference {one['median_difference']:.4f}"
        for name, one in result["agreement"].items()
        if "correlation" in one
    )
    return (
        f"{peer:18} {result['peer_mb_per_second']:6.2f} MB/s, codesieve ({', '.join(result['matched_steps'])}) "
        f"{result['codesieve_mb_per_second']:6.2f} MB/s, ratio {result['ratio']:.1f}; {checks}"
    )


if __name__ == "__main__":
    main()
