"""A task by its name: its YAML in `configs/tasks`, the data that the user brings, and the items that both make.

In: names or paths, and the files and folders that hold data. Out: tasks with all items checked. A task's fingerprint
is of what is asked and how it is judged (templates, items, examples), not of prose or of where the data lay, so the
same items from another form of the file are the same task. Loading takes about 20 µs a row and field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...strict import CONFIGS, Config, ConfigError, fingerprint, nearest, parse, read_yaml, resolve, unknown
from .data import Found, NotFound, Row, find, identify, read
from .fetch import hub_file
from .items import Item, make_items
from .prompts import context, continuation
from .schema import (
    KINDS,
    AnyTask,
    ChoiceTask,
    CodeTask,
    DataConfig,
    GoldTask,
    HeldoutPairsTask,
    HeldoutTask,
    InfillTask,
    JudgeTask,
    MatchTask,
    SuiteConfig,
    TaskConfig,
)
from .task import Task

FOLDER = CONFIGS / "tasks"
SUITES = CONFIGS / "papers"

PROSE: Any = {
    "description": True,
    "license": True,
    "data": True,
    "layouts": True,
    "texts": True,
    "calibration": True,
    "shots": {"data": True, "rows": True},
}
"""Keys of a task that change nothing that is asked: the items say what came of data, texts and layouts."""


class MissingData(ConfigError):
    """A task's data is nowhere: the user has to bring or fetch it."""


def load_task(name_or_path: str, data: Sequence[Path] = ()) -> Task:
    """The task of that name in `configs/tasks`, or the YAML file at that path.

    Args:
        data: files, or folders (searched two levels deep) that hold what is not beside the YAML.

    Raises:
        MissingData: if the data is nowhere.
        ConfigError: if the task or its data is wrong.
    """
    path, config = _path(name_or_path), task_config(name_or_path)
    if isinstance(config, HeldoutTask | HeldoutPairsTask):
        return Task(config, (), (), fingerprint(config.model_dump(mode="json", exclude={"description"})))
    found, items = _items(config, config.data, path, data)
    if config.data.items is not None and len(items) > config.data.items:
        raise ConfigError(
            f'{found.path}: {len(items)} items, but the published data of task "{config.name}" has '
            f"{config.data.items}; is it another split?"
        )
    shots = _shots(config, path, data)
    asked = fingerprint(
        config.model_dump(mode="json", exclude=PROSE),
        sorted((asdict(item) for item in items), key=lambda item: str(item["id"])),
        [asdict(shot) for shot in shots],
    )
    is_ours = found.path.parent == path.parent == FOLDER  # it comes with codesieve
    facts: dict[str, Any] = {
        "file": found.path.name,
        "sha256": found.sha256,
        "verified": True if is_ours else found.verified,
        "items": len(items),
        "of": config.data.items,
        "license": config.license,
    }
    task = Task(config, tuple(items), tuple(shots), asked, facts, _own_items(config, path))
    _try(task, path)
    return task


def task_config(name_or_path: str) -> AnyTask:
    """The task's file alone, without its data.

    Raises:
        ConfigError: if there is no such task, or it is wrong.
    """
    return _config(_path(name_or_path))


def load_suite(name: str) -> SuiteConfig | None:
    """The suite of that name in `configs/papers`, or at that path; None if it is no suite.

    Raises:
        ConfigError: if it is wrong, or names a task that is not there.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        return None
    read = read_yaml(path)
    if not isinstance(read, dict) or "groups" not in read:
        return None
    suite = parse(SuiteConfig, read, where=str(path))
    for task in suite.tasks:
        if "/" not in task and task not in _names(FOLDER):
            raise ConfigError(f"{path}: {unknown('task', task, _names(FOLDER))}")
    return suite


@lru_cache
def known_tasks() -> dict[str, AnyTask]:
    """The tasks that come with codesieve, by name."""
    return {path.stem: _config(path) for path in sorted(FOLDER.glob("*.yaml"))}


def known_suites() -> list[str]:
    """Names of the suites that come with codesieve."""
    return _names(SUITES)


def file_names(config: TaskConfig) -> tuple[str, ...]:
    """Names under which a task's file is found: the published ones, and the one that `eval fetch` gives it."""
    return (*config.data.files, hub_file(config.name))


