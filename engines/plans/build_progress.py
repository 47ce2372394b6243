"""How far TensorRT's builder is: its nested phases as one bar."""

import threading
from dataclasses import dataclass
from typing import Any

from engines.progress import Progress

__all__ = ["BuildProgress", "monitor_of"]

_UNITS = 1000


@dataclass
class _Phase:
    """Part of a build: its parent's current step consists of it."""

    parent: str | None
    n_steps: int
    done: int = 0


class BuildProgress:
    """Adds up phases that TensorRT starts and ends, from several threads.

    Args:
        progress: of 1000 units.
    """

    def __init__(self, progress: Progress) -> None:
        """Start with no phase."""
        self._progress, self._shown = progress, 0
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, n_steps: int) -> None:
        """Begin a phase."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, n_steps))

    def step(self, name: str, step: int) -> None:
        """Note that a phase has done steps 0 to `step`."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
                self._show(name)

    def finish(self, name: str) -> None:
        """End a phase."""
        with self._lock:
            self._phases.pop(name, None)

    def close(self) -> None:
        """End the bar, full."""
        self._progress.advance(_UNITS - self._shown)
        self._progress.close()

    def _show(self, name: str) -> None:
        top = next((phase for phase in self._phases if not self._phases[phase].parent), None)
        if top is not None:
            units = int(_UNITS * min(1.0, self._fraction(top)))
            if units > self._shown:
                self._progress.advance(units - self._shown, name.lower())
                self._shown = units

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = [self._fraction(child) for child in self._children(name)]
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.n_steps)

    def _children(self, name: str) -> list[str]:
        return [child for child, p in self._phases.items() if p.parent == name != child]


def monitor_of(module: Any, progress: BuildProgress) -> Any:  # noqa: ANN401 - TensorRT has no types
    """Return TensorRT's own kind of monitor, which reports to `progress`.

    Args:
        module: TensorRT.
        progress: what adds the phases up.

    Returns:
        An IProgressMonitor; `interrupted` says whether Ctrl-C ended the build.
    """
    base: Any = module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc] # known at run time only
        def __init__(self) -> None:
            base.__init__(self)
            self.interrupted = False

        def phase_start(self, name: str, parent: str | None, n_steps: int) -> None:
            progress.start(name, parent, n_steps)

        def phase_finish(self, name: str) -> None:
            progress.finish(name)

        def step_complete(self, name: str, step: int) -> bool:
            try:
                progress.step(name, step)
            except KeyboardInterrupt:  # must not fly through TensorRT, which would abort
                self.interrupted = True
            return not self.interrupted

    return Monitor()
