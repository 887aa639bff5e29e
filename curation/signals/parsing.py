"""One parse that ends, and the ERROR nodes of its tree.

tree-sitter is near linear on real files, but quadratic in time and memory on hostile ones: 11 kB of `<!--<!--` keep
its Python grammar busy for 10 s, 20 kB of `a<a<a<` its Java grammar for 6 s and 1.3 GB, and a query over an ERROR node
with n bare tokens takes n² steps. So a parse has a budget of CPU time (0.7 s was the most for 1 MB of real code), and
`Errors.widest` tells when a query must not run. What no budget stops is the recovery at a text's end, in which
tree-sitter asks nobody: for that the whole measurement is contained (`apart`). The source is handed over as a view: the
callbacks cost nothing that can be measured, and the trees are the same. (The binding's progress callback for queries
crashes the process.)

ERROR nodes are found by descending only into nodes that contain one, which costs nothing in clean documents.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tree_sitter import Node, Parser, Point, Tree

MAX_PARSE_SECONDS = 5.0


@dataclass(frozen=True)
class Errors:
    """Outermost ERROR nodes and MISSING tokens of a tree. A MISSING token has no bytes; it counts as one."""

    count: int
    bytes: int
    largest: int
    widest: int
    """Most children of any ERROR node, nested ones too."""


def parse(parser: Parser, source: bytes, max_seconds: float = MAX_PARSE_SECONDS) -> Tree:
    """The tree of `source`.

    Raises:
        TimeoutError: if the parse takes more than `max_seconds` of this thread's CPU time.
    """
    view = memoryview(source)
    wall, cpu = time.monotonic() + max_seconds, time.thread_time() + max_seconds
    stopped = False

    def is_over() -> bool:
        nonlocal stopped
        # The wall clock is cheap to read; the CPU clock is asked only when that is over.
        stopped = stopped or (time.monotonic() > wall and time.thread_time() > cpu)
        return stopped

    def read(offset: int, _: Point) -> memoryview:
        return view[len(view) :] if is_over() else view[offset:]

    def progress(_: int, __: bool) -> bool:
        return is_over()

    tree: Tree | None = None
    try:
        tree = parser.parse(read, encoding="utf8", progress_callback=progress)
    except ValueError:  # the binding's word for a parse that was stopped
        if not stopped:
            raise
    if tree is None or stopped:
        parser.reset()
        raise TimeoutError(f"parse stopped after {max_seconds:g} s of CPU time, {len(source):,} bytes")
    return tree


def find_errors(root: Node) -> Errors:
    """The errors below `root`."""
    count = total = largest = widest = 0
    pending = [(root, False)] if root.has_error else []
    while pending:
        node, is_inside = pending.pop()
        if node.is_error:
            widest = max(widest, node.child_count)
        if (node.is_error or node.is_missing) and not is_inside:
            size = max(node.end_byte - node.start_byte, 1)
            count, total, largest, is_inside = count + 1, total + size, max(largest, size), True
        pending += [(child, is_inside) for child in node.children if child.has_error]
    return Errors(count, total, largest, widest)
