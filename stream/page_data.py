"""What the live page is told of windows, and no more often than it needs to be told.

A window's full result has forty figures and each second asks for 500 windows of them: the page gets
the figures that it shows, and of windows those that it has not seen.
"""

from typing import Any
from urllib.parse import parse_qs

from engines.nplm import z_score
from stream.window_result import WindowResult

__all__ = ["unseen", "window_view"]

_FIELDS = (
    *("run", "window", "scale", "n_events", "t_start_ns", "t_end_ns", "n_missing", "complete"),
    *("converged", "t", "below_null", "alarm", "onset", "alarm_window", "discovery", "p_alarm"),
    *("z_alarm", "inverse_far_s", "trials", "z_global", "p_relabelled"),
)


def window_view(result: WindowResult) -> dict[str, object]:
    """Return the figures of a window that the page shows, JSON-able, with `threshold_z`."""
    shown: dict[str, object] = {name: getattr(result, name) for name in _FIELDS}
    shown["threshold_z"] = z_score(result.threshold_p)
    return shown


def unseen(data: dict[str, Any], query: str) -> dict[str, Any]:
    """Return the page's data without what the asker has already.

    Args:
        data: the snapshot; left as it is.
        query: of the URL: `after=RUN:WINDOW` is the last window that the asker has, and
            `alarm=RUN:WINDOW` the alarm. Without them, or after a restart, everything is new.

    Returns:
        The data; `continues` is true where `windows` follows what the asker has.

    >>> unseen({"windows": [{"run": "a", "window": 0}]}, "after=a:0")
    {'windows': [], 'continues': True}
    """
    asked = {key: values[-1] for key, values in parse_qs(query).items()}
    windows = data.get("windows", [])
    names = [_name(window) for window in windows]
    cut = dict(data)
    if asked.get("after") in names:
        cut |= {"windows": windows[names.index(asked["after"]) + 1 :], "continues": True}
    alarm = data.get("last_alarm")
    if alarm and asked.get("alarm") == _name(alarm):
        cut["last_alarm"] = {key: alarm[key] for key in ("run", "window")}
    return cut


def _name(window: dict[str, Any]) -> str:
    return f"{window.get('run')}:{window.get('window')}"
