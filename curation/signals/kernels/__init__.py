"""Compiled loops over bytes (numba): what the signals measure one character at a time.

A kernel takes the bytes of one document or of a whole batch as `np.uint8` and gives numbers and arrays; it sees no
Python object. `compiled` wants the types of its arguments, so that each is compiled once, and keeps the result on disk:
beside the module, or in the user's cache folder where that cannot be written. Without either it is compiled anew in
each process. A kernel calls only functions of its own file: numba's cache does not notice changes in others.

Numba takes 0.4 s to import, therefore these modules are imported inside functions only, never when the command line
starts; loading a kernel from the cache takes some 10 ms, compiling one some seconds.
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
