"""What differs between two configurations, in words: for messages that refuse to mix them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two plain configs, one `key: old -> new` a line."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changes(before, after, f"{prefix}{key}.")
        elif isinstance(before, list) and isinstance(after, list) and _are_sections(before, after):
            pairs = zip(before, after, strict=True)
            lines += [line for n, (a, b) in enumerate(pairs) for line in changes(a, b, f"{prefix}{key}.{n}.")]
        elif before != after:
            lines.append(f"{prefix}{key}: {json.dumps(before)} -> {json.dumps(after)}")
    return lines


def _are_sections(before: list[Any], after: list[Any]) -> bool:
    """Whether both hold as many sections, so that one can be held against the other."""
    return len(before) == len(after) and all(isinstance(entry, dict) for entry in (*before, *after))
