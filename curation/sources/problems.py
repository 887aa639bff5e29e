"""Synthetic problems: one line of JSONL in, the text of one document and its tests out.

A line holds `name`, `problem` (the statement), `solution` (Python), `entry_point` (the function that is called) and
`tests` (a list of `{"args": [..], "kwargs"?: {..}, "expected": ..}`, values as in `sandbox/values.py`). The text is
the statement as the module's docstring, then the solution, so that it is one valid module. Nothing is executed here;
`curation/synthetic.py` verifies. A field `planted` (the outcome that our own tests expect) is allowed and left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...sandbox.judge import parse_tests
from ...strict import nearest
from .documents import HEAD_BYTES, Document, document, skip
from .listing import Entry, Skip

REQUIRED = ("name", "problem", "solution", "entry_point", "tests")
OPTIONAL = ("planted",)


def problems_of(entry: Entry, data: bytes) -> Iterator[Document | Skip]:
    """One document a line; a line that holds none is a skip named by its number."""
    if b"\0" in data[:HEAD_BYTES]:
        yield skip(entry, "binary")
        return
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{entry.path}:{number}"
        try:
            problem = parse_problem(line, where)
        except ValueError as error:
            yield Skip(entry.source, where, f"bad_problem: {error}", len(line))
            continue
        path = f"{entry.path}#{problem['name']}"
        yield document(entry, problem["text"], path=path, language="python", kind="synthetic", extra=problem["extra"])


def parse_problem(line: str, where: str) -> dict[str, str]:
    """`name`, `text` and `extra` (JSON of name, entry_point and tests) of one line.

    Args:
        line: one line of the file.
        where: file and line number, for messages.

    Raises:
        ValueError: that names `where`, the field and what is wrong with it.
    """
    problem = _fields(line, where)
    for field in ("name", "problem", "solution", "entry_point"):
        if not isinstance(problem[field], str) or not problem[field].strip():
            raise ValueError(f'{where}: field "{field}" must be text, and not empty (got {_shown(problem[field])})')
    entry_point = problem["entry_point"]
    if not entry_point.isidentifier():
        raise ValueError(f'{where}: field "entry_point" must be the name of a function (got {_shown(entry_point)})')
    parse_tests(problem["tests"], where)
    extra = {field: problem[field] for field in ("name", "entry_point", "tests")}
    return {
        "name": problem["name"],
        "text": f"{_statement(problem['problem'])}\n{problem['solution'].rstrip()}\n",
        "extra": json.dumps(extra, sort_keys=True, ensure_ascii=False),
    }


def _fields(line: str, where: str) -> dict[str, Any]:
    try:
        problem = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(problem, dict):
        raise ValueError(f"{where}: expected an object (got {_shown(problem)})")
    missing = [field for field in REQUIRED if field not in problem]
    if missing:
        hint = nearest(missing[0], problem.keys() - set(REQUIRED))
        raise ValueError(f'{where}: field "{missing[0]}" is missing{hint}')
    unknown = sorted(problem.keys() - {*REQUIRED, *OPTIONAL})
    if unknown:
        known = ", ".join(REQUIRED)
        raise ValueError(f'{where}: unknown field "{unknown[0]}"{nearest(unknown[0], REQUIRED)}; known: {known}')
    return problem


def _statement(problem: str) -> str:
    """The statement as a docstring; as comments where a docstring would need escapes."""
    text = problem.strip()
    if '"""' in text or "\\" in text or text.endswith('"'):
        return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
    return f'"""{text}"""\n'


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
