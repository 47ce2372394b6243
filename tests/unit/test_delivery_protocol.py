"""Control messages: read back as they were made, anything else refused in words."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import MessageError
from stream.delivery import protocol
from stream.delivery.protocol import END, Control, decode_control

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=256)
NUMBERS = st.integers(0, END - 1)


@given(source=NAMES, first=NUMBERS, following=NUMBERS, credit=NUMBERS)
def test_control_messages_are_read_back(
    source: str, first: int, following: int, credit: int
) -> None:
    assert decode_control(protocol.hello(source, first)) == Control("hello", source, first=first)
    welcome = decode_control(protocol.welcome(source, first, following, credit))
    assert (welcome.next, welcome.expected, welcome.credit) == (first, following, credit)
    ack = decode_control(protocol.ack(source, following, credit))
    assert (ack.source, ack.next, ack.credit) == (source, following, credit)
    assert decode_control(protocol.who(source)) == Control("who", source)


@pytest.mark.parametrize("seq", [-1, 0, END - 1])
@pytest.mark.parametrize("text", ["", "pT must be non-negative", "x" * 5000])
def test_refusal_is_read_back(seq: int, text: str) -> None:
    control = decode_control(protocol.refused("", seq, "negative-pt", text))
    assert (control.seq, control.reason) == (seq, "negative-pt")
    assert text[:400] == control.text[:400]


def test_refusal_that_quotes_what_cannot_be_printed_reaches_the_producer() -> None:
    control = decode_control(protocol.refused("daq", 3, "header-format", "got 'a\nb\x00'"))
    assert control.seq == 3


GOOD = {"v": 1, "op": "hello", "source": "daq", "first": 0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 2}, "version"),
        ({"v": True}, "version"),
        ({"op": "shout"}, "out-of-range"),
        ({"op": 1}, "out-of-range"),
        ({"op": []}, "out-of-range"),
        ({"source": None}, "wrong-type"),
        ({"source": ""}, "out-of-range"),
        ({"source": "a\nb"}, "out-of-range"),
        ({"source": "a" * 257}, "out-of-range"),
        ({"first": -1}, "out-of-range"),
        ({"first": END}, "out-of-range"),
        ({"first": 2**64 - 1}, "out-of-range"),
        ({"first": 1.0}, "wrong-type"),
        ({"first": True}, "wrong-type"),
    ],
)
def test_broken_rules_are_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(MessageError) as refused:
        decode_control(msgpack.packb({**GOOD, **change}))
    assert refused.value.reason == reason
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", GOOD)
def test_missing_keys_are_refused(key: str) -> None:
    fields = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(MessageError):
        decode_control(msgpack.packb(fields))


@given(frame=st.binary(max_size=200))
def test_garbage_is_refused(frame: bytes) -> None:
    with pytest.raises(MessageError):
        decode_control(frame)


@given(
    fields=st.dictionaries(
        st.sampled_from(["v", "op", "source", "first", "next", "credit", "seq", "reason", "text"]),
        st.one_of(st.integers(-1, 2**64 - 1), st.text(max_size=9), st.none(), st.just("hello")),
    )
)
def test_any_map_is_read_or_refused(fields: dict[str, object]) -> None:
    try:
        control = decode_control(msgpack.packb({"v": 1, **fields}))
    except MessageError:
        return
    assert control.source or control.op == "refused"


@pytest.mark.parametrize("frame", [b"", b"\x81" * 300, b"\xdd\xff\xff\xff\xff", bytes(5000)])
def test_bombs_are_refused(frame: bytes) -> None:
    with pytest.raises(MessageError):
        decode_control(frame)
