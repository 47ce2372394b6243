"""Sums over events that the solver needs, in blocks that stay in cache.

Beyond the features, which come in, nothing of the size of the sample is made. A sample is cut into
fixed shards whose float64 sums are added in order: the result does not depend on the number of
threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from engines.nplm.fused import fused_sums
from engines.nplm.losses import Loss, loss_terms
from engines.nplm.threads import Threads
from engines.types import Float64Array, IntArray

__all__ = ["Sample", "feature_sums", "labelled_sums", "sums_over"]

#: Pieces of a sample; a function of its size alone, so that sums do not depend on the threads.
_SHARDS, _LEAST_ROWS = 16, 2_048
_BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**27}
#: Below so many numbers the threads cost more than they bring.
_WORTHWHILE = 2**19
#: Up to so many windows the fused pass beats matrix products.
_FEW = 2


@dataclass(frozen=True)
class Sample:
    """Events whose terms enter the loss.

    Attributes:
        psi: (n, columns) features of all widths.
        columns: those of the width in question.
        weight: of each event's term.
        sign: 1 for reference events, whose terms are h(f); -1 for data, whose terms are h(-f).
        data_labels: (n, k) bool, for relabelling: which events window k takes as data, with
            h(-f) and weight 1 in the cross-entropy and none in the likelihood; the others are
            reference.
        offsets: (k + 1,) row at which each window's own events start; without it all windows
            share all events.
    """

    psi: torch.Tensor
    columns: slice
    weight: float
    sign: int = 1
    data_labels: torch.Tensor | None = None
    offsets: IntArray | None = None

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.psi)


def sums_over(
    samples: Sequence[Sample], a: Float64Array, windows: IntArray, loss: Loss, threads: Threads
) -> Float64Array:
    """Return sums over all samples for some windows.

    Args:
        samples: the events.
        a: (k, r) float64, the coordinates of the windows.
        windows: (k,) which windows.
        loss: which h.
        threads: what runs the shards.

    Returns:
        (k, 2 + r) float64: of each window the weighted sum of the terms, the sum of e^f - 1 over
        reference events (not finite where float32 overflowed), and the weighted sum of the terms'
        derivatives times psi.
    """
    total = np.zeros((len(a), 2 + a.shape[1]))
    fused = [_FusedPass(s, windows, a, loss) for s in samples if _is_fusible(s, len(a))]
    jobs = [(one, job) for one in fused for job in one.plan.jobs]
    n_numbers = sum(one.n_numbers for one in fused)
    threads.map(lambda job: job[0].run(job[1]), jobs, worthwhile=n_numbers > _WORTHWHILE)
    for one in fused:
        total += one.total()
    for sample in samples:
        if not _is_fusible(sample, len(a)):
            at = torch.from_numpy(sample.sign * a).to(sample.psi.device)
            labelled = sample.data_labels is not None
            run = _labelled_pass if labelled else _product_pass
            total += _weighted(sample, run(sample, windows, at, loss, threads).cpu().numpy())
    return total


def _weighted(sample: Sample, sums: Float64Array) -> Float64Array:
    """Multiply sums of h(f), e^f - 1 and h'(f) psi at sign x a as they enter the loss."""
    if sample.data_labels is None:
        sums[:, 0] *= sample.weight
        sums[:, 2:] *= sample.sign * sample.weight
    if sample.sign < 0:
        sums[:, 1] = 0.0
    return sums


def feature_sums(psi: torch.Tensor, threads: Threads) -> Float64Array:
    """Return the sum of psi over events, (columns,) float64."""

    def work(rows: slice) -> torch.Tensor:
        total = torch.zeros(psi.shape[1], dtype=torch.float64, device=psi.device)
        for block in _blocks(psi[rows], slice(None)):
            total += block.sum(dim=0).double()
        return total

    shards = _shards(0, len(psi)) or [slice(0, 0)]
    parts = threads.map(work, shards, worthwhile=psi.numel() > _WORTHWHILE)
    return np.asarray(_total(parts).cpu().numpy())


def labelled_sums(sample: Sample, threads: Threads) -> Float64Array:
    """Return the sum of psi over each window's data, (k, r) float64."""

    def work(rows: slice) -> torch.Tensor:
        labels = _labels(sample)[rows]
        total = torch.zeros((labels.shape[1], rank), dtype=torch.float64, device=labels.device)
        first = 0
        for block in _blocks(sample.psi[rows], sample.columns):
            chosen = labels[first : first + len(block)].to(block.dtype)
            total += (chosen.T @ block).double()
            first += len(block)
        return total

    rank = sample.columns.stop - sample.columns.start
    return np.asarray(_total(threads.map(work, _shards(0, len(sample)))).cpu().numpy())


def _labels(sample: Sample) -> torch.Tensor:
    if sample.data_labels is None:
        msg = "this sample must have labels; got none"
        raise TypeError(msg)
    return sample.data_labels


