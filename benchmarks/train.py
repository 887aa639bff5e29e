"""Training speed of codesieve's decoder, side by side with transformers and a nanoGPT-style reference.

    python benchmarks/train.py --preset proxy-1m --against transformers nanogpt [--objective fim] [--json]
    python benchmarks/train.py --preset proxy-5m --attention-table     what document masks and prefixes cost
    python benchmarks/train.py --preset proxy-1m --objective-table     the named objectives against plain prediction
    python benchmarks/train.py --gpu-suite                             every figure that a GPU owes, as one table
    python benchmarks/train.py --gpu-suite --list                      its cases, and a guess of minutes for each
    python benchmarks/train.py --gpu-suite --only 124m proxy-15m       some of them now, others another time

All sides train on the same packed rows with the same shapes, dtype, threads and optimiser step, and take turns round by
round; a speed is the median over rounds, a ratio the median of the rounds' ratios. The clock holds all that a step
costs: rows, masks and copies (made ahead by the same thread on all sides), forward, backward, clipping, update. Ours
isolates documents inside a row; the others run their fastest causal path (SDPA, no document mask, their own loss on all
logits), compiled where ours is. Sides too large to be on the GPU together are measured one after another. What does not
fit has its micro-batch halved, and says so. Objectives are those of configs/objectives, documents are made up
(`train_rows.py`). Peak memory is what a side takes from the GPU while it trains, warm.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from codesieve.benchmarks.train_cases import OBJECTIVES, PEERS, SUITE, Case
from codesieve.benchmarks.train_rows import made_up_rows
from codesieve.benchmarks.train_sides import SIDES, Maker, Side
from codesieve.strict import ConfigError
from codesieve.train.config import TrainConfig
from codesieve.train.device import choose_device, choose_dtype, reproducible
from codesieve.train.execution import garbage_later
from codesieve.train.flops import flops_per_token, mfu, peak_flops
from codesieve.train.prefetch import Prefetcher, row_spans
from codesieve.train.rows import Rows

TOGETHER_PARAMETERS = 200_000_000
"""Up to here the sides take turns; three larger ones with their optimisers would leave a GPU no room."""


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    try:
        if arguments.gpu_suite:
            print(listed(arguments.only) if arguments.list else table(suite(arguments.only, Path(arguments.out))))
            return
        report = measure(_case(arguments))
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    if arguments.json:
        print(json.dumps(report, indent=None if arguments.case else 2, sort_keys=True))
        return
    if not arguments.tables:
        facts = {name: value for name, value in report.items() if name != "sides"}
        print("".join(f"{name:20} {value}\n" for name, value in facts.items()))
    print(table([report]))


def measure(case: Case) -> dict[str, Any]:
    """Speed of each side, and of the first one relative to every other.

    Returns:
        What was measured, and under "sides" for each: tokens per second by the wall and by processor time, the ratio of
        the first side's to it with its range, MFU, peak memory in GB (both None where not known), share of the time
        that was waited for data, tokens of a pass, and how it was computed.
    """
    device = choose_device()
    config = case.config()
    dtype = choose_dtype(config.dtype, device)
    count = sum(p.numel() for p in case.decoder().parameters())
    makers = case.sides()
    is_together = device.type == "cpu" or count <= TOGETHER_PARAMETERS
    groups = [list(makers)] if is_together else [[name] for name in makers]
    sides: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[_Round]] = {}
    with reproducible(device, config.threads), garbage_later():
        for group in groups:
            built: dict[str, tuple[Side, Rows]] = {}
            for name in group:
                maker, its_case = makers[name]
                rows = made_up_rows(its_case.config())
                side, facts = _built(SIDES[maker], its_case, rows, device, dtype)
                sides[name] = facts
                if side is not None:
                    built[name] = side, rows
            for number in range(case.rounds):
                for name, (side, rows) in built.items():
                    first = case.warm_up_steps + number * case.steps
                    rounds.setdefault(name, []).append(_round(side, rows, config, first, case.steps, device))
            built.clear()
            _free(device)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    per_token = flops_per_token(config.model, config.vocab_size, config.sequence_length)
    peak = peak_flops(device_name) if dtype == torch.bfloat16 else None
    for name, found in rounds.items():
        sides[name] |= _summary(found, rounds[next(iter(rounds))], config.step_tokens * case.steps)
        utilisation = mfu(sides[name]["tokens_per_second"], per_token, peak)
        sides[name]["mfu"] = None if utilisation is None else round(utilisation, 4)
    return {
        "name": case.name,
        "device": device_name,
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": count,
        "objective": case.objective,
        "optimizer": case.optimizer,
        "threads": config.threads,
        "vocab_size": config.vocab_size,
        "sequence_length": config.sequence_length,
        "step_tokens": config.step_tokens,
        "rounds": case.rounds,
        "steps_per_round": case.steps,
        "take_turns": is_together,
        "torch": str(torch.__version__),
        "sides": sides,
    }


def suite(only: Sequence[str], out: Path, run: Callable[[str], dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Every case of `SUITE` (or those named) in a process of its own, its report appended to `out` as it is there.

    A case that fails is a row that says why; the rest goes on. Figures that `out` holds already are not measured again.

    Raises:
        ConfigError: for a name that is not in the suite, or without a GPU.
    """
    chosen = _chosen(only)
    if run is None and not torch.cuda.is_available():
        raise ConfigError("--gpu-suite: no CUDA device here; --preset proxy-1m --against transformers runs on a CPU")
    out.parent.mkdir(parents=True, exist_ok=True)
    there = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    reports = {report["name"]: report for report in there}
    for name in [case.name for case in chosen if "error" in reports.get(case.name, {"error": "not measured"})]:
        print(f"{name} …", file=sys.stderr, flush=True)
        reports[name] = (run or _in_process)(name)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(reports[name], sort_keys=True) + "\n")
    return [reports[case.name] for case in SUITE if case.name in reports]


