"""Where a message's time goes, from its production to its place in a window.

    wire     production (t_ns) to reception: the producer's queue, the network, ours
    decode   reception to checked events in the encoder's input
    wait     for the micro-batch to close
    embed    the micro-batch through the encoder
    window   embedded to placed in a window

The first four add up to the latency, production to embedding. The wire is the difference of two
clocks, zero where the producer's is ahead; the others are of one that never jumps.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from stream.durations import Durations
from stream.header import Header
from stream.timings import Timings

__all__ = ["DURATIONS", "LATENCY", "STAGES", "Arrival", "Stages"]

STAGES = ("wire", "decode", "wait", "embed", "window")
LATENCY = "latency"
#: What is kept of every message, in this order.
DURATIONS = (*STAGES, LATENCY)


@dataclass(slots=True)
class Arrival:
    """One accepted message of a micro-batch.

    Attributes:
        header: what it says of itself.
        n_missing: messages of its source that went missing just before it.
        wire_s: production to reception.
        received_s, decoded_s: when, by the clock that never jumps.
        number: that it is stored under, -1 if it is not.
    """

    header: Header
    n_missing: int
    wire_s: float
    received_s: float
    decoded_s: float
    number: int = -1


class Stages:
    """Keeps the durations of every message, by stage and in sum.

    Args:
        timings: a finer record, or None.
    """

    def __init__(self, timings: Timings | None = None) -> None:
        """Start without a message."""
        self.durations = Durations(DURATIONS)
        self._timings = timings

    def engine_cpu(self) -> AbstractContextManager[None]:
        """Return a context that counts the CPU time which the encoder takes on this thread."""
        return nullcontext() if self._timings is None else self._timings.engine_cpu()

    def observe(
        self, messages: Sequence[Arrival], closed_s: float, embedded_s: float, placed_s: float
    ) -> None:
        """Keep the durations of the messages of a micro-batch.

        Args:
            messages: those that hold events and were embedded.
            closed_s: when the micro-batch closed.
            embedded_s: when its embeddings were there.
            placed_s: when its last event was placed in a window.
        """
        embed_s, window_s = embedded_s - closed_s, placed_s - embedded_s
        for message in messages:
            row = (
                max(0.0, message.wire_s),
                message.decoded_s - message.received_s,
                closed_s - message.decoded_s,
                embed_s,
                window_s,
                max(0.0, message.wire_s + embedded_s - message.received_s),
            )
            self.durations.add(row)
            if self._timings is not None:
                self._timings.add(message.header.n, row)
