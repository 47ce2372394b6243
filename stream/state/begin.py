"""Opens the state that a consumer's options ask for, and says how things stand there."""

import argparse
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from engines.reference_file import ReferenceArtifact
from stream.account import Rules
from stream.metrics import Metrics
from stream.results import duration
from stream.sparse_log import SparseLog
from stream.state.run import RunState

__all__ = ["DEFAULT_FOLDER", "begin_state", "new_name"]

_LOG = logging.getLogger(__name__)
#: As messages may be.
_MOST_AHEAD_S = 5.0
DEFAULT_FOLDER = Path("stream-state")


def begin_state(
    options: argparse.Namespace,
    artifact: ReferenceArtifact,
    rules: Rules,
    n_panes: int,
    metrics: Metrics,
    stopped: Callable[[], bool],
) -> RunState | None:
    """Return the state of the run that is taken up, or begun; None where none is asked for.

    Args:
        options: of the command.
        artifact: the calibrated reference.
        rules: when a window alarms.
        n_panes: steps in a window.
        metrics: counts writes and failures.
        stopped: whether the consumer is to stop.

    Raises:
        ArtifactError: if the state cannot be kept there.
        MismatchError: if a run with other decisions is.
    """
    folder = options.state or (DEFAULT_FOLDER if options.reliable else None)
    if folder is None:
        return None
    inputs = {
        "engine": artifact.facts.engine_fingerprint,
        "reference": artifact.fingerprint,
        "window": str(artifact.facts.window),
        "steps in a window": n_panes,
        "what messages hold": "embeddings" if options.role == "test" else "events",
        "--far": rules.far.text,
        "--alarm-on": rules.alarm_on,
        "--refractory": rules.refractory_s,
        "--fdr": [rules.fdr, rules.fdr_method] if rules.fdr else None,
    }
    state = RunState(folder, inputs, metrics, SparseLog(), name=new_name(), stopped=stopped)
    if not state.clean and not state.is_new:
        _warn(state, reliable=options.reliable)
    if state.ahead_s > _MOST_AHEAD_S:
        _LOG.warning(
            "the run %s was saved %s ahead of this machine's clock: no window is charged for that "
            "time, and a time window that was open does not count; set the wrong clock right",
            state.name,
            duration(state.ahead_s),
        )
    return state


def new_name() -> str:
    """Return a name for a run that begins now."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"


def _warn(state: RunState, *, reliable: bool) -> None:
    if reliable:
        what = "producers send again what it had not acknowledged"
    else:
        what = (
            "messages that it had received and not stored are lost; those of sources that it knew "
            "are counted as missing when their source goes on (--reliable loses none)"
        )
    _LOG.warning("the run %s was ended by a kill or a crash: %s", state.name, what)
