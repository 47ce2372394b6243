"""What a study is: its data, its encoders and its tests. `read_study` reads one from a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.events import EventRange

__all__ = ["BlackBox", "Data", "Encoder", "MapConfig", "MeasureConfig", "Selection", "Study"]


@dataclass(frozen=True)
class Data:
    """Which events serve for what; `training` and `test` are parts of one shuffled file.

    Attributes:
        training: background that encoders may learn from.
        test: background that no encoder may have seen: all of it that a test ever uses.
        extra: further background for training, such as rare processes.
        signals: events of each signal, for the tests.
        training_signals: events of a signal that an encoder may be told to learn from.
        processes: the label of each background process.
    """

    training: EventRange
    test: EventRange
    extra: tuple[EventRange, ...]
    signals: dict[str, EventRange]
    training_signals: dict[str, EventRange]
    processes: dict[str, int]


@dataclass(frozen=True)
class Encoder:
    """One recipe, trained once for each dimension and seed.

    Attributes:
        name: as tables call it.
        options: of train-encoder, by their long names.
        dims: embedding dimensions; (0,) where the architecture fixes it.
        seeds: of training.
        n_events: training events used, from the first; None takes all.
        extra: whether the further background serves too.
        signals: signals that training sees.
        files: engines that exist already, one a seed, in place of training.
    """

    name: str
    options: dict[str, Any]
    dims: tuple[int, ...]
    seeds: tuple[int, ...]
    n_events: int | None = None
    extra: bool = True
    signals: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class MeasureConfig:
    """How an embedding is tested; see `bench.physics_study.measure` for what is shared.

    Attributes:
        window: events in a window.
        fractions: expected signal shares of a window.
        windows: windows for each signal and fraction.
        splits: random divisions of the test background into basis, reference and pool; the windows
            are dealt out evenly over them.
        toys: of each division.
        n_ref: reference events; None takes the default of calibrate-reference.
        seed: of everything random.
    """

    window: int
    fractions: tuple[float, ...]
    windows: int = 60
    splits: int = 5
    toys: int = 300
    n_ref: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class BlackBox:
    """Unlabelled events with a hidden signal, cut into splits.

    Attributes:
        encoders: which encoders are tried.
        signals: a box for each, beside one without signal.
        fraction: of the box's events that are signal.
        window: events of a split.
        splits: parts of the box, each tested on its own.
        references: how often basis, reference and pool are drawn anew.
        toys: of each reference.
        n_ref: reference events; None takes the default of calibrate-reference.
        seed: of everything random.
    """

    encoders: tuple[str, ...]
    signals: tuple[str, ...]
    fraction: float
    window: int
    splits: int
    references: int
    toys: int
    n_ref: int | None
    seed: int


@dataclass(frozen=True)
class MapConfig:
    """Pictures of one window of each signal, coloured by f where it exceeds `least_f`."""

    encoders: tuple[str, ...]
    signals: tuple[str, ...]
    fraction: float
    least_f: float
    method: str


@dataclass(frozen=True)
class Selection:
    """Leave-one-process-out: which processes are left out, and how they are tested as anomaly."""

    processes: tuple[str, ...]
    encoders: tuple[str, ...]
    test: MeasureConfig


@dataclass(frozen=True)
class Study:
    """A whole study; where a part of it is None, it is left out.

    Attributes:
        folder: where engines, measurements, tables and figures go.
        title: what tables call it.
    """

    folder: Path
    data: Data
    encoders: tuple[Encoder, ...]
    test: MeasureConfig
    black_box: BlackBox | None = None
    maps: MapConfig | None = None
    selection: Selection | None = None
    title: str = "physics"
