"""Representations that need no training, to be beaten: raw inputs and six leading-object pT."""

import subprocess
import sys
from pathlib import Path

from engines.artifact import SampleFacts
from engines.errors import TrainingError
from engines.events import EventRange

__all__ = ["BASELINES", "make_baselines"]

#: Name in tables, and architecture of train-encoder.
BASELINES = {"57 raw inputs": "raw", "6 leading pT": "leading-pt"}
#: Nothing is learned from them: enough to compare the ONNX file with torch on.
_N_EVENTS = 10_000


def make_baselines(events: EventRange, folder: Path) -> dict[str, Path]:
    """Return the baselines' engines by name, written by train-encoder.

    Args:
        events: any that it can read.
        folder: where to write.

    Raises:
        TrainingError: if it fails, with its last line.
    """
    engines = {name: folder / f"{arch}.onnx" for name, arch in BASELINES.items()}
    stop = min(events.start + _N_EVENTS, SampleFacts.of(events).stop)
    few = f"{events.path}@{events.start}:{stop}"
    for name, path in engines.items():
        words = ["--events", few, "--arch", BASELINES[name], "-o", str(path)]
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "training.train_encoder", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            msg = f"cannot make the baseline {name!r}: {said}"
            raise TrainingError(msg)
    return engines
