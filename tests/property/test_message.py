"""Whatever comes in, a message decodes or is refused with a known reason."""

import contextlib

import msgpack
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engines.errors import MessageError
from engines.types import FloatArray
from stream.header import REASONS, Header
from stream.message import decode_message, encode_message
from stream.sequence import SequenceTracker

SOURCES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=60)
EVENTS = st.integers(1, 4).flatmap(
    lambda n: npst.arrays(
        np.float32, (n, 19, 3), elements=st.floats(0, 2.0**15, width=16), fill=st.just(0.0)
    )
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def decode_or_refuse(frames: list[bytes]) -> None:
    try:
        decode_message(frames)
    except MessageError as exc:
        assert exc.reason in REASONS  # noqa: PT017 - both outcomes are right


@given(
    source=SOURCES,
    seq=st.integers(0, 2**64 - 1),
    t_ns=st.integers(0, 2**63 - 1),
    particles=EVENTS,
    dtype=st.sampled_from(["<f4", "<f2"]),
    end=st.booleans(),
)
def test_round_trip(
    source: str, seq: int, t_ns: int, particles: FloatArray, dtype: str, end: bool
) -> None:
    message = decode_message(encode_message(source, seq, t_ns, particles, dtype=dtype, end=end))
    assert message.header == Header(source, seq, len(particles), dtype, t_ns, end)
    np.testing.assert_array_equal(message.particles, particles)


@given(frames=st.lists(st.binary(max_size=300), max_size=3))
def test_random_bytes_are_refused(frames: list[bytes]) -> None:
    decode_or_refuse(frames)


@given(
    key=st.sampled_from(["v", "source", "seq", "n", "dtype", "shape", "t_ns", "end"]),
    value=ANYTHING,
)
def test_one_changed_field_decodes_or_is_refused(key: str, value: object) -> None:
    header, payload = encode_message("me", 0, 0, np.ones((2, 19, 3)))
    decode_or_refuse([msgpack.packb({**msgpack.unpackb(header), key: value}), payload])


@given(data=st.data())
def test_one_changed_byte_decodes_or_is_refused(data: st.DataObject) -> None:
    frames = encode_message("me", 0, 0, np.ones((2, 19, 3)))
    which = data.draw(st.integers(0, 1))
    place = data.draw(st.integers(0, len(frames[which]) - 1))
    changed = bytearray(frames[which])
    changed[place] = data.draw(st.integers(0, 255))
    frames[which] = bytes(changed)
    decode_or_refuse(frames)


@given(passed=st.sets(st.integers(0, 200), min_size=1), again=st.integers(0, 200))
def test_tracker_accounts_for_every_message(passed: set[int], again: int) -> None:
    tracker = SequenceTracker()
    missing = sum(tracker.check("a", seq) for seq in sorted(passed))
    assert len(passed) + missing == max(passed) - min(passed) + 1
    with contextlib.suppress(MessageError):
        tracker.check("a", again)
        assert again > max(passed)
