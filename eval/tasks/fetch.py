"""A task's data from the Hugging Face hub, only when it is asked for: the Parquet of its split, written as JSONL.

The hub keeps a Parquet copy of every public data set in the branch `refs/convert/parquet`, in folders of configuration
and split; a pinned revision is read from its own Parquet files. The file is `TASK.hub.jsonl`, so that it is never taken
for the published one, whose hash is known. Data sets behind a login or a form stay with the user.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...strict import ConfigError
from .schema import AnyTask, DataConfig, HubConfig, TaskConfig

CONVERTED = "refs/convert/parquet"


def fetch(config: AnyTask, folder: Path) -> list[Path]:
    """Download what the task needs into `folder`: its items, and its examples where they are a file.

    What is there already stays as it is.

    Raises:
        ConfigError: if the task has no data, or none on the hub.
        RuntimeError: if the hub cannot be reached, or does not have it.
    """
    if not isinstance(config, TaskConfig):
        raise ConfigError(f'task "{config.name}": it scores held-out documents of a run and has no data of its own')
    parts: list[tuple[DataConfig, str]] = [(config.data, hub_file(config.name))]
    if config.shots.data is not None and config.shots.count:
        parts.append((config.shots.data, hub_file(config.name, shots=True)))
    return [_fetched(config, data, folder / name) for data, name in parts]


def can_fetch(config: AnyTask) -> bool:
    """Whether the task's data is on the hub."""
    return isinstance(config, TaskConfig) and config.data.hub is not None


def hub_file(task: str, shots: bool = False) -> str:
    """Name of the file that is fetched for a task."""
    return f"{task}-shots.hub.jsonl" if shots else f"{task}.hub.jsonl"


def _fetched(config: TaskConfig, data: DataConfig, path: Path) -> Path:
    if data.hub is None:
        raise ConfigError(
            f'task "{config.name}": its data is not on the hub; licence: {config.license or "unknown"}. '
            f"Bring the file yourself as {' or '.join(data.files)}"
        )
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for source in _download(data.hub):
                for row in _rows(source):
                    file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _download(hub: HubConfig) -> list[str]:
    from huggingface_hub import HfApi, hf_hub_download

    revision = hub.revision or CONVERTED
    where = f"{hub.repository} ({hub.name or 'default'}, {hub.split}) on the hub"
    try:
        files = HfApi().list_repo_files(hub.repository, repo_type="dataset", revision=revision)
        chosen = parquet_of(files, hub)
        if not chosen:
            raise RuntimeError(f"{where}: no Parquet file of that split at revision {revision}")
        return [hf_hub_download(hub.repository, name, repo_type="dataset", revision=revision) for name in chosen]
    except RuntimeError:
        raise
    except Exception as error:  # network, authorisation, hub: many kinds, none of them ours
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RuntimeError(
            f"{where}: could not be read: {first}. Without network, bring the file and name it with --data"
        ) from error


def parquet_of(files: Sequence[str], hub: HubConfig) -> list[str]:
    """Files of a split, in their order: `<configuration>/<split>/0000.parquet`, or `…/<split>-00000-of-00001.parquet`.

    Without a configuration's name the data set has one only, whatever it is called.
    """
    split = re.escape(hub.split)
    last = re.compile(rf"(?:^|/)(?:partial-)?{split}(?:/[^/]*|-\d+-of-\d+|-[0-9a-f]+)?\.parquet$")
    found = sorted(name for name in files if last.search(name))
    if hub.name is not None:
        return [name for name in found if hub.name in name.split("/")[:-1]]
    folders = {name.split("/")[0] for name in found}
    if len(folders) > 1 and "default" in folders:
        return [name for name in found if name.startswith("default/")]
    return found


def _rows(path: str) -> list[dict[str, object]]:
    import polars as pl

    return pl.read_parquet(path).to_dicts()
