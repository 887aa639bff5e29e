"""A task for lm-evaluation-harness: a YAML and a JSONL, so that a score can be checked with another program.

Prompts are rendered here, examples included, so the harness has nothing to template; its columns are named in the YAML
and taken as they are. Choices are compared by the same sums of likelihoods. What it would compute differently is
refused, or said in the YAML: its PMI (after an empty context), the first of several patterns that hits, white space
in generated answers. Written for its version 0.4.13; run offline with HF_DATASETS_OFFLINE=1 and

    lm-eval run --model hf --model_args pretrained=MODEL --include_path FOLDER --tasks codesieve-TASK
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..strict import ConfigError
from .tasks.prompts import context, continuation, gold
from .tasks.schema import ChoiceTask, GoldTask, MatchTask
from .tasks.task import Task

Row = dict[str, Any]

PREFIX = "codesieve-"
"""Of the exported name: the harness has tasks of most of these names itself, which ask differently."""

ARTICLES = r"(?i)\b(?:a|an|the)\b"

METRICS = {"characters": "acc_norm", "bytes": "acc_bytes"}


def export_lm_eval(task: Task, folder: Path) -> list[Path]:
    """Write the task to `folder`: the YAML first, then the JSONL.

    The YAML holds the absolute path of the JSONL, since the harness looks for it from where it is started.

    Raises:
        ConfigError: if the harness cannot compute the same; with the reason.
    """
    config = task.config
    if isinstance(config, ChoiceTask):
        rows, settings, notes = _choice(task, config)
    elif isinstance(config, MatchTask):
        rows, settings, notes = _match(task, config)
    elif isinstance(config, GoldTask):
        rows, settings, notes = _gold(task)
    else:
        raise ConfigError(f'task "{task.name}" cannot be exported: {_REFUSED[config.kind]}')
    name = PREFIX + task.name
    data = (folder / f"{name}.jsonl").resolve()
    head = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "num_fewshot": 0,
    }
    metadata = {"version": float(config.version), "codesieve_fingerprint": task.fingerprint, "items": len(rows)}
    text = yaml.safe_dump({**head, **settings, "metadata": metadata}, sort_keys=False, allow_unicode=True, width=120)
    comment = "".join(f"# {line}\n" for line in (f"{task.name}, as codesieve asks it. {config.license}", *notes))
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.yaml", data
    _write(paths[1], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _write(paths[0], comment + text)
    return list(paths)


def _choice(task: Task, config: ChoiceTask) -> tuple[list[Row], Row, list[str]]:
    rows = []
    in_context = "{choice}" in config.prompt
    several = False
    for item in task.items:
        choices = item.fields["choices"]
        contexts = [context(task, item, choice) for choice in choices]
        texts = [continuation(task, item, choice) for choice in choices]
        right = gold(item)
        several |= len(right) > 1
        row: Row = {"id": item.id}
        if in_context:
            if len(set(texts)) > 1:
                raise ConfigError(
                    f'task "{task.name}" cannot be exported: the choice is in the prompt and in what is scored, '
                    "and the harness has it in one of them"
                )
            row |= {"gold": right[0], "contexts": contexts, "target": texts[0]}
        else:
            row |= {"query": contexts[0], "choices": texts, "gold": right if len(right) > 1 else right[0]}
        rows.append(row)
    if in_context:
        if several:
            raise ConfigError(f'task "{task.name}" cannot be exported: several choices in the prompt are right')
        columns = {"doc_to_text": "gold", "doc_to_choice": "contexts", "doc_to_target": "target"}
        return rows, _multiple_choice(columns, "", ["acc"]), []
    if several:
        for row in rows:
            row["gold"] = row["gold"] if isinstance(row["gold"], list) else [row["gold"]]
    # The harness counts a choice's length without the delimiter, as codesieve does without the template around it.
    delimiter = " " if all(text.startswith(" ") for row in rows for text in row["choices"]) else ""
    for row in rows:
        row["choices"] = [text.removeprefix(delimiter) for text in row["choices"]]
    same_length = all(
        row["choices"] == list(item.fields["choices"]) for row, item in zip(rows, task.items, strict=True)
    )
    metrics = ["acc", *(METRICS.values() if same_length else ())]
    columns = {"doc_to_text": "query", "doc_to_choice": "choices", "doc_to_target": "gold"}
    stands = METRICS.get(config.metric, "acc") if config.metric in ("raw", *METRICS) else None
    notes = [f"codesieve's accuracy of this task is {stands or 'by ' + config.metric + ', which the harness has not'}."]
    return rows, _multiple_choice(columns, delimiter, metrics), notes


def _multiple_choice(columns: Mapping[str, str], delimiter: str, metrics: list[str]) -> Row:
    return {
        "output_type": "multiple_choice",
        **columns,
        "target_delimiter": delimiter,
        "metric_list": [_mean(name) for name in metrics],
    }


def _match(task: Task, config: MatchTask) -> tuple[list[Row], Row, list[str]]:
    if config.metric != "exact_match":
        raise ConfigError(
            f'task "{task.name}" cannot be exported: the harness has no {config.metric} of generated words that is '
            "there without network"
        )
    rows = [
        {"id": item.id, "query": context(task, item), "answers": list(item.fields["answers"])} for item in task.items
    ]
    ignored = []
    if "number" in config.normalise:
        ignored += [",", r"[$€£%]", r"\.0*$"]
    if "articles" in config.normalise:
        ignored.append(ARTICLES)
    notes = []
    if "whitespace" in config.normalise:
        ignored.append(r"\s+")
        notes.append("White space is taken out of answers, where codesieve makes it single.")
    pipelines: list[tuple[str, str | None]] = [("regex", pattern) for pattern in config.extract]
    pipelines = pipelines or [("whole", None)]
    if len(pipelines) > 1:
        notes.append("codesieve takes the first of these filters that hits; the harness reports each by itself.")
    filters = []
    for number, (kind, pattern) in enumerate(pipelines, start=1):
        steps: list[Row] = [{"function": "take_first"}]
        if pattern is not None:
            steps.insert(0, {"function": "regex", "regex_pattern": pattern, "group_select": -1})
        filters.append({"name": f"{kind}-{number}" if len(pipelines) > 1 else kind, "filter": steps})
    settings = {
        "output_type": "generate_until",
        "doc_to_text": "query",
        "doc_to_target": "answers",
        "generation_kwargs": {
            "until": list(config.stop),
            "max_gen_toks": config.max_new_tokens,
            "do_sample": False,
            "temperature": 0.0,
        },
        "filter_list": filters,
        "metric_list": [
            {
                **_mean("exact_match"),
                "ignore_case": "lower" in config.normalise,
                "ignore_punctuation": "punctuation" in config.normalise,
                "regexes_to_ignore": ignored,
            }
        ],
    }
    return rows, settings, notes


def _gold(task: Task) -> tuple[list[Row], Row, list[str]]:
    rows = [{"id": item.id, "query": context(task, item), "target": continuation(task, item)} for item in task.items]
    rows = [row for row in rows if row["target"]]
    size_bytes = sum(len(str(row["target"]).encode()) for row in rows)
    settings = {
        "output_type": "loglikelihood",
        "doc_to_text": "query",
        "doc_to_target": "target",
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
    }
    notes = [
        "The harness gives exp(mean nats of an item) here. In codesieve's unit:",
        f"bits per byte = ln(perplexity) x {len(rows)} items / (ln 2 x {size_bytes} bytes)",
    ]
    return rows, settings, notes


def _mean(name: str) -> Row:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


_CODE = "the harness runs answers in its own process and without a sandbox; judge them with `codesieve eval replay`"

_REFUSED = {
    "code": _CODE,
    "infill": _CODE,
    "judge": "the harness has no judge that compares two answers",
    "bits_per_byte": "it scores held-out documents of a run, which are no part of the task",
    "choice": "its pairs are made of held-out documents when it is run",
}
