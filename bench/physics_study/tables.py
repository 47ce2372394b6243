"""Tables of a study, as Markdown to read and as CSV to work with."""

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.physics_study.config import MeasureConfig, Study
from bench.physics_study.summary import SIGMAS, OverSeeds, Row, dim_text, power_interval
from engines.events import EventRange

__all__ = [
    "accuracy_table",
    "convention_tables",
    "csv_text",
    "markdown",
    "plus_minus",
    "results_csv",
    "reuse_text",
    "seen_signals",
    "summary_csv",
    "z_tables",
]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    >>> print(markdown(["a", "b"], [["1", "2"]]), end="")
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as CSV; numbers that are not known stay empty."""
    if not rows:
        return ""
    output = io.StringIO()
    writer = csv.DictWriter(output, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(value) for key, value in row.items()})
    return output.getvalue()


def _plain(value: Any) -> Any:  # noqa: ANN401 - any cell
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def results_csv(rows: Iterable[Row]) -> str:
    """Return every engine's rows."""
    return csv_text([{**asdict(row), **_power_ends(row)} for row in rows])


def _power_ends(row: Row) -> dict[str, float]:
    """Return both ends of the 68 % interval of each power."""
    ends: dict[str, float] = {}
    for sigma in SIGMAS:
        low, high = power_interval(row, sigma)
        ends |= {f"power_{sigma}_low": low, f"power_{sigma}_high": high}
    return ends


def summary_csv(groups: Iterable[OverSeeds]) -> str:
    """Return means over seeds, with the spread over seeds of the main numbers."""
    main = ("z", "z_toys", "spreads", "power_1", "power_2", "power_3", "accuracy")
    rows = []
    for group in groups:
        row = {**asdict(group.row), **_power_ends(group.row)}
        row["seed"] = group.n_seeds
        row = {("seeds" if key == "seed" else key): value for key, value in row.items()}
        rows.append({**row, **{f"{name}_seeds_std": group.spread[name] for name in main}})
    return csv_text(rows)


def plus_minus(value: float, spread: float, digits: int, scale: float = 1.0) -> str:
    """Return `3.2 ± 0.4`, or the value alone where there is no spread.

    >>> plus_minus(0.912, 0.004, 1, 100)
    '91.2 ± 0.4'
    """
    if math.isnan(value):
        return "-"
    text = f"{scale * value:z.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {scale * spread:.{digits}f}"


def z_tables(study: Study, groups: Sequence[OverSeeds]) -> str:
    """Return a table for each fraction: accuracy, then median Z and power for each signal.

    At fraction 0 the power is a false-alarm rate.
    """
    signals = list(study.data.signals)
    heads = ["embedding", "D", "seeds", "accuracy %"]
    for signal in signals:
        heads += [f"{signal} Z", f"{signal} power at 3 sigma, %"]
    used = [group.row for group in groups]
    tables = [f"{_Z_TEXT.format(test=study.test)}\n{reuse_text(study.test, study.data.test, used)}"]
    for fraction in study.test.fractions:
        rows = []
        for line in _lines(groups, fraction):
            first = next(iter(line.values()))
            cells = [first.row.encoder, _dim(first), str(first.n_seeds), _accuracy(first)]
            for signal in signals:
                cells += _z_cells(line.get(signal))
            rows.append(cells)
        tables.append(f"### {100 * fraction:g} % signal\n\n{markdown(heads, rows)}")
    return "\n".join(tables)


_Z_TEXT = """\
Windows of {test.window} events, {test.windows} for each signal and fraction, over {test.splits}
divisions of the background that no encoder has seen into basis, reference and pool, {test.toys}
toys each. Z is the median over windows from the chi-square fitted to the toys, an extrapolation
beyond them: mean over training seeds ± standard deviation over seeds, in brackets the 16 % and 84 %
quantiles over windows. Power is the share of windows with Z >= 3 (at 0 % signal: false alarms), in
the same way, in brackets the 68 % interval (Clopper-Pearson) that the number of windows of one seed
leaves. D: learned numbers + physics quantities kept. [seen], [held out]: whether training saw this
signal, or only others. Each seed: results.csv.
"""


