"""What is to be simulated, cut into chunks that need nothing of each other."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.artifact import versions
from engines.errors import ParameterError
from training.simulation.detector_config import DetectorConfig
from training.simulation.processes import MIXES, PROCESSES, Process, parse_process

__all__ = ["Chunk", "Plan", "make_plan"]

_POOL_CHUNK_EVENTS = 500
_SOFT_PER_EVENT = 2
_MIN_POOL, _MAX_POOL = 200, 16_000
_MAX_PYTHIA_SEED = 900_000_000
#: Of the random streams; they differ from the labels of all processes.
_POOL_STREAM, _SHUFFLE_STREAM = 1000, 1001


@dataclass(frozen=True)
class Chunk:
    """Events that are simulated together.

    Attributes:
        name: of its file.
        process: None where the events are soft ones for the pool.
        n_events: accepted events that it holds.
        seeds: of Pythia and of the detector.
    """

    name: str
    process: Process | None
    n_events: int
    seeds: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """A simulation.

    Its random streams depend on everything that is asked for, so that other simulations hold other
    collisions, with the same seed as well: a file to train with and one to test with share none.

    Attributes:
        counts: accepted events by process name, in the order of the output.
        shuffle: whether the processes are mixed.
        seed: of everything, together with all else that is asked for.
        resimulate: further responses to each accepted event.
        n_soft: soft events in the pool.
        detector: its settings.
    """

    counts: tuple[tuple[str, int], ...]
    shuffle: bool
    seed: int
    resimulate: int
    n_soft: int
    detector: DetectorConfig

    @property
    def n_events(self) -> int:
        """Events of all processes."""
        return sum(n for _, n in self.counts)

    @property
    def request_id(self) -> str:
        """SHA-256 of all that is asked for; what the random streams are derived from."""
        return hashlib.sha256(json.dumps(self._request(), sort_keys=True).encode()).hexdigest()

    def settings(self) -> dict[str, Any]:
        """Return everything that the output depends on, JSON-able."""
        return {**self._request(), "versions": versions("numpy", "pythia8mc", "fastjet")}

    def _request(self) -> dict[str, Any]:
        return {
            # Pairs, since the order of the processes counts.
            "events": [list(pair) for pair in self.counts],
            "mix": self.shuffle,
            "seed": self.seed,
            "resimulate": self.resimulate,
            "soft-events": self.n_soft,
            "detector": self.detector.describe(),
            "processes": {name: PROCESSES[name].definition() for name, _ in self.counts},
        }

    def pool_chunks(self) -> list[Chunk]:
        """Return the chunks of the soft events."""
        return list(self._chunks("soft", None, self.n_soft, _POOL_CHUNK_EVENTS))

    def chunks(self) -> list[Chunk]:
        """Return the chunks of the hard events, process by process."""
        return [
            chunk
            for name, n in self.counts
            for chunk in self._chunks(name, PROCESSES[name], n, PROCESSES[name].chunk_events)
        ]

    def order(self) -> np.random.Generator:
        """Return what draws the order of a mixture."""
        return np.random.default_rng([self._key, _SHUFFLE_STREAM])

    @property
    def _key(self) -> int:
        return int(self.request_id, 16)

    def _chunks(self, name: str, process: Process | None, n: int, size: int) -> Iterator[Chunk]:
        key, stream = self._key, _POOL_STREAM if process is None else process.label
        for index, first in enumerate(range(0, n, size)):
            state = np.random.SeedSequence([key, stream, index]).generate_state(2)
            # Pythia knows 900 million seeds: of two files with n chunks of a process each, about
            # n^2 / 9e8 chunks hold the same generated events.
            seeds = (1 + int(state[0]) % _MAX_PYTHIA_SEED, int(state[1]))
            yield Chunk(f"{name}-{index:05d}", process, min(size, n - first), seeds)


def make_plan(
    names: Sequence[str],
    mix: str | None,
    n_events: int,
    *,
    seed: int = 0,
    resimulate: int = 0,
    n_soft: int | None = None,
    detector: DetectorConfig | None = None,
) -> Plan:
    """Return the plan of a command line.

    Args:
        names: processes, each with `n_events` events, one after the other; or none.
        mix: a shuffled mixture of `n_events` events, in place of processes.
        n_events: accepted events.
        seed: 0 or more; another seed, or other events, gives other collisions.
        resimulate: further responses to each accepted event.
        n_soft: soft events in the pool; by default two for each event, at most 16,000.
        detector: its settings.

    Raises:
        ParameterError: if there is neither or both of processes and mixture, a process comes
            twice, or a name or number is none.
    """
    _check(names, mix, seed, resimulate)
    counts = _mixed(mix, n_events) if mix is not None else dict.fromkeys(names, n_events)
    total = sum(counts.values())
    pool = min(max(_SOFT_PER_EVENT * total, _MIN_POOL), _MAX_POOL) if n_soft is None else n_soft
    config = detector or DetectorConfig()
    return Plan(tuple(counts.items()), mix is not None, seed, resimulate, pool, config)


def _check(names: Sequence[str], mix: str | None, seed: int, resimulate: int) -> None:
    if bool(names) == (mix is not None):
        msg = "either processes or a mixture must be named; give --process NAME ... or --mix NAME"
        raise ParameterError(msg)
    if len(set(names)) < len(names):
        msg = f"each process must be named once; got {' '.join(names)}"
        raise ParameterError(msg)
    if seed < 0 or resimulate < 0:
        msg = f"seed and resimulate must be 0 or more; got {seed} and {resimulate}"
        raise ParameterError(msg)
    for name in names:
        parse_process(name)


def _mixed(mix: str, n_events: int) -> dict[str, int]:
    """Return whole numbers of events nearest to the shares; they add up to `n_events`."""
    if mix not in MIXES:
        msg = f"mix must be one of {', '.join(MIXES)}; got {mix!r}"
        raise ParameterError(msg)
    shares = MIXES[mix]
    counts = {name: int(share * n_events) for name, share in shares.items()}
    by_rest = sorted(shares, key=lambda name: counts[name] - shares[name] * n_events)
    for name in by_rest[: n_events - sum(counts.values())]:
        counts[name] += 1
    return {name: n for name, n in counts.items() if n}
