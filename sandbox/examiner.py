"""What runs inside the judge's process: test code, in whose eyes the candidate's functions are ordinary functions.

`serve` takes the conversation over from the worker. The tests of each item run in a child of their own, forked from a
process that never saw other tests; it judges one answer after the other, with a fresh namespace for each, until it is
told to leave. A call of a function under test is the answer to the request that is out (`{"call", "args", "kwargs"}`),
and the next request brings the reply (see `worker.py`): a plain value or an exception, and what the call changed in its
arguments, which are the tests' own objects again afterwards. The end is `{"done", "detail"}` with passed, wrong,
exception, memory, violation, or raised for an exception of the candidate's. A child that dies takes this process with
it, which its exit status explains. Standard library only.
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

    from .objects import Objects
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


class Unfit(BaseException):
    """The tests do something that cannot be done from another process."""


class Forged(BaseException):
    """A reply that no worker writes: the candidate wrote it past its own."""


class Conversation:
    """Requests in, answers out: each answer carries the nonce of the request that is out."""

    def __init__(self) -> None:
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

    def answer(self, text: str) -> None:
        """Answer the request that is out, by the text of a value."""
        data = f'{{"nonce":"{self._nonce}","value":{text}}}\n'.encode("ascii")
        if len(data) > _MOST_BYTES:
            os._exit(FLOOD)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(_ANSWERS, rest) :]


class Examination:
    """The tests of an item, in the child.

    Args:
        conversation: with the parent of this process's parent.
        encode: text of a value, see `plain.py`.
        decode: a value of a tree.
        new_objects: for the arguments of a call, see `objects.py`.
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
        encode: Callable[..., str],
        decode: Callable[..., Any],
        new_objects: Callable[[], Objects],
        cpu_seconds: int,
        setup: str,
        parts: list[str],
        names: list[str],
        modules: list[str],
        check: str,
    ) -> None:
        self.conversation, self.cpu_seconds = conversation, cpu_seconds
        self.encode, self.decode, self.new_objects = encode, decode, new_objects
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
        self.conversation.answer(self.encode({"done": status, "detail": detail}))

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

        def ask(*args: Any, **kwargs: Any) -> Any:
            objects = self.new_objects()
            try:
                texts = [self.encode(each, 0, objects) for each in args]
                pairs = [f"[{self.encode(key)},{self.encode(each, 0, objects)}]" for key, each in kwargs.items()]
            except ValueError as error:  # NotPlain
                raise Unfit(f"they pass {error}") from None
            objects.is_complete = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            call = f'{{"call":{self.encode(name)},"args":[{",".join(texts)}],"kwargs":[{",".join(pairs)}]}}'
            self.conversation.answer(call)
            request = self.conversation.receive()
            if request is None or request["entry_point"] != "resume":
                _leave(self.conversation, request)
            signal.setitimer(signal.ITIMER_REAL, _STEP_SECONDS)
            return self.taken(request["args"][0], objects)

        ask.__name__ = ask.__qualname__ = name
        return ask

    def taken(self, reply: dict[str, Any], objects: Objects) -> Any:
        """What a reply says: changes in the arguments, then a value, or an exception that is raised here."""
        try:
            if reply["changed"] is not None:
                objects.refill(reply["changed"])
            if "value" in reply:
                return self.decode(reply["value"], 0, objects)
            args = None if reply["args"] is None else tuple(self.decode(reply["args"]))
            raised = exception(reply["raised"], args, reply["text"])
        except (ValueError, TypeError) as error:
            raise Forged(f"wrote an answer in no form: {error}") from None
        self.raised = raised
        raise raised

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
        if isinstance(error, Forged):
            return "violation", str(error)
        if isinstance(error, Unfit):
            return "exception", f"the tests do not fit their form: {error}; have them judged weakly"
        status = "memory" if isinstance(error, MemoryError) else "exception"
        return status, f"in the tests: {text}" + (f": {where}" if where else "")


def exception(names: list[str], args: tuple[Any, ...] | None, text: str) -> BaseException:
    """An exception of the first named type that there is here, or of a new one below the nearest that there are.

    Args:
        names: of its types, with their modules, the nearest first.
        args: None if they are not plain data.
        text: what it is to say.
    """
    name = names[0].rpartition(".")[2]
    kinds = [kind for each in names if (kind := _known_type(each)) is not None]
    nearest = [kind for place, kind in enumerate(kinds) if not any(issubclass(each, kind) for each in kinds[:place])]
    args = args if args is not None else (text,) if text else ()
    if _known_type(names[0]) is not None:
        made = _made(kinds[0], args)
        if _said(made) == text:
            return made
    return _made(_new_type(name if name.isidentifier() else "CandidateError", nearest or [Exception], text), args)


def _known_type(name: str) -> type[BaseException] | None:
    """The type of exceptions of that name, of Python's own modules that are loaded already."""
    module, _, name = name.rpartition(".")
    if module.partition(".")[0] not in sys.stdlib_module_names or module not in sys.modules:
        return None
    kind = vars(sys.modules[module]).get(name)
    if not isinstance(kind, type) or not issubclass(kind, BaseException) or kind.__module__ != module:
        return None
    return None if issubclass(kind, BaseExceptionGroup) else kind  # which want exceptions, and those do not travel


def _new_type(name: str, bases: list[type[BaseException]], text: str) -> type[BaseException]:
    own = {"__str__": lambda self: text, "__module__": "solution"}
    try:
        return type(name, tuple(bases), dict(own))
    except TypeError:  # which have no common layout
        return type(name, tuple(bases[:1]), dict(own))


def _made(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """As the candidate's was made, if these are what the type takes; else without its own initialisation."""
    try:
        return kind(*args)
    except Exception:
        made = kind.__new__(kind)
        made.args = args
        return made


def _said(error: BaseException) -> str | None:
    try:
        return str(error)
    except Exception:
        return None


def serve(encode: Callable[..., str], decode: Callable[..., Any], new_objects: Callable[[], Objects]) -> NoReturn:
    """Take over. Requests: `tests` (arguments of `Examination` from the fifth on), `resume`, `again`, `leave`."""
    conversation = Conversation()
    while (request := conversation.receive()) is not None:
        if request["entry_point"] != "tests":
            conversation.answer("null")  # to leave, when there is no child
            continue
        child = os.fork()
        if child == 0:
            _examine(Examination(conversation, encode, decode, new_objects, *request["args"]))
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
        conversation.answer("null")
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
