"""Control groups, on a folder that looks like one: real ones are used by all other tests where the host has them."""

import os
import subprocess
from pathlib import Path

import pytest
from codesieve.sandbox import cgroups, containment
from codesieve.sandbox.endings import SandboxError
from codesieve.sandbox.limits import Limits
from codesieve.sandbox.run import call


@pytest.fixture(autouse=True)
def fresh_places():
    cgroups.places.cache_clear()
    yield
    cgroups.places.cache_clear()


@pytest.fixture
def hierarchy(tmp_path, monkeypatch):
    """A folder in which every new folder has the files of a version 2 group."""
    mkdir, rmdir = Path.mkdir, Path.rmdir

    def make(self, *arguments, **named):
        mkdir(self, *arguments, **named)
        if self.parent == tmp_path:
            for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
                (self / name).write_text("")
            (self / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")

    def remove(self):
        for path in self.iterdir():
            path.unlink()
        rmdir(self)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(Path, "rmdir", remove)
    monkeypatch.setenv(cgroups.VARIABLE, str(tmp_path))
    return tmp_path


def test_a_group_bounds_memory_and_processes_together(hierarchy):
    assert cgroups.places() == ((hierarchy,), "")
    group = cgroups.new_group(Limits(memory_bytes=10**8, file_bytes=10**6, processes=5))
    (folder,) = hierarchy.iterdir()
    assert int((folder / "memory.max").read_text()) == 101 * 10**6 + cgroups.OWN_BYTES
    assert int((folder / "pids.max").read_text()) == 5 + cgroups.OWN_PROCESSES
    assert (folder / "memory.swap.max").read_text() == "0"
    assert group.kills() == 1
    group.remove()
    assert list(hierarchy.iterdir()) == []


def test_a_launcher_enters_its_group(hierarchy, monkeypatch):
    entered = []
    doors = cgroups.Group.doors

    def watched(group):
        entered.append(group)
        return doors(group)

    removed = []
    monkeypatch.setattr(cgroups.Group, "doors", watched)
    monkeypatch.setattr(
        cgroups.Group,
        "remove",
        lambda group: removed.append((group, Path(hierarchy / group._folders[0].name, "cgroup.procs").read_text())),
    )
    assert call("def f(): return 1", "f", [([], {})]).returned == (1,)
    assert removed[-1] == (entered[-1], "0")


def test_a_folder_that_was_named_and_is_no_group_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv(cgroups.VARIABLE, str(tmp_path))
    parents, why = cgroups.places()
    assert parents == ()
    assert "no memory.max" in why
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SandboxError, match=f"{cgroups.VARIABLE}={tmp_path}: control groups: no memory.max"):
        call("def f(): return 1", "f", [([], {})])
    assert containment.describe()["level"] == 0
    cgroups.places.cache_clear()
    monkeypatch.setenv(cgroups.VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(SandboxError, match="No such file"):
        cgroups.new_group()


def test_names_of_groups_do_not_repeat_when_a_process_id_does(hierarchy):
    made = [cgroups.new_group() for _ in range(2)]
    names = {folder.name for folder in hierarchy.iterdir()}
    assert len({name.rpartition("-")[2] for name in names}) == 2
    for group in made:
        group.remove()


def test_groups_that_a_killed_judge_left_are_removed(hierarchy):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (hierarchy / f"{cgroups._prefix()}{pid}-0123").mkdir()
    (hierarchy / "codesieve-1-1").mkdir()  # of another process namespace, or not ours
    cgroups.places()
    names = {folder.name for folder in hierarchy.iterdir()}
    assert names == {f"{cgroups._prefix()}{os.getpid()}-0123", "codesieve-1-1"}


def test_nothing_is_taken_that_was_not_given(monkeypatch):
    monkeypatch.delenv(cgroups.VARIABLE, raising=False)
    parents, why = cgroups.places()
    assert all(os.access(parent, os.W_OK) for parent in parents)
    assert bool(parents) != bool(why)
