"""What runs inside the judge's process: test code, in whose eyes the candidate's functions are ordinary functions.

Each examination is a child of its own, forked from a process that never saw another one's tests. A call of a function
under test becomes the next answer of this process (`{"call", "args", "kwargs"}`), and what comes back is its value: a
plain one, or an exception of the same built-in type. The end is `{"done", "detail"}` with passed, wrong, raised (by the
candidate, in the last call), exception or memory, or `{"died": why}` if the child ended otherwise. All of these are
text in the form of `values.py`, written by the child. What a call changes in its arguments does not come back: the
candidate works on copies. Standard library only.
"""

from __future__ import annotations

import builtins
import marshal
import os
import resource
import select
import sys

TYPE_CHECKING = False  # for type checkers; see supervise.py
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal as signal

TESTS, SETUP = "<tests>", "<set-up>"

_REQUESTS, _ANSWERS = 3, 4  # this process's own pipes, see worker.py
_MOST_BYTES = 32 * 2**20
_STEP_SECONDS = 30.0
"""Wall time from an answer to the next question; CPU time is limited for the whole."""


class CandidateError(Exception):
    """The candidate raised an exception of a type that Python does not have."""


class Unfit(BaseException):
    """The tests do something that cannot be done from another process."""


class Examination:
    """One run of the tests, in the child.

    Args:
        encode, decode: text of a value, and a value of a tree; see `values.py`.
        setup: a program; "" for none.
        parts: sources, executed one after the other in the namespace that the set-up left.
        names: of the candidate's functions.
        modules: that are imported under their names, because the tests use them without saying so.
        check: the tests end with `check(candidate)` for the candidate's function of that name; "" if they do not.
    """

    def __init__(
        self,
        encode: Callable[[Any], str],
        decode: Callable[[Any], Any],
        setup: str,
        parts: list[str],
        names: list[str],
        modules: list[str],
        check: str,
    ) -> None:
        self.encode, self.decode = encode, decode
        self.setup, self.parts, self.names, self.modules, self.check = setup, parts, names, modules, check
        self.raised: BaseException | None = None

    def run(self, asked: int, answered: int) -> None:
        """Write events to `asked`, read replies from `answered`."""
        self.asked, self.answered = asked, answered
        status, detail = "passed", ""
        try:
            self.examine()
        except BaseException as error:  # SystemExit and KeyboardInterrupt of test code are no end of its own
            status, detail = self.verdict(error)
        self.send({"done": status, "detail": detail})

    def send(self, event: dict[str, Any]) -> None:
        data = self.encode(event).encode("ascii")
        _write(self.asked, data)

    def examine(self) -> None:
        space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        for name in self.modules:
            space[name] = __import__(name)
        if self.setup:
            exec(compile(self.setup, SETUP, "exec", dont_inherit=True), space)
        space |= {name: self.stand_in(name) for name in self.names}
        for number, part in enumerate(self.parts):
            exec(compile(part, f"{TESTS[:-1]} {number}>", "exec", dont_inherit=True), space)
        if self.check:
            space["check"](space[self.check])

    def stand_in(self, name: str) -> Callable[..., Any]:
        """A function that has the candidate's function of that name called."""

        def ask(*args: Any, **kwargs: Any) -> Any:
            try:
                self.send({"call": name, "args": list(args), "kwargs": kwargs})
            except ValueError as error:  # NotPlain
                raise Unfit(f"they pass {error}") from None
            reply = _read(self.answered)
            if reply is None:
                os._exit(0)  # nobody wants to know any more
            kind, *content = marshal.loads(reply)
            if kind == "value":
                return self.decode(content[0])
            self.raised = _exception(*content)
            raise self.raised

        ask.__name__ = ask.__qualname__ = name
        return ask

    def verdict(self, error: BaseException) -> tuple[str, str]:
        """("wrong", the assertion that failed), ("raised", "") by the candidate, or ("exception", what and where)."""
        part, line = 0, 0
        trace = error.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if name.startswith(TESTS[:-1]):
                part, line = int(name[len(TESTS) : -1]), trace.tb_lineno
            trace = trace.tb_next
        lines = self.parts[part].splitlines() if line else []
        where = lines[line - 1].strip()[:200] if 0 < line <= len(lines) else ""
        try:
            text = f"{type(error).__name__}: {error}"[:300]
        except BaseException:  # a __str__ of the tests
            text = type(error).__name__
        if error is self.raised:
            return "raised", ""
        if isinstance(error, AssertionError):
            said = text.partition(": ")[2]
            return "wrong", f"failed: {where}" + (f" ({said})" if said else "")
        if isinstance(error, Unfit):
            return "exception", f"the tests do not fit their form: {error}; have them judged weakly"
        status = "memory" if isinstance(error, MemoryError) else "exception"
        return status, f"in the tests: {text}" + (f": {where}" if where else "")


def _exception(name: str, message: str) -> BaseException:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # UnicodeDecodeError and the like want more than a message
            return CandidateError(f"{name}: {message}")
    return CandidateError(f"{name}: {message}")


_child: list[int] = []  # process id, events, replies


def start(cpu_seconds: int, *settings: Any) -> str:
    """Begin an examination, whatever became of the last; to its first event.

    Args:
        cpu_seconds: of the tests.
        settings: the arguments of `Examination`.
    """
    abandon()
    asked_read, asked_write = os.pipe()
    answered_read, answered_write = os.pipe()
    child = os.fork()
    if child == 0:
        for each in (_REQUESTS, _ANSWERS, asked_read, answered_write):
            os.close(each)
        _examine(cpu_seconds, settings, asked_write, answered_read)
    os.close(asked_write)
    os.close(answered_read)
    _child[:] = [child, asked_read, answered_write]
    return _event()


def resume(reply: Any) -> str:
    """Give the last call its answer, `["value", tree]` or `["error", type, message]`; on to the next event."""
    try:
        _write(_child[2], marshal.dumps(reply))
    except BrokenPipeError:
        return _event()  # the child has ended, which this says
    return _event()


def abandon() -> int:
    """End the examination, if there is one; its wait status."""
    if not _child:
        return 0
    child, *pipes = _child
    _child.clear()
    os.kill(child, signal.SIGKILL)  # which changes nothing for one that has ended
    status = os.waitpid(child, 0)[1]
    for each in pipes:
        os.close(each)
    return status


def _examine(cpu_seconds: int, settings: tuple[Any, ...], asked: int, answered: int) -> NoReturn:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sys.setrecursionlimit(3000)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        Examination(*settings).run(asked, answered)
    finally:
        os._exit(0)


def _event() -> str:
    asked = _child[1]
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    if not poll.poll(_STEP_SECONDS * 1000):
        abandon()
        return '{"died":"timeout"}'
    data = _read(asked)
    if data is not None:
        return data.decode("ascii")
    status = abandon()  # it has ended, or it wrote what is no message of ours
    if status == signal.SIGXCPU:
        return '{"died":"timeout"}'
    return '{"died":"output_flood"}' if status == signal.SIGKILL else f'{{"died":"wait status {status}"}}'


def _write(descriptor: int, data: bytes) -> None:
    data = len(data).to_bytes(8, "little") + data
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int) -> bytes | None:
    """One message; None at the end, or if it is longer than any should be."""
    header = _exactly(descriptor, 8)
    size = int.from_bytes(header or b"", "little")
    return _exactly(descriptor, size) if header and size <= _MOST_BYTES else None


def _exactly(descriptor: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
