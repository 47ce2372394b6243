"""How far one way of computing an encoder is from ONNX Runtime's, and what that does to Z."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import ParityError, SampleSizeError
from engines.types import Float64Array, FloatArray, IntArray

if TYPE_CHECKING:
    from engines.plans.precision import Precision
    from engines.reference_file import ReferenceArtifact

__all__ = [
    "BOUNDS",
    "MAX_SHIFT",
    "SampleEmbeddings",
    "Shift",
    "ZShift",
    "check_sample_size",
    "compare_embeddings",
    "compare_z",
    "refuse_shifts",
]

#: Largest difference of an embedding coordinate allowed, over the coordinate's spread. Rounding
#: moves the bundled encoders and untrained transformers by at most 1.2e-5 in fp32, by 0.026 with
#: the 11 significant bits of tf32 and fp16, by 0.2 with the 8 of bf16. A wrong network is off by 1.
BOUNDS: dict["Precision", float] = {"fp32": 2e-4, "tf32": 0.06, "fp16": 0.06, "bf16": 0.4}
#: Shift of t allowed, over the null's spread, and of Z: half of what a finite pool may offset t by
#: before calibrate-reference warns.
MAX_SHIFT = 0.1

_MIN_WINDOWS, _MAX_WINDOWS = 3, 8
_SIGNAL_Z = 5.0


@dataclass(frozen=True)
class SampleEmbeddings:
    """Embeddings of one sample, (n, d) float32 each: background like a reference's, and signal."""

    background: FloatArray
    signal: FloatArray


@dataclass(frozen=True)
class Shift:
    """How far embeddings are from ONNX Runtime's.

    Attributes:
        largest: difference of any coordinate of any event, over the coordinate's spread.
        rms: root mean square of these.
        n_events: compared.
    """

    largest: float
    rms: float
    n_events: int


@dataclass(frozen=True)
class ZShift:
    """How far t and Z of one window are from those of ONNX Runtime's embeddings.

    Attributes:
        window: which events.
        t, z: by ONNX Runtime, of the kernel width that each moved most in; Z by the chi-square
            tail.
        dt: shift of t, over the null's spread.
        dz: shift of Z.
    """

    window: str
    t: float
    z: float
    dt: float
    dz: float


def check_sample_size(artifact: "ReferenceArtifact", n_events: int) -> None:
    """Refuse too small a sample of background to compare Z on.

    Raises:
        SampleSizeError: if it does not fill a window of the reference.
    """
    n_data = round(artifact.facts.window.n_expected)
    if n_events < n_data:
        msg = (
            f"the events must fill a window of the reference, {n_data} events, to compare Z; got "
            f"{n_events}; give more with --events, or another --reference"
        )
        raise SampleSizeError(msg)


def compare_embeddings(
    expected: FloatArray, got: FloatArray, bound: float, what: str, advice: str
) -> Shift:
    """Compare embeddings, both (n, d), of the same events.

    Args:
        expected: by ONNX Runtime.
        got: by what is checked.
        bound: largest difference allowed, in spreads.
        what: gave `got`, for the error.
        advice: how to get nearer, likewise.

    Raises:
        ParityError: if a coordinate is further off, or not finite.
    """
    spread = expected.std(axis=0, dtype=np.float64)
    spread[spread == 0] = 1.0
    shifts = np.abs(got.astype(np.float64) - expected) / spread
    shift = Shift(float(shifts.max()), float(np.sqrt((shifts**2).mean())), len(expected))
    if not shift.largest <= bound:  # NaN is no good either
        event = int(np.unravel_index(np.argmax(shifts), shifts.shape)[0])
        msg = (
            f"embeddings must lie within {bound:g} of their spread from ONNX Runtime's; {what} gave"
            f" {shift.largest:.3g} for event {event}; {advice}"
        )
        raise ParityError(msg)
    return shift


