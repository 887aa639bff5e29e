"""Small evaluations written by hand, in the form that `codesieve eval` writes them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codesieve.eval.store import items_frame, write_items
from codesieve.files import write_json

Row = dict[str, Any]


def write_evaluation(
    folder: Path,
    rows: Sequence[Row],
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """An evaluation folder; `tasks` holds the facts of each task, `fingerprint` is made up where it is not given."""
    write_items(folder, items_frame(rows))
    facts = {name: {"fingerprint": f"print-of-{name}", **each} for name, each in tasks.items()}
    evaluation = {
        "schema": 2,
        "model": model or str(folder),
        "config": {"temperature": 0.0, "attention": "auto", **(config or {})},
        "backend": {"dtype": "float32"},
        "tasks": facts,
        "suites": {},
        "metrics": {},
        "environment": {"codesieve": "0.1.0"},
        **more,
    }
    write_json(folder / "evaluation.json", evaluation)
    return folder


def problems(
    passed: Callable[[int, int], bool], items: int = 164, samples: int = 1, task: str = "humaneval", **more: Any
) -> list[Row]:
    """Answers to problems; `passed(item, sample)` says which are right."""
    return [
        {
            "task": task,
            "item": f"{task}/{item}",
            "sample": sample,
            "cluster": f"{task}/{item}",
            "stream": "problems",
            "language": "python",
            "score": float(passed(item, sample)),
            "outcome": "passed" if passed(item, sample) else "wrong",
            "prompt": f"def f{item}(x):\n",
            "answer": f"    return x + {item}\n",
            "sandbox_level": 3,
            "judge": "apart",
        }
        | more
        for item in range(items)
        for sample in range(samples)
    ]


def documents(nats: Callable[[int], float], items: int = 40, task: str = "heldout", stream: str = "text") -> list[Row]:
    """Likelihoods of held-out documents of four families."""
    return [
        {
            "task": task,
            "item": f"d{item:03d}",
            "cluster": f"family{item % 8}",
            "stream": stream,
            "language": "text" if stream == "text" else ("python", "c")[item % 2],
            "nats": nats(item),
            "bytes": 500 + 10 * item,
            "outcome": "scored",
        }
        for item in range(items)
    ]
