"""Control groups, on a folder that looks like one: real ones are used by all other tests where the host has them."""

import os
from pathlib import Path

import pytest
from codesieve.sandbox import cgroups
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


def test_a_folder_that_is_no_group_is_not_used_and_the_reason_told(tmp_path, monkeypatch):
    monkeypatch.setenv(cgroups.VARIABLE, str(tmp_path))
    parents, why = cgroups.places()
    assert parents == ()
    assert "no memory.max" in why
    assert list(tmp_path.iterdir()) == []
    cgroups.places.cache_clear()
    monkeypatch.setenv(cgroups.VARIABLE, str(tmp_path / "missing"))
    assert "No such file" in cgroups.places()[1]


def test_nothing_is_taken_that_was_not_given(monkeypatch):
    monkeypatch.delenv(cgroups.VARIABLE, raising=False)
    parents, why = cgroups.places()
    assert all(os.access(parent, os.W_OK) for parent in parents)
    assert bool(parents) != bool(why)
