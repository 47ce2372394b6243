"""Every error a user can cause, in one tree.

    NplmStreamError
    ├── EventError (ValueError)            events that break the 19 x (pT, eta, phi) layout
    ├── ArtifactError (ValueError)         a file that is missing, truncated or of another kind
    │   ├── MismatchError                  two artefacts that do not belong together
    │   └── StateError                     a run's state that its disk does not take
    ├── EngineError (ValueError)           an encoder given what it cannot embed
    │   └── EngineUnavailableError         an encoder this machine cannot run
    ├── MissingPackageError (ImportError)  an optional package that is not installed
    ├── SampleSizeError (ValueError)       too few events for what was asked
    ├── ParameterError (ValueError)        an option or argument out of its range
    ├── MessageError (ValueError)          a message that breaks the wire format
    ├── EndpointError (OSError)            a socket or port that cannot be had
    ├── TrainingError (RuntimeError)       a training that did not converge
    ├── WorkerError (RuntimeError)         a process that ran toys and was lost
    └── ParityError (RuntimeError)         an exported encoder that differs from the trained one

Each is also a builtin, so that code which knows nothing of this package can catch it. `exit_code`
is what a command ends with: 2 for bad input, 1 for a failure of the work itself.
"""

__all__ = [
    "ArtifactError",
    "EndpointError",
    "EngineError",
    "EngineUnavailableError",
    "EventError",
    "MessageError",
    "MismatchError",
    "MissingPackageError",
    "NplmStreamError",
    "ParameterError",
    "ParityError",
    "SampleSizeError",
    "StateError",
    "TrainingError",
    "WorkerError",
]


class NplmStreamError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 2


class EventError(NplmStreamError, ValueError):
    """Events that break the 19 x (pT, eta, phi) layout."""


class ArtifactError(NplmStreamError, ValueError):
    """A file that is missing, truncated or of another kind than its name promises."""


class MismatchError(ArtifactError):
    """Two artefacts that do not belong together."""


class StateError(ArtifactError):
    """A run's state that its disk does not take; a restart goes on with it when the disk does."""

    exit_code = 1


class EngineError(NplmStreamError, ValueError):
    """An encoder was given something it cannot embed."""


class EngineFailedError(NplmStreamError):
    """An encoder that no longer embeds anything: its memory or driver failed, not the events."""

    exit_code = 1


class EngineUnavailableError(EngineError):
    """An encoder that this machine cannot run."""


class MissingPackageError(NplmStreamError, ImportError):
    """An optional package that is not installed."""


class SampleSizeError(NplmStreamError, ValueError):
    """Too few events for what was asked."""


class ParameterError(NplmStreamError, ValueError):
    """An option or argument out of its range."""


class MessageError(NplmStreamError, ValueError):
    """A message that breaks the wire format.

    Args:
        reason: short label for counting, such as ``"payload-size"``.
        text: one sentence for people.
    """

    def __init__(self, reason: str, text: str) -> None:
        """Keep the reason beside the sentence."""
        super().__init__(text)
        self.reason = reason


class EndpointError(NplmStreamError, OSError):
    """A socket or port that cannot be had."""


class TrainingError(NplmStreamError, RuntimeError):
    """A training that did not converge."""

    exit_code = 1


class WorkerError(NplmStreamError, RuntimeError):
    """A process that ran toys and was lost."""

    exit_code = 1


class ParityError(NplmStreamError, RuntimeError):
    """An exported encoder whose embeddings differ from the trained one's."""

    exit_code = 1
