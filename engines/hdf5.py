"""What h5py raises on damaged files, as one error."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from engines.errors import ArtifactError, NplmStreamError

__all__ = ["hdf5_errors"]

_RAISED = (
    *(OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError),
    *(OverflowError, MemoryError),
)


@contextlib.contextmanager
def hdf5_errors(
    path: Path,
    fault: str = "is damaged",
    *,
    kind: str = "event file",
    advice: str = "fetch it again",
) -> Iterator[None]:
    """Turn whatever h5py raises inside into an ArtifactError of one sentence.

    Args:
        path: the file, for the text.
        fault: what is wrong with it if something is raised.
        kind: what the file is.
        advice: what to do.

    Raises:
        ArtifactError: in place of h5py's error; errors of this package pass unchanged.
    """
    try:
        yield
    except NplmStreamError:
        raise
    except _RAISED as exc:
        reason = (str(exc.args[0]) if exc.args else type(exc).__name__).partition("\n")[0]
        if isinstance(exc, OSError) and exc.strerror:
            reason = exc.strerror.partition("\n")[0]
        msg = f"{kind} {path} {fault} ({reason}); {advice}"
        raise ArtifactError(msg) from exc
