"""One alarm in words: what was tested, by which null, and its most anomalous events."""

from collections.abc import Iterable, Iterator
from typing import Any

from engines.event_quantities import QUANTITIES
from stream.alarm.contents import AlarmContents
from stream.alarm.density import LearnedDensity
from stream.alarm.table import Alarm, utc
from stream.plain_text import plain_text
from stream.results import duration

__all__ = ["anomalous_events", "describe_alarm", "describe_density", "describe_events"]

_KINDS = (("MET", 0, 1), ("electron", 1, 5), ("muon", 5, 9), ("jet", 9, 19))
_PLACE = ("source", "message", "event")
_SOURCES_SHOWN = 8


def describe_alarm(number: int, alarm: Alarm, contents: AlarmContents) -> str:
    """Return what is known of an alarm's strongest window, one `label  text` a line."""
    return _lines(_facts(number, alarm, contents))


def _facts(number: int, alarm: Alarm, contents: AlarmContents) -> Iterator[tuple[str, str]]:
    result, null = contents.result, contents.null
    merged = f", the strongest of windows {alarm.name}" if len(alarm.windows) > 1 else ""
    yield "alarm", f"{number}: window {result['window']} of run {plain_text(result['run'])}{merged}"
    length = duration(max(0.0, (result["t_end_ns"] - result["t_start_ns"]) / 1e9))
    yield "time", f"{utc(result['t_start_ns'])} to {utc(result['t_end_ns'])} UTC ({length})"
    yield "events", f"{result['n_events']}; {result['n_expected']:g} expected"
    shown = [f"{plain_text(name)} {n}" for name, n in contents.sources.items()]
    more = len(shown) - _SOURCES_SHOWN
    yield "sources", ", ".join(shown[:_SOURCES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    yield "t", f"{result['t']:.2f} at sigma {result['sigma']:.4g}"
    yield (
        "alarm p",
        (
            f"{result['p_alarm']:.3g} by {plain_text(result['alarm_on'])}, "
            f"Z {result['z_alarm']:.2f}; alarms at {result['threshold_p']:.3g}; "
            f"one false alarm as extreme in {duration(result['inverse_far_s'])}"
        ),
    )
    yield "toys p", f"{result['p']:.3g}, Z {result['z']:.2f}"
    if result.get("p_relabelled") is not None:
        count = result.get("n_relabellings")
        yield "relabelled p", f"{result['p_relabelled']:.3g} of {count} relabellings"
    else:
        yield "relabelled p", f"none: {plain_text(result['relabelling'])}"
    yield "null", plain_text(null.calibrated_on, 300)
    yield "reference", f"{plain_text(null.reference, 300)}, made {plain_text(null.created)}"
    yield "", f"fingerprint {plain_text(null.fingerprint, 80)}"
    yield "engine", f"fingerprint {plain_text(result['engine'], 80)}"


def describe_density(learned: LearnedDensity, contents: AlarmContents) -> str:
    """Return what the fit, made again, says of itself."""
    total = learned.weights.sum()
    text = f"t {learned.t:.2f}; the learned density holds {total:.0f} events, the window"
    return _lines([("fit again", f"{text} {len(contents.f)}")])


def anomalous_events(contents: AlarmContents, n: int) -> list[dict[str, object]]:
    """Return the n events of largest f, most anomalous first, as what JSON can hold.

    Args:
        contents: of the alarm.
        n: how many; no more than were kept are returned.
    """
    names, sources = [quantity.name for quantity in QUANTITIES], list(contents.sources)
    events = []
    rows = contents.rows[:n].tolist()
    for rank, (row, place) in enumerate(zip(rows, contents.places.tolist(), strict=False)):
        values = contents.quantities[row].tolist() if contents.has_kinematics else ()
        events.append(
            {
                "f": float(contents.f[row]),
                **dict(zip(_PLACE, (sources[place[0]], *place[1:]), strict=True)),
                **dict(zip(names, values, strict=contents.has_kinematics)),
                "objects": _objects(contents, rank),
            }
        )
    return events


def describe_events(contents: AlarmContents, n: int) -> str:
    """Return the n events of largest f with the objects that are there, a block each."""
    lines = [f"the {min(n, len(contents.rows))} most anomalous of {len(contents.f)} events\n"]
    for rank, event in enumerate(anomalous_events(contents, n), 1):
        source = plain_text(event["source"])
        lines.append(
            f"\n{rank:>4}  f {event['f']:.3f}   source {source}, message {event['message']}, "
            f"event {event['event']}\n"
        )
        for item in _objects(contents, rank - 1):
            eta = " " * 13 if item["kind"] == "MET" else f"   eta {item['eta']:>6.2f}"
            lines.append(
                f"      {item['kind']:<9} pT {item['pt_gev']:>8.1f} GeV{eta}   "
                f"phi {item['phi']:>6.2f}\n"
            )
    return "".join(lines)


def _objects(contents: AlarmContents, rank: int) -> list[dict[str, Any]]:
    """Return the objects of the event of a rank that are there; none where they are not known."""
    if not contents.has_kinematics:
        return []
    event = contents.particles[rank]
    return [
        {"kind": kind, "pt_gev": pt, "eta": eta, "phi": phi}
        for kind, first, stop in _KINDS
        for pt, eta, phi in event[first:stop].tolist()
        if pt > 0
    ]


def _lines(lines: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{label:<13}{text}\n" for label, text in lines)
