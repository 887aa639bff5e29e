"""Training: lines of labelled tokens become a fastText model, the same bytes every time.

fastText is trained twice at once, each in a fresh child process with one thread, a fixed seed and `MALLOC_PERTURB_=255`
(glibc's malloc then returns zeros, which upstream forgets to write: issues 935 and 1061). The two models are compared;
a difference or a NaN is an error and not a model. Price: 6,000 documents of 4,000 characters take 9 s at 5
epochs, with both trainings on a core of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..config import ClassifierConfig
from ..files import TEMPORARY, replacing

POSITIVE, NEGATIVE = "__label__positive", "__label__negative"
MODEL_FILE = "model.bin"

CHILD = Path(__file__).parent / "child.py"


class TrainingError(RuntimeError):
    """fastText failed, or two trainings on the same lines gave different models."""


def train_model(lines: Iterable[str], config: ClassifierConfig, folder: Path) -> str:
    """Train on `lines` and write `<folder>/model.bin`; returns the SHA-256 of the file.

    Args:
        lines: `labelled` lines, in the order in which fastText shall see them.
        config: dimensions, epochs, learning rate, n-grams, buckets, seed.
        folder: where the model goes.

    Raises:
        TrainingError: fastText failed, or the two models differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as name:
        text = Path(name) / "train.txt"
        with text.open("w", encoding="utf-8") as handle:
            handle.writelines(f"{line}\n" for line in lines)
        outputs = [Path(name) / f"{attempt}.bin" for attempt in (1, 2)]
        _run_children(text, outputs, config)
        first, second = (hashlib.sha256(output.read_bytes()).hexdigest() for output in outputs)
        if first != second:
            raise TrainingError(
                f"fastText gave two models from the same lines ({first[:12]}, {second[:12]}); one thread and "
                f"MALLOC_PERTURB_ should prevent that, so this C library's malloc may ignore the latter"
            )
        with replacing(folder / MODEL_FILE) as temporary:
            outputs[0].replace(temporary)
    return first


def labelled(line: str, positive: bool) -> str:
    """A line of tokens with its label in front."""
    return f"{POSITIVE if positive else NEGATIVE} {line}"


def _run_children(text: Path, outputs: Iterable[Path], config: ClassifierConfig) -> None:
    parameters = {
        # Its generator (minstd_rand) takes 0 for 1, so seeds 0 and 1 would give one model.
        "seed": config.seed + 1,
        "dim": config.dim,
        "epoch": config.epoch,
        "lr": config.lr,
        "wordNgrams": config.word_ngrams,
        "bucket": config.bucket,
        "minCount": config.min_count,
        "loss": "softmax",
    }
    environment = {**os.environ, "MALLOC_PERTURB_": "255", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    children: list[subprocess.Popen[str]] = []
    try:
        for output in outputs:
            command = [sys.executable, "-P", str(CHILD), str(text), str(output), json.dumps(parameters)]
            children.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            )
        for child in children:
            _, errors = child.communicate()
            if child.returncode:
                reason = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {child.returncode}"
                raise TrainingError(f"fastText training failed: {reason}")
    finally:
        for child in children:
            child.kill()
            child.wait()
