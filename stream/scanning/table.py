"""What a scan says at its end: a table of windows, and what they are worth together."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from textwrap import fill

import numpy as np

from engines.nplm import Tail, z_score
from stream.scanning.global_p import GlobalSignificance, global_significance, global_significances
from stream.scanning.journal import Line

__all__ = ["Resampled", "Scanned"]

_TAILS: dict[Tail, str] = {
    "chi2": "chi-square fitted to the toys",
    "gamma": "gamma law fitted to the toys",
    "toys": "the toys alone",
}
_GLOBAL = """\
p-values are of one reference and its toys. Bonferroni's bound holds however windows depend on each
other, if each p is right; Sidak's formula is for independent ones. Windows share the reference and
are independent only nearly: the finite pool alone moves every Z the same way, by about {shift:.1f}.
"""
_RESAMPLED = """\
Z resampled: mean and spread over {n} references of {n_ref} events, drawn anew from {n_free}
background events, each with {n_toys} toys of its own from the others (p from the
{tail}); the basis stays.
Two of them share about {percent:.0f} % of their events: independent references would spread more.
global Z over references: {mean:.2f} +- {std:.2f} by Sidak; Bonferroni: {bonferroni}
"""


@dataclass(frozen=True)
class Resampled:
    """The windows' p-values against references drawn anew.

    Attributes:
        p: (n_references, n_windows).
        n_ref, n_free, n_toys: events in a reference, events drawn from, toys of each.
    """

    p: tuple[tuple[float, ...], ...]
    n_ref: int
    n_free: int
    n_toys: int

    def z(self) -> list[tuple[float, float]]:
        """Return mean and spread over references of each window's Z."""
        return [
            _mean_and_spread(map(z_score, of_window)) for of_window in zip(*self.p, strict=True)
        ]

    def over_references(self) -> list[GlobalSignificance]:
        """Return what the smallest p of all windows is worth against each reference."""
        return [global_significance(of_reference) for of_reference in self.p]

    def record(self) -> Line:
        """Return what JSON holds of it."""
        mean, std = _mean_and_spread(found.sidak_z for found in self.over_references())
        return {
            **asdict(self),
            "z": [{"mean": mean, "std": std} for mean, std in self.z()],
            "sidak_z": {"mean": mean, "std": std},
            "bonferroni_z": [found.bonferroni_z for found in self.over_references()],
        }

    def text(self, tail: Tail) -> str:
        """Return what people read of it, below the table."""
        found = self.over_references()
        mean, std = _mean_and_spread(one.sidak_z for one in found)
        bounded = [one.bonferroni_z for one in found if one.bonferroni_z is not None]
        if len(bounded) == len(found):
            bonferroni = "{:.2f} +- {:.2f}".format(*_mean_and_spread(bounded))
        else:
            bonferroni = f"n p is 1 or above for {len(found) - len(bounded)} of {len(found)}"
        return _RESAMPLED.format(
            n=len(self.p),
            n_ref=self.n_ref,
            n_free=self.n_free,
            n_toys=self.n_toys,
            tail=_TAILS[tail],
            percent=100 * self.n_ref / self.n_free,
            mean=mean,
            std=std,
            bonferroni=bonferroni,
        )


