"""A process that opens damaged files until one ends it; started by `bench.fuzzing.workers`.

Usage: python -m bench.fuzzing.worker TARGET SEED FIRST STOP MEMORY_MIB
"""

import faulthandler
import json
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.fuzzing.artefacts import TARGETS, Target
from bench.fuzzing.memory import forget_peak, peak_bytes, resident_bytes, virtual_bytes
from engines.errors import NplmStreamError

__all__ = ["main"]

_MIB = 2**20
_LONGEST_SENTENCE = 1000


def main(argv: list[str]) -> None:
    """Open the cases, one JSON line before and one after each."""
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    target, (seed, first, stop, memory_mib) = TARGETS[argv[0]](), map(int, argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        target.prepare(Path(folder))
        most = virtual_bytes() + memory_mib * _MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for case in range(first, stop):
            rng = np.random.default_rng([seed, case])
            kind, path = target.make(rng)
            _say({"case": case, "kind": kind})
            _say({"case": case, "kind": kind, **_open(target, path)})


def _open(target: Target, path: Path) -> dict[str, object]:
    forget_peak()
    before, started_s = resident_bytes(), time.perf_counter()
    verdict, said = "opened", ""
    try:
        target.open(path)
    except NplmStreamError as exc:
        said = str(exc)
        verdict = "refused" if _is_one_sentence(said) else "untidy"
    except BaseException as exc:  # noqa: BLE001 - what must not happen is what is looked for
        verdict, said = "exception", _origin(exc)
    return {
        "verdict": verdict,
        "said": said,
        "seconds": time.perf_counter() - started_s,
        "peak_mib": max(0, peak_bytes() - before) / _MIB,
    }


def _is_one_sentence(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_SENTENCE and text.isprintable()


def _origin(exc: BaseException) -> str:
    """Return the exception and the last place of ours that it passed through."""
    place, trace = "", exc.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "/engines/" in name or "/stream/" in name:
            place = f" at {Path(name).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(exc).__name__}: {exc}"[:_LONGEST_SENTENCE] + place


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
