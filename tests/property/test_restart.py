"""Whatever the stream: a run taken up at any message goes on as if nothing had happened."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.reference_file import ReferenceArtifact
from stream.account import Account, Rules
from stream.alarms import FalseAlarmRate
from stream.block import Block, Part
from stream.discoveries import Discoveries, FdrMethod
from stream.monitor import Monitor
from stream.nested import NestedWindows
from stream.sliding import SlidingWindows
from stream.spacing import Spacing
from stream.tumbling import CountWindows, TimeWindows
from stream.window import ClosedWindow, Windows
from stream.window_result import WindowResult
from tests.support import gaussians, small_artifact, window_spec
from tests.support_stream import block, closed_window

_NS = 10**9
MAKERS: dict[str, Callable[[], Windows]] = {
    "count": lambda: CountWindows(7),
    "time": lambda: TimeWindows(10 * _NS),
    "sliding count": lambda: SlidingWindows(CountWindows(3), 3),
    "sliding time": lambda: SlidingWindows(TimeWindows(4 * _NS), 3, 4 * _NS),
}
MESSAGES = st.lists(
    st.tuples(
        st.integers(1, 12),
        # Clocks run, jitter, leap ahead over empty windows, and are set back by minutes.
        st.sampled_from([0, 1, 2, 3, 7, -2, 25, 90, -150]),
        st.sampled_from([0, 0, 0, 1, 3]),
        st.sampled_from("ab"),
    ),
    min_size=1,
    max_size=40,
)


def through_json(state: object) -> Any:  # noqa: ANN401 - JSON holds any type
    return json.loads(json.dumps(state))


def blocks_of(messages: list[tuple[int, int, int, str]]) -> list[Block]:
    blocks, first, t_s = [], 0, 1000
    next_seq = {"a": 0, "b": 70}
    for number, (size, passed_s, n_missing, source) in enumerate(messages):
        t_s = max(0, t_s + passed_s)
        seq = next_seq[source] = next_seq[source] + n_missing + 1
        ids = np.arange(first, first + size)
        made = block(source, seq, t_s * _NS, ids)
        blocks.append(replace(made, n_missing=n_missing, number=number))
        first += size
    return blocks


def described(window: ClosedWindow) -> tuple[object, ...]:
    ids = window.embeddings[:, 0].tolist()
    np.testing.assert_array_equal(window.particles[:, 0, 0], window.embeddings[:, 0])
    bounds = (window.t_start_ns, window.t_end_ns)
    facts = (window.index, window.n_missing, window.overlap, window.cut)
    return (*facts, bounds, window.spans, ids, [len(piece) for piece in window.features()])


def feed(windows: Windows, blocks: list[Block]) -> list[tuple[object, ...]]:
    return [described(window) for one in blocks for window in windows.add(one)]


@pytest.mark.parametrize("kind", MAKERS)
@given(messages=MESSAGES, place=st.integers(0, 40))
def test_windows_go_on_from_any_message(
    kind: str, messages: list[tuple[int, int, int, str]], place: int
) -> None:
    blocks, place = blocks_of(messages), min(place, len(messages))
    calm = MAKERS[kind]()
    feed(calm, blocks[:place])
    state = through_json(calm.state())
    asked: list[int] = []

    def find(name: Part) -> Block:
        number, *_ = name
        asked.append(number)
        # As it is stored: whole, and without knowing what went missing before it.
        return replace(blocks[number], n_missing=0).part(name)

    again = MAKERS[kind]()
    again.restore(state, find)
    facts = [(w.n_open, w.n_unclosed, w.n_empty, w.n_closed) for w in (calm, again)]
    assert facts[0] == facts[1]
    assert through_json(again.state()) == state
    assert all(number < place for number in asked)
    assert feed(calm, blocks[place:]) == feed(again, blocks[place:])
    facts = [(w.n_open, w.n_unclosed, w.n_empty, w.n_closed) for w in (calm, again)]
    assert facts[0] == facts[1]


P_VALUES = st.lists(st.sampled_from([0.9, 0.5, 0.03, 1e-4, 1e-9, 0.0]), min_size=1, max_size=60)


@pytest.mark.parametrize("method", get_args(FdrMethod))
@settings(deadline=None)  # the first imports the package
@given(p_values=P_VALUES, place=st.integers(0, 60))
def test_discoveries_go_on(method: FdrMethod, p_values: list[float], place: int) -> None:
    calm, again = Discoveries(0.1, method), Discoveries(0.1, method)
    for p in p_values[:place]:
        calm.test(p)
    again.restore(through_json(calm.state()))
    later = p_values[place:]
    assert [calm.test(p) for p in later] == [again.test(p) for p in later]


class Clock:
    """Stands still until it is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


STEPS = st.lists(
    st.tuples(st.integers(-200, 60), st.integers(0, 30), st.sampled_from([0.5, 1e-3, 1e-9])),
    min_size=1,
    max_size=40,
)


