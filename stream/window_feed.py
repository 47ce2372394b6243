"""Blocks placed in windows, and each window that closes handed to its test."""

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from engines.errors import EngineError
from stream.block import Block, Part
from stream.metrics import Metrics
from stream.runner import TestRunner
from stream.sparse_log import SparseLog
from stream.state.run import RunState
from stream.window import ClosedWindow, Windows

__all__ = ["WindowFeed"]

_LOG = logging.getLogger(__name__)


class WindowFeed:
    """Cuts the stream, from where the run was left.

    Args:
        windows: cuts the stream.
        runner: tests what closes.
        metrics: counts empty windows, and events taken up.
        sparse_log: for trouble that may repeat.
        state: where it is kept what closed and what was decided; None keeps nothing.
        largest_message: events beyond which a message is warned of; None for any number.

    Attributes:
        n_lost: messages that were refused since the last block; the next is to say so.
    """

    def __init__(
        self,
        windows: Windows,
        runner: TestRunner,
        metrics: Metrics,
        sparse_log: SparseLog,
        *,
        state: RunState | None = None,
        largest_message: float | None = None,
    ) -> None:
        """Start with the windows as they are."""
        self._windows, self._runner, self._metrics = windows, runner, metrics
        self._sparse_log, self._state = sparse_log, state
        self._largest_message = largest_message
        self._n_empty = 0
        self.n_lost = 0

    @property
    def n_open(self) -> int:
        """Events in the window that is still open."""
        return self._windows.n_open

    @property
    def n_unclosed(self) -> int:
        """Events that no closed window holds."""
        return self._windows.n_unclosed

    def add(self, block: Block) -> None:
        """Place a block, and test what it closes."""
        self._check_size(block)
        for window in self._place(block):
            self._runner.submit(window)

    def take_up(
        self,
        state: RunState,
        before: Iterable[Block],
        after: Generator[Block, None, int],
        *,
        unreadable: Mapping[int, str],
    ) -> None:
        """Go on with a run: make its open window again, and test what was not decided yet.

        Args:
            state: what is kept of the run.
            before: the blocks of messages up to the point where it is taken up.
            after: those of later ones; returns how many messages were lost after the last.
            unreadable: messages of which there is no block any more, by number, and why; known
                once the blocks have been taken.

        Raises:
            EngineError: if another message of the open window is not among them.
        """
        whole = {block.number: block for block in before}
        if state.point.windows:
            self._windows.restore(state.point.windows, partial(self._find, whole, unreadable))
            self._n_empty = self._windows.n_empty
        self._metrics.n_recovered += self._windows.n_open
        for made in self._again(after):
            block = replace(made, n_missing=made.n_missing + self.n_lost)
            self.n_lost = 0
            self._metrics.n_recovered += len(block)
            for window in self._place(block):
                self._runner.wait_for_room(window)
                self._runner.submit(window)
        if unreadable:
            text = "%d messages of the run cannot be read any more and are missing; the first: %s"
            _LOG.warning(text, len(unreadable), next(iter(unreadable.values())))

    def _again(self, blocks: Generator[Block, None, int]) -> Iterator[Block]:
        """Yield blocks; what went missing after the last is charged to the next to come."""
        n_lost = yield from blocks
        self.n_lost += n_lost

    def _find(
        self, whole: Mapping[int, Block], unreadable: Mapping[int, str], name: Part
    ) -> Block | None:
        """Return the block that a name stands for; None if its message cannot be read."""
        number, *_, n_missing = name
        if number in unreadable:
            self.n_lost += n_missing + 1
            return None
        return _part(whole, name)

    def count_empty(self) -> None:
        """Count the time windows without an event since the last time."""
        n_empty, self._n_empty = self._windows.n_empty - self._n_empty, self._windows.n_empty
        if n_empty:
            self._metrics.windows["empty"] += n_empty
            text = f"{n_empty} time windows without any event were not tested"
            self._sparse_log.log("empty windows", text)

    def _place(self, block: Block) -> list[ClosedWindow]:
        """Place a block; return the windows that it closes and no run before has decided."""
        closed = list(self._windows.add(block))
        if self._state is None:
            return closed
        if closed:
            self._state.mark(self._windows, block.number)
        return [window for window in closed if window.index >= self._state.decided.n_windows]

    def _check_size(self, block: Block) -> None:
        """Messages are placed whole: large ones make the counts of time windows jump."""
        if self._largest_message is not None and len(block) > self._largest_message:
            text = (
                f"{len(block)} events of source {block.source!r}; counts of time windows are "
                "Poisson only if messages are of at most about "
                f"{self._largest_message:.0f}; p-values are too small at times"
            )
            self._sparse_log.log("large message", text)


def _part(whole: Mapping[int, Block], name: Part) -> Block:
    """Return the block that a name stands for, of messages that were embedded again."""
    if name[0] not in whole:
        msg = (
            f"message {name[0]} of the run was embedded when it came and cannot be now; start "
            "again where the encoder runs"
        )
        raise EngineError(msg)
    return whole[name[0]].part(name)
