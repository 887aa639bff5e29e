"""Speed of evaluation: scoring against the bare forward pass, generation against transformers' `generate`.

    python benchmarks/score.py --preset proxy-1m --vocab-size 4096 [--json]

Scoring is all that `loglikelihood` and `rolling` cost: encoding, batches, the model, the nats. Against it stands the
bare forward pass of the same model over the same rows in the same batches, logits of every position included; target:
at least 0.90 of its tokens a second. Generation is greedy, over one batch, with answers that end at different places
(a stop text), against `generate` of transformers with the same prompts padded on the left, which goes on until the last
has ended; tokens are those of the answers. All sides take turns round by round in one process; speeds are medians, a
ratio is the median of the rounds' ratios. The model is random, the texts are this package's own source.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from codesieve.eval.backends import checkpoint
from codesieve.eval.backends.asking import rows_of_pair, rows_of_text, width
from codesieve.eval.backends.batching import Row, merged, plan
from codesieve.eval.backends.checkpoint import CheckpointBackend
from codesieve.eval.backends.network import OwnNetwork, TransformersNetwork
from codesieve.eval.backends.protocol import Continuation, Generation, Sampling
from codesieve.files import write_json
from codesieve.strict import parse
from codesieve.train.config import TrainConfig
from codesieve.train.model import Decoder
from codesieve.train.pretrained import save_model
from codesieve.train.tokenizer import save_tokenizer, train_tokenizer

PACKAGE = Path(checkpoint.__file__).parents[2]


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(report, indent=2, sort_keys=True))
        return
    print("".join(f"{name:12} {value}\n" for name, value in report.items() if name != "cases"))
    print(table(report["cases"]))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every case: tokens per second of both sides, and the ratio with its range."""
    rooms = ("train", "curation", "eval", "report")
    texts = [path.read_text(encoding="utf-8") for room in rooms for path in sorted((PACKAGE / room).rglob("*.py"))]
    model = make_model(arguments, texts, folder)
    cases: list[dict[str, Any]] = []
    parameters = 0
    for name in ("codesieve", "transformers"):
        if name == "codesieve":
            write_json(model / "training.json", {})
        else:
            (model / "training.json").unlink()
        backend = CheckpointBackend(model, arguments.device, threads=arguments.threads)
        network = backend.network
        assert isinstance(network, OwnNetwork | TransformersNetwork)
        parameters = sum(each.numel() for each in network.model.parameters())
        for case, (rows, ask) in _questions(backend, texts, arguments.items).items():
            batches = plan(rows, width, checkpoint.TOKENS_PER_BATCH[backend.device.type])
            tokens = sum(map(width, rows))
            sides = {"ours": ask, "bare": lambda network=network, batches=batches: _bare(network, batches)}
            found = _alternate(sides, arguments.rounds, backend)
            cases.append(_summary(f"{case} by {name}", tokens, found))
    for size in arguments.batch_sizes:
        cases.append(_generation(backend, texts, size, arguments))
    return {
        "model": f"{arguments.preset}, {parameters / 1e6:.1f} M parameters, vocabulary {arguments.vocab_size:,}",
        "device": torch.cuda.get_device_name() if backend.device.type == "cuda" else platform.machine(),
        "threads": arguments.threads,
        "torch": str(torch.__version__),
        "rounds": arguments.rounds,
        "cases": cases,
    }


