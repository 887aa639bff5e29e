"""What runs inside the contained process: executes the candidate, calls it, and sends plain values back.

Each request is eight bytes of length and a marshalled dict from the judge, whom this side trusts. Each answer is one
line of JSON with the nonce of its request and either a `value` (see `plain.py`) or an `error`. The judge trusts none of
it: a candidate can forge any answer, and gains nothing, because it knows no expected value. Standard library only.

A request is to load a `source` as `module`, or to call `entry_point` of it with `args` and `kwargs`. Those are values;
or, with `trees`, values in the form of `plain.py`; or, with `in_full`, such as the judge's process wrote them. Then the
answer is a reply: `{"value", "changed"}` or `{"raised", "args", "text", "detail", "changed"}`, with the names of the
exception's types and what is in the arguments now, where a call has changed them.

A program that is loaded as `__main__`, and of which nothing is called, ends as one of Python's does, see `_end`.
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import gc
import marshal
import os
import sys
import types

from .objects import Objects
from .plain import NotPlain, decode, encode

TYPE_CHECKING = False  # for type checkers; importing typing would cost every run 5 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

NAME = "<solution>"
REQUESTS, ANSWERS = 3, 4
"""File descriptors of the two pipes."""

_FILE = "solution.py"
"""What a program believes that it is; it is in no file."""

_DETAIL_CHARACTERS = 500


def serve(answer_bytes: int) -> NoReturn:
    """Answer requests until there are no more, then end the process.

    Args:
        answer_bytes: a longer answer is replaced by the error `output_flood`.
    """
    own = os.getpid()
    module: types.ModuleType | None = None
    calls = 0
    while (request := read_request()) is not None:
        nonce = request["nonce"]
        try:
            if module is None:
                module = _module(request["module"])
                _execute(request["source"], module)
                text = '"value":null'
            elif "hands_over" in request:  # the judge's own process: from here on its code converses
                _write_all(f'{{"nonce":"{nonce}","value":null}}\n'.encode("ascii"))
                getattr(module, request["entry_point"])()
                raise AssertionError("the judge's own code came back")
            else:
                calls += 1
                text = f'"value":{_reply(module, request)}'
            if len(text) > answer_bytes:
                text = _error("output_flood", f"returned a value of {len(text)} bytes as text")
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the judge decides what they mean
            text = _describe(error)
        if os.getpid() != own and not calls:  # a child that a program forked, at the end of the program
            break
        _flush()  # what it printed before says most about what went wrong
        _write_all(f'{{"nonce":"{nonce}",{text}}}\n'.encode("ascii"))
    if module is not None and module.__name__ == "__main__" and not calls:
        _end(module)
    _flush()
    os._exit(0)


def _module(name: str) -> types.ModuleType:
    """An empty module for the candidate, known under its name."""
    module = types.ModuleType(name)
    module.__file__ = f"{os.getcwd()}/{_FILE}"  # noqa: PTH109 (pathlib would cost every run 5 ms)
    sys.modules[name] = module
    sys.argv, sys.orig_argv = [_FILE], [_FILE]
    return module


def _execute(source: str, module: types.ModuleType) -> None:
    """Execute the candidate's source; a program that leaves by `sys.exit(0)` has come to a good end."""
    try:
        code = compile(source.removeprefix("\ufeff"), NAME, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        raise _SyntaxFault(error) from None
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        if module.__name__ != "__main__" or not _is_success(error.code):
            raise


def _is_success(code: object) -> bool:
    """Whether this is exit status 0; a process has only eight bits of it."""
    return code is None or (isinstance(code, int) and code & 0xFF == 0)


def _reply(module: types.ModuleType, request: dict[str, Any]) -> str:
    """Text of what a call returned; with `in_full` also of what it raised, and of what it changed."""
    name, args, kwargs = request["entry_point"], request["args"], request["kwargs"]
    if "in_full" in request:
        return _reply_in_full(module, name, args, kwargs)
    if "trees" in request:
        args, kwargs = decode(args), decode(kwargs)
    return encode(getattr(module, name)(*args, **kwargs))


def _reply_in_full(module: types.ModuleType, name: str, arg_trees: list[Any], kwarg_trees: list[list[Any]]) -> str:
    objects = Objects()
    args = [decode(tree, 0, objects) for tree in arg_trees]
    kwargs = {key: decode(tree, 0, objects) for key, tree in kwarg_trees}
    objects.is_complete = True
    before = objects.snapshot([args, kwargs])
    try:
        text = f'"value":{encode(getattr(module, name)(*args, **kwargs), 0, objects)}'
    except (NotPlain, MemoryError):
        raise
    except BaseException as error:
        text = _raised(error)
    is_unchanged = before is not None and objects.snapshot([args, kwargs]) == before
    return f'{{{text},"changed":{"null" if is_unchanged else objects.contents()}}}'


def _raised(error: BaseException) -> str:
    """The parts of a reply that say what was raised: by the names of its types, the nearest first."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__[:-1]]
    try:
        args = encode(list(error.args))
    except NotPlain:
        args = "null"
    said = encode(_text(error))
    return f'"raised":{encode(names)},"args":{args},"text":{said},"detail":{encode(_detail(error))}'


class _SyntaxFault(Exception):
    """The source cannot be compiled."""


def _describe(error: BaseException) -> str:
    """`"error": .., "detail": ..` for whatever the candidate raised."""
    if isinstance(error, NotPlain):
        return _error("wrong", f"not plain data: returned {error.what}")
    if isinstance(error, _SyntaxFault):
        fault = error.args[0]
        line = getattr(fault, "lineno", None)
        return _error(
            "syntax_error", f"{type(fault).__name__}: {fault}" if line is None else f"{fault.msg}, line {line}"
        )
    return _error("memory" if isinstance(error, MemoryError) else "exception", _detail(error))


def _detail(error: BaseException) -> str:
    """The exception with the line of the solution that raised it."""
    said = _text(error)
    return f"{type(error).__name__}{': ' if said else ''}{said}{_line(error)}"[:_DETAIL_CHARACTERS]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # the candidate's own __str__
        return ""


def _line(error: BaseException) -> str:
    """Where in the solution it was raised."""
    number = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            number = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {number})" if number else ""


def _error(status: str, detail: str) -> str:
    return f'"error":{encode(status)},"detail":{encode(detail[:_DETAIL_CHARACTERS])}'


def _end(module: types.ModuleType) -> None:
    """End a program as Python does: threads are waited for, what is registered for the exit runs, streams are flushed,
    and its objects are let go, of which some print or flush then. What fails here is said on standard error alone.
    """
    for step in (_join_threads, _run_exit_functions, _flush, lambda: _let_go(module)):
        try:
            step()
        except BaseException:
            continue


def _join_threads() -> None:
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()


def _run_exit_functions() -> None:
    import atexit

    atexit._run_exitfuncs()


def _let_go(module: types.ModuleType) -> None:
    """As `_PyModule_ClearDict`: private names first, and standard streams are the original ones by then."""
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    space = module.__dict__
    for is_private in (True, False):
        for name in list(space):
            if name != "__builtins__" and is_private == (name[:1] == "_" and name[1:2] != "_"):
                space[name] = None
    gc.collect()


def _flush() -> None:
    """Flush the standard streams, which may be anything by now."""
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        try:
            stream.flush()  # type: ignore[union-attr]
        except BaseException:
            continue


def read_request() -> dict[str, Any] | None:
    """The next request, None when there are no more."""
    header = _read_exactly(8)
    if header is None:
        return None
    data = _read_exactly(int.from_bytes(header, "little"))
    if data is None:
        return None
    request: dict[str, Any] = marshal.loads(data)
    return request


def _read_exactly(size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(REQUESTS, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write_all(data: bytes) -> None:
    """Write an answer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(ANSWERS, rest) :]


def _prepare() -> None:
    """What need not be done in every candidate: a server does it before it forks them, and their pages stay shared.

    Python rewrites the code of a function in its first calls. Measured (HumanEval): 28 of 864 page faults a trial less.
    """
    # Names that programs use and that `site` brings, which this interpreter starts without.
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.help = _sitebuiltins._Helper()
    module = types.ModuleType("warm")
    module.f = lambda *args, **_: args  # type: ignore[attr-defined]
    trees = [1, 2.5, "a", [1], {"a": 1}, {"$tuple": [1, "a"]}]
    for _ in range(16):
        _reply(module, {"entry_point": "f", "args": trees, "kwargs": [["a", 1]], "in_full": True})
        _flush()


if __name__.startswith("contained."):  # the package of the launcher; elsewhere this file is imported for its names
    _prepare()
