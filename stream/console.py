"""What the consumer tells people on the terminal, at the start and at the end."""

import argparse
import logging
import sys

from engines.engine import Engine
from engines.nplm import Tail, WidthNulls
from engines.reference_file import ReferenceArtifact
from stream.alarms import FalseAlarmRate
from stream.metrics import Metrics
from stream.service import Consumer
from stream.state.run import RunState

__all__ = ["announce", "summarise"]

_LOG = logging.getLogger(__name__)
_LEAST_KS_P = 0.01


def announce(
    options: argparse.Namespace,
    engine: Engine,
    artifact: ReferenceArtifact,
    far: FalseAlarmRate,
    state: RunState | None = None,
) -> None:
    """Say what runs, what its p-values rest on, and what they cannot do."""
    facts, scales = artifact.facts, sorted(artifact.nulls)
    slide = f", one each {options.slide}" if options.slide else ""
    longer = "".join(f", each {scale} also as one" for scale in scales[1:])
    sys.stdout.write(
        f"engine      {options.engine or 'none here'} "
        f"({engine.dim} dimensions, {engine.fingerprint[:16]}...)\n"
        f"            {engine.runtime}\n"
        f"windows     of {facts.window}{slide}{longer}\n"
        f"calibrated  on {facts.calibration()}\n"
        f"alarms      at {far.text}, on the {options.alarm_on} p-value\n"
        f"listening   on {options.endpoint} ({_pattern(options)}); http {options.http}\n"
        f"{_state(state)}\n"
    )
    sys.stdout.flush()
    if engine.precision != facts.precision:
        _LOG.warning(
            "the reference was embedded in %s, this engine computes in %s: every t may be shifted; "
            "calibrate with this engine, or see what build-engine found: inspect-engine %s",
            facts.precision,
            engine.precision,
            options.engine,
        )
    if options.fdr and options.alarm_on == "toys":
        _LOG.warning(
            "--fdr on the toys' p, which ends at %.2g, finds nothing after the first windows: the "
            "level that a discovery needs falls as they pass; use --alarm-on gamma or chi2",
            artifact.nulls[1].resolution,
        )
    for scale in scales:
        name = f"{scale} windows as one: " if scale > 1 else ""
        _warn(name, artifact.nulls[scale], options.alarm_on, far.shared(len(scales)))


def _pattern(options: argparse.Namespace) -> str:
    return "reliable" if options.reliable else str(options.pattern)


def _state(state: RunState | None) -> str:
    """Return a line about the state, if there is one."""
    if state is None:
        return ""
    kept = f"state       in {state.path}; run {state.name}"
    if state.is_new:
        return f"{kept} begins\n"
    return (
        f"{kept} goes on after {state.decided.n_windows} windows of {len(state.sources)} sources\n"
    )


def _warn(name: str, nulls: WidthNulls, alarm_on: Tail, far: FalseAlarmRate) -> None:
    """Say what the p-value that decides cannot do."""
    if alarm_on == "toys":
        # What leads in one width ties with the toys that lead in the others.
        smallest = nulls.n_widths * nulls.resolution
        _LOG.warning(
            "%s%d toys give a window no p below about %.2g, so at %s only windows more than %.3g s "
            "apart can alarm; calibrate with more toys or use --alarm-on chi2",
            name,
            nulls.n_toys,
            smallest,
            far.text,
            smallest * far.n_scales / far.per_s,
        )
    elif (ks_p := nulls.ks_p(alarm_on)) < _LEAST_KS_P:
        other: Tail = "gamma" if alarm_on == "chi2" else "chi2"
        better = other if nulls.ks_p(other) >= _LEAST_KS_P else "toys"
        _LOG.warning(
            "%sthe toys do not follow the fitted %s law (KS p = %.2g): p-values beyond %.2g are "
            "not to be trusted; --alarm-on %s is safer",
            name,
            alarm_on,
            ks_p,
            nulls.resolution,
            better,
        )


def summarise(metrics: Metrics, consumer: Consumer) -> None:
    """Say what came of the process, events of an unfinished window among it."""
    scales = metrics.scales.values()
    n_merged = sum(one.n_tested for one in scales) - metrics.scales[1].n_tested
    merged = f" and {n_merged} of longer scales" if n_merged else ""
    n_alarms, n_alarming = sum(s.n_alarms for s in scales), sum(s.n_alarming for s in scales)
    alarming = f" ({n_alarming} windows)" if n_alarming > n_alarms else ""
    sys.stdout.write(
        f"\n{metrics.n_events} events in {metrics.n_messages} messages; "
        f"{metrics.n_rejected} messages refused, {metrics.n_missing} missing; "
        f"{metrics.windows['tested']} windows tested{merged}, "
        f"{metrics.windows['skipped']} skipped, {n_alarms} alarms{alarming}; "
        f"{consumer.n_unclosed} events of an unfinished window "
        f"{'kept for the next start' if consumer.has_state else 'not tested'}\n"
    )
    if metrics.n_duplicates or metrics.n_recovered:
        sys.stdout.write(
            f"{metrics.n_recovered} events taken up from the state, {metrics.n_duplicates} "
            "messages came again and were not counted again\n"
        )
