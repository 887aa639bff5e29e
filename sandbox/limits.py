"""What a contained program may use before it is stopped.

CPU time decides, because it hardly depends on what else the machine does; wall time is only the backstop for programs
that wait, and counts only while they do (`clock.py`). Memory is the address space of each process, not of all together
(that needs a cgroup).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

WALL_FACTOR = 3.0
"""Wall limit as a multiple of the CPU limit, for programs that compute and wait by turns."""

_MOST = 2**50
"""The kernel's numbers end at 2**63; seconds become nanoseconds there."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one run. A program that reaches one gets the outcome in brackets.

    Attributes:
        cpu_seconds: user and system time of the program and of its children that have ended [timeout]. evalplus
            moved from 50 ms to at least 4 s, because its scores depended on the machine.
        wall_seconds: from start to end, less what the program did not take itself [timeout]; None is `WALL_FACTOR`
            times `cpu_seconds`.
        memory_bytes: address space of each process [memory]; a Python interpreter takes about 20 MiB of it.
        memory_counts: `address_space` counts all that is reserved, `data` what is private and writable; programs that
            reserve far more than they use (node, Go, Java) run only under `data`.
        processes: processes and threads together, where the host can count them for this run alone; else some more,
            see `process.OTHERS_MARGIN`.
        file_bytes: of one file that is written; at level 3 also of the whole work folder.
        output_bytes: printed to standard output, and likewise returned [output_flood].
        open_files: file descriptors of each process.
    """

    cpu_seconds: float = 4.0
    wall_seconds: float | None = None
    memory_bytes: int = 512 * 2**20
    memory_counts: Literal["address_space", "data"] = "address_space"
    processes: int = 16
    file_bytes: int = 16 * 2**20
    output_bytes: int = 8 * 2**20
    open_files: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str):
                if value not in {"address_space", "data"}:
                    raise ValueError(f"Limits: {field.name} must be address_space or data (got {value!r})")
            elif value is not None and not value > 0:
                raise ValueError(f"Limits: {field.name} must be greater than 0 (got {value!r})")
            elif value is not None and value > (_MOST if isinstance(value, int) else _MOST / 2**20):
                raise ValueError(f"Limits: {field.name} is larger than any machine can give (got {value!r})")

    @property
    def wall(self) -> float:
        """Seconds after which the program is stopped whatever it does."""
        return self.cpu_seconds * WALL_FACTOR if self.wall_seconds is None else self.wall_seconds


DEFAULT_LIMITS = Limits()
