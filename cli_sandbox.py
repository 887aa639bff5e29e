"""`codesieve sandbox`: run code that nobody trusts, and say what this host can enforce."""

from __future__ import annotations

import sys
import unicodedata
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
    """What this host can enforce: level, means, what the self-test found, why not more, and what to do about it."""
    from .sandbox.run import describe

    show_fields(describe(), as_json)


@sandbox_app.command("run", epilog="Example: codesieve sandbox run program.py --cpu-seconds 10")
def sandbox_run(
    program: Annotated[Path, typer.Argument(metavar="FILE", help="A Python program.")],
    stdin: Annotated[Path | None, typer.Option(help="File that it reads as standard input.")] = None,
    cpu_seconds: Annotated[float, typer.Option(help="Processor time it may use.")] = 4.0,
    memory_mb: Annotated[int, typer.Option(help="Address space of each of its processes, in MiB.")] = 512,
    required_level: Annotated[int, typer.Option(min=1, max=3, help="Refuse to run below this level.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Run a program that nobody trusts: no network, no files of yours, limits on time, memory and output.

    Prints what it printed, on standard error what it wrote there and how it went. Exit code 0 if it ran to its end, 1
    if it did not. At level 1, which is not the default, it can read and write your files.
    """
    from .sandbox.limits import Limits
    from .sandbox.run import run_script

    limits = Limits(cpu_seconds=cpu_seconds, memory_bytes=memory_mb << 20)
    text = stdin.read_bytes() if stdin else b""
    ran = run_script(program.read_bytes(), text, limits, required_level, program.name)
    outcome = ran.outcome
    if as_json:
        show_fields({**asdict(outcome), "stderr": ran.stderr, "exit_status": ran.exit_status}, True)
    else:
        if sys.stdout.isatty():
            typer.echo(harmless(ran.stdout.decode("utf-8", "replace")), nl=False)
        else:
            sys.stdout.buffer.write(ran.stdout)
            sys.stdout.flush()
        typer.echo(harmless(ran.stderr) if sys.stderr.isatty() else ran.stderr, nl=False, err=True)
        what = f"{outcome.status}{': ' if outcome.detail else ''}{outcome.detail}"
        typer.echo(f"{what} ({outcome.cpu_seconds:.2f} s of processor time, level {outcome.level})", err=True)
    if outcome.status != "ok":
        raise typer.Exit(1)


def harmless(text: str) -> str:
    """Text that cannot steer a terminal: control characters but tabs and ends of lines are replaced."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text
    )
