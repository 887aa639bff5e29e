"""The command line: arguments in, tables or JSON out. All work is done in the rooms.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from . import __version__
from .cli_eval import eval_app
from .cli_options import AsJson, Set, Workers
from .cli_sandbox import sandbox_app
from .config import DecideJobConfig, RunConfig, TrainJobConfig, load_run
from .strict import ConfigError, override, parse, read_yaml, resolve
from .tables import show_comparison, show_decision, show_explanation, show_fields, show_rules, show_run, show_table


class Commands(TyperGroup):
    """The commands, with errors in words: a user's mistake exits with 2, a failure with 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what the user can mend is said without a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _fail(str(error), 2)
        except KeyboardInterrupt:
            _fail("interrupted; what was finished is kept: the same command continues", 130)
        except BrokenPipeError:
            raise
        except (ValueError, RuntimeError, OSError, FloatingPointError) as error:
            if isinstance(error, EXIT) or os.environ.get("CODESIEVE_TRACEBACK"):
                raise
            _fail(f"{_words(error)}\n(set CODESIEVE_TRACEBACK=1 to see where)", 1)
        except Exception as error:
            # Polars' own errors, such as a page of a shard that is damaged; they have no base class of Python's.
            if not type(error).__module__.startswith("polars") or os.environ.get("CODESIEVE_TRACEBACK"):
                raise
            _fail(f"{_words(error)}\n(set CODESIEVE_TRACEBACK=1 to see where)", 1)


EXIT = (typer.Exit, typer.Abort)
"""Ways of typer to end; they are RuntimeErrors."""

app = typer.Typer(
    name="codesieve",
    cls=Commands,
    help="Turn raw code into a training corpus, train models on it, and show which quality decisions paid.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
classifier_app = typer.Typer(help="Train, apply and describe quality classifiers.", no_args_is_help=True)
app.add_typer(classifier_app, name="classifier")
rules_app = typer.Typer(
    help="Rule sets: list, show, check, apply to a run, compare on a run.",
    epilog="Example: codesieve rules show stack-v2 --explain long_lines",
    no_args_is_help=True,
)
app.add_typer(rules_app, name="rules")
app.add_typer(eval_app, name="eval")
app.add_typer(sandbox_app, name="sandbox")

Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
RuleSetName = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A rule set: a name or a YAML file.")]


def main() -> None:
    """Entry point of the `codesieve` command."""
    signal.signal(signal.SIGTERM, _terminate)
    app()


@app.callback(invoke_without_command=True)
def version_option(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options that stand before a command."""
    if version:
        typer.echo(f"codesieve {__version__}")
        raise typer.Exit


@app.command(epilog="Example: codesieve run quickstart --set train.tokens=200000 --out runs/quickstart")
def run(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A recipe in configs/, or a YAML file.")],
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory; default runs/NAME.")] = None,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Do the whole loop of a recipe: annotate, classify, select, train, evaluate, decide, report."""
    from .display import Display
    from .workflow import run as do

    config = load_run(name, overrides or ())
    folder = out or Path("runs") / config.name
    summary = do(config, folder, Display(quiet=as_json), workers)
    show_run(summary, folder, as_json)


@app.command(epilog="Example: codesieve curate ~/src/monorepo release.tar.gz rows.jsonl.zst --out runs/monorepo")
def curate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Folders, git repositories (PATH@REVISION), archives, Parquet or JSONL tables, notebooks, URLs.",
        ),
    ],
    out: Out,
    where: Annotated[str | None, typer.Option(help="SQL predicate of the selection.")] = None,
    rules: Annotated[str | None, typer.Option(help="Rule set: a name or a YAML file.")] = None,
    gates: Annotated[bool, typer.Option(help="Skip the parse of documents that a cheap gate speaks against.")] = True,
    overrides: Set = None,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Measure every document in the paths, apply the rules, write the selected shards and a report."""
    from .curation.sources.paths import guess
    from .display import Display
    from .workflow import run as do

    data = read_yaml(resolve("curate", ""))
    display = Display(quiet=as_json)
    guesses = [guess(path) for path in paths]
    for note in (found.note for found in guesses if found.note):
        display.console.print(note, markup=False, soft_wrap=True)
    names = _named([found.stem for found in guesses])
    data["sources"] = [{"name": name, **found.fields} for name, found in zip(names, guesses, strict=True)]
    data["annotate"] = {**data.get("annotate", {}), "gates": gates, **({"rules": rules} if rules else {})}
    if where:
        data["selections"][0]["where"] = where
    config = parse(RunConfig, override(data, overrides or ()), where="curate")
    summary = do(config, out, display, workers)
    show_run(summary, out, as_json)


@app.command(epilog="Example: codesieve signals --json")
def signals(as_json: AsJson = False) -> None:
    """The column reference: every column of the annotated shards, with type, unit, range and meaning."""
    from .curation.schema import IDENTITY, SIGNALS

    rows = [
        {
            "column": s.name,
            "type": str(s.dtype),
            "unit": s.unit,
            "range": s.range,
            "meaning": s.meaning,
            "source": s.source,
        }
        for s in (*IDENTITY, *SIGNALS)
    ]
    show_table(rows, as_json, title="columns")


@app.command(
    epilog="""Example: codesieve select runs/monorepo --where "reason_count = 0 AND language = 'python'" --out clean"""
)
def select(
    run: RunFolder,
    where: Annotated[str, typer.Option(help="SQL predicate over annotated columns and layers.")],
    out: Annotated[str, typer.Option("--out", help="Folder to write, or a URL such as s3://bucket/folder.")],
    as_json: AsJson = False,
) -> None:
    """Write the documents of a run for which a predicate holds, as corpus shards with manifest and dataset card."""
    from .commands import selection_facts
    from .config import SelectionConfig
    from .curation.select import write_corpus
    from .display import Display

    name = out.rstrip("/").rpartition("/")[2]
    fields = {"name": name if name.strip(".") else "selected", "where": where}
    selection = parse(SelectionConfig, fields, where="select")
    display = Display(quiet=as_json)
    facts = selection_facts(run)
    with display.stage("corpus", where) as progress:
        manifest = write_corpus(run, selection, out, facts, progress)
    show_fields({key: value for key, value in manifest.items() if key not in {"files", "languages"}}, as_json, manifest)


@app.command(epilog="Example: codesieve train codegen2 --corpus corpora/clean --out runs/codegen2")
def train(
    config: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A name in configs/train, or a YAML file.")],
    corpus: Annotated[list[str] | None, typer.Option(help="Folder of Parquet shards; repeatable.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder: tokenizer, token store, models/<seed>/.")] = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Train one model a seed on corpus shards: tokenizer, token store, models that transformers loads.

    Ctrl-C and SIGTERM write a checkpoint; the same command goes on from it. All processes that torchrun starts
    (`torchrun --nproc-per-node 2 -m codesieve train ...`) make one run.
    """
    from .display import Display
    from .pretraining import train_job
    from .train.distributed import world

    path = resolve(config, "train")
    given = {"corpus": corpus, "out": out}
    data = {**read_yaml(path), **{key: value for key, value in given.items() if value}}
    job = parse(TrainJobConfig, override(data, overrides or ()), where=str(path))
    is_first = world().is_first
    rows = train_job(job, Display(quiet=as_json or not is_first))
    if is_first:
        show_table(rows, as_json, title=f"models in {job.out}")


