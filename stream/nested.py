"""Longer time scales: each k consecutive windows also as one, without keeping an event.

The likelihood loss needs no more of a window than the sum of its events' features, and the sums of
disjoint windows add up. A run of windows is broken by one that was skipped, failed, lost messages
(time windows) or held no event; its partial sums are dropped and counted, and the next run starts
with the next window. Of overlapping windows one in a window's length enters: the next that shares
nothing with the last that entered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from engines.errors import ParameterError
from engines.types import Float64Array
from stream.block import Span, join_spans
from stream.window import ClosedWindow

__all__ = ["MergedWindow", "NestedWindows"]


@dataclass(frozen=True)
class MergedWindow:
    """Some consecutive disjoint windows as one.

    Attributes:
        index: 0 for the first of its scale in the run.
        scale: how many windows it holds.
        t_start_ns, t_end_ns: from the start of the first to the end of the last.
        n_events: events in it.
        sums: (rank,) float64 sum of the events' features.
        spans: its events by source.
        n_missing: messages known to be missing from it, or just after it.
    """

    overlap: ClassVar[float] = 0.0
    index: int
    scale: int
    t_start_ns: int
    t_end_ns: int
    n_events: int
    sums: Float64Array
    spans: tuple[Span, ...]
    n_missing: int

    def __len__(self) -> int:
        """Return the number of events."""
        return self.n_events

    @classmethod
    def of(cls, index: int, window: ClosedWindow, sums: Float64Array) -> "MergedWindow":
        """Return one window as the start of a merged one."""
        start_ns, end_ns = window.t_start_ns, window.t_end_ns
        return cls(index, 1, start_ns, end_ns, len(window), sums, window.spans, window.n_missing)

    def state(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {**asdict(self), "sums": self.sums.tolist()}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "MergedWindow":
        """Return what a state was made of."""
        spans = tuple(Span(**span) for span in state["spans"])
        return cls(**{**state, "sums": np.array(state["sums"], dtype=np.float64), "spans": spans})

    def __add__(self, later: "MergedWindow") -> "MergedWindow":
        """Return both as one."""
        return MergedWindow(
            index=self.index,
            scale=self.scale + later.scale,
            t_start_ns=min(self.t_start_ns, later.t_start_ns),
            t_end_ns=max(self.t_end_ns, later.t_end_ns),
            n_events=self.n_events + later.n_events,
            sums=self.sums + later.sums,
            spans=join_spans((*self.spans, *later.spans)),
            n_missing=self.n_missing + later.n_missing,
        )


@dataclass
class _Run:
    """The windows of one scale since its last merged one."""

    part: MergedWindow | None = None
    n_merged: int = 0
    n_broken: int = 0


class NestedWindows:
    """Merges windows at several scales at once.

    Args:
        scales: how many windows the merged ones of each scale hold, two or more.
        n_panes: steps in a window; 1 where windows do not overlap.
        by_time: whether windows follow each other in time, else in the count of events.

    Raises:
        ParameterError: if a scale is below two.
    """

    def __init__(self, scales: Sequence[int], *, n_panes: int = 1, by_time: bool = False) -> None:
        """Start without a window."""
        if any(scale < 2 for scale in scales):
            msg = f"scales must be two or more windows each; got {tuple(scales)}"
            raise ParameterError(msg)
        self._n_panes, self._by_time = n_panes, by_time
        self._runs = {scale: _Run() for scale in scales}
        self._next: int | None = None

    @property
    def n_broken(self) -> dict[int, int]:
        """Runs of each scale that were broken before they were complete."""
        return {scale: run.n_broken for scale, run in self._runs.items()}

    def state(self) -> dict[str, Any]:
        """Return what the merged windows to come depend on, which JSON can hold."""
        runs = {
            str(scale): [run.n_merged, run.n_broken, run.part and run.part.state()]
            for scale, run in self._runs.items()
        }
        return {"next": self._next, "runs": runs}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same scales."""
        self._next = state["next"]
        for scale, run in self._runs.items():
            run.n_merged, run.n_broken, part = state["runs"][str(scale)]
            run.part = MergedWindow.restored(part) if part else None

    def wants(self, window: ClosedWindow) -> bool:
        """Whether a window shares nothing with the last that entered.

        One that lies before it altogether follows a clock that was set back, and begins anew.
        """
        span_ns = window.t_end_ns - window.t_start_ns
        if self._by_time and self._next is not None and window.t_start_ns < self._next - span_ns:
            self._break()
            self._next = None
        return self._next is None or self._place(window) >= self._next

    def add(self, window: ClosedWindow, sums: Float64Array) -> list[MergedWindow]:
        """Take a window that is wanted; return the merged ones that it completes.

        Args:
            window: the window, complete; one that is left out breaks the run.
            sums: (rank,) sum of its events' features.
        """
        if self._next is not None and self._place(window) > self._next:
            self._break()
        self._next = window.t_end_ns if self._by_time else window.index + self._n_panes
        merged = []
        for scale, run in self._runs.items():
            one = MergedWindow.of(run.n_merged, window, sums)
            run.part = one if run.part is None else run.part + one
            if run.part.scale == scale:
                merged.append(run.part)
                run.part, run.n_merged = None, run.n_merged + 1
        return merged

    def _place(self, window: ClosedWindow) -> int:
        return window.t_start_ns if self._by_time else window.index

    def _break(self) -> None:
        for run in self._runs.values():
            run.n_broken += run.part is not None
            run.part = None
