"""The GPU's primary context by PyCUDA; torch has the same, so both share streams and memory."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engines.errors import MissingPackageError

__all__ = ["PrimaryContext"]


class PrimaryContext:
    """Retains the primary context of the first GPU.

    PyCUDA's memory and streams must be made and released where it is current: what Python's garbage
    collection finds in another thread would leak.

    Raises:
        MissingPackageError: if PyCUDA is not installed or cannot load.

    Attributes:
        driver: the module `pycuda.driver`; it has no types.
    """

    def __init__(self) -> None:
        """Initialise CUDA."""
        try:
            self.driver: Any = importlib.import_module("pycuda.driver")
        except ImportError as exc:
            msg = (
                f"PyCUDA must be installed to run a plan; got none ({exc}); "
                "pip install 'nplm-stream[gpu]', or run the .onnx with --device cuda"
            )
            raise MissingPackageError(msg) from exc
        self.driver.init()
        self._context = self.driver.Device(0).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    def close(self) -> None:
        """Let the context go; it must not be current. torch may still hold it."""
        self._context.detach()
