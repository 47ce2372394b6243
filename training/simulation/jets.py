"""Jets of many events, by FastJet.

Source: Cacciari, Salam, Soyez, arXiv:1111.6097 (FastJet) and arXiv:0802.1189 (anti-kT).
"""

from typing import Any

import numpy as np

from engines.types import BoolArray, Float64Array, IntArray
from training.simulation.particles import EventBlock

__all__ = ["find_jets"]


def find_jets(
    block: EventBlock, used: BoolArray, radius: float, least_pt_gev: float
) -> tuple[IntArray, Float64Array]:
    """Cluster with anti-kT.

    Args:
        block: n events.
        used: which particles go in, (m,).
        radius: R.
        least_pt_gev: jets below are left out.

    Returns:
        The event of each jet, (k,), and px, py, pz and energy in GeV, (k, 4).
    """
    import awkward as ak
    import fastjet

    counts = np.bincount(block.events[used], minlength=len(block))
    filled = np.flatnonzero(counts)
    if len(filled) == 0:
        return np.zeros(0, np.int64), np.zeros((0, 4))
    offsets = ak.index.Index64(np.concatenate([[0], np.cumsum(counts[filled])]))
    columns = [_jagged(offsets, column) for column in block.p4[used].T]
    inputs = ak.zip(dict(zip(("px", "py", "pz", "E"), columns, strict=True)))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    jets = fastjet.ClusterSequence(inputs, definition).inclusive_jets(min_pt=least_pt_gev)
    p4 = np.stack([ak.to_numpy(ak.flatten(jets[name])) for name in ("px", "py", "pz", "E")], axis=1)
    return np.repeat(filled, ak.to_numpy(ak.num(jets))), p4


def _jagged(offsets: Any, column: Float64Array) -> Any:  # noqa: ANN401 - awkward is untyped
    import awkward as ak

    values = ak.contents.NumpyArray(np.ascontiguousarray(column))
    return ak.Array(ak.contents.ListOffsetArray(offsets, values))
