"""What of a model's answer is executed: the function that the prompt began, a fenced block, or all of it.

Pure functions over text. Line ends are kept as the model wrote them, and nothing is counted in bytes.
"""

from __future__ import annotations

import re
from typing import Literal

Extract = Literal["function", "fence", "all"]

_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\n(?P<content>.*?)(?:(?P<close>^[ \t]*(?P=fence))|\Z)",
    re.DOTALL | re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.MULTILINE)


def extracted(answer: str, how: Extract, entry_point: str = "") -> str:
    """The part of an answer that is put into the program."""
    if how == "function":
        return function_part(answer)
    return fenced_part(answer, entry_point) if how == "fence" else answer


def function_part(completion: str) -> str:
    """The part of a base model's continuation that belongs to the function that the prompt began.

    It ends before the first line with code at column 0: the function is over there. Blank lines and comments do not
    end it, but are dropped from the end. What stands before the first line end continues the prompt's last line, and
    always belongs. So helpers that come after the function are lost, as they are with HumanEval's stop strings.
    """
    first, *rest = completion.split("\n")
    kept = [first]
    for line in rest:
        if line.strip() and not line[0].isspace() and not line.startswith("#"):
            break
        kept.append(line)
    while len(kept) > 1 and (not kept[-1].strip() or kept[-1].startswith("#")):
        kept.pop()
    return "\n".join(kept)


def fenced_part(answer: str, entry_point: str = "") -> str:
    """The first fenced block that names the entry point, else the first that holds anything.

    A block that is not closed goes to the end; but if its fence is bare and the code stands before it, then the prompt
    had opened the block that this fence closes. Without a block it is all: a base model knows no fences.
    """
    blocks = [block for block in _BLOCK.finditer(answer) if block["content"].strip()]
    named = re.compile(rf"\b{re.escape(entry_point)}\b")
    chosen = next((block for block in blocks if named.search(block["content"])), blocks[0] if blocks else None)
    if chosen is None:
        return str(_FENCE.split(answer, maxsplit=1)[0])
    before = answer[: chosen.start()]
    is_an_end = not chosen["info"].strip() and not chosen["close"] and chosen is blocks[0]
    if is_an_end and before.strip() and named.search(before):
        return before
    return chosen["content"]


def has_code(answer: str) -> bool:
    """Whether there is more than blank lines and Python comments."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in answer.splitlines())
