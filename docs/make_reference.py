"""Writes docs/signals.md and docs/rules.md from the tables that the code itself uses: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from codesieve.curation.rules import load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.strict import CONFIGS

DOCS = Path(__file__).parent


def signals() -> str:
    """The column reference."""
    lines = [
        "# Columns of the annotated shards",
        "",
        "Made by `make docs` from the tables in `curation/`; `codesieve signals` prints the same.",
        "A signal measures; whether that speaks against a document is for the rules to say.",
    ]
    for title, table in (("Identity", IDENTITY), ("Signals", SIGNALS)):
        lines += ["", f"## {title}", ""]
        lines += ["| column | type | unit | range | meaning | source |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{s.name}` | {s.dtype} | {s.unit} | {s.range} | {s.meaning} | {s.source} |".replace("\n", " ")
            for s in table
        ]
    return "\n".join(lines) + "\n"


def rules() -> str:
    """Every shipped rule set."""
    columns = [column.name for column in (*IDENTITY, *SIGNALS)]
    lines = [
        "# Rules",
        "",
        "Made by `make docs` from `configs/rules/`. A rule that fires adds its name to the reasons.",
        "[The tutorial](tutorials/rules.md) tells which published rule is which predicate, and which cannot be one.",
    ]
    for path in sorted((CONFIGS / "rules").glob("*.yaml")):
        found = load_rules(path.stem, columns)
        lines += ["", f"## {found.name}", "", found.description.strip(), ""]
        lines += ["| rule | languages | fires | why, and what was corrected |", "|---|---|---|---|"]
        for rule in found.rules:
            languages = "all" if rule.languages is None else ", ".join(rule.languages)
            excepted = f" except {', '.join(rule.except_)}" if rule.except_ else ""
            fires = rule.fires.strip().replace("|", "\\|").replace("\n", " ")
            why = rule.why.strip() + (f" *Corrected:* {rule.corrected.strip()}" if rule.corrected else "")
            lines.append(f"| `{rule.name}` v{rule.version} | {languages}{excepted} | `{fires}` | {why} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write both; with --check only say whether they are up to date."""
    stale = []
    for name, text in (("signals.md", signals()), ("rules.md", rules())):
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"not up to date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
