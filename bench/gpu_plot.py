"""The picture of the GPU suite: rates, differences by precision, and what a test takes."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engines.errors import ArtifactError

__all__ = ["draw_suite"]

_DPI = 130


def draw_suite(folder: Path, output: Path) -> None:
    """Draw what the suite left in a folder; a part that left nothing is an empty panel.

    Raises:
        ArtifactError: if the file cannot be written.
    """
    engines, nplm = _results(folder / "engines.json"), _results(folder / "nplm.json")
    toys = _results(folder / "nplm-toys.json") or nplm
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 4.2), layout="constrained")
        rates, parity, times = figure.subplots(1, 3)
        _draw_rates(rates, engines.get("ways", {}))
        _draw_differences(parity, engines)
        _draw_times(times, nplm, toys)
    try:
        figure.savefig(output, dpi=_DPI)
    except OSError as exc:
        msg = f"cannot write {output} ({exc}); choose a folder that is writable"
        raise ArtifactError(msg) from exc


def _results(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    results: dict[str, Any] = json.loads(path.read_text())["results"]
    return results


def _draw_rates(axes: Axes, ways: dict[str, Any]) -> None:
    for name, way in ways.items():
        if "rates" in way:
            sizes = [rate["batch"] for rate in way["rates"]]
            hz = [rate["events_hz"]["median"] for rate in way["rates"]]
            axes.loglog(sizes, hz, "o-", label=name)
    axes.set(title="embedding", xlabel="events at once", ylabel="events/s")
    if axes.lines:
        axes.legend(frameon=False)


def _draw_differences(axes: Axes, engines: dict[str, Any]) -> None:
    ways = {name: way for name, way in engines.get("ways", {}).items() if "rates" in way}
    typed = {f"torch, {name}": found for name, found in engines.get("precisions", {}).items()}
    found = {**ways, **typed}
    axes.barh(list(found), [max(1e-9, one["largest_over_spread"]) for one in found.values()])
    axes.set(
        title="largest difference from ONNX Runtime on the CPU",
        xlabel="in spreads of the coordinate",
        xscale="log",
    )
    axes.invert_yaxis()


def _draw_times(axes: Axes, nplm: dict[str, Any], toys: dict[str, Any]) -> None:
    if nplm:
        seconds = {
            "fit": nplm["fit_s"]["median"],
            "features": nplm["features_s"]["median"],
            "a window": nplm["both_s"]["median"],
            "a toy": toys["toy_s"],
            "fit, if memory-bound": nplm["floor_s"],
        }
        axes.barh(list(seconds), [1e3 * value for value in seconds.values()])
        axes.invert_yaxis()
    axes.set(title="NPLM", xlabel="ms")
