"""How fast annotation is, against the bare tree-sitter parse of the same files in the same run.

    python benchmarks/annotate.py [PATH…] [--megabytes 20] [--runs 5] [--languages python,javascript,c] [--json]
    python benchmarks/annotate.py --gates                   with gates on: what no gate lets through is not parsed
    python benchmarks/annotate.py --workers 2               the whole stage with 1 and with 2 workers, wall clock
    python benchmarks/annotate.py --by-language             one ratio for each language with 1 MB or more

Measured is all that a document costs: Parquet in, all signals, the default rule set, a fastText score, zstd Parquet
out. On which files: see `sample.py`; only languages with a grammar, none over 1 MB by default. The classifier is
trained on the sample beforehand, on labels that mean nothing, unless `--model` names one. One process, CPU time, parse
and pipeline in turn on batches of 4 MB, so that a busy machine slows both; medians over the runs. The ratio is the
number to compare: other machines have other megabytes per second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from codesieve.benchmarks.sample import SampleReader, by_language, default_paths, sample, write_shards
from codesieve.classifiers import calibration, lexing
from codesieve.classifiers.card import CARD_FILE
from codesieve.classifiers.lexing import tokens
from codesieve.classifiers.model import load_scorer
from codesieve.classifiers.step import ScoreStep
from codesieve.classifiers.training import MODEL_FILE, labelled, train_model
from codesieve.config import AnnotateConfig, ClassifierConfig
from codesieve.curation.executors import run_stage
from codesieve.curation.rules import RulesStep, load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.curation.shards import read_batches, write_shard
from codesieve.curation.signals.grammars import grammar
from codesieve.curation.signals.pipeline import standard_steps
from codesieve.curation.stage import Stage, write_plan
from codesieve.curation.steps import Step
from codesieve.files import write_json
from codesieve.processes import run_processes

BARE, READ, WRITE = "bare parse", "read", "write"
LEAST_BYTES = 1_000_000
"""Of a language, for a ratio of its own."""


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    languages = [one for one in arguments.languages.split(",") if one]
    frame = sample(
        arguments.paths or default_paths(),
        int(arguments.megabytes * 1e6),
        languages=languages,
        max_file_bytes=int(arguments.max_file_megabytes * 1e6),
    )
    with tempfile.TemporaryDirectory(prefix="codesieve-benchmark-") as name:
        folder = Path(name)
        model = arguments.model or train_on(frame, folder / "model")
        if arguments.workers:
            result = measure_workers(frame, pipeline(model, gates=arguments.gates), arguments.workers, folder)
        elif arguments.by_language:
            large = [language for language, row in by_language(frame).items() if row["bytes"] >= LEAST_BYTES]
            steps = pipeline(model, gates=arguments.gates)
            result = {
                language: measure(frame.filter(pl.col("language") == language), steps, arguments.runs, folder)
                for language in large
            }
        else:
            result = measure(frame, pipeline(model, gates=arguments.gates), arguments.runs, folder)
            result |= {"gates": arguments.gates, **measure_score(frame, model)}
    print(json.dumps(result, indent=2) if arguments.json else _table(result))


def pipeline(model: Path, *, gates: bool) -> list[Step]:
    """All signals, the default rule set and a score: what a document goes through."""
    config = AnnotateConfig(gates=gates)
    rules = load_rules(config.rules, [column.name for column in (*IDENTITY, *SIGNALS)])
    return [*standard_steps(config), RulesStep(rules), ScoreStep(model)]


def measure(frame: pl.DataFrame, steps: Sequence[Step], runs: int, folder: Path) -> dict[str, Any]:
    """Medians over `runs` passes, of each part of each batch on its own; the first pass warms up and is thrown away.

    A virtual machine loses half of its speed for a second now and then: the median of a batch does not see that, the
    median of whole passes does.
    """
    for step in steps:
        step.setup()
    [shard] = write_shards(frame, folder)
    passes = [_pass(shard, steps, folder / "out" / "annotated.parquet") for _ in range(runs + 1)][1:]
    parts = {
        name: sum(statistics.median(batch[name] for batch in batches) for batches in zip(*passes, strict=True))
        for name in passes[0][0]
    }
    whole = sum(parts.values()) - parts[BARE]
    sums = [{name: sum(batch[name] for batch in batches) for name in parts} for batches in passes]
    ratios = [one[BARE] / (sum(one.values()) - one[BARE]) for one in sums]
    size = int(frame["size_bytes"].sum())
    return {
        "documents": frame.height,
        "bytes": size,
        "runs": runs,
        "mb_per_second": size / whole / 1e6,
        "bare_parse_mb_per_second": size / parts[BARE] / 1e6,
        "ratio": parts[BARE] / whole,
        "ratio_range": [min(ratios), max(ratios)],
        "microseconds_per_document": {name: seconds / frame.height * 1e6 for name, seconds in parts.items()},
        "languages": by_language(frame),
    }


def _pass(shard: Path, steps: Sequence[Step], out: Path) -> list[dict[str, float]]:
    """CPU seconds of each part of each batch of one pass. Writing is what lies between one batch and the next."""
    passed: list[dict[str, float]] = []

    def annotated() -> Iterator[pl.DataFrame]:
        batches = read_batches(shard)
        while True:
            seconds: dict[str, float] = dict.fromkeys((BARE, READ, *(step.name for step in steps), WRITE), 0.0)
            batch = _timed(seconds, READ, lambda: next(batches, None))
            if batch is None:
                return
            _timed(seconds, BARE, _bare_parse(batch))
            for step in steps:
                batch = _timed(seconds, step.name, lambda step=step, batch=batch: step(batch))
            passed.append(seconds)
            started = cpu_seconds()
            yield batch
            seconds[WRITE] += cpu_seconds() - started

    write_shard(out, annotated(), {})
    return passed


def _bare_parse(batch: pl.DataFrame) -> Callable[[], None]:
    """Parses every document of the batch and drops each tree at once."""
    grammars = [grammar(language) for language in batch["language"]]
    work = [(one.parser, text.encode()) for one, text in zip(grammars, batch["text"], strict=True) if one]

    def run() -> None:
        for parser, source in work:
            parser.parse(source)

    return run


def _timed(seconds: dict[str, float], name: str, call: Callable[[], Any]) -> Any:
    started = cpu_seconds()
    result = call()
    seconds[name] += cpu_seconds() - started
    return result


def cpu_seconds() -> float:
    """Of this process and of its children, alive or not: a child measures syntax (`curation.apart`)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = [int(pid) for pids in Path("/proc/self/task").glob("*/children") for pid in pids.read_text().split()]
    # The clock of another process, as clock_getcpuclockid(3) makes its number.
    alive = sum(time.clock_gettime((~pid << 3) | 2) for pid in children)
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def measure_score(frame: pl.DataFrame, model: Path) -> dict[str, Any]:
    """What of the score is lexing and what is fastText, in microseconds a document."""
    config = ClassifierConfig()
    scorer = load_scorer(model, config.max_characters)
    work = frame.select("text", "language").rows()
    started = cpu_seconds()
    lines = [tokens(text, language, config.max_characters) for text, language in work]
    lexed = cpu_seconds()
    for line in lines:
        scorer.raw_of_line(line)
    predicted = cpu_seconds()
    parts = {"lexing": lexed - started, "prediction": predicted - lexed}
    return {"score_microseconds_per_document": {name: one / frame.height * 1e6 for name, one in parts.items()}}