def _path(name_or_path: str) -> Path:
    is_path = Path(name_or_path).suffix in {".yaml", ".yml"} or "/" in name_or_path
    if not is_path and not (FOLDER / f"{name_or_path}.yaml").is_file():
        if suite := load_suite(name_or_path):
            raise ConfigError(f'"{name_or_path}" is a suite; name one of its tasks: {", ".join(suite.tasks)}')
        raise ConfigError(unknown("task", name_or_path, [*_names(FOLDER), *_names(SUITES)]))
    return resolve(name_or_path, "tasks")


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _config(path: Path) -> AnyTask:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values")
    kind = data.get("kind")
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(f'{path}: unknown task kind "{kind}"{nearest(str(kind), KINDS)}; known: {known}')
    return parse(_model(str(kind), data), data, where=str(path))  # type: ignore[return-value]


def _model(kind: str, data: Mapping[str, Any]) -> type[Config]:
    if kind == "bits_per_byte":
        return GoldTask if data.keys() & {"data", "prompt", "continuation"} else HeldoutTask
    if kind == "choice":
        return HeldoutPairsTask if "pairs" in data else ChoiceTask
    others: dict[str, type[Config]] = {
        "generate_match": MatchTask,
        "code": CodeTask,
        "infill": InfillTask,
        "judge": JudgeTask,
    }
    return others[kind]


def _items(config: TaskConfig, data: DataConfig, path: Path, given: Sequence[Path]) -> tuple[Found, list[Item]]:
    found = identify(data, _find(config, data, path, given))
    return found, make_items(_with_texts(read(found.path), config), config, data)


def _with_texts(rows: Sequence[Row], config: TaskConfig) -> list[Row]:
    """Rows with the texts that every one has; a column of the same name is the row's own."""
    return [Row(row.where, {**config.texts, **row.values}) for row in rows] if config.texts else list(rows)


def _own_items(config: TaskConfig, path: Path) -> tuple[Item, ...]:
    if not isinstance(config, CodeTask):
        return ()
    places = [f"{path}: calibration: {number}" for number in range(1, len(config.calibration) + 1)]
    rows = [Row(where, each.row) for where, each in zip(places, config.calibration, strict=True)]
    items = make_items(_with_texts(rows, config), config, DataConfig(files=("-",))) if rows else []
    return tuple(
        replace(item, fields={**item.fields, "reference": own.reference})
        for item, own in zip(items, config.calibration, strict=True)
    )


def _find(config: TaskConfig, data: DataConfig, path: Path, given: Sequence[Path]) -> Path:
    is_main = data is config.data
    names = file_names(config) if is_main else (*data.files, hub_file(config.name, shots=True))

    def strangers() -> frozenset[str]:
        others = (other for name, other in known_tasks().items() if name != config.name)
        return frozenset(each for other in others if isinstance(other, TaskConfig) for each in file_names(other))

    # A file given by itself is the items' file, never that of the examples.
    folders = given if is_main else [each for each in given if each.is_dir() or each.name in names]
    try:
        return find(data, names, path.parent, folders, strangers)
    except NotFound as error:
        what = "data" if is_main else "examples"
        license = f"; licence: {config.license}" if config.license else ""
        how = "; name the file or its folder with --data"
        how += f", or download it with `codesieve eval fetch {config.name}`" if data.hub else ""
        raise MissingData(f'task "{config.name}": {what} not found: {error}{license}{how}') from error


def _shots(config: TaskConfig, path: Path, given: Sequence[Path]) -> list[Item]:
    shots = config.shots
    if not shots.count:
        return []
    if isinstance(config, InfillTask | JudgeTask):
        raise ConfigError(f"{path}: shots: tasks of kind {config.kind} have none")
    if shots.data is not None:
        found = _items(config, shots.data, path, given)[1][: 2 * shots.count]
    else:
        rows = [Row(f"{path}: shots: row {number}", row) for number, row in enumerate(shots.rows, start=1)]
        found = make_items(_with_texts(rows, config), config, DataConfig(files=("-",))) if rows else []
    if len(found) < shots.count:
        raise ConfigError(f"{path}: shots: {shots.count} are wanted, but there are {len(found)}")
    return found


def _try(task: Task, path: Path) -> None:
    """Fill the templates for the first item, so that a wrong field is told before a model is loaded."""
    try:
        context(task, task.items[0])
        continuation(task, task.items[0])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