@dataclass(frozen=True)
class Scanned:
    """All that came of a scan.

    Attributes:
        windows: the lines of each window, its own first.
        n_left_over: events after the last window.
        rule: when windows alarmed, in words.
        resampled: against references drawn anew, if asked for.
    """

    windows: Sequence[Sequence[Line]]
    n_left_over: int
    rule: str
    resampled: Resampled | None = None

    @property
    def lines(self) -> list[Line]:
        """Windows of all scales."""
        return list(chain.from_iterable(self.windows))

    def significances(self) -> list[GlobalSignificance]:
        """Return what the smallest p is worth, for each kind of p."""
        return global_significances(self.lines)

    def record(self) -> Line:
        """Return what JSON holds of it."""
        lines = self.lines
        return {
            "windows": lines,
            "n_left_over": self.n_left_over,
            "rule": self.rule,
            "alarms": sum(line["onset"] for line in lines),
            "global": [
                {**asdict(found), "window": _name(lines[found.place])}
                for found in self.significances()
            ],
            "resampled": None if self.resampled is None else self.resampled.record(),
        }

    def text(self) -> str:
        """Return what people read."""
        tail: Tail = self.lines[0]["alarm_on"]
        below = "" if self.resampled is None else self.resampled.text(tail)
        return f"{self._table()}\n{self._outcome()}\n{self._global(tail)}{below}"

    def _table(self) -> str:
        spread = [] if self.resampled is None else self.resampled.z()
        head = f"{'window':>7} {'events':>8} {'t':>8} {'p':>8} {'Z':>7} {'Z alarm':>7}"
        rows = [head + (f" {'Z resampled':>13}" if spread else "")]
        for index, group in enumerate(self.windows):
            for line in group:
                limit = ">=" if line["p"] <= line["p_resolution"] else ""
                again = ""
                if spread:
                    again = "{:.2f} +- {:.2f}".format(*spread[index]) if line is group[0] else ""
                    again = f" {again:>13}"
                rows.append(
                    f"{_name(line):>7} {line['n_events']:>8} {line['t']:>8.1f} {line['p']:>8.2g} "
                    f"{limit + format(line['z'], '.2f'):>7} {line['z_alarm']:>7.2f}{again}"
                    f"{_remark(line)}".rstrip()
                )
        return "\n".join(rows) + "\n"

    def _outcome(self) -> str:
        lines = self.lines
        left = (
            f"{self.n_left_over} events left over, not tested" if self.n_left_over else "none left"
        )
        calibrated = f"calibrated  on {lines[0]['calibrated_on']}"
        return (
            f"windows     {len(self.windows)} of {lines[0]['n_events']} events; {left}\n"
            f"{fill(calibrated, 100, subsequent_indent=' ' * 12)}\n"
            f"alarms      {sum(line['onset'] for line in lines)}, of "
            f"{sum(line['alarm'] for line in lines)} windows over the threshold; {self.rule}\n"
        )

    def _global(self, tail: Tail) -> str:
        lines = self.lines
        rows = [
            f"global      {'smallest p':>10} {'window':>7} {'Bonferroni p':>12} {'Z':>6} "
            f"{'Sidak Z':>7}  p from"
        ]
        for found in self.significances():
            z = "-" if found.bonferroni_z is None else format(found.bonferroni_z, ".2f")
            mark = ", which alarms" if found.tail == tail else ""
            if found.tail == "toys" and found.smallest_p <= lines[found.place]["p_resolution"]:
                mark += ", at their limit"
            rows.append(
                f"of {found.n:>4} tests {found.smallest_p:>9.2g} {_name(lines[found.place]):>7} "
                f"{found.bonferroni_p:>12.2g} {z:>6} {found.sidak_z:>7.2f}  "
                f"{_TAILS[found.tail]}{mark}"
            )
        shift = float(np.median([line["z_systematic"] for line in lines]))
        return "\n".join(rows) + "\n" + _GLOBAL.format(shift=shift)


def _mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    found = np.array(list(values))
    return float(found.mean()), float(found.std(ddof=1))


def _name(line: Line) -> str:
    return f"{line['window']}" + (f"x{line['scale']}" if line["scale"] > 1 else "")


def _remark(line: Line) -> str:
    remarks = []
    if line["alarm"]:
        alarm = "ALARM: t below null" if line["below_null"] else "ALARM"
        if not line["onset"]:
            alarm += f" of window {line['alarm_window']}"
        if line["p_relabelled"] is not None:
            alarm += f" (relabelled p {line['p_relabelled']:.2g})"
        elif line["relabelling"] == "failed":
            alarm += " (relabelling failed)"
        remarks.append(alarm)
    if line["converged"] is False:
        remarks.append("not converged")
    return "  " + ", ".join(remarks) if remarks else ""
