"""Values as rows and JSON can hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def valid(text: str) -> str:
    """Text without lone surrogates, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def plain(value: Any) -> Any:
    """A table's value as JSON can hold it: times as ISO text, bytes as hex, anything else unknown as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, float):
        return value if value - value == 0 else None  # infinities and NaN are not JSON
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)
