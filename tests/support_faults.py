"""Process: a consumer whose wall clock is wrong by the seconds that stand in a file.

The stream reads the wall clock through `time.time` and `time.time_ns` alone. libfaketime 0.9.10,
which would shift it from outside, makes `time.sleep` fail where the monotonic clock stays right.
"""

import sys
import time
from pathlib import Path

__all__ = ["set_wall_clock", "shift_wall_clock"]


def set_wall_clock(file: Path, seconds: float) -> None:
    """Have the clocks that follow a file be wrong by so many seconds, from now on."""
    written = file.with_suffix(".new")
    written.write_text(f"{seconds}")
    written.replace(file)


def shift_wall_clock(file: Path) -> None:
    """Make this process's wall clock follow a file."""
    true_ns = time.time_ns

    def wrong_ns() -> int:
        return true_ns() + round(1e9 * float(file.read_text()))

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9


if __name__ == "__main__":
    shift_wall_clock(Path(sys.argv[1]))
    # Only now: some take the clock as the default of an argument.
    from stream.consumer import main

    sys.exit(main(sys.argv[2:]))