def compare_z(
    artifact: "ReferenceArtifact", expected: SampleEmbeddings, got: SampleEmbeddings
) -> list[ZShift]:
    """Test the same windows with both embeddings.

    Windows of background are disjoint where the sample holds three, else drawn anew for each. The
    last window has signal in it: as much as ONNX Runtime's embeddings need for Z = 5.

    Args:
        artifact: the reference; its windows are tested as they are, not merged.
        expected: by ONNX Runtime.
        got: by what is checked, of the same events.

    Raises:
        SampleSizeError: if the background does not fill a window.
    """
    check_sample_size(artifact, len(expected.background))
    n_data, shifts = round(artifact.facts.window.n_expected), []
    for name, rows in _windows(len(expected.background), n_data):
        window, other = expected.background[rows], got.background[rows]
        shifts.append(_shift(artifact, name, window, other))
    n_signal = _enough_signal(artifact, window, expected.signal)
    mixed, other_mixed = (
        np.concatenate([background[: n_data - n_signal], signal[:n_signal]])
        for background, signal in ((window, expected.signal), (other, got.signal))
    )
    name = f"the last of them with {n_signal} signal events"
    return [*shifts, _shift(artifact, name, mixed, other_mixed)]


def refuse_shifts(shifts: list[ZShift], max_t: float, max_z: float, advice: str) -> None:
    """Refuse shifts that would change what a window means.

    Args:
        shifts: of windows, the last with signal, whose t spreads more than the null: only its Z
            counts.
        max_t: shift of t allowed, over the null's spread.
        max_z: shift of Z allowed.
        advice: how to get nearer.

    Raises:
        ParityError: naming each window that moved too far.
    """
    bad = [s for s in shifts[:-1] if abs(s.dt) > max_t or abs(s.dz) > max_z]
    bad += [s for s in shifts[-1:] if abs(s.dz) > max_z]
    if bad:
        said = ", ".join(
            f"{s.window} (t {s.dt:+.3f} of the null's spread, Z {s.z:.2f} {s.dz:+.3f})" for s in bad
        )
        msg = (
            f"t must stay within {max_t:g} of the null's spread and Z within {max_z:g} of what ONNX"
            f" Runtime's embeddings give; got more in {said}; {advice}"
        )
        raise ParityError(msg)


def _windows(n_events: int, n_data: int) -> Iterator[tuple[str, IntArray]]:
    """Yield the name and the events of each window of background."""
    n_windows = min(n_events // n_data, _MAX_WINDOWS)
    if n_windows >= _MIN_WINDOWS:
        for first in range(0, n_windows * n_data, n_data):
            yield f"events {first} to {first + n_data}", np.arange(first, first + n_data)
        return
    for seed in range(_MIN_WINDOWS):
        rows = np.random.default_rng(seed).permutation(n_events)[:n_data]
        yield f"draw {seed + 1}, of events that the other draws share", rows


def _enough_signal(artifact: "ReferenceArtifact", window: FloatArray, signal: FloatArray) -> int:
    """Return how many of a window's events must be signal for Z = 5, or as many as there are."""
    most = min(len(signal), len(window) // 2)
    n_signal = min(most, max(1, round(math.sqrt(len(window)))))
    while n_signal < most:
        mixed = np.concatenate([window[: len(window) - n_signal], signal[:n_signal]])
        if _tested(artifact, mixed)[1].max() >= _SIGNAL_Z:
            break
        n_signal = min(most, 2 * n_signal)
    return n_signal


def _tested(
    artifact: "ReferenceArtifact", embeddings: FloatArray
) -> tuple[Float64Array, Float64Array]:
    """Return t and the chi-square tail's Z, (n_widths,) each."""
    from engines.nplm import z_score

    t = artifact.reference.test(embeddings).t
    nulls = artifact.nulls[1].nulls
    z = [z_score(n.chi2_p_value(value)) for n, value in zip(nulls, t.tolist(), strict=True)]
    return t, np.array(z)


def _shift(
    artifact: "ReferenceArtifact", name: str, expected: FloatArray, got: FloatArray
) -> ZShift:
    (t, z), (t_got, z_got) = _tested(artifact, expected), _tested(artifact, got)
    dt = (t_got - t) / np.array([null.std for null in artifact.nulls[1].nulls])
    dz = z_got - z
    furthest_t, furthest_z = int(np.argmax(np.abs(dt))), int(np.argmax(np.abs(dz)))
    return ZShift(
        window=name,
        t=float(t[furthest_t]),
        z=float(z[furthest_z]),
        dt=float(dt[furthest_t]),
        dz=float(dz[furthest_z]),
    )
