"""Time and memory of the pipeline at 1, 4 and 16 times the documents.

    python benchmarks/scale.py [PATH…] [--rows 65536] [--annotate-megabytes 4] [--times 1 4 16] [--json]

Two parts. `annotate`: files on disk through the stage, one worker. The others run over shards that are made directly: a
sample is annotated once, its rows are repeated with ids, hashes, paths and repositories of their own (one in ten keeps
its hash: a duplicate) and its texts cut to 64 characters, so that what grows is the number of documents. Each phase of
each size is a fresh process; seconds are wall clock, memory is the most that it ever had resident.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from codesieve.benchmarks.memory import peak_bytes
from codesieve.benchmarks.sample import batches, default_paths, sample
from codesieve.config import AnnotateConfig, SelectionConfig, SourceConfig, SplitConfig
from codesieve.curation.annotate import annotate
from codesieve.curation.corpus import scan
from codesieve.curation.dedup.exact import exact_duplicates
from codesieve.curation.layers import stage_layer, table_layer
from codesieve.curation.rules import RulesStep, load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.curation.select import controls, funnel, write_corpus
from codesieve.curation.shards import shard_name, write_shard
from codesieve.curation.signals.pipeline import standard_steps
from codesieve.curation.split import split_families
from codesieve.curation.stage import write_plan

SHARD_ROWS = 16_384
TEXT_CHARACTERS = 64
SELECTIONS = (
    SelectionConfig(name="good", where="reason_count = 0 AND duplicate_of IS NULL"),
    SelectionConfig(name="control", control_of="good"),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=65_536, help="rows at 1 times")
    parser.add_argument("--annotate-megabytes", type=float, default=4.0, help="text that is annotated at 1 times")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        phase, run = arguments.child
        print(json.dumps(_run_phase(PHASES[phase], Path(run))))
        return
    most = max(arguments.times)
    frame = sample(arguments.paths or default_paths(), int(arguments.annotate_megabytes * most * 1e6))
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="codesieve-scale-") as name:
        base = annotated_sample(frame.head(4096))
        for times in arguments.times:
            run = Path(name) / f"times-{times}"
            write_files(frame, run / "files", int(arguments.annotate_megabytes * times * 1e6))
            write_run(base, run / "rows", arguments.rows * times)
            for phase in PHASES:
                results.setdefault(phase, {})[str(times)] = measured = _measure(phase, run)
                if not arguments.json:
                    print(
                        f"{times:3} times  {phase:12} {measured['seconds']:8.1f} s {measured['gb']:6.2f} GB", flush=True
                    )
    if arguments.json:
        print(json.dumps({"rows": arguments.rows, "phases": results}, indent=2))


def annotated_sample(frame: pl.DataFrame) -> pl.DataFrame:
    """All signals of some documents; their texts are cut afterwards."""
    parts = list(batches(frame))
    for step in standard_steps(AnnotateConfig()):
        step.setup()
        parts = [step(part) for part in parts]
    return pl.concat(parts).with_columns(pl.col("text").str.head(TEXT_CHARACTERS))


def write_files(frame: pl.DataFrame, folder: Path, most_bytes: int) -> None:
    """Files for the annotation of this size."""
    folder.mkdir(parents=True)
    kept = frame.filter(pl.col("size_bytes").cum_sum() <= most_bytes)
    for index, (path, text) in enumerate(kept.select("path", "text").iter_rows()):
        (folder / f"{index}-{Path(path).name[-80:]}").write_text(text, encoding="utf-8")


def write_run(base: pl.DataFrame, run: Path, rows: int) -> None:
    """`annotated/` of a run with that many documents, and the plan that layers ask for."""
    marks = []
    for start in range(0, rows, SHARD_ROWS):
        number = pl.Series("number", range(start, min(start + SHARD_ROWS, rows)), dtype=pl.UInt64)
        part = base[(number % base.height).to_list()].with_columns(number)
        text = pl.col("number").cast(pl.String)
        is_copy = pl.col("number") % 10 == 9
        part = part.with_columns(
            text.str.zfill(32).alias("id"),
            pl.when(is_copy).then("content_hash").otherwise(text.str.zfill(32)).alias("content_hash"),
            (pl.col("path") + "/" + text).alias("path"),
            (pl.lit("r") + (pl.col("number") // 100).cast(pl.String)).alias("repository"),
        ).drop("number")
        name = shard_name(start // SHARD_ROWS)
        write_shard(run / "annotated" / name, [part], {})
        marks.append({"marks": [name], "bytes": 1})
    write_plan(run / "plan" / "annotated", {}, marks)


def _annotate(run: Path) -> None:
    source = SourceConfig(name="files", type="directory", path=str(run / "files"))
    annotate(run / "annotate", [source], AnnotateConfig(), workers=1)


def _rules(run: Path) -> None:
    rules = load_rules("codesieve", [column.name for column in (*IDENTITY, *SIGNALS)])
    stage_layer(run / "rows", "rules", [RulesStep(rules)], {})


def _duplicates(run: Path) -> None:
    table_layer(run / "rows", "duplicates", exact_duplicates, {})


def _split(run: Path) -> None:
    table_layer(run / "rows", "split", lambda frame: split_families(frame, SplitConfig()), {})


def _controls(run: Path) -> None:
    table_layer(run / "rows", "controls", lambda frame: controls(frame, SELECTIONS, 0), {})


def _funnel(run: Path) -> None:
    funnel(scan(run / "rows"), SELECTIONS)


def _corpus(run: Path) -> None:
    write_corpus(run / "rows", SELECTIONS[0], run / "corpus", {})


PHASES: Mapping[str, Callable[[Path], None]] = {
    "nothing": lambda run: None,
    "annotate": _annotate,
    "rules": _rules,
    "duplicates": _duplicates,
    "split": _split,
    "controls": _controls,
    "funnel": _funnel,
    "corpus": _corpus,
}
"""In the order of a run; `nothing` shows what the libraries take."""


def _measure(phase: str, run: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", phase, str(run)]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"{phase}: {answer.stderr.strip()}")
    measured: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def _run_phase(phase: Callable[[Path], None], run: Path) -> dict[str, float]:
    started = time.monotonic()
    phase(run)
    return {"seconds": time.monotonic() - started, "gb": peak_bytes() / 1e9}


if __name__ == "__main__":
    main()
