"""What embeddings' messages must be, beside the rules of every message."""

import numpy as np
import pytest

from engines.engine import Engine
from engines.errors import MessageError
from stream.assembly.engine import wire_of
from stream.header import DEFAULT_MAX_EVENTS, Header, read_place
from stream.message import encode_message
from stream.roles.forwarded import ForwardedEmbeddings
from stream.wire import EmbeddingWire, EventWire, Wire, encode_embeddings
from tests.support import LinearEngine

HEADER = Header("me", 3, 2, "<f4", 5, end=False)


def refusal(wire: EmbeddingWire, frames: list[bytes]) -> MessageError:
    with pytest.raises(MessageError) as caught:
        wire.header(frames)
    return caught.value


@pytest.mark.parametrize("dim", [4, 8])
def test_other_engine_is_named_whatever_its_shape(dim: int) -> None:
    frames = encode_embeddings(HEADER, np.ones((2, dim), np.float32), "c" * 64)
    refused = refusal(EmbeddingWire(4, "a" * 64), frames)
    assert refused.reason == "engine"
    assert "of the engine aaaaaaaaaaaaaaaa...; source 'me' sends those of ccccccc" in str(refused)


def test_embeddings_of_no_engine_are_refused() -> None:
    frames = encode_embeddings(HEADER, np.ones((2, 4), np.float32), "")
    assert "sends those of none" in str(refusal(EmbeddingWire(4, "a"), frames))


def test_other_shape_of_the_right_engine_is_told() -> None:
    frames = encode_embeddings(HEADER, np.ones((2, 8), np.float32), "a")
    assert refusal(EmbeddingWire(4, "a"), frames).reason == "shape"


def test_place_is_read_from_headers_that_break_other_rules() -> None:
    frames = encode_embeddings(HEADER, np.ones((2, 8), np.float32), "a")
    with pytest.raises(MessageError):
        EventWire().header(frames)
    assert read_place(frames[0]) == ("me", 3)


@pytest.mark.parametrize("frame", [b"", b"\xc1", bytes(5000), b"\x82\xa6source\xa1a\xa3seq\xff"])
def test_place_that_cannot_be_read_is_none(frame: bytes) -> None:
    assert read_place(frame) is None


def of_size(wire: Wire, n: int) -> list[bytes]:
    if isinstance(wire, EventWire):  # of half the bytes that MAXMSGSIZE allows for
        return encode_message("me", 0, 0, np.ones((n, 19, 3)), dtype="<f2")
    return encode_embeddings(HEADER._replace(n=n), np.ones((n, 4), np.float32), "ab")


@pytest.mark.parametrize("engine", [LinearEngine(), ForwardedEmbeddings(4, "ab", "fp32", 9)])
def test_events_of_a_message_are_limited_in_number_not_in_bytes(engine: Engine) -> None:
    wire = wire_of(engine, 20)
    assert wire.header(of_size(wire, 20)).n == 20
    with pytest.raises(MessageError, match="at most 20 events; got 21") as caught:
        wire.header(of_size(wire, 21))
    assert caught.value.reason == "too-many-events"
    # What was accepted under another limit stays so.
    assert wire.header(of_size(wire, 21), stored=True).n == 21


@pytest.mark.parametrize("wire", [EventWire(), EmbeddingWire(4, "ab")])
def test_limit_where_none_is_given(wire: Wire) -> None:
    assert wire.header(of_size(wire, DEFAULT_MAX_EVENTS)).n == DEFAULT_MAX_EVENTS
    with pytest.raises(MessageError, match=f"at most {DEFAULT_MAX_EVENTS} events"):
        wire.header(of_size(wire, DEFAULT_MAX_EVENTS + 1))
