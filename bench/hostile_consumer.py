"""Process: a consumer that also notes how long each of one source's messages took.

Its own histogram is of all sources together, hostile ones among them.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias
from unittest import mock

from stream import consumer
from stream.stages import Arrival, Stages

__all__ = ["GOOD", "Row", "main", "tapped"]

#: The source that is followed.
GOOD = "good"
#: Production, unix ns; events; seconds from production to embedding.
Row: TypeAlias = tuple[int, int, float]
_Observe: TypeAlias = Callable[[Stages, Sequence[Arrival], float, float, float], None]


def tapped(observe: _Observe, rows: list[Row]) -> _Observe:
    """Return `Stages.observe` that also adds a row for each message of the source."""

    def observe_and_note(
        stages: Stages,
        messages: Sequence[Arrival],
        closed_s: float,
        embedded_s: float,
        placed_s: float,
    ) -> None:
        observe(stages, messages, closed_s, embedded_s, placed_s)
        for message in messages:
            header = message.header
            if header.source == GOOD:
                latency_s = max(0.0, message.wire_s + embedded_s - message.received_s)
                rows.append((header.t_ns, header.n, latency_s))

    return observe_and_note


def main(argv: Sequence[str] | None = None) -> int:
    """Run a consumer; the first word is the file to write, the others are its own."""
    path, *words = sys.argv[1:] if argv is None else argv
    rows: list[Row] = []
    with mock.patch.object(Stages, "observe", tapped(Stages.observe, rows)):
        code = consumer.main(words)
    Path(path).write_text(json.dumps(rows))
    return code


if __name__ == "__main__":
    sys.exit(main())
