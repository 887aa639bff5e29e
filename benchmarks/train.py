"""Training speed of codesieve's decoder, side by side with transformers and a nanoGPT-style reference.

    python benchmarks/train.py --preset proxy-1m --against transformers nanogpt [--objective fim] [--json]
    python benchmarks/train.py --preset proxy-5m --attention-table     what document masks and prefixes cost
    python benchmarks/train.py --gpu-suite                             every figure that a GPU owes, as one table

All sides train on the same packed rows with the same shapes, dtype, threads and optimiser step, and take turns round by
round; a speed is the median over rounds, a ratio the median of the rounds' ratios. The clock holds all that a step
costs: rows, masks and copies (made ahead by the same thread on all sides), forward, backward, clipping, update. Ours
isolates documents inside a row; the others run their fastest causal path (SDPA, no document mask, their own loss on all
logits), compiled where ours is. Sides too large to be on the GPU together are measured one after another. What does not
fit has its micro-batch halved, and says so. The documents are made up: lengths log-normal around 900 tokens (as in a
corpus of source files), tokens by Zipf's law.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from codesieve.benchmarks.train_sides import SIDES, Maker, Side
from codesieve.strict import ConfigError, parse
from codesieve.train.config import TrainConfig
from codesieve.train.device import choose_device, choose_dtype, reproducible
from codesieve.train.execution import Prefetcher, garbage_later, spans
from codesieve.train.flops import flops_per_token, mfu, peak_flops
from codesieve.train.model import Decoder
from codesieve.train.rows import Rows
from codesieve.train.sentinels import Sentinels
from codesieve.train.tokens import SCHEMA, TokenStore

OBJECTIVES: dict[str, list[dict[str, Any]]] = {
    "causal": [{"type": "causal"}],
    "codegen2": [{"type": "causal"}, {"type": "span_corruption"}],
    "fim": [{"type": "causal"}, {"type": "infill", "split": "token"}],
    "prefix-lm": [{"type": "prefix_lm"}],
    "ul2": [
        {"type": "span_corruption", "mask_ratio": [0.15, 0.15], "span_tokens": [3, 8], "mode": "R"},
        {"type": "span_corruption", "mask_ratio": [0.5, 0.5], "span_tokens": [3, 64], "mode": "X"},
        {"type": "prefix_lm", "mode": "S"},
    ],
}
SENTINELS = Sentinels(0, 1, 2, 3, 4, 5, tuple(range(6, 106)), {"R": 106, "S": 107, "X": 108})
FIRST_TOKEN = 109
WARM_UP_STEPS = 3
TOGETHER_PARAMETERS = 200_000_000
"""Up to here the sides take turns; three larger ones with their optimisers would leave a GPU no room."""


@dataclass(frozen=True)
class Case:
    """One line of a table: what is trained, and against whom."""

    name: str
    model: str | dict[str, Any]
    vocab_size: int
    sequence_length: int
    step_tokens: int
    against: tuple[str, ...] = ()
    objective: str = "causal"
    attention: str = "documents"
    optimizer: str = "adamw"
    micro_batch_tokens: int | None = None
    dtype: str = "auto"
    compile: bool | None = None
    threads: int = 1
    rounds: int = 5
    steps: int = 10
    attention_table: bool = False

    def config(self) -> TrainConfig:
        """The same as a run's configuration, long enough for every round."""
        fields = ("model", "vocab_size", "sequence_length", "step_tokens", "optimizer", "dtype", "compile", "threads")
        return parse(
            TrainConfig,
            {
                **{name: getattr(self, name) for name in fields},
                "micro_batch_tokens": self.micro_batch_tokens,
                "window_tokens": self.sequence_length,
                "tokens": (WARM_UP_STEPS + self.rounds * self.steps) * self.step_tokens,
                "objectives": OBJECTIVES[self.objective],
            },
            self.name,
        )


