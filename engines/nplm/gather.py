"""Toys taken out of a pool's features: the rows of many windows, or only their sums."""

from collections.abc import Sequence

import numpy as np
import torch

from engines.nplm.threads import Threads
from engines.types import Float64Array, IntArray

__all__ = ["gather", "gathered_sums"]

_ROWS = 16_384


def gather(psi_pool: torch.Tensor, toys: Sequence[IntArray], threads: Threads) -> torch.Tensor:
    """Return the features of all toys' events one after the other, (n, rank).

    Args:
        psi_pool: (n_pool, rank) features.
        toys: pool indices of each toy.
        threads: what copies.
    """
    rows = torch.from_numpy(np.concatenate(toys)).to(psi_pool.device)
    psi = psi_pool.new_empty((len(rows), psi_pool.shape[1]))

    def work(first: int) -> None:
        part = rows[first : first + _ROWS]
        torch.index_select(psi_pool, 0, part, out=psi[first : first + len(part)])

    threads.map(work, range(0, len(rows), _ROWS))
    return psi


def gathered_sums(
    psi_pool: torch.Tensor, toys: Sequence[IntArray], threads: Threads
) -> Float64Array:
    """Return the sum of psi over each toy's events, (n_toys, rank) float64; no row is kept."""

    def total(toy: IntArray) -> torch.Tensor:
        rows = torch.from_numpy(toy).to(psi_pool.device)
        sums = torch.zeros(psi_pool.shape[1], dtype=torch.float64, device=psi_pool.device)
        for part in torch.split(rows, _ROWS):
            sums += psi_pool[part].double().sum(dim=0)
        return sums

    return np.asarray(torch.stack(threads.map(total, toys)).cpu().numpy())
