"""Events out of a message's payload, straight into the memory that the encoder reads.

One pass copies or widens, one looks at every number while it is in cache: no temporary array, no
Python per event, and the interpreter's lock is free meanwhile.
"""

import numpy as np
from numba import types, uint16, uint32

from engines.errors import MessageError
from engines.kernels import kernel
from engines.types import AnyArray, FloatArray
from stream.header import Frame, Reason

__all__ = ["read_payload"]

_INFINITE, _MINUS_ZERO = 0x7F800000, 0x80000000
_HALF_INFINITE, _HALF_MINUS_ZERO = 0x7C00, 0x8000
#: The bits of a half, moved to where a float32 has them, are 2^(127 - 15) times too small.
_HALF_SCALE = np.float32(2.0**112)

_TWO = types.UniTuple(uint32, 2)  # type: ignore[no-untyped-call]
_HALVES = types.Array(uint16, 1, "C", readonly=True)


def read_payload(payload: Frame, dtype: str, out: FloatArray) -> None:
    """Write a payload's events to `out`, (n, 19, 3) float32, C-contiguous.

    Args:
        payload: n * 19 * 3 numbers, little-endian, C order; its size has been checked.
        dtype: "<f4" or "<f2".
        out: overwritten, also where the payload is refused.

    Raises:
        MessageError: if a number is not finite, or a pT is negative.
    """
    bits = out.reshape(-1).view(np.uint32)
    if dtype == "<f2":
        magnitude, pt = _widen(_aligned(payload), bits)
        np.multiply(out, _HALF_SCALE, out=out)
        bad = magnitude >= _HALF_INFINITE or pt > _HALF_MINUS_ZERO
    else:
        np.copyto(bits, np.frombuffer(payload, np.uint32))
        magnitude, pt = _largest(bits)
        bad = magnitude >= _INFINITE or pt > _MINUS_ZERO
    if bad:
        raise _breach(np.frombuffer(payload, dtype).reshape(out.shape))


def _aligned(payload: Frame) -> AnyArray:
    """Return read-only halves; ZeroMQ may hand out memory at an odd address."""
    halves = np.frombuffer(payload, np.uint16)
    if not halves.flags.aligned:
        halves = halves.copy()
    halves.flags.writeable = False
    return halves


# The largest bits of the numbers without their sign tell infinities and NaN, those of pT with
# their sign tell negative ones. Three numbers at a time become vector instructions.
@kernel(_TWO(uint32[::1]))
def _largest(bits: AnyArray) -> tuple[int, int]:
    """Return the largest bits without sign, and of pT with it, of (n * 19 * 3,) float32."""
    magnitude, largest_pt = uint32(0), uint32(0)
    for i in range(bits.size // 3):
        pt, eta, phi = bits[3 * i], bits[3 * i + 1], bits[3 * i + 2]
        largest_pt = max(largest_pt, pt)
        magnitude = max(magnitude, pt & uint32(0x7FFFFFFF))
        magnitude = max(magnitude, eta & uint32(0x7FFFFFFF))
        magnitude = max(magnitude, phi & uint32(0x7FFFFFFF))
    return magnitude, largest_pt  # type: ignore[return-value]


@kernel(_TWO(_HALVES, uint32[::1]))
def _widen(halves: AnyArray, bits: AnyArray) -> tuple[int, int]:
    """Put the bits of halves where float32 has them; return the largest as `_largest` does."""
    magnitude, largest_pt = uint32(0), uint32(0)
    for i in range(bits.size):
        half = uint32(halves[i])
        bits[i] = ((half & uint32(0x7FFF)) << uint32(13)) | ((half & uint32(0x8000)) << uint32(16))
    for i in range(bits.size // 3):
        pt = uint32(halves[3 * i])
        eta, phi = uint32(halves[3 * i + 1]), uint32(halves[3 * i + 2])
        largest_pt = max(largest_pt, pt)
        magnitude = max(magnitude, pt & uint32(0x7FFF))
        magnitude = max(magnitude, eta & uint32(0x7FFF))
        magnitude = max(magnitude, phi & uint32(0x7FFF))
    return magnitude, largest_pt  # type: ignore[return-value]


def _breach(particles: AnyArray) -> MessageError:
    """Return the error that names the first event which breaks a rule."""
    finite = np.isfinite(particles).all(axis=(1, 2))
    if not finite.all():
        event = int(np.argmin(finite))
        msg = f"events must be finite as {particles.dtype}; event {event} of the message is not"
        return MessageError(Reason.NON_FINITE, msg)
    event = int(np.argmax((particles[:, :, 0] < 0).any(axis=1)))
    msg = f"pT must be non-negative; in event {event} of the message it is not"
    return MessageError(Reason.NEGATIVE_PT, msg)
