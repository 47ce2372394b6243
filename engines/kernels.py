"""Numeric loops compiled by numba when their module is imported."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit
from numba.core import entrypoints
from numba.core.typing.templates import Signature

__all__ = ["kernel"]


def kernel(
    signature: Signature, *, fastmath: bool | set[str] = False
) -> Callable[[Callable[..., object]], Any]:
    """Return a decorator that compiles a loop for one signature; it runs without Python's lock.

    With its types given it is compiled by whoever imports it, not by the first to call it:
    numba's type inference is not safe where two threads come first at once.

    Args:
        signature: numba's, of the arguments and what is returned.
        fastmath: liberties with floats, as LLVM names them.
    """

    def compiled(function: Callable[..., object]) -> Any:  # noqa: ANN401 - numba has no types
        with _without_extensions():
            try:
                return njit(signature, nogil=True, cache=True, fastmath=fastmath)(function)
            except RuntimeError:  # no folder to keep the compiled code in: compile in every process
                return njit(signature, nogil=True, fastmath=fastmath)(function)

    return compiled


@contextlib.contextmanager
def _without_extensions() -> Iterator[None]:
    """Leave out what other packages add to numba: no loop here knows their types.

    Where awkward and vector are installed, numba would import them, and sympy with them, for more
    than a second of each start. Loops of others, compiled later, find them all the same.
    """
    before = entrypoints._already_initialized
    entrypoints._already_initialized = True
    try:
        yield
    finally:
        entrypoints._already_initialized = before
