import os
from pathlib import Path

import pytest


@pytest.fixture
def contained_by():
    """A function: the processes that a sandbox of the judge with that process id started, wherever they hang."""

    def find(judge_pid):
        mark = f"parent={judge_pid}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and folder.name != str(os.getpid()):
                try:
                    if mark in (folder / "cmdline").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    return find


@pytest.fixture
def temporary_folder(tmp_path):
    """A folder for temporary files that other users may enter, as /tmp is: the sandbox may run as another user."""
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:3]:
        if parent.name.startswith("pytest-"):
            parent.chmod(0o711)
    return tmp_path
