"""Languages as data: `configs/toolchains.yaml` says how a source becomes a process, this finds the tools on this host.

Nothing is installed and nothing is downloaded. A language whose tools are missing is an error that names them, before
anything is generated or judged. Finding one costs a start of its compiler, once a process.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from ..strict import CONFIGS, Config, ConfigError, parse, read_yaml, unknown
from .endings import SandboxError
from .limits import DEFAULT_LIMITS, Limits
from .process import Plan

FILE = CONFIGS / "toolchains.yaml"

PYTHON = "python"

_ANSWER_SECONDS = 60.0


class BinaryConfig(Config):
    """Where an executable is looked for.

    Attributes:
        find: names in PATH, or paths; the first that is there.
        home: arguments with which it prints its installation's folder; default: two levels above it.
    """

    find: tuple[str, ...]
    home: tuple[str, ...] = ()


class LanguageConfig(Config):
    """One entry of the table, which says what the keys mean."""

    aliases: tuple[str, ...] = ()
    binaries: dict[str, BinaryConfig] = Field(default_factory=dict)
    version: tuple[str, ...] = ()
    file: str = ""
    names: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, Any] = Field(default_factory=dict)
    compile_limits: dict[str, Any] = Field(default_factory=dict)
    epilogue: str = ""
    out_of_memory: str = ""
    starts_processes: bool = False


class _Table(Config):
    languages: dict[str, LanguageConfig]


@dataclass(frozen=True)
class Toolchain:
    """A language as it is found here.

    Attributes:
        paths: placeholder → real path.
    """

    name: str
    config: LanguageConfig
    paths: Mapping[str, str]

    def name_in(self, source: str) -> str:
        """What the source calls its program, where the language wants files to be named so."""
        hits = (re.search(pattern, source) for pattern in self.config.names)
        return next((hit[1] for hit in hits if hit), "Main")

    def argv(self, arguments: tuple[str, ...], name: str) -> list[str]:
        """A command line with its placeholders filled."""
        return [self._filled(each, {**self.paths, "name": name}) for each in arguments]

    def readable(self) -> list[str]:
        """Paths that its programs may read."""
        return [self._filled(each, self.paths) for each in self.config.readable]

    def environment(self) -> dict[str, str]:
        """Variables of its compiler and programs."""
        return {key: self._filled(value, self.paths) for key, value in self.config.environment.items()}

    def check_processes(self, plan: Plan) -> None:
        """Raises SandboxError if its programs start processes, and `plan` forbids that: each would wait for ever."""
        if self.config.starts_processes and plan.no_processes:
            raise SandboxError(
                f"programs in {self.name} start processes, which sandbox level {plan.level} forbids on this host"
            )

    def run_limits(self, limits: Limits) -> Limits:
        """`limits` as this language needs them: never less memory, processes or open files than the table says."""
        return _with(limits, self.config.limits, DEFAULT_LIMITS)

    def compile_limits(self) -> Limits:
        """Of the compiler."""
        return replace(DEFAULT_LIMITS, **self.config.compile_limits)

    def version(self) -> str:
        """The first line that its tools say of themselves."""
        if not self.config.version:
            return ""
        lines = _said(self.argv(self.config.version, "")).strip().splitlines()
        return lines[0] if lines else ""

    def _filled(self, text: str, known: Mapping[str, str]) -> str:
        return re.sub(r"\{([\w.]+)\}", lambda found: known.get(found[1], found[0]), text)


def names() -> dict[str, str]:
    """Name or alias → name, of all languages of the table."""
    found: dict[str, str] = {}
    for name, config in _table().items():
        found |= dict.fromkeys((name, *config.aliases), name)
    return found


@cache
def toolchain(name_or_alias: str) -> Toolchain:
    """The language with its tools.

    Raises:
        ConfigError: if it is unknown, or one of its tools is not here.
    """
    known = names()
    if name_or_alias.lower() not in known:
        raise ConfigError(unknown("language", name_or_alias, sorted(known)))
    name = known[name_or_alias.lower()]
    config = _table()[name]
    paths: dict[str, str] = {}
    for key, binary in config.binaries.items():
        found = next((path for each in binary.find if (path := shutil.which(each))), None)
        if found is None:
            raise ConfigError(
                f"programs in {name} cannot be run here: {' or '.join(binary.find)} is not in PATH; "
                f"install it, or leave out the tasks in {name}"
            )
        real = Path(found).resolve()
        paths[key] = str(real)
        home = _said([found, *binary.home]).strip() if binary.home else str(real.parents[1])
        if binary.home and not Path(home).is_dir():
            raise ConfigError(f"programs in {name} cannot be run here: {found} does not say where it is installed")
        if binary.home:
            paths[key] = found  # a stand-in that knows the real one only under its own name
        paths[f"{key}.home"] = home
    return Toolchain(name, config, paths)


def describe() -> dict[str, str]:
    """Language → version found here, or what is missing."""
    found = {}
    for name in _table():
        try:
            found[name] = toolchain(name).version() or "the sandbox's own interpreter"
        except ConfigError as error:
            found[name] = f"missing: {error}"
    return found


def _with(limits: Limits, least: Mapping[str, Any], default: Limits) -> Limits:
    changes = {}
    for key, value in least.items():
        mine = getattr(limits, key)
        changes[key] = value if isinstance(value, str) or mine == getattr(default, key) else max(mine, value)
    return replace(limits, **changes)


def _said(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout or done.stderr


@cache
def _table() -> dict[str, LanguageConfig]:
    table = parse(_Table, {"languages": read_yaml(FILE)}, where=str(FILE))
    for name, config in table.languages.items():
        if name != PYTHON and not config.run:
            raise ConfigError(f"{FILE}: {name}: run is missing")
    return table.languages
