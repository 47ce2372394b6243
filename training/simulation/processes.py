"""The processes that can be simulated: what Pythia is told, and what an event must hold.

The Standard Model processes and the four signals are those of the ADC2021 challenge.

Source: Govorkova et al., doi:10.1038/s41597-022-01187-8, Table 1; Bierlich et al., "A
comprehensive guide to the physics and usage of PYTHIA 8.3", arXiv:2203.11601.
"""

from dataclasses import asdict, dataclass
from typing import Any

from engines.errors import ParameterError

__all__ = ["COMMON_SETTINGS", "MIXES", "PROCESSES", "SOFT_SETTINGS", "Process", "parse_process"]

#: Of every process: hadronisation waits until an event is known to be worth it.
COMMON_SETTINGS = (
    "Print:quiet=on",
    "Beams:eCM=13000",
    "PartonLevel:MPI=off",
    "HadronLevel:all=off",
)
#: Of the soft events that are laid over each hard one.
SOFT_SETTINGS = ("Print:quiet=on", "Beams:eCM=13000", "SoftQCD:nonDiffractive=on")

#: Of tau -> e nu nu and mu nu nu together.
_TAU_TO_LEPTON = 0.3521


@dataclass(frozen=True)
class Process:
    """One process.

    Attributes:
        name: as it is typed.
        label: what its events carry in `process`; 0-3 as in the Standard Model files, 10-13 signal.
        text: what happens in it.
        settings: Pythia's, beside `COMMON_SETTINGS`.
        decay_tries: 0 where hadrons decay once; otherwise those of an event decay up to so many
            times, until one gives an isolated lepton that the trigger could take. An event that
            gives one with probability p then enters with 1 - (1 - p)^tries: hard events, which
            give one often, enter less often than they should, by a fifth at p = 0.005.
        branching: factor on Pythia's cross-section for decays that the settings leave out.
        chunk_events: accepted events that are simulated together, a few seconds of work: the
            slower the process, the fewer.
    """

    name: str
    label: int
    text: str
    settings: tuple[str, ...]
    decay_tries: int = 0
    branching: float = 1.0
    chunk_events: int = 250

    def definition(self) -> dict[str, Any]:
        """Return what its events depend on, JSON-able."""
        return {key: value for key, value in asdict(self).items() if key != "text"}


PROCESSES = {
    process.name: process
    for process in (
        Process(
            "W",
            0,
            "W -> e nu, mu nu, tau nu",
            ("WeakSingleBoson:ffbar2W=on", "24:onMode=off", "24:onIfAny=11 13 15"),
        ),
        Process(
            "QCD",
            1,
            "bb and cc, pT-hat > 30 GeV, with a hard isolated lepton of a heavy hadron",
            ("HardQCD:hardbbbar=on", "HardQCD:hardccbar=on", "PhaseSpace:pTHatMin=30"),
            decay_tries=100,
            chunk_events=50,
        ),
        Process(
            "Z",
            2,
            "Z/gamma* -> ee, mumu, tautau, mass above 50 GeV",
            (
                *("WeakSingleBoson:ffbar2gmZ=on", "PhaseSpace:mHatMin=50", "23:mMin=50"),
                *("23:onMode=off", "23:onIfAny=11 13 15"),
            ),
        ),
        Process("tt", 3, "top pairs, all decays", ("Top:gg2ttbar=on", "Top:qqbar2ttbar=on")),
        Process(
            "A4l",
            10,
            "gg -> A(50 GeV) -> Z* Z* -> 4 leptons (e, mu)",
            (
                *("Higgs:useBSM=on", "HiggsBSM:gg2A3=on", "HiggsA3:coup2Z=1", "36:m0=50"),
                *("36:mWidth=0.01", "36:doForceWidth=on", "36:mMin=49", "36:mMax=51"),
                *("36:onMode=off", "36:onIfMatch=23 23", "23:onMode=off", "23:onIfAny=11 13"),
            ),
        ),
        Process(
            "LQbtau",
            11,
            "pairs of leptoquarks of 80 GeV, each -> b tau",
            (
                *("LeptoQuark:gg2LQLQbar=on", "LeptoQuark:qqbar2LQLQbar=on"),
                *("42:m0=80", "42:mMin=60", "42:0:products=5 -15"),
            ),
        ),
        Process(
            "h0tautau",
            12,
            "gg -> h0(60 GeV) -> tau tau",
            ("HiggsSM:gg2H=on", "25:m0=60", "25:onMode=off", "25:onIfMatch=15 -15"),
            chunk_events=100,
        ),
        Process(
            "hpmtaunu",
            13,
            "q qbar' -> h+-(60 GeV) -> tau nu (tau -> e, mu)",
            (
                *("Higgs:useBSM=on", "HiggsBSM:ffbar2H+-=on", "37:m0=60", "37:mWidth=0.1"),
                *("37:doForceWidth=on", "37:mMin=55", "37:mMax=65", "37:onMode=off"),
                *("37:onIfMatch=15 16", "15:onMode=off", "15:onIfAny=11 13"),
            ),
            branching=_TAU_TO_LEPTON,
            chunk_events=100,
        ),
    )
}

#: Shuffled mixtures: the share of each process among the accepted events.
MIXES = {"sm": {"W": 0.592, "QCD": 0.338, "Z": 0.067, "tt": 0.003}}


def parse_process(name: str) -> Process:
    """Return a process by its name.

    Raises:
        ParameterError: if there is none of that name.

    >>> parse_process("A4l").label
    10
    """
    if name not in PROCESSES:
        msg = f"process must be one of {', '.join(PROCESSES)}; got {name!r}"
        raise ParameterError(msg)
    return PROCESSES[name]