GPT2_124M: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12}
GPT2_124M |= {"num_attention_heads": 6, "num_key_value_heads": 6}
GPT2_350M: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24}
GPT2_350M |= {"num_attention_heads": 8, "num_key_value_heads": 8}
# The size and block of Aryabumi et al.'s smaller model with a vocabulary that leaves it to its layers.
PARALLEL_470M: dict[str, Any] = {"family": "cohere", "hidden_size": 1024, "intermediate_size": 4096}
PARALLEL_470M |= {"num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 8}
PEERS = ("transformers", "nanogpt")
SUITE = (
    # Full causal attention is what the others do: the plain comparison. Head dimension 128 for all sides.
    Case("124m", GPT2_124M, 50_304, 1024, 65_536, PEERS, attention="causal"),
    Case("350m", GPT2_350M, 50_304, 2048, 65_536, PEERS, attention="causal"),
    Case("470m parallel", PARALLEL_470M, 32_768, 2048, 65_536, PEERS, attention="causal"),
    Case("codegen2-1b", "codegen2-1b", 51_200, 2048, 65_536, PEERS, attention="causal", rounds=3),
    Case("proxy-15m", "proxy-15m", 16_384, 1024, 131_072, PEERS, attention="causal"),
    Case("proxy-30m", "proxy-30m", 16_384, 1024, 131_072, PEERS, attention="causal"),
    Case("to-code-470m", "to-code-470m", 256_000, 2048, 65_536, PEERS, attention="causal", rounds=3),
    Case("124m masks", GPT2_124M, 50_304, 1024, 65_536, attention_table=True),
    Case("350m masks", GPT2_350M, 50_304, 2048, 65_536, attention_table=True),
    Case(
        "124m muon", GPT2_124M, 50_304, 1024, 524_288, attention="causal", optimizer="muon", micro_batch_tokens=65_536
    ),
)


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    try:
        if arguments.gpu_suite:
            print(table(suite(arguments.only, Path(arguments.out))))
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
    count = sum(p.numel() for p in _meta(config).parameters())
    makers = _attention_sides(case) if case.attention_table else _sides(case)
    is_together = device.type == "cpu" or count <= TOGETHER_PARAMETERS
    groups = [list(makers)] if is_together else [[name] for name in makers]
    sides: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[_Round]] = {}
    with reproducible(device, config.threads), garbage_later():
        for group in groups:
            built: dict[str, tuple[Side, Rows]] = {}
            for name in group:
                maker, its_case = makers[name]
                rows = synthetic_rows(its_case.config())
                side, facts = _built(maker, its_case.config(), rows, device, dtype)
                sides[name] = facts
                if side is not None:
                    built[name] = side, rows
            for number in range(case.rounds):
                for name, (side, rows) in built.items():
                    first = WARM_UP_STEPS + number * case.steps
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

    A case that fails is a row that says why; the rest goes on. Reports that `out` holds already are not made again.

    Raises:
        ConfigError: for a name that is not in the suite, or without a GPU.
    """
    known = [case.name for case in SUITE]
    if wrong := [name for name in only if name not in known]:
        raise ConfigError(f'--only: unknown case "{wrong[0]}"; known: {", ".join(known)}')
    if run is None and not torch.cuda.is_available():
        raise ConfigError("--gpu-suite: no CUDA device here; --preset proxy-1m --against transformers runs on a CPU")
    out.parent.mkdir(parents=True, exist_ok=True)
    there = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    reports = {report["name"]: report for report in there}
    for name in [name for name in known if (name in only or not only) and name not in reports]:
        print(f"{name} …", file=sys.stderr, flush=True)
        reports[name] = (run or _in_process)(name)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(reports[name], sort_keys=True) + "\n")
    return [reports[name] for name in known if name in reports]


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
        lambda at, count: side.prepare(rows.batch(at, count)), spans(first, first + steps, per_step)
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
    maker: Maker, config: TrainConfig, rows: Rows, device: torch.device, dtype: torch.dtype
) -> tuple[Side | None, dict[str, Any]]:
    """The side, warm, with the largest micro-batch that fits: the one asked for, halved until it does."""
    micro = config.micro_batch_tokens or config.step_tokens
    while True:
        _free(device)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        side: Side | None = None
        try:
            side = maker(config.model_copy(update={"micro_batch_tokens": micro}), device, dtype)
            _round(side, rows, config, 0, WARM_UP_STEPS, device)
        except torch.OutOfMemoryError:
            del side
            if micro // 2 < config.sequence_length or micro // 2 % config.sequence_length:
                return None, {"error": f"out of memory with {micro} tokens a pass"}
            micro //= 2
            continue
        peak = torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else None
        facts = {"micro_batch_tokens": micro, "peak_gigabytes": None if peak is None else round(peak / 1e9, 2)}
        return side, {**facts, "computed": side.computed()}


def _sides(case: Case) -> dict[str, tuple[Maker, Case]]:
    ours = SIDES[f"codesieve {case.attention}"]
    return {"codesieve": (ours, case), **{name: (SIDES[name], case) for name in case.against}}


def _attention_sides(case: Case) -> dict[str, tuple[Maker, Case]]:
    """Ours alone: whole rows causal, documents apart, documents with bidirectional prefixes."""
    masked = SIDES["codesieve documents"]
    return {
        "causal": (SIDES["codesieve causal"], case),
        "documents": (masked, case),
        "prefix-LM": (masked, replace(case, objective="prefix-lm")),
    }


def synthetic_rows(config: TrainConfig, documents: int = 2000) -> Rows:
    """Rows of made-up documents, with all the sentinels an objective may need."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(900), 1.2, documents), 1, 50_000).astype(np.int64)
    ids = generator.zipf(1.2, int(lengths.sum())) % (config.vocab_size - FIRST_TOKEN) + FIRST_TOKEN
    store_table = pl.DataFrame(
        {
            "id": [hashlib.md5(str(number).encode()).hexdigest() for number in range(documents)],
            "stream": ["code"] * documents,
            "language": ["python"] * documents,
            "score": [None] * documents,
            "offset": np.cumsum(lengths) - lengths,
            "tokens": lengths,
            "bytes": lengths,
        },
        schema=SCHEMA,
    )
    store = TokenStore(Path(), store_table, ids.astype(np.uint32), config.vocab_size, "")
    return Rows(store, np.arange(documents), config, {}, 0, SENTINELS)


