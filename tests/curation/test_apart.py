"""Documents measured in a child: what a document can do to its process, it does to itself only."""

import gc
import marshal
import os
import pickle
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from codesieve.curation import apart
from codesieve.curation.apart import Apart
from codesieve.curation.steps import measured_here
from hypothesis import given, settings
from hypothesis import strategies as st


def act(what: str) -> Sequence[Any] | None:
    """A measurement that does what the document says."""
    if what == "abort":
        os.abort()
    if what == "leave":
        os._exit(3)
    if what == "spin":
        while True:
            pass
    if what == "memory":
        return (len(bytearray(2 * apart.MEMORY_BYTES)),)
    if what == "raise":
        raise ValueError("no")
    return None if what == "nothing" else (what, len(what), 0.5, None)


def errors(*documents: str) -> list[str | None]:
    return [error for _, error in Apart(act)([(each,) for each in documents])]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["a", "bc", "é", "nothing", "raise"]), max_size=5))
def test_a_child_measures_what_this_process_would(documents: list[str]) -> None:
    each = [(document,) for document in documents]
    assert Apart(act)(each) == measured_here(act, each)


def test_a_document_that_ends_its_process_costs_only_itself() -> None:
    found = Apart(act)([("a",), ("abort",), ("leave",), ("b",), ("abort",)])
    assert [values is None for values, _ in found] == [False, True, True, False, True]
    assert [error and error[:66] for _, error in found] == [
        None,
        "ChildProcessError: the process that measured it crashed (SIGABRT),",
        "ChildProcessError: the process that measured it crashed (exit code",
        None,
        "ChildProcessError: the process that measured it crashed (SIGABRT),",
    ]


def test_a_document_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "CPU_SECONDS", 1)
    assert errors("spin", "a") == ["TimeoutError: not done after 1 s of CPU time", None]


def test_memory_is_limited_for_a_document_and_whole_again_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MEMORY_BYTES", 100_000_000)
    assert errors("memory", "a") == ["MemoryError: ", None]


def test_a_child_that_is_killed_from_outside_marks_no_document() -> None:
    """Which document it hits is chance; half of the batch may have room."""
    with pytest.raises(MemoryError, match=r"killed \(SIGKILL\)"):
        Apart(lambda _: os.kill(os.getpid(), signal.SIGKILL))([("a",)])


def test_nothing_is_left_behind_when_the_parent_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> Any:
        raise KeyboardInterrupt

    gc.collect()  # of other tests, whose children may still be there
    before = len(list(Path("/proc/self/fd").iterdir()))
    apart = Apart(lambda what: act(what) if what == "spin" else (os.getpid(),))
    (((child,), _),) = apart([("a",)])  # which has its own `loads` from now on
    monkeypatch.setattr(marshal, "loads", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        apart([("a",), ("spin",)])
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_one_child_measures_batch_after_batch_until_its_owner_is_gone() -> None:
    apart = Apart(lambda _: (os.getpid(),))
    (first,), (second,), (third,) = [values for values, _ in apart([("a",), ("b",)]) + apart([("c",)])]
    assert first == second == third != os.getpid()
    del apart
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_more_documents_and_larger_ones_than_pipes_hold_pass() -> None:
    apart = Apart(lambda text: (len(text), text[:3_000]))
    found = apart([("x" * (position % 7 * 50_000),) for position in range(300)])
    assert [values[0] for values, _ in found if values] == [position % 7 * 50_000 for position in range(300)]


def test_a_step_that_is_at_work_can_be_pickled() -> None:
    apart = Apart(len)
    apart([("a",)])
    copy = pickle.loads(pickle.dumps(apart))
    assert copy([("abc",)]) == [(3, None)]


def test_a_fork_of_the_owner_has_a_child_of_its_own() -> None:
    apart = Apart(lambda _: (os.getpid(),))
    ((before, _),) = apart([("a",)])
    fork = os.fork()
    if fork == 0:
        ((own, _),) = apart([("a",)])
        os._exit(int(own == before))
    assert os.waitpid(fork, 0)[1] == 0
    assert apart([("a",)]) == [(before, None)]
