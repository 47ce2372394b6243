"""Overlapping windows, each made of the last k panes.

A pane is a tumbling window as long as the step. Under the null the p-values of windows that
overlap are correlated: the expected number of false alarms in a time is what the rate says (each
window is charged for the step, its spacing), but they come in clusters.
"""

from collections import deque
from collections.abc import Iterator

from engines.errors import ParameterError
from engines.windows import WindowSpec, parse_duration_s
from stream.block import Block
from stream.runner import MOST_WAITING
from stream.tumbling import CountWindows, TimeWindows
from stream.window import ClosedWindow, Find, State, Windows

__all__ = ["SlidingWindows", "held_bytes", "open_windows", "panes_per_window"]

_NS = 1e9
#: A time window that holds so many times the events that it expects is cut: no background
#: fluctuates so far, and a producer without a limit to its rate fills no memory.
_FULL = 10.0


def panes_per_window(window: WindowSpec, step: str) -> int:
    """Return how many steps a window holds.

    Args:
        window: the window.
        step: a count of events for a count window, a duration for a time window.

    Raises:
        ParameterError: if the step is of the other kind or does not divide the window.

    >>> panes_per_window(WindowSpec("count", 10000.0), "2500")
    4
    """
    if step.strip().isdecimal() != (window.mode == "count"):
        kind = "a number of events" if window.mode == "count" else "a duration, such as 10s,"
        msg = f"--slide must be {kind} for windows of {window}; got {step!r}"
        raise ParameterError(msg)
    if window.mode == "count":
        length, short = round(window.n_expected), int(step)
    else:
        length, short = round(window.span_s * _NS), round(parse_duration_s(step) * _NS)
    if short < 1 or length % short:
        msg = (
            f"--slide must divide the window of {window} into equal steps; got {step!r}; "
            "choose a half, a quarter or a tenth of the window"
        )
        raise ParameterError(msg)
    return length // short


class SlidingWindows:
    """Windows of the last `n_panes` panes, one as each pane closes.

    A time window in whose first or last panes nothing was produced is a window like any other; one
    without any event is counted and not tested. The first window closes with the `n_panes`-th pane.

    Args:
        panes: cuts the stream into panes.
        n_panes: panes in a window.
        step_ns: length of a pane of time; None for panes of a count.
    """

    def __init__(self, panes: Windows, n_panes: int, step_ns: int | None = None) -> None:
        """Start without panes."""
        self._panes, self._n_panes, self._step_ns = panes, n_panes, step_ns
        self._last: deque[ClosedWindow | None] = deque(maxlen=n_panes)
        self._end_ns = 0
        self._index = self._n_empty = 0

    @property
    def n_open(self) -> int:
        """Events in the window that is still open: its closed panes and the open one."""
        skip = 1 if len(self._last) == self._n_panes else 0
        return self._panes.n_open + sum(map(_size, list(self._last)[skip:]))

    @property
    def n_unclosed(self) -> int:
        """Events that no closed window holds."""
        waiting = self._last if len(self._last) < self._n_panes else ()
        return self._panes.n_open + sum(map(_size, waiting))

    @property
    def n_empty(self) -> int:
        """Time windows so far in which no event was produced; they are not tested."""
        return self._n_empty

    @property
    def n_closed(self) -> int:
        """Windows closed so far, which is the index of the next."""
        return self._index

    def state(self) -> State:
        """Return everything that the windows to come depend on."""
        # The oldest of a full row is in no window to come.
        skip = 1 if len(self._last) == self._n_panes else 0
        return {
            "index": self._index,
            "end_ns": self._end_ns,
            "n_empty": self._n_empty,
            "last": [None] * skip + [_pane_state(pane) for pane in list(self._last)[skip:]],
            "panes": self._panes.state(),
        }

    def restore(self, state: State, find: Find) -> None:
        """Go on from a state."""
        self._index, self._end_ns = state["index"], state["end_ns"]
        self._n_empty = state["n_empty"]
        self._last.clear()
        for said in state["last"]:
            pane = _pane(said, find)
            if said is None or pane is not None:
                self._last.append(pane)
            else:  # with a message lost it is no whole pane; windows begin after it
                self._last.clear()
        self._panes.restore(state["panes"], find)

    def add(self, block: Block) -> Iterator[ClosedWindow]:
        """Take a block; yield each window that it closes. Exhaust the iterator."""
        n_empty = self._panes.n_empty
        for pane in self._panes.add(block):
            self._end_ns = pane.t_end_ns
            yield from self._close(pane, pane.n_missing_after)
        n_empty = self._panes.n_empty - n_empty
        # After n_panes empty ones the windows are empty, however long the silence.
        for _ in range(min(n_empty, self._n_panes)):
            self._end_ns += self._step_ns or 0
            yield from self._close(None, block.n_missing)
        self._n_empty += max(0, n_empty - self._n_panes)

    def _close(self, pane: ClosedWindow | None, n_missing_after: int) -> Iterator[ClosedWindow]:
        self._last.append(pane)
        if len(self._last) < self._n_panes:
            return
        panes = [pane for pane in self._last if pane is not None]
        if not panes:
            self._n_empty += 1
            return
        start_ns, end_ns = self._bounds_ns(panes)
        yield ClosedWindow(
            index=self._index,
            t_start_ns=start_ns,
            t_end_ns=end_ns,
            blocks=tuple(block for pane in panes for block in pane.blocks),
            n_missing_after=n_missing_after,
            overlap=(self._n_panes - 1) / self._n_panes,
            cut=any(pane.cut for pane in panes),
        )
        self._index += 1

    def _bounds_ns(self, panes: list[ClosedWindow]) -> tuple[int, int]:
        if self._step_ns is None:
            return min(pane.t_start_ns for pane in panes), max(pane.t_end_ns for pane in panes)
        return self._end_ns - self._n_panes * self._step_ns, self._end_ns