def listed(only: Sequence[str]) -> str:
    """The cases that `suite` would measure, and how long they may take."""
    minutes = {case.name: case.minutes() for case in _chosen(only)}
    return "\n".join(
        f"{name:24}{size:6.1f} minutes" for name, size in [*minutes.items(), ("all", sum(minutes.values()))]
    )


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Markdown for docs/performance.md; the ratio is how much faster the first side is, a cost where it is causal."""
    is_gpu = any(side.get("peak_gigabytes") for report in reports for side in report.get("sides", {}).values())
    head = ["model", "side", "tokens/s", "first side / this (range)", "data wait"]
    head += ["MFU", "peak GB", "tokens a pass"] if is_gpu else ["tokens/CPU s", "by CPU time (range)"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for report in reports:
        if "error" in report:
            lines.append(f"| {report['name']} | failed: {report['error']} |" + " |" * (len(head) - 2))
            continue
        millions = report["parameters"] / 1e6
        shape = f"{report['name']}, {millions:,.{0 if millions >= 10 else 1}f} M, T = {report['sequence_length']:,}"
        for name, side in report["sides"].items():
            if "error" in side:
                lines.append(f"| {shape} | {name} | {side['error']} |" + " |" * (len(head) - 3))
                continue
            cells = [shape, f"{name} ({side['computed']})", f"{side['tokens_per_second']:,}", _ratio(side, "ratio")]
            cells.append(f"{side['wait_fraction']:.1%}")
            if is_gpu:
                share = "" if side["mfu"] is None else f"{side['mfu']:.1%}"
                cells += [share, f"{side['peak_gigabytes']:.1f}", f"{side['micro_batch_tokens']:,}"]
            else:
                cells += [f"{side['tokens_per_cpu_second']:,}", _ratio(side, "ratio_cpu")]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _chosen(only: Sequence[str]) -> list[Case]:
    known = [case.name for case in SUITE]
    if wrong := [name for name in only if name not in known]:
        raise ConfigError(f'--only: unknown case "{wrong[0]}"; known: {", ".join(known)}')
    return [case for case in SUITE if case.name in only or not only]


@dataclass(frozen=True)
class _Round:
    wall_seconds: float
    cpu_seconds: float
    wait_seconds: float


def _round(side: Side, rows: Rows, config: TrainConfig, first: int, steps: int, device: torch.device) -> _Round:
    """Some steps, from an empty pipeline to a GPU that is done."""
    per_step = config.step_tokens // config.sequence_length
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    with Prefetcher(
        lambda at, count: side.prepare(rows.batch(at, count)), row_spans(first, first + steps, per_step)
    ) as feed:
        for prepared in feed:
            side.step(prepared)
        _wait(device)
        waited = feed.wait_seconds
    return _Round(time.perf_counter() - wall, time.process_time() - cpu, waited)


def _summary(found: Sequence[_Round], first: Sequence[_Round], tokens: int) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "wait_fraction": round(statistics.median(r.wait_seconds / r.wall_seconds for r in found), 4)
    }
    for key, name, attribute in (
        ("tokens_per_second", "ratio", "wall_seconds"),
        ("tokens_per_cpu_second", "ratio_cpu", "cpu_seconds"),
    ):
        seconds = [getattr(one, attribute) for one in found]
        ratios = [other / getattr(one, attribute) for one, other in zip(first, seconds, strict=True)]
        summary[key] = round(statistics.median(tokens / one for one in seconds))
        summary[name] = round(statistics.median(ratios), 3)
        summary[f"{name}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return summary


def _built(
    maker: Maker, case: Case, rows: Rows, device: torch.device, dtype: torch.dtype
) -> tuple[Side | None, dict[str, Any]]:
    """The side, warm, with the largest micro-batch that fits: the one asked for, halved until it does."""
    config = case.config()
    micro = config.micro_batch_tokens or config.step_tokens
    while True:
        _free(device)
        before = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
        side: Side | None = None
        peak = None
        try:
            side = maker(config.model_copy(update={"micro_batch_tokens": micro}), device, dtype)
            _round(side, rows, config, 0, case.warm_up_steps, device)
            if device.type == "cuda":
                _free(device)  # what compiling and checking took
                _round(side, rows, config, 0, 1, device)
                peak = torch.cuda.max_memory_reserved(device) - before
        except torch.OutOfMemoryError:
            del side
            if micro // 2 < config.sequence_length or micro // 2 % config.sequence_length:
                return None, {"error": f"out of memory with {micro} tokens a pass"}
            micro //= 2
            continue
        facts = {"micro_batch_tokens": micro, "peak_gigabytes": None if peak is None else round(peak / 1e9, 2)}
        return side, {**facts, "computed": side.computed()}


def _ratio(side: Mapping[str, Any], name: str) -> str:
    low, high = side[f"{name}_range"]
    return f"**{side[name]:.2f}** ({low:.2f}–{high:.2f})"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    """Give back what a side held, and count the peak anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _in_process(name: str) -> dict[str, Any]:
    """The report of one case, or its error."""
    command = [sys.executable, str(Path(__file__)), "--case", name, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"name": name, "error": lines[-1][:200]}
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _case(arguments: argparse.Namespace) -> Case:
    if arguments.case:
        return next(case for case in SUITE if case.name == arguments.case)
    names = ("vocab_size", "sequence_length", "step_tokens", "objective", "attention", "optimizer", "dtype", "compile")
    names += ("micro_batch_tokens", "threads", "rounds", "steps", "table")
    options = {name: getattr(arguments, name) for name in names}
    return Case(arguments.preset, arguments.preset, against=tuple(arguments.against), **options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="proxy-1m", help="name in configs/models, or a path")
    parser.add_argument("--against", nargs="*", default=[], choices=PEERS)
    parser.add_argument("--objective", default="causal", choices=OBJECTIVES)
    parser.add_argument(
        "--attention", default="documents", choices=["documents", "causal"], help="of ours; causal: rows are documents"
    )
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "muon"], help="of ours; the others: AdamW")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="all sides; default: on a GPU")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--step-tokens", type=int, default=2048)
    parser.add_argument("--micro-batch-tokens", type=int, help="tokens in one pass; default: --step-tokens")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="per round and side")
    tables = parser.add_mutually_exclusive_group()
    for name, what in (("attention", "causal, document and prefix masks"), ("objective", "every named objective")):
        tables.add_argument(
            f"--{name}-table", action="store_const", const=name, dest="table", default="", help=f"ours with {what}"
        )
    parser.add_argument("--gpu-suite", action="store_true", help="all cases that a GPU owes, as one Markdown table")
    parser.add_argument("--list", action="store_true", help="with --gpu-suite: its cases, and minutes (guessed)")
    parser.add_argument("--only", nargs="*", default=[], help="with --gpu-suite: these cases")
    parser.add_argument("--out", default="runs/gpu-suite.jsonl", help="with --gpu-suite: finished cases; kept if there")
    parser.add_argument("--case", choices=[case.name for case in SUITE], help="one case of the suite, in this process")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tables", action="store_true", help="the Markdown table alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
