import os
from pathlib import Path

import pytest
from codesieve.sandbox import containment
from codesieve.sandbox.server import Servers


def offers():
    """Every plan there is; those that this host cannot do skip, and say why."""
    for offer in containment.offers():
        fault = offer.why_not or containment._fault(offer.plan)[0]
        yield pytest.param(offer, id=offer.name, marks=[pytest.mark.skip(reason=fault)] if fault else [])


@pytest.fixture(scope="module", params=list(offers()))
def offer(request):
    """Each plan that this host can do, as the only one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(containment, "offers", lambda: iter([request.param]))
        yield request.param


@pytest.fixture(scope="module")
def servers(offer):
    """Warm servers of that plan."""
    with Servers(1, level=offer.plan.level) as servers:
        assert servers.plan == offer.plan
        yield servers


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