def _pane_state(pane: ClosedWindow | None) -> State | None:
    if pane is None:
        return None
    return {
        "index": pane.index,
        "bounds_ns": [pane.t_start_ns, pane.t_end_ns],
        "blocks": [block.name() for block in pane.blocks],
        "n_missing_after": pane.n_missing_after,
        "cut": pane.cut,
    }


def _pane(state: State | None, find: Find) -> ClosedWindow | None:
    if state is None:
        return None
    blocks = [block for name in state["blocks"] if (block := find(name)) is not None]
    if len(blocks) < len(state["blocks"]):
        return None
    start_ns, end_ns = state["bounds_ns"]
    return ClosedWindow(
        index=state["index"],
        t_start_ns=start_ns,
        t_end_ns=end_ns,
        blocks=tuple(blocks),
        n_missing_after=state["n_missing_after"],
        cut=state["cut"],
    )


def _size(pane: ClosedWindow | None) -> int:
    return 0 if pane is None else len(pane)


def open_windows(window: WindowSpec, n_panes: int = 1) -> Windows:
    """Return the windowing that a spec asks for, sliding if a window has more panes than one."""
    if window.mode == "count":
        panes: Windows = CountWindows(round(window.n_expected) // n_panes)
        return panes if n_panes == 1 else SlidingWindows(panes, n_panes)
    step_ns = round(window.span_s * _NS) // n_panes
    # Messages are placed whole, so a short step may well hold ten times what it expects.
    panes = TimeWindows(step_ns, max(_FULL / n_panes, 1.0) * window.n_expected)
    return panes if n_panes == 1 else SlidingWindows(panes, n_panes, step_ns)


def held_bytes(window: WindowSpec, max_waiting: int, event_bytes: int) -> float:
    """Return what windows hold at most: those that wait, the open one and the one that is tested.

    Args:
        window: the windows.
        max_waiting: windows that may wait for their test.
        event_bytes: of an event.
    """
    n_windows = max_waiting + 2.0
    if window.mode == "time":
        n_windows = MOST_WAITING * max_waiting + 2.0 * _FULL
    return n_windows * window.n_expected * event_bytes