def table(cases: Sequence[Mapping[str, Any]]) -> str:
    """Markdown for docs/performance.md."""
    head = ["what", "tokens/s", "other side", "ours / other (range)", "by processor time (range)"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case in cases:
        cells = [case["name"], f"{case['tokens_per_second']:,}", f"{case['other_tokens_per_second']:,}"]
        for name in ("ratio", "ratio_cpu"):
            low, high = case[f"{name}_range"]
            cells.append(f"**{case[name]:.2f}** ({low:.2f}–{high:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def make_model(arguments: argparse.Namespace, texts: Sequence[str], folder: Path) -> Path:
    """A random model with a tokenizer of its own, as training writes it."""
    config = parse(TrainConfig, {"model": arguments.preset, "vocab_size": arguments.vocab_size}, arguments.preset)
    save_tokenizer(train_tokenizer(texts[:80], arguments.vocab_size), folder / "tokenizer")
    model = Decoder(config.model, arguments.vocab_size, arguments.sequence_length)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)  # answers that vary, so that they end at different places
    save_model(model, folder / "tokenizer", folder / "model")
    return folder / "model"


def _questions(
    backend: CheckpointBackend, texts: Sequence[str], items: int
) -> dict[str, tuple[list[Row], Callable[[], object]]]:
    """Whole documents, and four choices behind each context; the rows that they need, and the call."""
    draw = random.Random(0)
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    documents = [text[:4000] for text in texts[:items]]
    pairs = []
    for number in range(items):
        text = texts[number % len(texts)]
        begin = draw.randrange(max(1, len(text) - 1200))
        context = text[begin : begin + draw.randrange(100, 1200)]
        pairs += [Continuation(context, "\n" + draw.choice(lines)) for _ in range(4)]
    room, start = backend.context_tokens, backend.start_token
    whole = [
        row
        for number, text in enumerate(documents)
        for row in rows_of_text(number, [start, *backend.encoder.text(text)], room)
    ]
    choices = [
        row
        for number, (context, text) in enumerate(backend.encoder.pairs(pairs))
        for row in rows_of_pair(number, context, text, room, False)[0]
    ]
    return {
        "documents": (merged(whole), lambda: backend.rolling(documents)),
        "choices": (merged(choices), lambda: backend.loglikelihood(pairs)),
    }


def _bare(network: OwnNetwork | TransformersNetwork, batches: Sequence[Sequence[Row]]) -> None:
    """The forward pass over padded rows, and nothing else."""
    with torch.inference_mode():
        for batch in batches:
            longest = max(map(width, batch))
            inputs = torch.tensor([[*row.inputs, *[0] * (longest - width(row))] for row in batch]).to(network.device)
            if isinstance(network, OwnNetwork):
                network.model(inputs)
            else:
                network.model(input_ids=inputs, use_cache=False)


def _generation(
    backend: CheckpointBackend, texts: Sequence[str], size: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Greedy answers to `size` prompts, ours and transformers'."""
    lines = [text.splitlines() for text in texts]
    prompts = ["\n".join(lines[number % len(lines)][: 4 + number % 9])[:600] for number in range(size)]
    requests = [Generation(prompt, str(number)) for number, prompt in enumerate(prompts)]
    sampling = Sampling(arguments.new_tokens, stop=(arguments.stop,))
    answers = backend.generate(requests, sampling)
    tokens = sum(each.tokens for each in answers if each)
    network = backend._transformers()
    encoded = [backend.encoder.prompt(prompt, 10**6)[0] for prompt in prompts]
    longest = max(map(len, encoded))
    inputs = torch.tensor([[0] * (longest - len(ids)) + ids for ids in encoded], device=backend.device)
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in encoded], device=backend.device)

    class Ended:
        """Per sequence, the way lm-evaluation-harness does: decode what is new, look for the text."""

        def __init__(self) -> None:
            self.over = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)

        def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            new = ids[:, max(longest, ids.shape[1] - 8) :].tolist()
            behind = backend.encoder.tokenizer.decode_batch(new, skip_special_tokens=False)
            self.over |= torch.tensor([arguments.stop in text for text in behind], device=ids.device)
            return self.over

    def theirs() -> None:
        with torch.inference_mode():
            network.model.generate(
                inputs,
                attention_mask=mask,
                max_new_tokens=arguments.new_tokens,
                do_sample=False,
                pad_token_id=0,
                stopping_criteria=[Ended()],
            )

    found = _alternate(
        {"ours": lambda: backend.generate(requests, sampling), "theirs": theirs}, arguments.rounds, backend
    )
    ended = sum(each.finish != "length" for each in answers if each)
    name = f"{size} answers, {ended} of them end before {arguments.new_tokens} tokens"
    return _summary(name, tokens, found)


def _alternate(
    sides: Mapping[str, Callable[[], object]], rounds: int, backend: CheckpointBackend
) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of each side in every round, after one round that does not count."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    before = torch.get_num_threads()
    torch.set_num_threads(backend.threads or before)
    for number in range(rounds + 1):
        for name, run in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if backend.device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    torch.set_num_threads(before)
    return seconds


def _summary(name: str, tokens: int, seconds: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    ours, other = seconds.values()
    summary: dict[str, Any] = {"name": name, "tokens": tokens}
    for clock, suffix in ((0, ""), (1, "_cpu")):
        ratios = [theirs[clock] / own[clock] for own, theirs in zip(ours, other, strict=True)]
        summary[f"tokens_per_second{suffix}"] = round(statistics.median(tokens / each[clock] for each in ours))
        summary[f"other_tokens_per_second{suffix}"] = round(statistics.median(tokens / each[clock] for each in other))
        summary[f"ratio{suffix}"] = round(statistics.median(ratios), 3)
        summary[f"ratio{suffix}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return summary


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="proxy-1m", help="name in configs/models, or a path")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--items", type=int, default=60, help="documents, and contexts with four choices each")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1, 16], help="of generation")
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--stop", default="e", help="text that ends an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
