"""Which events are computed together, and which of their tokens: as few as can be, in few calls.

A transformer that leaves absent objects out of its attention needs one token for each object that
is there, and the CLS token before them: 3 to 9 of 20 for most events. Events of about the same
number of objects make a full tensor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from engines.events import N_OBJECTS
from engines.types import AnyArray, FloatArray, IntArray

__all__ = ["N_TOKENS", "Bucket", "buckets", "choose_lengths"]

#: The objects of an event, and the CLS token before them.
N_TOKENS = N_OBJECTS + 1
#: Time of a call over that of a token: measured from 20, for tokens of 64 numbers, to 85, for 4.
#: What is chosen hardly changes in between.
_CALL_TOKENS = 40
#: Tokens computed at once; of more, what lies between two layers leaves the processor's cache.
_MOST_TOKENS = 2048


@dataclass(frozen=True)
class Bucket:
    """Events that are computed together.

    Attributes:
        events: their rows in the batch, (m,).
        tokens: rows of these events' m x 20 tokens that are computed, (m, length): of each the CLS
            token, the objects that are there and, where others have more, some that are not.
    """

    events: IntArray
    tokens: IntArray


def buckets(particles: FloatArray) -> Iterator[Bucket]:
    """Yield every event of a batch once, those with the fewest objects first.

    Args:
        particles: (n, 19, 3), pT in GeV; an object is there if its pT is above zero.
    """
    present = particles[:, :, 0] > 0
    counts = present.sum(axis=1, dtype=np.uint8) + np.uint8(1)
    order = np.argsort(counts, kind="stable")
    n_events = np.bincount(counts).tolist()
    first = 0
    for length in choose_lengths(n_events):
        last = sum(n_events[: length + 1])
        n_calls = -(-(last - first) * length // _MOST_TOKENS)
        for events in np.array_split(order[first:last], n_calls):
            yield Bucket(events, _tokens(present[events], length))
        first = last


def _tokens(present: AnyArray, length: int) -> IntArray:
    """Return the tokens of each event: CLS, what is there in its order, then what is not.

    Args:
        present: whether an object is there, (m, 19) bool.
        length: tokens of an event, CLS with them.

    Returns:
        Rows of the m x 20 tokens, (m, length).
    """
    tokens = np.empty((len(present), length), dtype=np.int64)
    tokens[:, 0] = 0
    tokens[:, 1:] = np.argsort(~present, axis=1, kind="stable")[:, : length - 1] + 1
    tokens += np.arange(len(present))[:, None] * N_TOKENS
    return tokens


def choose_lengths(n_events: Sequence[int]) -> list[int]:
    """Return the numbers of tokens to which events are filled up, rising, so that all cost least.

    A call costs as much as `_CALL_TOKENS` tokens; every event costs the tokens of its call.

    Args:
        n_events: how many events have 0, 1, 2, ... tokens.

    >>> choose_lengths([0, 0, 0, 300, 300, 10, 0, 1])
    [3, 4, 7]
    """
    below = list(accumulate(n_events))
    # By length: the least cost of all events up to it, and the lengths of their calls.
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    for length in (length for length, n in enumerate(n_events) if n):
        best[length] = min(
            (cost + _CALL_TOKENS + (below[length] - below[last]) * length, [*lengths, length])
            for last, (cost, lengths) in best.items()
        )
    return best[len(n_events) - 1][1]
