"""Peak memory of a worker on hostile inputs: each in a fresh process.

    python benchmarks/memory.py [--only one_line nested …] [--megabytes 50] [--no-gates] [--json]

Inputs: one line of 50 MB, 50 MB of short lines, of one word, of different words, of comments, of characters beyond
ASCII, a JSON table; brackets nested 10,000 deep; up to 1 MB of what grammars are slowest at; a sample of 64 MB in
ordinary files. The whole path is taken: read from disk by the reader of annotation, all signals, then rules and score
as layers. Printed is the most resident memory that the process ever had; interpreter, libraries, grammars and model are
in it, and `nothing` shows how much that is.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from codesieve.benchmarks.annotate import train_on
from codesieve.benchmarks.sample import default_paths, sample
from codesieve.classifiers.step import ScoreStep
from codesieve.config import AnnotateConfig, SourceConfig
from codesieve.curation.annotate import annotate
from codesieve.curation.layers import stage_layer
from codesieve.curation.rules import RulesStep, load_rules
from codesieve.curation.schema import IDENTITY, SIGNALS
from codesieve.curation.shards import row_count, shard_paths

ORDINARY = "ordinary"
ORDINARY_BYTES = 64_000_000

INPUTS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "nothing": ("a.py", lambda size: b"x = 1\n"),
    "one_line": ("a.js", lambda size: b"var a=" + b"[1,'b',{c:2}]+" * (size // 14)),
    "one_word": ("a.py", lambda size: b"x" * size),
    "lines": ("a.py", lambda size: b"".join(b"value_%d = call(%d)\n" % (i, i) for i in range(size // 28))),
    "short_lines": ("a.py", lambda size: b"x\n" * (size // 2)),
    "different_words": ("a.txt", lambda size: b" ".join(b"%x" % (i * 2654435761 % 2**32) for i in range(size // 9))),
    "comments": ("a.py", lambda size: b"# a comment with several words in it\n" * (size // 37)),
    "unicode": ("a.md", lambda size: "äöü 漢字 😀\n".encode() * (size // 20)),
    "base64": ("a.py", lambda size: b"data = '" + b"QUJDREVGR0hJSktMTU5PUA" * (size // 22) + b"'\n"),
    "json": ("a.json", lambda size: b"[" + b'{"a": [1, 2, {"b": null}]},\n' * (size // 28) + b"0]\n"),
    "nested": ("a.py", lambda size: b"x = " + b"(" * 10_000 + b")" * 10_000 + b"\n"),
    "nested_json": ("a.json", lambda size: b"[" * 10_000 + b"]" * 10_000 + b"\n"),
    "generics": ("a.java", lambda size: b"a<" * 10_000),
    "many_generics": ("a.java", lambda size: b"a<" * 490_000),
    "comment_starts": ("a.py", lambda size: b"<!--" * 245_000),
    "parsed": ("a.py", lambda size: b"".join(b"value_%d = call(%d)\n" % (i, i) for i in range(999_000 // 28))),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*INPUTS, ORDINARY])
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--no-gates", action="store_true", help="files over 1 MB are parsed as well")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(annotate_here(*arguments.child, gates=not arguments.no_gates)))
        return
    results = {}
    with tempfile.TemporaryDirectory(prefix="codesieve-memory-") as name:
        folder = Path(name)
        model = train_on(sample(default_paths(), 4_000_000), folder / "model")
        for what in arguments.only or [*INPUTS, ORDINARY]:
            write_input(what, folder / what, int(arguments.megabytes * 1e6))
            command = [sys.executable, __file__, "--child", str(folder / what), str(folder / f"{what}-run"), str(model)]
            command += ["--no-gates"] if arguments.no_gates else []
            answer = subprocess.run(command, check=False, capture_output=True, text=True)
            failed = {"error": (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1:]}
            results[what] = failed if answer.returncode else json.loads(answer.stdout.splitlines()[-1])
            if not arguments.json:
                print(f"{what:16} {results[what]}", flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))


def write_input(what: str, folder: Path, size: int) -> None:
    """The files of one input."""
    folder.mkdir(parents=True)
    if what != ORDINARY:
        name, make = INPUTS[what]
        (folder / name).write_bytes(make(size))
        return
    frame = sample(default_paths(), ORDINARY_BYTES, parsed_only=False)
    for index, (path, text) in enumerate(frame.select("path", "text").iter_rows()):
        (folder / f"{index}-{Path(path).name[-80:]}").write_text(text, encoding="utf-8")


def annotate_here(source: Path, run: Path, model: Path, *, gates: bool = True) -> dict[str, float]:
    """Annotate in this process, add the layers of rules and score, and say what that took."""
    started = time.monotonic()
    config = AnnotateConfig(gates=gates, max_parse_bytes=1_000_000 if gates else 10**9)
    annotate(run, [SourceConfig(name="hostile", type="directory", path=str(source))], config, workers=1)
    rules = load_rules(config.rules, [column.name for column in (*IDENTITY, *SIGNALS)])
    stage_layer(run, "rules", [RulesStep(rules)], {})
    stage_layer(run, "quality", [ScoreStep(model)], {})
    return {
        "peak_gb": round(peak_bytes() / 1e9, 3),
        "seconds": round(time.monotonic() - started, 1),
        "documents": sum(map(row_count, shard_paths(run / "annotated"))),
    }


def peak_bytes() -> int:
    """The most resident memory of this process or of a child that measured syntax, what they share included.

    Of this process `getrusage` would count what its own parent had when it forked.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, "no VmHWM in /proc/self/status: this measures on Linux only"
    return max(int(found.group(1)), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


if __name__ == "__main__":
    main()
