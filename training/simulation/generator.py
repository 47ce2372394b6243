"""Events from Pythia, down to the stable particles that a detector sees.

Hadronising an event and reading its particles costs several times its parton level, so both wait
until the event holds an electron or muon that the trigger could take. Taus decay before that, since
their decay needs no hadrons. Outside QCD, an event whose only such lepton would come from a bottom
or charm hadron is therefore not generated: about 5 % of the leptoquark and top events that the
trigger would accept, left out of the reference sample as well, and few of the others.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.errors import MissingPackageError, TrainingError
from engines.types import IntArray
from training.simulation.particles import EventBlock
from training.simulation.processes import COMMON_SETTINGS, SOFT_SETTINGS, Process
from training.simulation.selection import (
    SeenEvent,
    hard_heavy_hadrons,
    has_heavy_quark,
    has_isolated_lepton,
    has_lepton,
    has_tau,
    light_unstable,
    visible,
)

__all__ = ["Candidates", "EventGenerator", "require_packages", "soft_events"]

_MAX_FAILURES = 1000


@dataclass(frozen=True)
class Candidates:
    """Events that the trigger may accept.

    Attributes:
        block: their particles.
        n_generated: events that Pythia had generated up to and with each, (n,).
    """

    block: EventBlock
    n_generated: IntArray


def require_packages() -> None:
    """Refuse to go on without the generator and the jet finder.

    Raises:
        MissingPackageError: if one is not installed, or is broken.
    """
    for package in ("fastjet", "pythia8mc"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as exc:
            msg = (
                f"simulation needs the package {exc.name}; install it with: "
                "pip install 'nplm-stream[sim]'"
            )
            raise MissingPackageError(msg) from exc
        except ImportError as exc:  # such as a shared library that is not there
            reason = str(exc).partition("\n")[0]
            msg = (
                f"simulation needs the package {package}, which cannot be imported ({reason}); "
                f"install it anew with: pip install --force-reinstall {package}"
            )
            raise MissingPackageError(msg) from exc


class EventGenerator:
    """Generates one process.

    Args:
        process: what to generate.
        seed: of Pythia, 1 to 900,000,000.
    """

    def __init__(self, process: Process, seed: int) -> None:
        """Initialise Pythia."""
        settings = [*COMMON_SETTINGS, *process.settings]
        self._tries = process.decay_tries
        if self._tries:
            settings.append("HadronLevel:Decay=off")
        self._pythia = _start(settings, seed)
        self._light = light_unstable(self._pythia) if self._tries else []
        self._may_decay(light=False)
        self.n_generated = 0

    @property
    def cross_section_mb(self) -> float:
        """Pythia's estimate so far, in millibarn."""
        return float(self._pythia.infoPython().sigmaGen())

    def candidates(self, n: int) -> Candidates:
        """Generate until n events may pass the trigger."""
        events: list[SeenEvent] = []
        generated: list[int] = []
        while len(events) < n:
            _next(self._pythia)
            self.n_generated += 1
            found = self._repeated() if self._tries else self._once()
            if found is not None:
                events.append(found)
                generated.append(self.n_generated)
        return Candidates(EventBlock.stack(events), np.array(generated, np.int64))

    def _once(self) -> SeenEvent | None:
        """Hadronise the event if it holds a hard lepton; return its particles."""
        pythia = self._pythia
        if has_tau(pythia.event):
            pythia.moreDecays()
        if not (has_lepton(pythia.event) and pythia.forceHadronLevel()):
            return None
        return visible(pythia.event)

    def _repeated(self) -> SeenEvent | None:
        """Let the hard heavy hadrons decay until one gives a hard isolated lepton."""
        import pythia8mc

        pythia = self._pythia
        if not (has_heavy_quark(pythia.event) and pythia.forceHadronLevel()):
            return None
        whole = pythia8mc.Event(pythia.event)
        hard = hard_heavy_hadrons(pythia)
        # Alone in an event they decay in a fraction of the time.
        alone = pythia8mc.Event(whole)
        alone.reset()
        for i in hard:
            alone.append(whole[i])
            alone[alone.size() - 1].mothers(0, 0)
        for _ in range(self._tries if hard else 0):
            pythia.event = alone
            if pythia.moreDecays() and has_lepton(pythia.event):
                self._put_back(whole, hard)
                if has_isolated_lepton(visible(pythia.event)):
                    self._may_decay(light=True)
                    pythia.moreDecays()
                    self._may_decay(light=False)
                    return visible(pythia.event)
        return None

    def _put_back(self, whole: Any, hard: list[int]) -> None:  # noqa: ANN401
        """Replace the hard heavy hadrons of the whole event by their decays."""
        import pythia8mc

        decays = pythia8mc.Event(self._pythia.event)
        self._pythia.event = whole
        for i in hard:
            self._pythia.event[i].statusNeg()
        for particle in decays:
            if particle.isFinal():
                self._pythia.event.append(particle)

    def _may_decay(self, *, light: bool) -> None:
        for hadron in self._light:
            hadron.setMayDecay(light)


def soft_events(n: int, seed: int) -> EventBlock:
    """Generate n inelastic non-diffractive events with multiple parton interactions."""
    pythia = _start(SOFT_SETTINGS, seed)
    events: list[SeenEvent] = []
    for _ in range(n):
        _next(pythia)
        events.append(visible(pythia.event))
    return EventBlock.stack(events)


def _start(settings: list[str] | tuple[str, ...], seed: int) -> Any:  # noqa: ANN401 - untyped
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in (*settings, "Random:setSeed=on", f"Random:seed={seed}"):
        if not pythia.readString(line):
            msg = f"Pythia does not know the setting {line!r}; install pythia8mc 8.3"
            raise TrainingError(msg)
    if not pythia.init():
        msg = f"Pythia could not be initialised with {', '.join(settings)}"
        raise TrainingError(msg)
    return pythia


def _next(pythia: Any) -> None:  # noqa: ANN401
    """Go to the next event; now and then one fails and is left out, as Pythia's manual has it."""
    for _ in range(_MAX_FAILURES):
        if pythia.next():
            return
    msg = f"Pythia failed to generate an event {_MAX_FAILURES} times in a row"
    raise TrainingError(msg)
