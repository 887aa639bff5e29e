"""Results on standard output: tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def show_run(summary: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        show_fields(summary, True)
        return
    rows = [
        {"": "files", "documents": summary["files_in"], "MB": summary["bytes_in"] / 1e6},
        *({"": f"skipped: {reason}", "documents": n, "MB": None} for reason, n in summary["documents_skipped"].items()),
        {"": "annotated", "documents": summary["documents_annotated"], "MB": summary["bytes_annotated"] / 1e6},
        *(
            {"": f"reason: {row['reason']}", "documents": row["documents"], "MB": row["bytes"] / 1e6,
             "alone": row["documents_alone"]}
            for row in summary["reasons"]
        ),
        *(
            {"": f"selected: {row['selection']}", "documents": row["documents"], "MB": row["bytes"] / 1e6}
            for row in summary["selections"]
        ),
    ]  # fmt: skip
    show_table(rows, False, title=f"{summary['name']}: the funnel")
    if summary.get("decision"):
        show_decision(summary["decision"])
    seconds = sum(summary["wall_seconds"].values())
    typer.echo(f"corpus  {folder / 'corpus' / summary['selection']}")
    typer.echo(f"report  {folder / 'report.html'}")
    typer.echo(f"done in {seconds:.0f} s")


def show_decision(record: Mapping[str, Any]) -> None:
    """The decision as a table: a lower mean is better, differences with their simultaneous intervals."""
    from .eval.decisions.record import table

    rows = [
        {
            "arm": row["arm"],
            "kept %": f"{row['keep_percent']:.1f}",
            record["metric"]["unit"]: f"{row['mean']:.4f}",
            f"Δ {record['baseline']}": _interval(row, "against_baseline"),
            "Δ random drop": _interval(row, "against_control"),
            "verdict": row["verdict"],
            "reason": row["reason"],
        }
        for row in table(dict(record))
    ]
    show_table(rows, False, title=record["question"])
    typer.echo(record["conclusion"])


def show_rules(rules: Sequence[Any], as_json: bool, title: str) -> None:
    """The rules of a set, a row each."""
    rows = [
        {
            "rule": rule.name,
            "version": rule.version,
            "languages": "all" if rule.languages is None else ", ".join(rule.languages),
            "except": ", ".join(rule.except_),
            "fires": rule.fires,
            "corrected": rule.corrected is not None,
        }
        for rule in rules
    ]
    show_table(rows, as_json, title)


def show_comparison(found: Mapping[str, Any], as_json: bool) -> None:
    """Two rule sets on one run: totals, the 2×2 table, rules, languages, and documents on which they disagree."""
    if as_json:
        show_fields(found, True)
        return
    a, b = (each["name"] for each in found["sets"])
    totals = [
        {
            "set": each["name"],
            "rules": each["rules"],
            "kept": each["documents_kept"],
            "kept MB": each["bytes_kept"] / 1e6,
            "removed": each["documents_removed"],
            "removed MB": each["bytes_removed"] / 1e6,
        }
        for each in found["sets"]
    ]
    show_table(totals, False, title=f"{found['documents']:,} documents, {found['bytes'] / 1e6:,.1f} MB")
    words = {"both_keep": "both keep", "only_a_removes": f"only {a} removes", "only_b_removes": f"only {b} removes",
             "both_remove": "both remove"}  # fmt: skip
    agreement = found["agreement"]
    table = [
        {"": word, "documents": agreement["documents"][key], "MB": agreement["bytes"][key] / 1e6}
        for key, word in words.items()
    ]
    show_table(table, False, title="agreement")
    for name, key in (("Cohen's kappa", "kappa"), ("Jaccard of what is removed", "jaccard")):
        values = [agreement[f"{key}_{unit}"] for unit in ("documents", "bytes")]
        typer.echo(f"{name}: " + ", ".join("–" if value is None else f"{value:.3f}" for value in values)
                   + " (documents, bytes)")  # fmt: skip
    rules = [
        {
            "set": row["set"],
            "rule": row["rule"],
            "documents": row["documents"],
            "alone": row["documents_alone"],
            "other set too": row["documents_also_other_set"],
            "MB": row["bytes"] / 1e6,
            "alone MB": row["bytes_alone"] / 1e6,
        }
        for row in found["rules"]
        if row["documents"]
    ]
    show_table(rules, False, title="rules that fire")
    if quiet := [f"{row['set']} {row['rule']}" for row in found["rules"] if not row["documents"]]:
        typer.echo(f"fired on nothing: {', '.join(quiet)}")
    languages = [
        {
            "language": row["language"],
            "documents": row["documents"],
            f"{a} removes": row["documents_removed_a"],
            f"{b} removes": row["documents_removed_b"],
            "MB": row["bytes"] / 1e6,
            f"{a} removes MB": row["bytes_removed_a"] / 1e6,
            f"{b} removes MB": row["bytes_removed_b"] / 1e6,
        }
        for row in found["languages"]
    ]
    show_table(languages, False, title="languages")
    apart = [
        {
            "removed by": a if row["removed_by"] == "a" else b,
            "path": row["path"],
            "language": row["language"],
            "bytes": row["size_bytes"],
            "reasons": ", ".join(row[f"reasons_{row['removed_by']}"]),
        }
        for row in found["disagreements"]
    ]
    show_table(apart, False, title="documents on which they disagree")
    typer.echo(found["written"])


def _interval(row: Mapping[str, Any], key: str) -> str:
    value, low, high = row[key], row[f"{key}_low"], row[f"{key}_high"]
    if value is None:
        return ""
    return f"{value:+.4f}" if low is None else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def show_table(rows: Sequence[Mapping[str, Any]], as_json: bool, title: str = "") -> None:
    if as_json:
        show_fields(rows, True)
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    _console().print(table, markup=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def show_fields(data: Any, as_json: bool, full: Any = None) -> None:
    if as_json:
        typer.echo(json.dumps(data if full is None else full, indent=2, ensure_ascii=False, default=str))
        return
    for key, value in data.items():
        typer.echo(f"{key}: {value if not isinstance(value, dict | list) else json.dumps(value, default=str)}")


def show_explanation(entry: Mapping[str, Any]) -> None:
    if "skipped" in entry:
        skip = entry["skipped"]
        typer.echo(f"{skip['path']}: not a document: {skip['reason']} (source {skip['source']})")
        return
    typer.echo(f"{entry['identity']['path']}  ({entry['identity']['id']})")
    for part in ("identity", "signals"):
        show_table([{"column": k, "value": _cell(v)} for k, v in entry[part].items()], False, title=part)
    for error in entry["step_errors"] or ():
        typer.echo(f"step error: {error}")
    for reason in entry["reasons"]:
        numbers = ", ".join(f"{key} = {value}" for key, value in reason["numbers"].items())
        typer.echo(f"reason {reason['rule']}: {reason['fires']}  [{numbers}]  {reason['why']}")
    if not entry["reasons"]:
        typer.echo("no rule fired")
    for layer, values in entry["layers"].items():
        typer.echo(f"{layer}: " + ", ".join(f"{key} = {value}" for key, value in values.items()))
    typer.echo(
        "selections: " + ", ".join(f"{name} {'yes' if yes else 'no'}" for name, yes in entry["selections"].items())
    )


def _console() -> Console:
    """Wide when it is not a terminal, so that nothing is cut in a log."""
    return Console() if sys.stdout.isatty() else Console(width=160)
