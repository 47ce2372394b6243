"""Part of a command: `bench-throughput nplm`."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from bench.options import share_or_zero
from engines.command import CommandParser, positive_float, positive_int

__all__ = ["parser", "run"]

_TEXT = """\
Times the NPLM test on synthetic events: one window's features and fit, toys in batches, and the
making of the reference; compares the fit with the time that the memory alone would take, and with
Falkon where it can be imported."""


def parser() -> CommandParser:
    """Return the part's own parser."""
    made = CommandParser(
        "bench-throughput nplm",
        _TEXT,
        "bench-throughput nplm --n-ref 100000 --window 20000 --centres 350 --json out.json",
    )
    add = made.add_argument
    add("--n-ref", type=positive_int, default=100_000, help="reference events")
    add("--window", type=positive_int, default=20_000, help="events in a window")
    add("--centres", type=positive_int, default=350, help="Nystrom centres")
    add("--dim", type=positive_int, default=4, help="embedding coordinates")
    add("--sigma", type=positive_float, help="kernel width (default: 90 %% quantile of distances)")
    add("--lam", type=positive_float, default=1e-6, help="ridge parameter")
    add("--signal", type=share_or_zero, default=0.01, help="share of signal in the window")
    add("--loss", choices=("cross-entropy", "likelihood"), default="cross-entropy")
    add("--store", choices=("float32", "float16"), default="float32", help="features' precision")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=positive_int, default=2, help="CPU threads")
    add("--repeat", type=positive_int, default=10, help="timed runs of one test")
    add("--toys", type=positive_int, default=20, help="toys, fitted in batches")
    add(
        "--falkon",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time Falkon too, where it can be imported; it has the cross-entropy only",
    )
    add(
        "--oracle",
        action="store_true",
        help="compare t with a dense float64 Newton fit: minutes and gigabytes at 100,000 events",
    )
    add("--seed", type=int, default=0, help="of all samples")
    add("--json", type=Path, metavar="FILE", help="save everything with a machine stamp")
    return made


def run(options: argparse.Namespace) -> None:
    """Measure, print and save."""
    from dataclasses import asdict, fields

    from bench.nplm_throughput import Settings, measure
    from bench.stamp import save_record
    from engines.artifact import check_writable

    if options.json is not None:
        check_writable(options.json)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    result = measure(settings)
    sys.stdout.write(_text(asdict(settings), result))
    if options.json is not None:
        save_record(options.json, "nplm-throughput", asdict(settings), results=result)


def _text(settings: dict[str, Any], result: dict[str, Any]) -> str:
    def span(name: str) -> str:
        return f"{_time(result[name]['min'])}   {_time(result[name]['median'])}"

    bandwidth = f"{result['bandwidth_gb_per_s']:.1f} GB/s read"
    peak = f"{result['peak_rss_gib']:.2f} GiB resident"
    if "peak_gpu_gib" in result:
        peak += f", {result['peak_gpu_gib']:.2f} GiB on {result['gpu']}"
    rows = [
        ("reference", f"{settings['n_ref']} events, window {settings['window']}"),
        ("", f"{settings['centres']} centres, rank {result['rank']}, sigma {result['sigma']:.3f}"),
        ("", f"{settings['loss']}, {settings['store']}, {settings['device']}"),
        ("", "      min     median"),
        ("fit", span("fit_s")),
        ("features", span("features_s")),
        ("both", span("both_s")),
        ("toy", f"{_time(result['toy_s'])} each, {result['toy_batch']} at once"),
        ("build", f"{_time(result['build_s'])}, of which basis {_time(result['basis_s'])}"),
        ("t", f"{result['t']:.3f} after {result['evaluations']} evaluations"),
        ("peak memory", peak),
        ("floor", f"{_time(result['floor_s'])} at {bandwidth}"),
        (
            "floor_ratio",
            _ratio_text(result),
        ),
        ("falkon", _falkon_text(settings, result["falkon"])),
    ]
    if result["oracle"] is not None:
        oracle = result["oracle"]
        share = f"{100 * oracle['share_of_spread']:+.2f} % of the toys' spread away"
        rows.append(("oracle", f"{_time(oracle['seconds'])}; t {oracle['t']:.3f}, {share}"))
    return "".join(f"{name:<12} {text}\n" for name, text in rows)


def _ratio_text(result: dict[str, Any]) -> str:
    low, high = result["floor_ratio_68"]
    return f"{result['floor_ratio']:.2f} ({low:.2f} to {high:.2f})"


def _falkon_text(settings: dict[str, Any], falkon: dict[str, Any] | None) -> str:
    if falkon is None:
        wanted = settings["falkon"] and settings["loss"] == "cross-entropy"
        return "cannot be imported here" if wanted else "left out"
    return (
        f"{_time(falkon['seconds'])}, {falkon['ratio']:.0f} times ours; t {falkon['t']:.3f}, "
        f"converged {falkon['t_converged']:.3f}"
    )


def _time(seconds: float) -> str:
    """Return seconds with three digits, nine characters wide.

    >>> _time(0.0123), _time(61.5)
    ('  12.3 ms', '   61.5 s')
    """
    if seconds < 0.9995:
        return f"{1e3 * seconds:6.3g} ms"
    return f"{seconds:7.{max(0, 2 - int(math.log10(seconds)))}f} s"
