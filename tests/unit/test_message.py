"""Wire version 1: what is written, and every way a message can be refused."""

from typing import Any

import msgpack
import numpy as np
import pytest

from engines.errors import MessageError
from engines.types import FloatArray
from stream.header import MAX_EVENTS_PER_MESSAGE, REASONS, Header
from stream.message import decode_message, encode_message
from stream.sequence import SequenceTracker

MISSING = object()


@pytest.fixture
def particles() -> FloatArray:
    return np.arange(2 * 19 * 3, dtype=np.float32).reshape(2, 19, 3)


def header_with(**changes: object) -> bytes:
    header: dict[str, object] = {
        "v": 1,
        "source": "detector",
        "seq": 3,
        "n": 2,
        "dtype": "<f4",
        "shape": [2, 19, 3],
        "t_ns": 1_700_000_000_000_000_000,
    } | changes
    packed: bytes = msgpack.packb({k: v for k, v in header.items() if v is not MISSING})
    return packed


def refusal(*frames: bytes) -> str:
    with pytest.raises(MessageError) as caught:
        decode_message(frames)
    assert caught.value.reason in REASONS
    return caught.value.reason


def test_frames_are_those_of_the_page(particles: FloatArray) -> None:
    header, payload = encode_message("me", 7, 123, particles)
    assert msgpack.unpackb(header) == {
        "v": 1,
        "source": "me",
        "seq": 7,
        "n": 2,
        "dtype": "<f4",
        "shape": [2, 19, 3],
        "t_ns": 123,
    }
    assert payload == particles.astype("<f4").tobytes()


def test_decoding_returns_what_was_encoded(particles: FloatArray) -> None:
    message = decode_message(encode_message("me", 2**64 - 1, 123, particles))
    assert message.header == Header("me", 2**64 - 1, 2, "<f4", 123, end=False)
    assert message.particles.dtype == np.float32
    assert len(message) == 2
    np.testing.assert_array_equal(message.particles, particles)


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_misaligned_buffer_is_read(particles: FloatArray, dtype: str) -> None:
    header, payload = encode_message("me", 0, 0, particles, dtype=dtype)
    message = decode_message([header, memoryview(b"x" + payload)[1:]])
    np.testing.assert_array_equal(message.particles, particles)


def test_float16_arrives_as_float32(particles: FloatArray) -> None:
    frames = encode_message("me", 0, 0, particles, dtype="<f2")
    assert len(frames[1]) == particles.size * 2
    message = decode_message(frames)
    assert message.particles.dtype == np.float32
    np.testing.assert_array_equal(message.particles, particles)


def test_end_marker_may_be_empty() -> None:
    message = decode_message(encode_message("me", 4, 0, np.empty((0, 19, 3)), end=True))
    assert message.header.end
    assert message.particles.shape == (0, 19, 3)


def test_end_marker_may_hold_events(particles: FloatArray) -> None:
    assert len(decode_message(encode_message("me", 4, 0, particles, end=True))) == 2


def test_other_keys_are_ignored(particles: FloatArray) -> None:
    assert decode_message([header_with(run=42), particles.tobytes()]).header.seq == 3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_number_of_frames(count: int) -> None:
    assert refusal(*[b"x"] * count) == "frames"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "header-format"),
        (b"\xc1", "header-format"),
        (msgpack.packb([1, 2]), "header-format"),
        (msgpack.packb(7), "header-format"),
        (header_with() + b"\x00", "header-format"),
        (header_with()[:-1], "header-format"),
        (msgpack.packb({1: 2}), "header-format"),
        (msgpack.packb({f"k{i}": i for i in range(40)}), "header-format"),
        (b"\xdf\xff\xff\xff\xff", "header-format"),
        (b"\xdb\xff\xff\xff\xffabc", "header-format"),
        (b"\x91" * 3000, "header-format"),
        (b"\x81\xa1v\xd9\x01\xff", "header-format"),
        (header_with(source="x" * 5000), "header-size"),
        (header_with(v=MISSING), "missing-key"),
        (header_with(source=MISSING), "missing-key"),
        (header_with(seq=MISSING), "missing-key"),
        (header_with(n=MISSING), "missing-key"),
        (header_with(dtype=MISSING), "missing-key"),
        (header_with(shape=MISSING), "missing-key"),
        (header_with(t_ns=MISSING), "missing-key"),
        (header_with(v=2), "version"),
        (header_with(v=True), "version"),
        (header_with(v="1"), "version"),
        (header_with(source=b"me"), "wrong-type"),
        (header_with(seq=True), "wrong-type"),
        (header_with(seq=3.0), "wrong-type"),
        (header_with(n=None), "wrong-type"),
        (header_with(n=2.0), "wrong-type"),
        (header_with(t_ns="now"), "wrong-type"),
        (header_with(shape={"n": 2}), "wrong-type"),
        (header_with(end=1), "wrong-type"),
        (header_with(end=None), "wrong-type"),
        (header_with(source=""), "out-of-range"),
        (header_with(source="x" * 257), "out-of-range"),
        (header_with(source="a\nb"), "out-of-range"),
        (header_with(seq=-1), "out-of-range"),
        (header_with(t_ns=-1), "out-of-range"),
        (header_with(t_ns=2**63), "out-of-range"),
        (header_with(dtype="<f8"), "dtype"),
        (header_with(dtype=">f4"), "dtype"),
        (header_with(dtype="O"), "dtype"),
        (header_with(shape=[2, 19, 4]), "shape"),
        (header_with(shape=[3, 19, 3]), "shape"),
        (header_with(shape=[2, 57]), "shape"),
        (header_with(shape=[2.0, 19, 3]), "shape"),
        (header_with(n=1, shape=[True, 19, 3]), "shape"),
        (header_with(n=-2, shape=[-2, 19, 3]), "shape"),
        (header_with(n=2**63, shape=[2**63, 19, 3]), "too-many-events"),
        (header_with(n=0, shape=[0, 19, 3]), "empty"),
        (header_with(n=0, shape=[0, 19, 3], end=False), "empty"),
        (header_with(n=1, shape=[1, 19, 3]), "payload-size"),
        (header_with(dtype="<f2"), "payload-size"),
    ],
)
def test_header_that_breaks_a_rule(header: bytes, reason: str, particles: FloatArray) -> None:
    assert refusal(header, particles.tobytes()) == reason


