"""Passes over features on a CPU that read a row once: f, loss and gradient while it is in cache.

torch's matrix-vector products would read it twice, at a third of the memory's speed. Many windows
over the same events are better served by matrix products (`sums`).
"""

import math

import numpy as np
from numba import boolean, float32, float64, int64, void

from engines.kernels import kernel
from engines.types import Float64Array, FloatArray, IntArray

__all__ = ["fused_sums"]

_ROWS = 64
#: exp of more is not finite in float64.
_LARGEST_F = 700.0
_LN2 = math.log(2.0)
_PER_LN2 = 1.0 / _LN2
_TAYLOR = tuple(1.0 / math.factorial(n) for n in range(10, -1, -1))
#: Sums may be taken in another order: the loops become vector instructions.
_FASTMATH = {"reassoc", "contract", "nsz"}


@kernel(void(float32[::1], float64[::1]), fastmath=_FASTMATH)
def _exp_minus_abs(x: FloatArray, out: Float64Array) -> None:
    """Put e^-|x| into `out`, to 2e-13 of its value; |x| above 700 counts as 700.

    2^k e^y with |y| <= ln(2) / 2, the power of two put together from its bits and e^y its Taylor
    series: compilers make vector instructions of this, and of `math.exp` one call after the other.
    """
    bits = out.view(np.int64)
    for i in range(len(x)):
        z = -min(abs(float(x[i])), _LARGEST_F)
        k = math.floor(z * _PER_LN2 + 0.5)
        y = z - k * _LN2
        series = 0.0
        for coefficient in _TAYLOR:
            series = series * y + coefficient
        bits[i] = (int(k) + 1023) << 52
        out[i] *= series


@kernel(
    void(float32[:, ::1], int64, float32[::1], boolean, float64[::1]),
    fastmath=_FASTMATH,
)
def _piece_sums(
    psi: FloatArray, first_column: int, a: FloatArray, likelihood: bool, out: Float64Array
) -> None:
    """Put the sums over the rows of h(f), e^f - 1 and h'(f) psi into `out`.

    h is softplus, or e^f - 1 with `likelihood`. Partial sums of 64 rows are float32, their totals
    float64. One exponential serves a row, one logarithm 64 of them: ln(1 + e^-|f|) is at most ln 2,
    so the product of the 64 arguments cannot overflow.

    Args:
        psi: (n, columns) float32, row-major.
        first_column: where the r columns of this kernel width start.
        a: (r,) float32 coordinates.
        likelihood: which h.
        out: (2 + r,) float64.
    """
    n, r = psi.shape[0], len(a)
    f, small = np.empty(_ROWS, np.float32), np.empty(_ROWS)
    partial = np.empty(r, np.float32)
    value = excess = 0.0
    out[:] = 0.0
    for first in range(0, n, _ROWS):
        rows = min(_ROWS, n - first)
        for i in range(rows):
            row = psi[first + i, first_column : first_column + r]
            total = np.float32(0.0)
            for j in range(r):
                total += row[j] * a[j]
            f[i] = total
        _exp_minus_abs(f[:rows], small)
        product = 1.0
        for i in range(rows):
            grown = 1.0 / small[i] if f[i] > 0.0 else small[i]
            excess += grown - 1.0
            if likelihood:
                f[i] = grown
            else:
                value += max(float(f[i]), 0.0)
                product *= 1.0 + small[i]
                f[i] = (1.0 if f[i] > 0.0 else small[i]) / (1.0 + small[i])
        value += math.log(product)
        partial[:] = 0.0
        for i in range(rows):
            row, slope = psi[first + i, first_column : first_column + r], f[i]
            for j in range(r):
                partial[j] += slope * row[j]
        for j in range(r):
            out[2 + j] += partial[j]
    out[0] = excess if likelihood else value
    out[1] = excess


@kernel(
    void(float32[:, ::1], int64, int64[:, ::1], float32[:, ::1], boolean, float64[:, ::1]),
    fastmath=_FASTMATH,
)
def fused_sums(
    psi: FloatArray,
    first_column: int,
    bounds: IntArray,
    a: FloatArray,
    likelihood: bool,
    out: Float64Array,
) -> None:
    """Put the sums over pieces of the rows into `out`.

    Args:
        psi: (n, columns) float32, row-major.
        first_column: where the r columns of this kernel width start.
        bounds: (n_pieces, 2) first and stop row of each piece.
        a: (n_pieces, r) float32 coordinates that each piece is evaluated at.
        likelihood: which h.
        out: (n_pieces, 2 + r) float64, of each piece the sums of h(f), e^f - 1 and h'(f) psi.
    """
    for piece in range(len(bounds)):
        rows = psi[bounds[piece, 0] : bounds[piece, 1]]
        _piece_sums(rows, first_column, a[piece], likelihood, out[piece])
