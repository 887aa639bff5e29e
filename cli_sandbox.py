"""`codesieve sandbox`: run code that nobody trusts, and say what this host can enforce."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .cli_options import AsJson
from .tables import show_fields

sandbox_app = typer.Typer(
    help="Run code that nobody trusts; say what this host can enforce.",
    epilog="Example: codesieve sandbox run program.py",
    no_args_is_help=True,
)


@sandbox_app.command("doctor", epilog="Example: codesieve sandbox doctor --json")
def sandbox_doctor(as_json: AsJson = False) -> None:
    """What this host can enforce: level, means, what the self-test found, and why no higher level."""
    from .sandbox.run import describe

    show_fields(describe(), as_json)


@sandbox_app.command("run", epilog="Example: codesieve sandbox run program.py --cpu-seconds 10")
def sandbox_run(
    program: Annotated[Path, typer.Argument(metavar="FILE", help="A Python program.")],
    stdin: Annotated[Path | None, typer.Option(help="File that it reads as standard input.")] = None,
    cpu_seconds: Annotated[float, typer.Option(help="Processor time it may use.")] = 4.0,
    memory_mb: Annotated[int, typer.Option(help="Address space of each of its processes, in MiB.")] = 512,
    required_level: Annotated[int, typer.Option(min=1, max=3, help="Refuse to run below this level.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a program that nobody trusts: no network, no files of yours, limits on time, memory and output.

    Prints what it printed, and how it went on standard error. Exit code 0 if it ran to its end, 1 if it did not.
    """
    from .sandbox.limits import Limits
    from .sandbox.run import run_program

    text = stdin.read_text(encoding="utf-8") if stdin else ""
    limits = Limits(cpu_seconds=cpu_seconds, memory_bytes=memory_mb << 20)
    outcome = run_program(program.read_text(encoding="utf-8"), text, limits, required_level)
    if as_json:
        show_fields(asdict(outcome), True)
    else:
        typer.echo(outcome.stdout, nl=False)
        what = f"{outcome.status}{': ' if outcome.detail else ''}{outcome.detail}"
        typer.echo(f"{what} ({outcome.cpu_seconds:.2f} s of processor time, level {outcome.level})", err=True)
    if outcome.status != "ok":
        raise typer.Exit(1)