def test_first_number_of_events_too_many(particles: FloatArray) -> None:
    n = MAX_EVENTS_PER_MESSAGE + 1
    header = header_with(n=n, shape=[n, 19, 3])
    assert refusal(header, particles.tobytes()) == "too-many-events"


@pytest.mark.parametrize("size", [0, 455, 457])
def test_payload_of_another_size(size: int) -> None:
    assert refusal(header_with(), bytes(size)) == "payload-size"


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "non-finite"), (np.inf, "non-finite"), (-np.inf, "non-finite"), (-1, "negative-pt")],
)
def test_kinematics_that_break_a_rule(value: float, reason: str, particles: FloatArray) -> None:
    particles[1, 5, 0] = value
    with pytest.raises(MessageError, match=r"event 1 of the message") as caught:
        decode_message([header_with(), particles.tobytes()])
    assert caught.value.reason == reason


def test_negative_eta_is_fine(particles: FloatArray) -> None:
    particles[1, 5, 1] = -2.0
    decode_message([header_with(), particles.tobytes()])


def test_encoding_refuses_what_decoding_would(particles: FloatArray) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"particles": particles[:, :18]}, "shape"),
        ({"particles": particles[:0]}, "empty"),
        ({"particles": np.full((1, 19, 3), np.nan)}, "non-finite"),
        ({"particles": np.full((1, 19, 3), -1.0)}, "negative-pt"),
        ({"source": ""}, "out-of-range"),
        ({"seq": 2**64}, "out-of-range"),
        ({"dtype": "<i4"}, "dtype"),
    ]
    right = {"source": "me", "seq": 0, "t_ns": 0, "particles": particles}
    for wrong, reason in cases:
        with pytest.raises(MessageError) as caught:
            encode_message(**{**right, **wrong})
        assert caught.value.reason == reason


def test_pt_beyond_float16_is_refused_as_float16(particles: FloatArray) -> None:
    particles[0, 0, 0] = 70_000.0
    encode_message("me", 0, 0, particles)
    with pytest.raises(MessageError, match="finite as float16"):
        encode_message("me", 0, 0, particles, dtype="<f2")


def test_tracker_counts_what_is_missing() -> None:
    tracker = SequenceTracker()
    assert [tracker.check("a", seq) for seq in (10, 11, 15, 16)] == [0, 0, 3, 0]
    assert tracker.check("b", 0) == 0


@pytest.mark.parametrize("again", [0, 4, 5])
def test_tracker_refuses_a_repeated_message(again: int) -> None:
    tracker = SequenceTracker()
    tracker.check("a", 5)
    with pytest.raises(MessageError, match="must use a new source name") as caught:
        tracker.check("a", again)
    assert caught.value.reason == "repeated"
    assert tracker.check("a", 6) == 0


def test_leap_is_refused_until_the_next_message_confirms_it() -> None:
    tracker = SequenceTracker()
    assert tracker.check("detector", 5) == 0
    with pytest.raises(MessageError) as caught:
        tracker.check("detector", 2**64 - 1)
    assert caught.value.reason == "leap"
    assert tracker.check("detector", 6) == 0
    with pytest.raises(MessageError):
        tracker.check("detector", 5_000_000)
    assert tracker.check("detector", 5_000_001) == 5_000_001 - 7
    assert tracker.check("detector", 5_000_002) == 0