def reuse_text(test: MeasureConfig, background: EventRange, rows: Sequence[Row]) -> str:
    """Say what windows share, and what Z leaves out, before any table of Z."""
    signal = max(row.signal_uses for row in rows)
    drawn = test.windows * test.window / ((background.stop or 0) - background.start)
    shares = sorted(row.offset_share for row in rows)
    low, high = f"{shares[0]:.2f}", f"{shares[-1]:.2f}"
    narrow = ": **the band over windows is too narrow there**" if signal > 1 else ""
    text = f"""\
    The windows of one signal and fraction use a background event {drawn:.2g} times on average, and
    a signal event up to {signal:.2g} times{narrow}. They come from their division's pool, as its
    toys do, and divisions share all events: bands say how windows differ and intervals of power
    count windows as independent, so neither says how well a number is known beyond these events. At
    no signal, power tests the law fitted to the toys, not fresh windows. To t of the fresh windows
    that a user of a calibration tests, its finite pool adds
    {low if low == high else f"{low} to {high}"} null spreads (standard deviation over
    calibrations), the same to all windows of one calibration; these Z leave that out.
    """
    return textwrap.fill(" ".join(text.split()), 100) + "\n"


def seen_signals(groups: Iterable[OverSeeds]) -> dict[str, str]:
    """Return, of encoders that were trained on signals, which of the tested ones those are."""
    seen: dict[str, list[str]] = {}
    for group in groups:
        row = group.row
        if row.training:
            names = seen.setdefault(row.encoder, [])
            if row.training == "seen" and row.signal not in names:
                names.append(row.signal)
    return {name: ", ".join(signals) or "none tested" for name, signals in seen.items()}


def _dim(group: OverSeeds) -> str:
    return dim_text(group.row.dim, group.row.kept)


def _mark(group: OverSeeds) -> str:
    return f" [{group.row.training}]" if group.row.training else ""


def _lines(groups: Sequence[OverSeeds], fraction: float) -> list[dict[str, OverSeeds]]:
    lines: dict[tuple[str, int], dict[str, OverSeeds]] = {}
    for group in groups:
        if math.isclose(group.row.fraction, fraction):
            line = lines.setdefault((group.row.encoder, group.row.dim), {})
            line[group.row.signal] = group
    return list(lines.values())


def _accuracy(group: OverSeeds) -> str:
    return plus_minus(group.row.accuracy, group.spread["accuracy"], 1, 100)


def _z_cells(group: OverSeeds | None) -> list[str]:
    if group is None:
        return ["-", "-"]
    row, spread = group.row, group.spread
    z = f"{plus_minus(row.z, spread['z'], 1)} ({row.z_low:z.1f}, {row.z_high:z.1f}){_mark(group)}"
    low, high = power_interval(row, 3)
    power = plus_minus(row.power_3, spread["power_3"], 0, 100)
    return [z, f"{power} ({100 * low:.0f}, {100 * high:.0f})"]


def convention_tables(study: Study, groups: Sequence[OverSeeds]) -> str:
    """Return the same windows in the other two conventions of Z, a table for each fraction."""
    signals = list(study.data.signals)
    cap = max(group.row.z_cap for group in groups)
    tables = [_CONVENTION_TEXT.format(cap=cap)]
    for fraction in study.test.fractions:
        rows = []
        for line in _lines(groups, fraction):
            first = next(iter(line.values()))
            cells = [_both(line[signal]) if signal in line else "-" for signal in signals]
            rows.append([first.row.encoder, _dim(first), *cells])
        table = markdown(["embedding", "D", *signals], rows)
        tables.append(f"### {100 * fraction:g} % signal\n\n{table}")
    return "\n".join(tables)


_CONVENTION_TEXT = """\
Medians over the same windows, mean over training seeds ± standard deviation over seeds: Z by
counting toys, which ends at {cap:.2f}; and (t - mean) / spread of the toys, which assumes no law.
"""


def _both(group: OverSeeds) -> str:
    row, spread = group.row, group.spread
    toys = plus_minus(row.z_toys, spread["z_toys"], 1)
    return f"{toys}; {plus_minus(row.spreads, spread['spreads'], 1)}{_mark(group)}"


def accuracy_table(groups: Sequence[OverSeeds]) -> str:
    """Return background accuracy by embedding and dimension."""
    seen: dict[tuple[str, int], OverSeeds] = {}
    for group in groups:
        seen.setdefault((group.row.encoder, group.row.dim), group)
    trained = seen_signals(groups)
    rows = [
        [name, _dim(group), str(group.n_seeds), _accuracy(group), trained.get(name, "-")]
        for (name, _), group in seen.items()
    ]
    heads = ["embedding", "D", "seeds", "accuracy %", "signals seen in training"]
    return _ACCURACY_TEXT + markdown(heads, rows)


_ACCURACY_TEXT = """\
Share of background events whose process a logistic regression of the embedding names rightly, in
the proportions of the cocktail: fitted on one half of the events that no encoder has seen, counted
on the other; mean over training seeds ± standard deviation over seeds.

"""
