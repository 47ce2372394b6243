"""Command: a black box, an event file with a signal hidden in half of its splits."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engines.command import CommandParser, positive_float, positive_int, run_command
from engines.events import EventRange

__all__ = ["main", "write_black_box"]

_DESCRIPTION = """\
Writes background events in their order, cut into splits; in half of the splits, drawn at random,
that share of the events is replaced by signal, at random places. No label tells which: the truth is
in a file beside it. stream-scan, given a reference for windows of --window events, then tests split
by split, as arXiv:2502.15926 does."""


def write_black_box(
    output: Path,
    background: EventRange,
    signal: EventRange,
    *,
    window: int,
    splits: int,
    fraction: float,
    seed: int,
) -> Path:
    """Write a black box; return the path of its truth, a JSON file beside it.

    Args:
        output: the event file.
        background: events, of which splits * window are taken less the signal's number.
        signal: events, of which a share of half of the splits is taken.
        window: events in a split.
        splits: how many; half of them, rounded down, get signal.
        fraction: of the events of such a split.
        seed: of the splits and places.

    Raises:
        SampleSizeError: if there are too few events.
    """
    import json

    import numpy as np

    from engines.errors import SampleSizeError
    from engines.event_files import EventFile, EventWriter

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(splits)[: splits // 2]).tolist()
    n_signal = round(fraction * window)
    with EventFile(background.path) as sm, EventFile(signal.path) as new:
        wanted = splits * window - n_signal * len(chosen)
        for file, source, n in ((sm, background, wanted), (new, signal, n_signal * len(chosen))):
            held = (len(file) if source.stop is None else source.stop) - source.start
            if held < n:
                msg = f"the black box needs {n} events of {source}; there are {held}; give more"
                raise SampleSizeError(msg)
        place, taken = background.start, signal.start
        with EventWriter(output) as writer:
            for split in range(splits):
                k = n_signal if split in chosen else 0
                is_signal = np.zeros(window, dtype=bool)
                is_signal[rng.permutation(window)[:k]] = True
                events = np.empty((window, *sm.read(0, 0).shape[1:]), np.float32)
                events[~is_signal] = sm.read(place, place + window - k)
                events[is_signal] = new.read(taken, taken + k)
                place, taken = place + window - k, taken + k
                writer.append(events)
    truth = output.with_suffix(".truth.json")
    facts = {
        "background": str(background),
        "signal": str(signal),
        "window": window,
        "splits": splits,
        "seed": seed,
        "n_signal": n_signal,
        "splits_with_signal": chosen,
    }
    truth.write_text(json.dumps(facts, indent=1) + "\n")
    return truth


def _parser() -> CommandParser:
    example = "bench-black-box sm.h5@60000:160000 A4l.h5 --window 5000 --splits 20 -o box.h5"
    parser = CommandParser("bench-black-box", _DESCRIPTION, example)
    add = parser.add_argument
    add("background", type=EventRange.parse, metavar="BACKGROUND.h5[@START:STOP]")
    add("signal", type=EventRange.parse, metavar="SIGNAL.h5[@START:STOP]")
    add("--window", type=positive_int, default=5000, help="events in a split")
    add("--splits", type=positive_int, default=20, help="half of them get signal")
    add("--fraction", type=positive_float, default=0.005, help="signal's share of such a split")
    add("--seed", type=int, default=0, help="of splits and places")
    add("-o", "--output", type=Path, required=True, metavar="FILE.h5")
    return parser


def _run(options: argparse.Namespace) -> None:
    from engines.artifact import check_writable

    check_writable(options.output)
    truth = write_black_box(
        options.output,
        options.background,
        options.signal,
        window=options.window,
        splits=options.splits,
        fraction=options.fraction,
        seed=options.seed,
    )
    sys.stdout.write(f"written {options.output}, and its truth {truth}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(_parser(), _run, argv)


if __name__ == "__main__":
    sys.exit(main())
