"""From documents to trained models: tokenizer, token store, one model a seed.

`codesieve train` runs it on corpus shards; `experiment.py` takes the parts of it for the arms of a decision. What is
there and made from the same things is used again; a run that was cut short goes on from its last checkpoint. Under
torchrun all processes come through here, and the first of them makes the tokenizer and the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import xxhash

from .config import TrainJobConfig
from .curation.corpus import predicate, select
from .curation.shards import shard_paths
from .differences import changes
from .display import Display
from .files import mark_of, read_json, write_json, write_mark
from .processes import stop_requested
from .strict import ConfigError, fingerprint, nearest
from .train.config import TrainConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHOWN = ("tokens", "steps", "unique_documents", "final_loss", "parameters", "tokens_per_second", "wall_seconds")
SCORE = "quality_percentile"
DATA = "data.json"
"""What the tokenizer and the token store in a folder were made from."""

FOOTER_BYTES = 1 << 16


def train_job(job: TrainJobConfig, display: Display) -> list[dict[str, Any]]:
    """Train one model a seed on corpus shards: tokenizer, token store, models and a plot of their losses in `job.out`.

    Raises:
        ConfigError: if the shards are broken or lack a column.
        ValueError: if a model in `job.out` was made from something else.
        KeyboardInterrupt: at Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    from .report.loss_plot import plot_losses
    from .train.distributed import joined
    from .train.loop import train
    from .train.tokens import TokenStore

    corpora = (job.corpus,) if isinstance(job.corpus, str) else job.corpus
    frame = select(_corpus(corpora, job.streams), job.where)
    columns = predicate_columns([job.train], frame)
    out = Path(job.out)
    with joined() as world:
        if world.is_first:
            made_of = {
                "shards": fingerprint(_files(corpora)),
                "where": job.where,
                "streams": job.streams,
                "columns": columns,
                "tokenizer": _tokenizer_mark(job.train),
            }
            with _naming_damage(corpora):
                _make_data(job, frame, made_of, display)
        world.wait()
        store = TokenStore.open(out / "tokens")
        tokenizer_folder = out / "tokenizer"
        validation = _validation(job) if job.train.validate_tokens else None
        results = []
        with stop_requested() as stop:
            for seed in job.train.seeds:
                model = out / "models" / str(seed)
                with display.stage("train", f"seed {seed}, {job.train.tokens:,} tokens") as progress:
                    facts = train(
                        job.train,
                        store,
                        np.arange(store.documents.height),
                        job.weights,
                        seed,
                        tokenizer_folder,
                        model,
                        progress,
                        validation=validation,
                        stop=stop,
                    )
                if world.is_first:
                    plot_losses(model / "metrics.jsonl", model / "loss.png", facts["stages"])
                results.append({"model": str(model), **{key: facts[key] for key in SHOWN}})
    return results


def _make_data(job: TrainJobConfig, frame: pl.LazyFrame, made_of: Mapping[str, Any], display: Display) -> None:
    """`tokenizer` and `tokens` in `job.out`, unless they are there.

    Raises:
        ConfigError: if there are models of other data; nothing is touched then.
    """
    from .train.tokens import build_store

    out = Path(job.out)
    path, tokenizer_folder = out / DATA, out / "tokenizer"
    before = read_json(path) if path.is_file() else made_of
    if before != made_of and any((out / "models").glob("*/*")):
        different = "\n  ".join(changes(before, made_of))
        raise ConfigError(
            f"{out}: its models were trained on other data; choose another folder or remove this one. What differs:\n"
            f"  {different}"
        )
    write_json(path, dict(made_of))
    mark = fingerprint(made_of)
    tokenizer = tokenizer_for(job.train, frame, tokenizer_folder, mark, display)
    with display.stage("tokenize", f"vocabulary of {tokenizer.get_vocab_size():,}") as progress:
        build_store(
            stream_batches(frame, job.streams, made_of["columns"]),
            tokenizer,
            out / "tokens",
            fingerprint(mark, mark_of(tokenizer_folder)),
            fraction_of(lambda: _text_bytes(frame), progress),
        )


def tokenizer_for(config: TrainConfig, frame: pl.LazyFrame, folder: Path, mark: str, display: Display) -> Tokenizer:
    """The tokenizer of `config` in `folder`: one that is given, or one trained on the texts of `frame`.

    Args:
        mark: of everything that decides the texts; a tokenizer that carries it is used again.
    """
    from .train.tokenizer import copy_tokenizer, load_tokenizer, save_tokenizer, train_tokenizer

    given = _given_tokenizer(config)
    if given is not None:
        load_tokenizer(given)
        mark = fingerprint("given", _tokenizer_mark(config))
    if mark_of(folder) != mark:
        if given is not None:
            folder.mkdir(parents=True, exist_ok=True)
            copy_tokenizer(given, folder)
        else:
            with display.stage("tokenizer", f"byte-level BPE, {config.vocab_size:,} tokens"):
                save_tokenizer(train_tokenizer(sample_texts(frame), config.vocab_size), folder)
        write_mark(folder, mark)
    return load_tokenizer(folder)


def _given_tokenizer(config: TrainConfig) -> Path | None:
    return Path(config.tokenizer) if config.tokenizer else Path(config.init_from) if config.init_from else None


def _tokenizer_mark(config: TrainConfig) -> str:
    """What decides the tokenizer beside the texts: the size of one to be trained, the content of one that is given."""
    given = _given_tokenizer(config)
    if given is None:
        return f"vocabulary of {config.vocab_size}"
    path = given / "tokenizer.json"
    return xxhash.xxh3_128_hexdigest(path.read_bytes()) if path.is_file() else "missing"


