"""The stages of a run as sequences of rows: who takes part, where each stage goes on, how often documents come.

Stages that select by the same `where` share one order of documents per stream, and each goes on where the one before
it stopped: (epoch, window, offset). A window that the join cuts is the first window of the next stage, from the cut on.
A stage with another `where` has an order of its own, unrelated to the others, so its documents come in other windows
than before. Building costs a sort of the documents, and for every stage that another one continues a plan of the
epochs it runs through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ..curation.corpus import predicate
from .config import CausalObjective, Objective, StageConfig, TrainConfig
from .hashing import document_hashes
from .mixture import check_weights, integer_shares, placed, simulated
from .order import Cursor, StageOrder, StreamOrder


@dataclass(frozen=True)
class Stage:
    """Rows `first` to `first + rows` of the run; `group` numbers its `where`; shares and orders are by stream."""

    name: str
    first: int
    rows: int
    group: int
    shares: dict[str, int]
    orders: dict[str, StageOrder]

    def counts(self) -> dict[str, int]:
        """Rows of each stream."""
        return placed(self.rows, self.shares)


def build_stages(
    documents: pl.DataFrame,
    streams: Sequence[str],
    config: TrainConfig,
    weights: Mapping[str, float],
    seed: int,
    objectives: Sequence[Objective],
    masks: int,
) -> list[Stage]:
    """The stages of `config`.

    Args:
        documents: `store.documents` with a column `row`, those that are selected and have tokens.
        streams: all that the store has.
        weights: of stages that have none. masks: how many mask tokens there are.
        objectives: from `all_objectives`.

    Raises:
        ValueError: for weights or a predicate that cannot be met, too few documents for one step, or more than
            `max_epochs`.
    """
    if config.simulate_tokens:
        documents = _simulated(documents, config, seed)
    configs, rows_per_step = config.resolved_stages(), config.step_tokens // config.sequence_length
    groups: dict[str, dict[str, StreamOrder]] = {}
    cursors: dict[tuple[str, str], Cursor] = {}
    stages: list[Stage] = []
    for number, (stage, steps) in enumerate(zip(configs, config.stage_steps(), strict=True)):
        if stage.where not in groups:
            chosen = documents.filter(predicate(stage.where, documents.columns, place=f'stage "{stage.name}"'))
            groups[stage.where] = _orders(chosen, seed, config.window_tokens, len(groups))
        present, given = groups[stage.where], stage.weights or weights
        check_weights(given, present, streams, stage.name)
        orders = {
            name: StageOrder(
                order,
                cursors.get((stage.where, name), Cursor()),
                config.sequence_length,
                objectives,
                _objective_weights(objectives, stage),
                masks,
            )
            for name, order in sorted(present.items())
            if not given or given.get(name)
        }
        _check_step(stage.name, orders.values(), config.step_tokens)
        shares = integer_shares({name: given.get(name) or part.order.epoch_tokens for name, part in orders.items()})
        first = stages[-1].first + stages[-1].rows if stages else 0
        group = list(groups).index(stage.where)
        stages.append(Stage(stage.name, first, steps * rows_per_step, group, shares, orders))
        if any(later.where == stage.where for later in configs[number + 1 :]):
            for name, rows in stages[-1].counts().items():
                cursors[stage.where, name] = orders[name].cursor(rows)
    if config.max_epochs:
        _check_epochs(stages, config.max_epochs)
    return stages


def all_objectives(config: TrainConfig) -> tuple[Objective, ...]:
    """Every objective of the run once, whatever its weight; causal first, because cut windows need it."""
    used = [objective for stage in config.resolved_stages() for objective in stage.objectives or ()]
    return tuple(dict.fromkeys([CausalObjective(), *map(_weightless, used)]))


def report(stages: Sequence[Stage], sequence_length: int) -> dict[str, Any]:
    """What the whole run reads. Tokens count positions, sentinels and padding included; epochs count raw tokens."""
    parts: list[dict[str, Any]] = []
    tokens: dict[str, int] = {}
    raw: dict[str, float] = {}
    for stage in stages:
        of_stream = {name: rows * sequence_length for name, rows in stage.counts().items()}
        epochs = {name: order.epochs(stage.counts()[name]) for name, order in stage.orders.items()}
        shares = {name: share / sum(stage.shares.values()) for name, share in stage.shares.items()}
        parts.append(
            {
                "name": stage.name,
                "tokens": stage.rows * sequence_length,
                "tokens_per_stream": of_stream,
                "epochs_per_stream": epochs,
                "shares": shares,
            }
        )
        for name, order in stage.orders.items():
            tokens[name] = tokens.get(name, 0) + of_stream[name]
            raw[name] = raw.get(name, 0) + epochs[name] * order.order.epoch_tokens
    sizes = {name: _sizes([stage.orders[name].order for stage in stages if name in stage.orders]) for name in raw}
    repeats = _repeats(stages)
    return {
        "stages": parts,
        "tokens_per_stream": dict(sorted(tokens.items())),
        "epochs_per_stream": {name: raw[name] / int(sizes[name].sum()) for name in sorted(raw)},
        "documents": sum(map(len, sizes.values())),
        "unique_documents": int((repeats > 0).sum()),
        "most_repeated": float(repeats.max()),
    }


def _sizes(orders: Sequence[StreamOrder]) -> np.ndarray:
    """Tokens an epoch of every document that is in any of the orders."""
    _, once = np.unique(np.concatenate([order.rows for order in orders]), return_index=True)
    sizes: np.ndarray = np.concatenate([order.sizes for order in orders])[once]
    return sizes


def _repeats(stages: Sequence[Stage]) -> np.ndarray:
    """How often a window of each document begins in these stages, by its row in the store."""
    ends = {
        (stage.group, name): (order, stage.counts()[name]) for stage in stages for name, order in stage.orders.items()
    }
    orders = [order.order for order, _ in ends.values()]
    counts = np.zeros(1 + max(int(order.rows.max()) for order in orders), dtype=np.int64)
    for order, rows in ends.values():
        counts[order.order.rows] += order.order.repeats(order.cursor(rows))
    return counts


def _check_epochs(stages: Sequence[Stage], most: float) -> None:
    """Refuse stages that repeat a stream, or a document of several `where`, more often than `max_epochs`."""
    for number, stage in enumerate(stages):
        repeats = _repeats(stages[: number + 1])
        for name, part in stage.orders.items():
            order = part.order
            epochs = order.epochs(part.cursor(stage.counts()[name]))
            most_of_one = int(repeats[order.rows].max())
            if epochs > most or most_of_one > math.ceil(most):
                raise ValueError(
                    f'stage "{stage.name}": source "{name}" is at {epochs:.2f} epochs by its end, and a document of '
                    f"it comes {most_of_one} times in the run so far: more than max_epochs {most:g}. Its documents "
                    f"({len(order.rows)}) have {order.epoch_tokens} tokens an epoch, at most window_tokens of each, so "
                    f"{int(most * order.epoch_tokens)} fit; give it less weight or more documents, shorten the run, or "
                    "raise max_epochs"
                )


def _check_step(stage: str, orders: Iterable[StageOrder], step_tokens: int) -> None:
    parts = [part.order for part in orders]
    tokens, count = sum(order.epoch_tokens for order in parts), sum(len(order.rows) for order in parts)
    if tokens < step_tokens:
        raise ValueError(
            f'stage "{stage}": its {count} documents have {tokens} tokens an epoch, fewer than one step of '
            f"{step_tokens}; select more documents or lower step_tokens"
        )


def _orders(documents: pl.DataFrame, seed: int, window_tokens: int, group: int) -> dict[str, StreamOrder]:
    orders = {}
    for (name,), part in documents.group_by("stream"):
        rows, tokens = part["row"].to_numpy(), part["tokens"].to_numpy()
        by_row = np.argsort(rows)
        hashes = document_hashes(part["id"].to_list())
        orders[str(name)] = StreamOrder(rows[by_row], hashes[by_row], tokens[by_row], seed, window_tokens, group)
    return orders


def _simulated(documents: pl.DataFrame, config: TrainConfig, seed: int) -> pl.DataFrame:
    """Of each stream the share that the run is of the one that it stands for."""
    share = config.tokens / (config.simulate_tokens or config.tokens)
    kept = []
    for _, part in documents.group_by("stream"):
        sizes = np.minimum(part["tokens"].to_numpy() + 1, config.window_tokens)
        kept.append(part[simulated(document_hashes(part["id"].to_list()), sizes, share, seed)])
    return pl.concat([documents.clear(), *kept])


def _objective_weights(objectives: Sequence[Objective], stage: StageConfig) -> list[float]:
    """Weight of each of the run's objectives in a stage."""
    given = stage.objectives or ()
    return [sum(other.weight for other in given if _weightless(other) == objective) for objective in objectives]


def _weightless(objective: Objective) -> Objective:
    return objective.model_copy(update={"weight": 1.0})
