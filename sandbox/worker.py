"""What runs inside the contained process: executes the candidate, calls it, and sends plain values back.

Each request is eight bytes of length and a marshalled dict from the judge, whom this side trusts. Each answer is one
line of JSON with the nonce of its request and either a `value` (see `values.py`) or an `error`. The judge trusts
none of it: a candidate can forge any answer, and gains nothing, because it knows no expected value. Standard library
only.
"""

from __future__ import annotations

import marshal
import os
import sys
import types

from .values import NotPlain, encode

TYPE_CHECKING = False  # for type checkers; importing typing would cost every run 5 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

NAME = "<solution>"
REQUESTS, ANSWERS = 3, 4
"""File descriptors of the two pipes."""

_DETAIL_CHARACTERS = 500


def serve(answer_bytes: int) -> NoReturn:
    """Answer requests until there are no more, then end the process without running anything of the candidate.

    Args:
        answer_bytes: a longer answer is replaced by the error `output_flood`.
    """
    module: types.ModuleType | None = None
    while (request := read_request()) is not None:
        nonce = request["nonce"]
        try:
            value = None
            if module is None:
                module = _load(request)
            elif "hands_over" in request:  # the judge's own process: from here on its code converses
                _write_all(f'{{"nonce":"{nonce}","value":null}}\n'.encode("ascii"))
                getattr(module, request["entry_point"])()
            else:
                function = getattr(module, request["entry_point"])
                value = function(*request["args"], **request["kwargs"])
            _flush()
            text = f'"value":{encode(value)}'
            if len(text) > answer_bytes:
                text = _error("output_flood", f"returned a value of {len(text)} bytes as text")
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the judge decides what they mean
            text = _describe(error)
            _flush_if_possible()  # what it printed before says most about what went wrong
        _write_all(f'{{"nonce":"{nonce}",{text}}}\n'.encode("ascii"))
    os._exit(0)


def _load(request: dict[str, Any]) -> types.ModuleType:
    """The candidate's module, executed. As a program it is `__main__`, and leaving by `sys.exit(0)` is a good end."""
    sys.argv, sys.orig_argv = [NAME], [NAME]
    module = types.ModuleType(request["module"])
    sys.modules[request["module"]] = module
    try:
        code = compile(request["source"], NAME, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        raise _SyntaxFault(error) from None
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        if request["module"] != "__main__" or error.code not in {None, 0}:
            raise
    return module


class _SyntaxFault(Exception):
    """The source cannot be compiled."""


def _describe(error: BaseException) -> str:
    """`"error": .., "detail": ..` for whatever the candidate raised; its own `__str__` may fail or lie."""
    if isinstance(error, NotPlain):
        return _error("wrong", f"returned {error}")
    if isinstance(error, _SyntaxFault):
        fault = error.args[0]
        line = getattr(fault, "lineno", None)
        return _error(
            "syntax_error", f"{type(fault).__name__}: {fault}" if line is None else f"{fault.msg}, line {line}"
        )
    status = "memory" if isinstance(error, MemoryError) else "exception"
    try:
        text = f"{type(error).__name__}: {error}{_line(error)}"
    except BaseException:  # the candidate's own __str__
        text = f"{type(error).__name__}"
    return _error(status, text)


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


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _flush_if_possible() -> None:
    try:
        _flush()
    except BaseException:  # the candidate's own stream
        return


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
    while data:
        data = data[os.write(ANSWERS, data) :]
