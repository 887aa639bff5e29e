"""A task as it is asked: its configuration, items and examples, all read and checked (`load.py` makes it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .items import Item
from .schema import AnyTask


@dataclass(frozen=True, eq=False)
class Task:
    """A task as loaded; only the same object is equal.

    Attributes:
        items: none for tasks over held-out documents.
        shots: examples; some more than are shown, for items that are among them.
        facts: name of the file, sha256, verified (None: no hash is published), items, of (published count), license.
        calibration: items of the task's own, with references that have to pass before anything is scored.
    """

    config: AnyTask
    items: tuple[Item, ...]
    shots: tuple[Item, ...]
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    calibration: tuple[Item, ...] = ()

    @property
    def name(self) -> str:
        return self.config.name
