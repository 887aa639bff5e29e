"""What runs inside the judge's process: test code, in whose eyes the candidate's functions are ordinary functions.

`serve` takes the conversation over from the worker. The tests of each item run in a child of their own, forked from a
process that never saw other tests; it judges one answer after the other, with a fresh namespace for each, until it is
told to leave. A call of a function under test is the answer to the request that is out (`{"call", "args", "kwargs"}`),
and the next request brings its value: a plain one, or an exception of the same built-in type. The end is
`{"done", "detail"}` with passed, wrong, exception or memory. A child that dies takes this process with it, which its
exit status explains. What a call changes in its arguments does not come back: the candidate works on copies. Standard
library only.
"""

from __future__ import annotations

import builtins
import marshal
import os
import random
import resource
import sys

TYPE_CHECKING = False  # for type checkers; see supervise.py
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal as signal

TESTS, SETUP = "<tests>", "<set-up>"
DIED, OUT_OF_TIME, FLOOD = 3, 4, 5
"""Exit statuses: the tests ended their process, used up their time, or called with arguments that are too large."""

_LEFT = 6  # of a child that was told to

_REQUESTS, _ANSWERS = 3, 4  # this process's own pipes, see worker.py
_MOST_BYTES = 32 * 2**20
_STEP_SECONDS = 30.0
"""Wall time from a value to the next question; CPU time is limited for the whole."""


class CandidateError(Exception):
    """The candidate raised an exception of a type that Python does not have."""


class Unfit(BaseException):
    """The tests do something that cannot be done from another process."""


class Conversation:
    """Requests in, answers out: each answer carries the nonce of the request that is out.

    Args:
        encode: text of a value, see `values.py`.
    """

    def __init__(self, encode: Callable[[Any], str]) -> None:
        self._encode = encode
        self._nonce = ""

    def receive(self) -> dict[str, Any] | None:
        """The next request; None if nobody will ask any more."""
        header = _exactly(8)
        data = _exactly(int.from_bytes(header, "little")) if header else None
        if data is None:
            return None
        request: dict[str, Any] = marshal.loads(data)
        self._nonce = request["nonce"]
        return request

    def answer(self, value: Any) -> None:
        """Answer the request that is out.

        Raises:
            ValueError: if `value` holds something that is not plain data.
        """
        data = f'{{"nonce":"{self._nonce}","value":{self._encode(value)}}}\n'.encode("ascii")
        if len(data) > _MOST_BYTES:
            os._exit(FLOOD)
        while data:
            data = data[os.write(_ANSWERS, data) :]


class Examination:
    """The tests of an item, in the child.

    Args:
        conversation: with the parent of this process's parent.
        decode: a value of a tree, see `values.py`.
        cpu_seconds: of the tests of one answer.
        setup: a program; "" for none.
        parts: sources, executed one after the other in the namespace that the set-up left.
        names: of the candidate's functions.
        modules: that are imported under their names, because the tests use them without saying so.
        check: the tests end with `check(candidate)` for the candidate's function of that name; "" if they do not.
    """

    def __init__(
        self,
        conversation: Conversation,
        decode: Callable[[Any], Any],
        cpu_seconds: int,
        setup: str,
        parts: list[str],
        names: list[str],
        modules: list[str],
        check: str,
    ) -> None:
        self.conversation, self.decode, self.cpu_seconds = conversation, decode, cpu_seconds
        self.setup, self.parts, self.names, self.modules, self.check = setup, parts, names, modules, check
        self.raised: BaseException | None = None
        self.compiled: list[Any] = []

    def run(self) -> None:
        """Judge one answer: the request that is out is to begin."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + 1 + self.cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        self.raised = None
        random.seed(0)  # tests that draw their cases draw the same ones for every answer
        status, detail = "passed", ""
        signal.setitimer(signal.ITIMER_REAL, _STEP_SECONDS)
        try:
            self.examine()
        except BaseException as error:  # SystemExit and KeyboardInterrupt of test code are no end of its own
            status, detail = self.verdict(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.conversation.answer({"done": status, "detail": detail})

    def examine(self) -> None:
        space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        for name in self.modules:
            space[name] = __import__(name)
        if not self.compiled:
            sources = [(self.setup, SETUP), *((part, f"{TESTS[:-1]} {n}>") for n, part in enumerate(self.parts))]
            self.compiled = [compile(source, name, "exec", dont_inherit=True) for source, name in sources]
        setup, *parts = self.compiled
        exec(setup, space)
        space |= {name: self.stand_in(name) for name in self.names}
        for part in parts:
            exec(part, space)
        if self.check:
            space["check"](space[self.check])

    def stand_in(self, name: str) -> Callable[..., Any]:
        """A function that has the candidate's function of that name called."""
        conversation = self.conversation

        def ask(*args: Any, **kwargs: Any) -> Any:
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                conversation.answer({"call": name, "args": list(args), "kwargs": kwargs})
            except ValueError as error:  # NotPlain
                raise Unfit(f"they pass {error}") from None
            request = conversation.receive()
            if request is None or request["entry_point"] != "resume":
                _leave(conversation, request)
            signal.setitimer(signal.ITIMER_REAL, _STEP_SECONDS)
            kind, *content = request["args"][0]
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


def serve(encode: Callable[[Any], str], decode: Callable[[Any], Any]) -> NoReturn:
    """Take over. Requests: `tests` (arguments of `Examination` from the third on), `resume`, `again`, `leave`."""
    conversation = Conversation(encode)
    while (request := conversation.receive()) is not None:
        if request["entry_point"] != "tests":
            conversation.answer(None)  # to leave, when there is no child
            continue
        child = os.fork()
        if child == 0:
            _examine(Examination(conversation, decode, *request["args"]))
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            os._exit(OUT_OF_TIME if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM) else DIED)
        code = os.WEXITSTATUS(status)
        if code != _LEFT:
            os._exit(FLOOD if code == FLOOD else DIED)
    os._exit(0)


def _examine(examination: Examination) -> NoReturn:
    """In the child: one answer after the other."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.setrecursionlimit(3000)
        while True:
            examination.run()
            request = examination.conversation.receive()
            if request is None or request["entry_point"] != "again":
                _leave(examination.conversation, request)
    finally:
        os._exit(DIED)  # only `_leave` ends in order


def _leave(conversation: Conversation, request: dict[str, Any] | None) -> NoReturn:
    if request is not None:
        conversation.answer(None)
    os._exit(_LEFT)


def _exactly(size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(_REQUESTS, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
