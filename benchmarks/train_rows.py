"""Documents for the benchmarks of training: lengths log-normal around 900 tokens, as in a corpus of source files.

What they hold does not matter to a model's speed, so tokens are drawn by Zipf's law. It matters to infilling between
characters, which encodes text anew around its cuts: there they are the tokens of Python's standard library, under a
tokenizer that is trained on it (some seconds), cut into documents of the same lengths.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
from codesieve.train.config import InfillObjective, TrainConfig
from codesieve.train.rows import Rows
from codesieve.train.sentinels import Sentinels
from codesieve.train.tokenizer import encode, train_tokenizer
from codesieve.train.tokens import SCHEMA, TokenStore
from tokenizers import Tokenizer

SENTINELS = Sentinels(0, 1, 2, 3, 4, 5, tuple(range(6, 106)), {"R": 106, "S": 107, "X": 108})
FIRST_TOKEN = 109
TEXT_CHARACTERS = 4_000_000
"""Of the standard library; documents that need more tokens than it has begin with it again."""


def made_up_rows(config: TrainConfig, documents: int = 2000) -> Rows:
    """Rows of `documents` documents, with all that the objectives of `config` need."""
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(900), 1.2, documents), 1, 50_000).astype(np.int64)
    count = int(lengths.sum())
    tokenizer, sentinels = None, SENTINELS
    if any(isinstance(each, InfillObjective) and each.split == "character" for each in config.objectives):
        tokenizer, text_ids = standard_library(config.vocab_size)
        ids, sentinels = np.resize(text_ids, count), Sentinels.of(tokenizer)
    else:
        ids = generator.zipf(1.2, count) % (config.vocab_size - FIRST_TOKEN) + FIRST_TOKEN
    table = pl.DataFrame(
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
    store = TokenStore(Path(), table, ids.astype(np.uint32), config.vocab_size, "")
    return Rows(store, np.arange(documents), config, {}, 0, sentinels, tokenizer)


@functools.lru_cache
def standard_library(vocab_size: int) -> tuple[Tokenizer, np.ndarray]:
    """A tokenizer trained on Python's standard library, and the ids of its text."""
    texts: list[str] = []
    for path in sorted(Path(json.__file__).parent.parent.glob("*/*.py")):
        if sum(map(len, texts)) < TEXT_CHARACTERS and path.parent.name != "site-packages":
            texts.append(path.read_text(encoding="utf-8", errors="ignore"))
    tokenizer = train_tokenizer(texts, vocab_size)
    return tokenizer, np.concatenate(encode(tokenizer, texts))
