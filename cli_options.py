"""Options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config value; repeatable.")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0 = one a core.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print machine-readable results.")]