@app.command(epilog="Example: codesieve decide decide.yaml")
def decide(
    config: Annotated[Path, typer.Argument(help="YAML: run, decide.")], overrides: Set = None, as_json: AsJson = False
) -> None:
    """Compare the arms of a finished run: paired differences with intervals, and a verdict in words."""
    from .commands import decide_again
    from .display import Display

    job = parse(DecideJobConfig, override(read_yaml(config), overrides or ()), where=str(config))
    record = decide_again(job, Display(quiet=as_json))
    if as_json:
        show_fields(record, True)
    else:
        show_decision(record)


@app.command(epilog="Example: codesieve report runs/quickstart")
def report(run: RunFolder) -> None:
    """Make the report page of a run anew: one self-contained HTML file."""
    from .report.page import write_report

    typer.echo(write_report(run))


@app.command(epilog="Example: codesieve explain runs/quickstart json/decoder.py")
def explain(
    run: RunFolder,
    document: Annotated[str, typer.Argument(metavar="PATH|ID", help="Path, ending of a path, or id of a document.")],
    as_json: AsJson = False,
) -> None:
    """Everything known about one document: signals, rules with the numbers that fired them, scores, selections."""
    from .commands import explain as do

    entries = do(run, document)
    if as_json:
        show_fields(entries, True)
        return
    for entry in entries:
        show_explanation(entry)


@app.command(epilog="Example: codesieve schema > codesieve.schema.json")
def schema(
    what: Annotated[str, typer.Argument(help="run, train, decide or rules.")] = "run",
) -> None:
    """JSON Schema of a config file, for editors."""
    from .curation.rules import RuleSet

    models: dict[str, type[BaseModel]] = {
        "run": RunConfig,
        "train": TrainJobConfig,
        "decide": DecideJobConfig,
        "rules": RuleSet,
    }
    if what not in models:
        raise ConfigError(f"schema: unknown {what!r}; known: {', '.join(models)}")
    typer.echo(json.dumps(models[what].model_json_schema(), indent=2))


