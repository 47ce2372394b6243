"""What embeddings' messages must be, beside the rules of every message."""

import numpy as np
import pytest

from engines.errors import MessageError
from stream.header import Header, read_place
from stream.wire import EmbeddingWire, EventWire, encode_embeddings

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
