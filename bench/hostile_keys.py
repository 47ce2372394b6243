"""Keys of a consumer, of a producer on its list, and of one that is not."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bench.hostile_consumer import GOOD
from engines.errors import WorkerError
from stream.make_keys import main

__all__ = ["NO_KEYS", "Keys", "make_keys"]

_Words: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class Keys:
    """Options of CURVE.

    Attributes:
        good: of the producer on the list.
        hostile: of the one that is not.
        consumer: of the consumer.
    """

    good: _Words = ()
    hostile: _Words = ()
    consumer: _Words = ()


NO_KEYS = Keys()


def make_keys(folder: Path) -> Keys:
    """Make keys in a folder, and return the options that name them.

    Raises:
        WorkerError: if that fails.
    """
    others, server = folder / "others", ("--curve-server", folder / "consumer.key")
    with contextlib.redirect_stdout(io.StringIO()):
        failed = main([str(folder), "--server", "consumer", "--client", GOOD])
        failed = failed or main([str(others), "--client", "mallory"])
    if failed:
        msg = f"make-keys must make keys in {folder}; it did not; see what it said"
        raise WorkerError(msg)
    clients = ("--curve-clients", folder / "clients")
    return Keys(
        good=("--curve-key", folder / f"{GOOD}.key_secret", *server),
        hostile=("--curve-key", others / "mallory.key_secret", *server),
        consumer=("--curve-key", folder / "consumer.key_secret", *clients),
    )
