"""Compiled loops (numba): functions over bytes and numbers that would take a hundred times as long in Python.

`compiled` wants the types of the arguments, so that a function is compiled once, and keeps the result on disk: beside
the module, or in the user's cache folder where that cannot be written. Without either it is compiled anew in each
process. numba's cache does not notice changes in another file whose functions are called: after editing one that others
call, `make clean` or touch those.

numba takes 0.4 s to import, therefore modules with compiled functions are imported inside functions only, never when
the command line starts; loading a function from the cache takes some 10 ms, compiling one some seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., object])


def compiled(signature: object) -> Callable[[F], F]:
    """Decorator: the function compiled for `signature` (numba types or their text), without the GIL."""
    import numba

    def compile_(function: F) -> F:
        kernel: Any
        try:
            kernel = numba.njit(signature, cache=True, nogil=True)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            kernel = numba.njit(signature, nogil=True)(function)
        return cast(F, kernel)

    return compile_