def sample_texts(frame: pl.LazyFrame, most_bytes: int = 12_000_000) -> list[str]:
    """Texts to train a tokenizer on: each cut to 20,000 characters, in the order of their ids, up to `most_bytes`.

    An id is a hash, so its order is a random one that stays the same. Sizes are read before the texts, so that no more
    than the sample is held, however large the corpus is.
    """
    cut = frame.select("id", pl.col("text").str.head(20_000))
    sizes = cut.select("id", pl.col("text").str.len_bytes().alias("size")).collect(engine="streaming").sort("id")
    chosen = sizes.filter(pl.col("size").cum_sum() <= most_bytes).select("id")
    sample = cut.join(chosen.lazy(), on="id", how="semi").collect(engine="streaming")
    return sample.sort("id", "text")["text"].to_list()


def stream_batches(
    frame: pl.LazyFrame, streams: str = "source", columns: Sequence[str] = (), rows: int = 2_000
) -> Iterator[pl.DataFrame]:
    """The frame's rows as the token store takes them, in batches, without holding all texts at once."""
    names = frame.collect_schema().names()
    score = pl.col(SCORE) if SCORE in names else pl.lit(None, dtype=pl.Float32)
    kept = [name for name in columns if name not in {"id", "text", "stream", "language", "score", "bytes", "tokens"}]
    chosen = frame.select(
        "id", "text", pl.col(streams).alias("stream"), "language", score.cast(pl.Float32).alias("score"), *kept
    )
    yield from chosen.collect_batches(chunk_size=rows, maintain_order=True)


def fraction_of(total: Callable[[], float], progress: Callable[[float], None]) -> Callable[[float], None]:
    """Takes what was done since the last call, tells `progress` the fraction of `total` that is done.

    The total is asked for when the first part is done, so never where nothing is to do.
    """
    done = whole = 0.0

    def update(more: float) -> None:
        nonlocal done, whole
        whole = whole or max(1.0, total())
        done += more
        progress(min(1.0, done / whole))

    return update


def predicate_columns(configs: Sequence[TrainConfig], frame: pl.LazyFrame) -> list[str]:
    """Columns that the predicates of the stages read; the token store carries them.

    Raises:
        ConfigError: if a predicate is wrong or names an unknown column.
    """
    names = frame.collect_schema().names()
    used: set[str] = set()
    for stage in (stage for config in configs for stage in config.resolved_stages()):
        used.update(predicate(stage.where, names, place=f'stage "{stage.name}"').meta.root_names())
    return sorted(used)


def _text_bytes(frame: pl.LazyFrame) -> int:
    total = frame.select(pl.col("text").str.len_bytes().cast(pl.Int64).sum()).collect(engine="streaming").item()
    return int(total or 0)


def _corpus(corpora: Sequence[str], streams: str) -> pl.LazyFrame:
    """All shards of the corpora; a column that only some have is null in the others."""
    frames = []
    for corpus in corpora:
        shards = shard_paths(Path(corpus))
        if not shards:
            raise ConfigError(f"{corpus}: no Parquet shards here")
        frame = _opened(shards)
        names = frame.collect_schema().names()
        for column in ("id", "text", "language", streams):
            if column not in names:
                raise ConfigError(f'{corpus}: the shards have no column "{column}"{nearest(column, names)}')
        frames.append(frame)
    return pl.concat(frames, how="diagonal_relaxed") if len(frames) > 1 else frames[0]


def _opened(shards: Sequence[Path]) -> pl.LazyFrame:
    """The shards as one frame; a file that is no Parquet is named."""
    for path in shards:
        try:
            pl.read_parquet_schema(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ConfigError(f"{path}: not a Parquet file that can be read: {str(error).splitlines()[0]}") from error
    return pl.scan_parquet(list(shards))


@contextlib.contextmanager
def _naming_damage(corpora: Sequence[str]) -> Iterator[None]:
    """Say which shard is damaged inside: Polars says only that one is. Reads them all again, when it has happened."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        for path in (path for corpus in corpora for path in shard_paths(Path(corpus))):
            try:
                pl.read_parquet(path)
            except pl.exceptions.PolarsError as fault:
                why = str(fault).splitlines()[0]
                raise ValueError(f"{path}: the shard is damaged ({why}); write the corpus again") from error
        raise


def _files(corpora: Sequence[str]) -> list[list[Any]]:
    """What the shards are: name, size and a hash of the end, where Parquet keeps offsets and statistics of columns."""
    found = []
    for path in (path for corpus in corpora for path in shard_paths(Path(corpus))):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - FOOTER_BYTES))
            found.append([path.name, path.stat().st_size, xxhash.xxh3_128_hexdigest(file.read())])
    return found


def _validation(job: TrainJobConfig) -> pl.DataFrame:
    """Held-out documents: id, text, stream."""
    if not job.validation:
        raise ConfigError("train.validate_tokens needs `validation`: held-out documents as Parquet")
    path = Path(job.validation)
    shards = shard_paths(path) if path.is_dir() else [path]
    if not shards or not all(shard.is_file() for shard in shards):
        raise ConfigError(f"{path}: no Parquet file or folder of shards")
    frame = _opened(shards)
    names = frame.collect_schema().names()
    stream = "stream" if "stream" in names else job.streams
    for column in ("id", "text", stream):
        if column not in names:
            raise ConfigError(f'{path}: no column "{column}"')
    return frame.select("id", "text", pl.col(stream).alias("stream")).collect()