def _ratio(side: Mapping[str, Any], name: str) -> str:
    low, high = side[f"{name}_range"]
    return f"**{side[name]:.2f}** ({low:.2f}–{high:.2f})"


def _meta(config: TrainConfig) -> Decoder:
    with torch.device("meta"):
        return Decoder(config.model, config.vocab_size, config.sequence_length)


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
    names += ("micro_batch_tokens", "threads", "rounds", "steps", "attention_table")
    options = {name: getattr(arguments, name) for name in names}
    return Case(arguments.preset, arguments.preset, against=tuple(arguments.against), **options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="proxy-1m", help="name in configs/models, or a path")
    parser.add_argument("--against", nargs="*", default=[], choices=PEERS)
    parser.add_argument("--objective", default="causal", choices=list(OBJECTIVES))
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
    parser.add_argument("--attention-table", action="store_true", help="ours with causal, document and prefix masks")
    parser.add_argument("--gpu-suite", action="store_true", help="all cases that a GPU owes, as one Markdown table")
    parser.add_argument("--only", nargs="*", default=[], help="with --gpu-suite: these cases")
    parser.add_argument("--out", default="runs/gpu-suite.jsonl", help="with --gpu-suite: finished cases; kept if there")
    parser.add_argument("--case", choices=[case.name for case in SUITE], help="one case of the suite, in this process")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tables", action="store_true", help="the Markdown table alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
