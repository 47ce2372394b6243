"""Pictures of rates: engines by batch size below their limits, the stream beside its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engines.errors import ArtifactError

__all__ = ["draw_embedding", "draw_stream"]

_DPI = 130
_CPU = {"engine": "encoder", "own": "consumer", "wire": "ZeroMQ", "nplm": "NPLM"}


def draw_embedding(results: Mapping[str, Any], path: Path) -> None:
    """Draw what `bench.embedding.measure` returned: rates, and where the arithmetic would end them.

    Raises:
        ArtifactError: if the file cannot be written.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for index, engine in enumerate(results["engines"]):
            sizes = [rate["batch"] for rate in engine["rates"]]
            low, middle, high = (
                np.array([rate["events_hz"][key] for rate in engine["rates"]])
                for key in ("low", "median", "high")
            )
            colour = f"C{index}"
            band = [middle - low, high - middle]
            name = f"{engine['engine']}, {engine['runtime']}"
            axes.errorbar(sizes, middle, band, color=colour, marker="o", ms=3, label=name)
            _draw_peak(axes, results, engine, colour)
        axes.set(xscale="log", yscale="log", xlabel="events at once", ylabel="events/s")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7, frameon=False)
        axes.set_title("dashed: the matrix-product peak, all objects computed", fontsize=9)

    _save(draw, path, (7, 4.4))


def _draw_peak(
    axes: Axes, results: Mapping[str, Any], engine: Mapping[str, Any], colour: str
) -> None:
    peaks, flops = results["peak_gflops"], engine["flops_per_event"]
    if flops:
        peak = peaks.get(engine["precision"], peaks["fp32"])["median"]
        axes.axhline(1e9 * peak / flops, color=colour, linestyle="--", linewidth=0.8)


def draw_stream(results: Mapping[str, Any], dtypes: tuple[str, ...], path: Path) -> None:
    """Draw what `bench.stream_rate.measure` returned: rates, and CPU seconds by part.

    Raises:
        ArtifactError: if the file cannot be written.
    """

    def draw(figure: Figure) -> None:
        rates, cpu = figure.subplots(1, 2)
        kinds = {"stream": "stream", "without_tests": "without tests"}
        for dtype in dtypes:
            found = results[dtype]
            figures = {
                "bare ZeroMQ": found["bare_hz"],
                "engine alone": found["engine_hz"],
                **{text: found[kind]["events_hz"] for kind, text in kinds.items()},
            }
            _draw_bars(rates, dtype, figures)
        rates.invert_yaxis()
        rates.set_xlabel("thousand events/s")
        names = [f"{dtype} {text}" for dtype in dtypes for text in kinds.values()]
        runs = [results[dtype][kind]["cpu_s_per_million"] for dtype in dtypes for kind in kinds]
        left = np.zeros(len(runs))
        for key, text in _CPU.items():
            seconds = np.array([run[key]["median"] for run in runs])
            cpu.barh(names, seconds, left=left, label=text)
            left += seconds
        cpu.invert_yaxis()
        cpu.set_xlabel("CPU seconds per million events")
        cpu.legend(fontsize=7, frameon=False)

    _save(draw, path, (11, 3.6))


def _draw_bars(axes: Axes, dtype: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    for text, figure in figures.items():
        low, middle, high = (1e-3 * figure[key] for key in ("low", "median", "high"))
        band = [[middle - low], [high - middle]]
        axes.barh(f"{dtype} {text}", middle, xerr=band, color="C0", ecolor="#444444")


def _save(draw: Callable[[Figure], None], path: Path, size: tuple[float, float]) -> None:
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
    try:
        figure.savefig(path, dpi=_DPI)
    except (OSError, ValueError) as exc:
        msg = f"cannot write {path} ({exc}); choose a folder that is writable, and .png or .pdf"
        raise ArtifactError(msg) from exc
