"""Payloads are read as they are, and refused for what no event can be."""

import numpy as np
import pytest

from engines.errors import MessageError
from engines.types import AnyArray
from stream.payload import read_payload


def read(particles: AnyArray) -> AnyArray:
    out = np.full(particles.shape, np.nan, np.float32)
    read_payload(particles.tobytes(), particles.dtype.str, out)
    return out


def every_half() -> AnyArray:
    """All finite halves, padded to whole events, negative ones where no pT stands."""
    halves = np.arange(2**16, dtype=np.uint16).view("<f2")
    halves = halves[np.isfinite(halves)]
    events = np.zeros((-(-len(halves) // 38), 19, 3), dtype="<f2")
    angles = np.zeros(len(events) * 38, dtype="<f2")
    angles[: len(halves)] = halves
    events[:, :, 1:] = angles.reshape(-1, 19, 2)
    return events


def test_every_half_is_widened_exactly() -> None:
    events = every_half()
    np.testing.assert_array_equal(read(events), events.astype(np.float32))
    assert np.signbit(read(events)).sum() == np.signbit(events).sum()


def test_floats_are_copied_bit_by_bit() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (300, 19, 3), dtype=np.uint32)
    events = bits.view("<f4")
    events[~np.isfinite(events)] = 1.0
    events[:, :, 0] = abs(events[:, :, 0])
    np.testing.assert_array_equal(read(events).view(np.uint32), events.view(np.uint32))


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (6, 18, 2), (3, 7, 1), (2, 9, 0)])
def test_what_is_not_finite_is_refused(
    dtype: str, value: float, place: tuple[int, int, int]
) -> None:
    events = np.ones((7, 19, 3), dtype)
    events[place] = value
    with pytest.raises(MessageError, match=rf"event {place[0]} of the message is not") as caught:
        read(events)
    assert caught.value.reason == "non-finite"


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_negative_pt_is_refused_and_minus_zero_is_not(dtype: str) -> None:
    events = np.ones((7, 19, 3), dtype)
    events[:, :, 1:] = -3
    events[2, 5, 0] = -0.0
    np.testing.assert_array_equal(read(events), events.astype(np.float32))
    events[4, 18, 0] = -np.finfo(dtype).smallest_subnormal
    with pytest.raises(MessageError, match="in event 4 of the message it is not") as caught:
        read(events)
    assert caught.value.reason == "negative-pt"


def test_no_event_is_read() -> None:
    assert read(np.empty((0, 19, 3), "<f4")).shape == (0, 19, 3)
