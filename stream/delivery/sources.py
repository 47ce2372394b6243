"""The sources that a consumer knows: where each stands, and which are there now."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Source", "Sources"]

#: Sources that are recognised when they come again.
_MOST_KNOWN = 10_000
_GONE_S = 3600.0
#: What an old connection has left is read within it, beside a new one's messages.
_BOTH_S = 10.0


@dataclass
class Source:
    """One source.

    Attributes:
        expected: the `seq` that is to come next.
        durable: all `seq` below it are on the disk.
        missing: messages that went missing since the last good one.
        told_gap: whether its producer was told to go back, and has not yet.
        ended: whether its last message was its end.
        n_unread: messages without a readable header since its last good one, by its peer.
        peer: the connection that it was last heard on; empty if it is not there.
        seen_s: when that was.
    """

    expected: int
    durable: int
    missing: int = 0
    told_gap: bool = False
    ended: bool = False
    n_unread: int = 0
    peer: bytes = b""
    seen_s: float = 0.0
    _before: bytes = b""
    _changed_s: float = 0.0
    _both_since_s: float = 0.0

    def hear(self, peer: bytes, now: float) -> bool:
        """Note who speaks; return whether two connections have taken turns for some time."""
        self.seen_s, last = now, self.peer
        if peer == last:
            return False
        if peer != self._before or now - self._changed_s > _BOTH_S:
            self._both_since_s = now
        self.peer, self._before, self._changed_s, self.n_unread = peer, last, now, 0
        return now - self._both_since_s > _BOTH_S


class Sources:
    """Sources by name; the one that was met longest ago is forgotten first.

    Args:
        known: for each source the `seq` to come next, that met longest ago first.
        missing: for some, messages missing just before that.
        clock: seconds.
    """

    def __init__(
        self, known: Mapping[str, int], missing: Mapping[str, int], clock: Callable[[], float]
    ) -> None:
        """Know them; none is there yet."""
        self._clock = clock
        self._known = OrderedDict(
            (name, Source(seq, seq, missing.get(name, 0))) for name, seq in known.items()
        )
        self._present: dict[str, Source] = {}

    def __getitem__(self, name: str) -> Source:
        """Return a source that is known."""
        return self._known[name]

    def get(self, name: str) -> Source | None:
        """Return a source; None if it is not known."""
        return self._known.get(name)

    def is_present(self, name: str) -> bool:
        """Return whether a source has been heard of and not left."""
        return name in self._present

    @property
    def n_present(self) -> int:
        """How many have."""
        return len(self._present)

    def begin(self, name: str, first: int) -> tuple[Source, str]:
        """Know a new source; return it, and the name of one that is forgotten for it, or none.

        Hostile peers have any number of names.
        """
        gone = ""
        if len(self._known) >= _MOST_KNOWN:
            gone = next((old for old in self._known if old not in self._present), "")
            self._known.pop(gone, None)
        self._known[name] = Source(first, first)
        return self._known[name], gone

    def meet(self, name: str, peer: bytes) -> bool:
        """Note that a known source is there; return whether two producers seem to use its name."""
        source = self._present[name] = self._known[name]
        self._known.move_to_end(name)
        return source.hear(peer, self._clock())

    def leave(self, name: str) -> None:
        """Let a source that is done make room for others; it is known all the same."""
        if name in self._present:
            self._present.pop(name).peer = b""

    def let_go(self) -> None:
        """Let those leave that were not heard of within the hour."""
        since = self._clock() - _GONE_S
        for name in [name for name, source in self._present.items() if source.seen_s < since]:
            self.leave(name)

    def of(self, peer: bytes) -> list[str]:
        """Return the sources that a peer was last to speak for."""
        return [name for name, source in self._present.items() if source.peer == peer]