@given(steps=STEPS, place=st.integers(0, 40), away_s=st.integers(0, 1000))
def test_spacing_is_charged_as_if_the_clock_had_gone_on(
    steps: list[tuple[int, int, float]], place: int, away_s: int
) -> None:
    # The clock that never jumps begins anew with each process.
    clock, other = Clock(5000.0), Clock(17.0)
    calm, again = Spacing(clock, 20.0), Spacing(other, 20.0)
    end_s = 1000
    for number, (ahead_s, passed_s, _) in enumerate(steps):
        if number == place:
            again.restore(through_json(calm.state()), away_s)
            clock.now_s += away_s
        end_s = max(20, end_s + ahead_s)
        bounds = ((end_s - 10) * _NS, end_s * _NS)
        clock.now_s += passed_s
        expected = calm.charge(*bounds)
        if number >= place:
            other.now_s += passed_s
            assert again.charge(*bounds) == pytest.approx(expected, abs=1e-6)
            assert again.mean_s == pytest.approx(calm.mean_s)
            counts = [(one.n_clock_jumps, one.n_uncharged) for one in (calm, again)]
            assert counts[0] == counts[1]


@given(steps=STEPS, lends_s=st.sampled_from([0.0, 3.0, 50.0]))
def test_what_is_lent_is_limited_and_paid_back(
    steps: list[tuple[int, int, float]], lends_s: float
) -> None:
    lending, plain = Spacing(None, lends_s), Spacing()
    end_s, lent_s = 1000, 0.0
    for ahead_s in [ahead_s for ahead_s, *_ in steps] + [10] * 60:
        end_s = max(20, end_s + ahead_s)
        bounds = ((end_s - 10) * _NS, end_s * _NS)
        charged_s = lending.charge(*bounds)
        lent_s += charged_s - plain.charge(*bounds)
        assert charged_s >= 0
        assert -1e-9 <= lent_s <= lends_s + 1e-9
    assert lent_s == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("fdr", [0.0, 0.1])
@given(steps=STEPS, place=st.integers(0, 40))
def test_accounts_go_on(fdr: float, steps: list[tuple[int, int, float]], place: int) -> None:
    rules = Rules(FalseAlarmRate.parse("1/day"), refractory_s=45.0, fdr=fdr)
    calm, again = Account(rules), Account(rules)
    end_s = 1000
    for window, (ahead_s, _, p) in enumerate(steps):
        if window == place:
            again.restore(through_json(calm.state()), 3.0)
        end_s = max(20, end_s + ahead_s)
        told: dict[str, Any] = {
            "window": window,
            "bounds_ns": ((end_s - 10) * _NS, end_s * _NS),
            "complete": window % 7 != 0,
            "below_null": False,
        }
        expected = calm.decide(p, 1.0, **told)
        if window >= place:
            assert again.decide(p, 1.0, **told) == expected


@pytest.mark.parametrize("by_time", [False, True])
@given(
    kept=st.lists(st.booleans(), min_size=1, max_size=40),
    place=st.integers(0, 40),
    n_panes=st.integers(1, 3),
)
def test_longer_scales_go_on(by_time: bool, kept: list[bool], place: int, n_panes: int) -> None:
    def made() -> NestedWindows:
        return NestedWindows([2, 3], n_panes=n_panes, by_time=by_time)

    def add(nested: NestedWindows, window: ClosedWindow, sums: Any) -> list[str]:  # noqa: ANN401
        merged = nested.add(window, sums) if nested.wants(window) else []
        return [json.dumps(one.state()) for one in merged]

    calm, again = made(), made()
    rng = np.random.default_rng(0)
    for index, there in enumerate(kept):
        if index == place:
            again.restore(through_json(calm.state()))
            assert again.n_broken == calm.n_broken
        if not there:
            continue
        bounds: dict[str, Any] = {"t_start_ns": index * _NS, "t_end_ns": (index + n_panes) * _NS}
        window = closed_window(np.zeros((5, 2), np.float32), index=index, **bounds)
        sums = rng.normal(size=4)
        expected = add(calm, window, sums)
        if index >= place:
            assert add(again, window, sums) == expected
            assert again.n_broken == calm.n_broken


@pytest.fixture(scope="module")
def artifact() -> ReferenceArtifact:
    return small_artifact(window_spec("count", 200), scales=(2, 3), n_toys=49)


@pytest.mark.parametrize("place", [0, 1, 3, 4, 7])
def test_a_monitor_goes_on(artifact: ReferenceArtifact, place: int) -> None:
    rules = Rules(FalseAlarmRate.parse("1/hour"), refractory_s=20.0, fdr=0.2, fdr_method="lord++")
    calm, again = (Monitor(artifact, rules, run="r", clock=lambda: 0.0) for _ in range(2))
    rng = np.random.default_rng(2)

    def examine(monitor: Monitor, window: ClosedWindow) -> list[WindowResult]:
        return [monitor.examine(window)[0], *monitor.merge(window)]

    for index in range(9):
        if index == place:
            again.restore(through_json(calm.state()))
        events = gaussians(200, rng)
        events[: 60 * (index % 3 == 1)] += 3.0
        bounds: dict[str, Any] = {
            "t_start_ns": index * 10 * _NS,
            "t_end_ns": (index + 1) * 10 * _NS,
        }
        window = closed_window(events, artifact.reference, index=index, **bounds)
        expected = examine(calm, window)
        if index >= place:
            assert examine(again, window) == expected
    assert again.n_broken == calm.n_broken
