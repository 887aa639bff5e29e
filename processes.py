"""Work in several processes that ends in a result, an error or an interruption, never in a hang.

A worker that is killed (out of memory, `kill -9`) ends the work with a message that says what it was doing; pools of
the `multiprocessing` kind wait for such a worker for ever. Ctrl-C goes to the parent, which ends the workers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

POLL_SECONDS = 0.25

START_METHOD = "forkserver"
"""Workers start from a clean server process: forking a process that has threads (Polars, torch) can deadlock."""


class WorkerDiedError(RuntimeError):
    """A worker process ended without finishing what it did: one of the calls `unfinished`, as positions."""

    def __init__(self, message: str, unfinished: Sequence[int] = ()):
        super().__init__(message)
        self.unfinished = tuple(unfinished)


def run_processes(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    names: Sequence[str],
    *,
    workers: int,
    poll: Callable[[], None] = lambda: None,
    initializer: Callable[..., None] | None = None,
    initial: tuple[Any, ...] = (),
) -> list[Any]:
    """`function(*arguments[i])` for all i, in processes; the results in their order.

    Args:
        names: what each call makes, for the message when its worker is killed.
        poll: called a few times a second while work is under way.
        initializer: called with `initial` in each worker before its first call.

    Raises:
        WorkerDiedError: naming what was under way when a worker was killed.
    """
    context = multiprocessing.get_context(START_METHOD)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(arguments)), mp_context=context, initializer=_begin, initargs=(initializer, initial)
    )
    futures: list[Future[Any]] = []
    started: list[BaseProcess] = []
    try:
        futures = [pool.submit(_call, function, each) for each in arguments]
        started = [process for process in multiprocessing.active_children() if process not in others]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            poll()
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        # Work is handed out in order: what was under way is the first that did not finish.
        unfinished = [position for position, future in enumerate(futures) if not _finished(future)][:workers]
        pool.shutdown(wait=True, cancel_futures=True)
        what = " or ".join(names[position] for position in unfinished)
        raise WorkerDiedError(
            f"a worker {_end(started)} while it made {what}. What is finished is kept: "
            "run the same command again, with fewer workers (--workers 1) if it happens again",
            unfinished,
        ) from error
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """In the worker. An error that cannot be pickled and read again would look like the death of the worker."""
    try:
        return function(*arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C and SIGTERM only make the yielded function true; a second one acts at once.

    For work that saves its state before it ends. Outside the main thread signals are left as they are.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(*_: object) -> None:
        asked.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(processes: Sequence[BaseProcess]) -> str:
    """How the worker ended that broke the pool; the pool itself ends the others with SIGTERM."""
    codes = [process.exitcode for process in processes]
    if -signal.SIGKILL in codes:
        return "was killed (SIGKILL), most often because memory ran out,"
    for code in codes:
        if code and code not in (-signal.SIGTERM, 1):
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"crashed ({how}), as compiled code does when memory runs out,"
    return 'was killed or could not start (a script needs `if __name__ == "__main__":` around its work)'


def _finished(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _begin(initializer: Callable[..., None] | None, initial: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler, if it was inherited, is not for workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initial)


def _end_with_parent() -> None:
    """Workers wait for work for ever when the user's process is killed; so each waits for that as well."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
