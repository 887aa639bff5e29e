"""Jupyter notebooks: JSON in, one script out, in which code and prose stand in their order.

jupytext writes the percent format: cells are separated by `# %%` in the comment style of the kernel's language, prose
and magics become comments, so the text parses as that language. Outputs, execution counts and metadata are dropped
before anything else. Price: 0.2 ms a cell, most of it jupytext's own, and 0.4 s once a process for the import.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

from ..languages import UNKNOWN
from .values import valid
from .vocabulary import language_named


class NotebookError(ValueError):
    """Not a notebook that can be read; the message says what is wrong with it."""


def notebook_text(raw: str) -> tuple[str, str, dict[str, Any]]:
    """The notebook as (text, language of its kernel, facts for `extra`).

    Raises:
        NotebookError: if it is not JSON, or not a notebook of format 3 or 4.
    """
    import jupytext
    import nbformat

    data = _parsed(raw)
    cells = _cells(data)
    kernel = _kernel(data)
    extension = _extensions().get(kernel, ".py")
    for cell in cells:
        cell["outputs"] = []
        cell.pop("attachments", None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ids that old notebooks lack
            notebook = nbformat.convert(nbformat.from_dict(data), 4)  # type: ignore[no-untyped-call]
            notebook.metadata = {
                "jupytext": {"notebook_metadata_filter": "-all", "cell_metadata_filter": "-all"},
                "kernelspec": {"name": kernel, "language": kernel, "display_name": kernel},
            }
            text = jupytext.writes(notebook, fmt={"extension": extension, "format_name": "percent"})
    except Exception as error:  # hostile JSON makes either library fail in its own way
        words = " ".join(str(error).split())[:200]
        raise NotebookError(f"{type(error).__name__}: {words}") from error
    facts = {"cells": len(cells), "code_cells": sum(cell.get("cell_type") == "code" for cell in cells)}
    return valid(text), language_named(kernel) or UNKNOWN, facts


def _parsed(raw: str) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"not valid JSON: {error}") from error
    if not isinstance(data, dict) or data.get("nbformat") not in (3, 4):
        raise NotebookError("not a notebook of format 3 or 4")
    data.setdefault("nbformat_minor", 0)
    if not isinstance(data.get("metadata"), dict):
        data["metadata"] = {}
    return data


def _cells(data: dict[str, Any]) -> list[dict[str, Any]]:
    """All cells, which format 3 keeps in worksheets."""
    holders = data.get("worksheets") if data["nbformat"] == 3 else [data]
    if not isinstance(holders, list):
        raise NotebookError("no worksheets")
    cells = [cell for holder in holders for cell in _listed(holder)]
    for number, cell in enumerate(cells, start=1):
        if not isinstance(cell, dict):
            raise NotebookError(f"cell {number} is not an object")
        if not isinstance(cell.get("metadata"), dict):
            cell["metadata"] = {}
        for field in ("source", "input"):
            source = cell.get(field)
            if isinstance(source, list) and all(isinstance(line, str) for line in source):
                cell[field] = "".join(source)
            elif source is not None and not isinstance(source, str):
                raise NotebookError(f"cell {number}: {field} is not text")
        if data["nbformat"] == 4:
            cell.setdefault("source", "")
    return cells


def _listed(holder: Any) -> list[Any]:
    cells = holder.get("cells") if isinstance(holder, dict) else None
    if not isinstance(cells, list):
        raise NotebookError("no list of cells")
    return cells


def _kernel(data: dict[str, Any]) -> str:
    """The kernel's language in lower case; a notebook that states none is Python."""
    metadata = data["metadata"]
    for section, field in (("kernelspec", "language"), ("language_info", "name")):
        stated = metadata.get(section)
        if isinstance(stated, dict) and isinstance(stated.get(field), str) and stated[field].strip():
            return str(stated[field]).strip().lower()
    return "python"


@cache
def _extensions() -> dict[str, str]:
    """Kernel language -> the extension by which jupytext knows its comment style."""
    from jupytext.languages import _SCRIPT_EXTENSIONS

    found: dict[str, str] = {}
    for extension, facts in _SCRIPT_EXTENSIONS.items():
        found.setdefault(str(facts["language"]).lower(), extension)
    return {**found, "c#": found["csharp"], "f#": found["fsharp"], "shell": found["bash"], "ir": found["r"]}
