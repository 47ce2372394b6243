"""A run folder belongs to one training at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.errors import ArtifactError

__all__ = ["hold_folder"]

_LOCK = ".lock"


@contextmanager
def hold_folder(path: Path, *, writes: bool = True) -> Iterator[None]:
    """Make the folder and keep other trainings out of it; the system lets go if this one dies.

    Args:
        path: the run folder.
        writes: whether this process writes there; otherwise nothing happens.

    Raises:
        ArtifactError: if another training holds the folder, or it cannot be written.
    """
    if not writes:
        yield
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / _LOCK).open("ab")
    except OSError as exc:
        msg = f"cannot write {path / _LOCK} ({exc.strerror or exc}); choose --run-dir"
        raise ArtifactError(msg) from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            msg = (
                f"another training writes into {path}; wait for it or end it, or name another "
                "folder with --run-dir"
            )
            raise ArtifactError(msg) from exc
        yield
