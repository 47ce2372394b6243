"""Which events of a window were signal: the consumer's results joined with the producer's log."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["count_signal", "join_truth", "read_lines"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def join_truth(
    results: Sequence[dict[str, Any]], log: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the results, each with `n_injected`: the true number of signal events in its window.

    Args:
        results: lines of `stream-consumer --results`; where `n_missing` is not 0, the count
            includes the signal of messages that were lost or refused on the way.
        log: lines of `stream-producer --log`.
    """
    messages = {(message["source"], message["seq"]): message for message in log}
    return [
        {**line, "n_injected": sum(count_signal(messages, span) for span in line["spans"])}
        for line in results
    ]


def count_signal(messages: dict[tuple[str, int], dict[str, Any]], span: dict[str, Any]) -> int:
    """Return how many signal events a span of one source holds.

    >>> log = {("me", 0): {"n": 4, "signal": [1, 3]}, ("me", 1): {"n": 4, "signal": [0, 2]}}
    >>> span = {"source": "me", "first_seq": 0, "first_event": 2, "last_seq": 1, "stop_event": 2}
    >>> count_signal(log, span)
    2
    """
    count = 0
    for seq in range(span["first_seq"], span["last_seq"] + 1):
        message = messages[span["source"], seq]
        first = span["first_event"] if seq == span["first_seq"] else 0
        stop = span["stop_event"] if seq == span["last_seq"] else message["n"]
        count += sum(first <= event < stop for event in message["signal"])
    return count