@rules_app.command("list", epilog="Example: codesieve rules list")
def rules_list(as_json: AsJson = False) -> None:
    """The rule sets that come with codesieve."""
    from .commands import list_rule_sets

    show_table(list_rule_sets(), as_json, title="rule sets")


@rules_app.command("show", epilog="Example: codesieve rules show stack-v2 --explain long_lines")
def rules_show(
    name: RuleSetName = "codesieve",
    rule: Annotated[str | None, typer.Option("--explain", metavar="RULE", help="One rule in full.")] = None,
    as_json: AsJson = False,
) -> None:
    """The rules of a set, or one of them in full: predicate, why, and what was corrected."""
    from .commands import rules_in

    found = rules_in(name)
    if rule:
        one = found.rule(rule).model_dump(mode="json", by_alias=True, exclude_none=True)
        show_fields({**one, "languages": one.get("languages", "all")}, as_json)
    else:
        show_rules(found.rules, as_json, title=f"rule set {found.name}, hash {found.hash}")


@rules_app.command("check", epilog="Example: codesieve rules check my-rules.yaml")
def rules_check(name: RuleSetName = "codesieve", as_json: AsJson = False) -> None:
    """Every mistake in a set at once: columns, types, values, rules that can never fire; exits with 2 if any."""
    from .commands import check_rule_set

    rules, problems = check_rule_set(name)
    if as_json:
        show_fields(problems, True)
    elif not problems:
        typer.echo(f"rule set {rules.name}: {len(rules.rules)} rules, no problem; hash {rules.hash}")
    if problems:
        number = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        _fail("\n".join([number, *(problem["message"] for problem in problems)]), 2)


@rules_app.command("apply", epilog="Example: codesieve rules apply stack-v2 runs/monorepo")
def rules_apply(name: RuleSetName, run: RunFolder) -> None:
    """Find the reasons of a rule set against the documents of a run: a layer beside the run's own."""
    from .commands import apply_rule_set
    from .display import Display

    layer = apply_rule_set(run, name, Display())
    typer.echo(f"{run / 'layers' / layer.name}  {layer.reasons}, {layer.count}")


@rules_app.command("compare", epilog="Example: codesieve rules compare stack-v2 codesieve --run runs/monorepo")
def rules_compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A rule set: a name or a YAML file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    run: Annotated[Path, typer.Option("--run", help="A run directory.")],
    documents: Annotated[int, typer.Option(min=0, help="Documents to show on which they disagree.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What two rule sets remove from a run, alone and jointly, by rule and language, and where they disagree."""
    from .commands import compare_rule_sets
    from .display import Display

    show_comparison(compare_rule_sets(run, a, b, documents, Display(quiet=as_json)), as_json)


@classifier_app.command("train", epilog="Example: codesieve classifier train runs/quickstart --set max_documents=3000")
def classifier_train(
    run: RunFolder,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default RUN/classifiers/<name>.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a fastText quality classifier on the weak labels of an annotated run."""
    from .commands import train_classifier_of
    from .display import Display

    card = train_classifier_of(run, overrides or (), out, Display(quiet=as_json))
    show_fields(card, as_json)


@classifier_app.command(
    "score", epilog="Example: codesieve classifier score runs/new --model runs/quickstart/classifiers/quality"
)
def classifier_score(
    run: RunFolder,
    model: Annotated[Path, typer.Option(help="A classifier folder.")],
    workers: Workers = 0,
) -> None:
    """Score the documents of a run with a trained classifier, into its layers."""
    from .commands import score_with
    from .display import Display

    score_with(run, model, Display(), workers)
    typer.echo(f"{run / 'layers' / 'quality'}")


@classifier_app.command("card", epilog="Example: codesieve classifier card runs/quickstart/classifiers/quality")
def classifier_card(
    model: Annotated[Path, typer.Argument(help="A classifier folder.")], as_json: AsJson = False
) -> None:
    """What a classifier was trained on and how well it does, beside a length-only baseline."""
    path = model / ("card.json" if as_json else "README.md")
    if not path.exists():
        raise ConfigError(f"{model}: not a classifier folder (no {path.name})")
    typer.echo(path.read_text(encoding="utf-8"))


def _named(stems: Sequence[str]) -> list[str]:
    """A source name for each path: its last part, made unique."""
    named: list[str] = []
    for stem in stems:
        base = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in stem)
        base = base.lstrip("-._") or "source"
        name, number = base, 2
        while name in named:
            name, number = f"{base}-{number}", number + 1
        named.append(name)
    return named


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"codesieve: {message}", err=True)
    sys.exit(code)


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt
