"""Malformed messages: the intake and the rules of the wire, written twice, always agree."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.fuzzing.control_run import ControlRun
from bench.fuzzing.intake_run import NOW_NS, Findings, IntakeRun
from bench.fuzzing.messages import KINDS, MessageFuzzer
from bench.fuzzing.report import intake_record
from bench.fuzzing.rules import Rules
from bench.fuzzing.socket_run import fuzz_consumer
from engines.errors import MessageError
from stream.header import EVENT_ROW
from stream.message import decode_message
from stream.wire import EventWire

KEYS = ("v", "source", "seq", "n", "dtype", "shape", "t_ns", "end", "engine", "more")
EXACT = st.sampled_from([0, 1, 2, -1, 19, 57, 2**31, 2**63, 2**64 - 1, "<f4", "<f2", "", True])
ANYTHING = st.recursive(
    EXACT | st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=18) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, 65504.0, 6e-8, 1e-40])


def nothing(_: int) -> None:
    pass


def is_accepted(frames: list[bytes]) -> bool:
    try:
        decode_message(frames)
    except MessageError:
        return False
    return True


@given(
    changed=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=3),
    missing=st.sets(st.sampled_from(KEYS), max_size=1),
    numbers=st.lists(NUMBERS, min_size=1, max_size=3),
    extra=st.integers(-3, 3),
)
# The first draw loads what makes messages, which takes a second or two.
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_decoder_and_rules_agree(
    changed: dict[str, Any], missing: set[str], numbers: list[float], extra: int
) -> None:
    header = {"v": 1, "source": "me", "seq": 3, "n": 1, "dtype": "<f4", "shape": [1, 19, 3]}
    header = {**header, "t_ns": NOW_NS, **changed}
    values = np.resize(np.array(numbers, np.float32), 57).tobytes()
    payload = values[:extra] if extra < 0 else values + bytes(extra)
    frames = [msgpack.packb({k: v for k, v in header.items() if k not in missing}), payload]
    verdict = Rules(EVENT_ROW).judge(frames, NOW_NS)
    breaches = verdict.must - {"clock"}  # which is the intake's rule
    if not verdict.may:
        assert is_accepted(frames) == (not breaches), (verdict.must, header)


@pytest.mark.parametrize("embeddings", [False, True], ids=["events", "embeddings"])
def test_every_malformed_message_is_refused_for_what_is_wrong(embeddings: bool) -> None:
    run = IntakeRun(np.random.default_rng(5), embeddings=embeddings)
    resident = run.feed(4000, nothing)
    run.check_account()
    assert run.findings == Findings(), run.findings.examples
    record = intake_record(run, resident)
    assert record["wrong"] == 0
    assert record["messages"] == record["accepted"] + sum(record["refused"].values()) == 4000
    assert record["kinds"]["good"]["accepted"] == record["good"] > 300
    assert set(record["kinds"]) == {*KINDS, "good"}
    assert len(record["refused"]) >= 15


def test_a_consumer_that_took_too_much_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventWire, "read", lambda *_: None)
    run = IntakeRun(np.random.default_rng(5))
    run.feed(500, nothing)
    assert run.findings.counts["accepted against the rules"] > 10
    assert run.findings.counts["accepted with other content"] > 10


def test_the_same_seed_draws_the_same() -> None:
    one, other = (MessageFuzzer(np.random.default_rng(7), EVENT_ROW, NOW_NS) for _ in range(2))
    assert [one.draw() for _ in range(200)] == [other.draw() for _ in range(200)]


def test_control_messages_are_right_or_refused() -> None:
    run = ControlRun(np.random.default_rng(3))
    run.feed(4000, nothing)
    assert run.findings == Findings(), run.findings.examples
    assert run.n_accepted > 300
    assert run.n_accepted + run.refused.total() == 4000


@pytest.mark.slow
def test_a_real_consumer_counts_every_message() -> None:
    advanced: list[int] = []
    found = fuzz_consumer(1500, 0, advanced.append)
    assert found.wrong == []
    assert found.n_good > 100
    assert len(found.rejected) >= 15
    assert sum(advanced) == 1500