def measure_workers(frame: pl.DataFrame, steps: Sequence[Step], workers: int, folder: Path) -> dict[str, Any]:
    """Wall time of the stage with one and with `workers` processes of its own, start included."""
    shards = write_shards(frame, folder / "in", shards=4 * workers)
    units = [{"file": str(path), "marks": [path.name], "bytes": path.stat().st_size} for path in shards]
    seconds = {}
    for count in (1, workers):
        run = folder / f"workers-{count}"
        write_plan(run / "plan" / "annotated", {}, units)
        stage = Stage("annotated", SampleReader(), steps, run / "plan" / "annotated", run / "annotated")
        started = time.monotonic()
        if count == 1:  # in a process of its own as well: both start, import and load what they need
            run_processes(run_stage, [(stage, run / "logs", 1)], ["the stage"], workers=1)
        else:
            run_stage(stage, run / "logs", count)
        seconds[count] = time.monotonic() - started
    size = int(frame["size_bytes"].sum())
    return {
        "documents": frame.height,
        "bytes": size,
        "shards": len(shards),
        "cores": os.cpu_count(),
        "mb_per_second": {str(count): size / one / 1e6 for count, one in seconds.items()},
        "speedup": seconds[1] / seconds[workers],
    }


def train_on(frame: pl.DataFrame, folder: Path) -> Path:
    """A classifier of the usual size, trained on labels that mean nothing; only its speed counts."""
    config = ClassifierConfig(epoch=1)
    rows = frame.select("id", "text", "language").head(config.max_documents).rows()
    lines = [
        labelled(tokens(text, language, config.max_characters), int(identity[-1], 16) % 2 == 0)
        for identity, text, language in rows
    ]
    checksum = train_model(lines, config, folder)
    line = calibration.Curve((-12.0, 12.0), (0.0, 1.0))
    calibration.save(calibration.Calibration(line, {}), folder)
    card = {"lexer_version": lexing.VERSION, "config": config.model_dump(mode="json")}
    write_json(folder / CARD_FILE, card | {"model": {"sha256": checksum}})
    assert (folder / MODEL_FILE).is_file()
    return folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--languages", default="", help="only these, with commas between them")
    parser.add_argument("--max-file-megabytes", type=float, default=1.0, help="larger files are left out")
    parser.add_argument("--gates", action="store_true", help="as `curate` has them; off, everything is parsed")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--by-language", action="store_true")
    parser.add_argument("--model", type=Path, help="folder of a trained classifier")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _table(result: dict[str, Any]) -> str:
    if "speedup" in result:
        lines = [f"{count} workers {one:6.2f} MB/s" for count, one in result["mb_per_second"].items()]
        return "\n".join([*lines, f"speed-up {result['speedup']:7.2f} on {result['cores']} cores"])
    if "ratio" not in result:
        return "\n".join(
            f"{language:14} {one['bytes'] / 1e6:6.1f} MB {one['mb_per_second']:6.2f} MB/s, "
            f"bare {one['bare_parse_mb_per_second']:6.2f}, ratio {one['ratio']:.2f}"
            for language, one in result.items()
        )
    low, high = result["ratio_range"]
    lines = [
        f"{result['documents']} documents, {result['bytes'] / 1e6:.1f} MB, {result['runs']} runs",
        f"annotation  {result['mb_per_second']:6.2f} MB/s",
        f"bare parse  {result['bare_parse_mb_per_second']:6.2f} MB/s",
        f"ratio       {result['ratio']:6.2f} ({low:.2f} to {high:.2f})",
    ]
    steps = result["microseconds_per_document"]
    lines += [
        f"  {step:10} {one:8.1f} µs a document, {one / steps[BARE]:5.3f} of the parse" for step, one in steps.items()
    ]
    parts = result["score_microseconds_per_document"]
    return "\n".join([*lines, *(f"  score: {part:10} {one:6.1f} µs" for part, one in parts.items())])


if __name__ == "__main__":
    main()
