"""Compiled loops: one signature, with or without a folder to keep them in."""

import subprocess
import sys
from types import FunctionType

import numpy as np
import pytest
from numba import float64, njit, void

from engines.kernels import kernel
from engines.types import Float64Array

SIGNATURE = void(float64[::1])


def _double(x: Float64Array) -> None:
    for i in range(len(x)):
        x[i] *= 2.0


def test_code_that_cannot_be_kept_is_compiled_all_the_same() -> None:
    """As where no folder is writable; here because there is no file that it came from."""
    nowhere = FunctionType(_double.__code__.replace(co_filename="<nowhere>"), globals())
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(SIGNATURE, cache=True)(nowhere)
    double = kernel(SIGNATURE)(nowhere)
    x = np.arange(3.0)
    double(x)
    assert x.tolist() == [0.0, 2.0, 4.0]


def test_other_types_are_refused_not_compiled() -> None:
    @kernel(SIGNATURE)
    def clear(x: Float64Array) -> None:
        x[:] = 0.0

    clear(np.ones(2))
    with pytest.raises(TypeError, match="No matching definition"):
        clear(np.ones(2, dtype=np.float32))


def test_what_others_add_to_numba_costs_no_start_and_stays_theirs() -> None:
    """A package whose extension fails stands for awkward and vector, which take a second."""
    code = """
import sys, types
from numba.core import entrypoints
class Slow:
    module = "slow"
    def load(self):
        sys.modules["slow"] = types.ModuleType("slow")
        return lambda: None
class All:
    def select(self, **_):
        return [Slow()]
entrypoints.importlib_metadata = types.SimpleNamespace(entry_points=All)
import engines.nplm.fused, stream.payload
assert "slow" not in sys.modules
from numba import njit
njit(lambda x: x + 1)(1)
assert "slow" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