def _shards(first: int, stop: int) -> list[slice]:
    size = max(_LEAST_ROWS, -(-(stop - first) // _SHARDS))
    return [slice(row, min(row + size, stop)) for row in range(first, stop, size)]


def _blocks(psi: torch.Tensor, columns: slice) -> Iterator[torch.Tensor]:
    """Yield blocks of rows, in float32 where the store is of half precision."""
    n_rows = max(64, _BLOCK_BYTES[psi.device.type] // (4 * max(1, psi.shape[1])))
    dtype = torch.promote_types(psi.dtype, torch.float32)
    for block in torch.split(psi, n_rows):
        yield block[:, columns].to(dtype)


def _is_fusible(sample: Sample, n_windows: int) -> bool:
    psi = sample.psi
    if sample.data_labels is not None:
        return False
    fits = psi.device.type == "cpu" and psi.dtype == torch.float32 and psi.is_contiguous()
    return fits and (sample.offsets is not None or n_windows <= _FEW)


@dataclass(frozen=True)
class _Plan:
    """Shards of some windows' rows, and which of them make a job.

    Attributes:
        bounds: (n_shards, 2) first and stop row.
        owner: (n_shards,) window of each, rising.
        starts: (n_windows,) first shard of each window.
        jobs: shards that are run together.
    """

    bounds: IntArray
    owner: IntArray
    starts: IntArray
    jobs: tuple[slice, ...]


@lru_cache(maxsize=256)
def _plan(spans: tuple[tuple[int, int], ...]) -> _Plan:
    """Cut the rows of each window, first to stop, into shards, and group small ones."""
    shards = [_shards(*span) or [slice(span[0], span[0])] for span in spans]
    starts = np.cumsum([0, *map(len, shards)])
    bounds = np.array([(rows.start, rows.stop) for each in shards for rows in each])
    owner = np.repeat(np.arange(len(spans)), np.diff(starts))
    jobs, first, n_rows = [], 0, 0
    for shard, (start, stop) in enumerate(bounds.tolist()):
        n_rows += stop - start
        if n_rows >= _LEAST_ROWS or shard == len(bounds) - 1:
            jobs.append(slice(first, shard + 1))
            first, n_rows = shard + 1, 0
    return _Plan(bounds, owner, starts[:-1], tuple(jobs))


class _FusedPass:
    """One pass over a sample that reads each row once, in jobs that may run beside each other."""

    def __init__(self, sample: Sample, windows: IntArray, a: Float64Array, loss: Loss) -> None:
        spans = ((0, len(sample)),) * len(windows)
        if sample.offsets is not None:
            offsets = sample.offsets.tolist()
            spans = tuple((offsets[window], offsets[window + 1]) for window in windows.tolist())
        self.plan = _plan(spans)
        self.n_numbers = sum(stop - start for start, stop in spans) * a.shape[1]
        self._rows, self._first_column = sample.psi.numpy(), sample.columns.start
        self._at = (sample.sign * a).astype(np.float32)[self.plan.owner]
        self._sample = sample
        self._likelihood = loss == "likelihood"
        self._out = np.empty((len(self.plan.bounds), 2 + a.shape[1]))

    def run(self, job: slice) -> None:
        fused_sums(
            self._rows,
            self._first_column,
            self.plan.bounds[job],
            self._at[job],
            self._likelihood,
            self._out[job],
        )

    def total(self) -> Float64Array:
        """Return the weighted sums of each window, the shards added in order."""
        return _weighted(self._sample, np.add.reduceat(self._out, self.plan.starts, axis=0))


def _product_pass(
    sample: Sample, windows: IntArray, a: torch.Tensor, loss: Loss, threads: Threads
) -> torch.Tensor:
    """Return packed sums as matrix products."""
    if sample.offsets is None:
        return _shared_rows(sample, slice(0, len(sample)), a, loss, threads)
    spans = [slice(*sample.offsets[window : window + 2].tolist()) for window in windows]
    return torch.cat(
        [_shared_rows(sample, rows, a[k : k + 1], loss, threads) for k, rows in enumerate(spans)]
    )


def _shared_rows(
    sample: Sample, rows: slice, a: torch.Tensor, loss: Loss, threads: Threads
) -> torch.Tensor:
    def work(shard: slice) -> torch.Tensor:
        out = torch.zeros((len(a), 2 + a.shape[1]), dtype=a.dtype, device=a.device)
        for block in _blocks(sample.psi[shard], sample.columns):
            h, slope, grown = loss_terms(loss, block @ a.T.to(block.dtype))
            out[:, 0] += h.sum(dim=0, dtype=torch.float64)
            out[:, 1] += grown.sum(dim=0, dtype=torch.float64)
            out[:, 2:] += (slope.T @ block).double()
        return out

    shards = _shards(rows.start, rows.stop) or [slice(rows.start, rows.start)]
    return _total(threads.map(work, shards))


def _labelled_pass(
    sample: Sample, windows: IntArray, a: torch.Tensor, loss: Loss, threads: Threads
) -> torch.Tensor:
    """Return packed sums of windows that share the events and differ in the labels."""
    columns = torch.from_numpy(windows).to(a.device)

    def work(shard: slice) -> torch.Tensor:
        out = torch.zeros((len(a), 2 + a.shape[1]), dtype=a.dtype, device=a.device)
        first = shard.start
        for block in _blocks(sample.psi[shard], sample.columns):
            is_data = _labels(sample)[first : first + len(block)][:, columns].to(block.dtype)
            first += len(block)
            f = block @ a.T.to(block.dtype)
            h, slope, grown = loss_terms(loss, f)
            weights = sample.weight * (1.0 - is_data)
            if loss == "cross-entropy":
                # The data's terms are softplus(-f) = softplus(f) - f, of weight 1.
                h, slope, weights = h - is_data * f, slope - is_data, weights + is_data
            out[:, 0] += (weights * h).sum(dim=0, dtype=torch.float64)
            out[:, 1] += (grown * (1.0 - is_data)).sum(dim=0, dtype=torch.float64)
            out[:, 2:] += ((weights * slope).T @ block).double()
        return out

    return _total(threads.map(work, _shards(0, len(sample))))


def _total(parts: list[torch.Tensor]) -> torch.Tensor:
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
