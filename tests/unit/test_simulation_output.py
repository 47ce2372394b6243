"""From chunks to the event file."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import pytest

from engines.errors import ArtifactError
from engines.event_files import EventFile
from training.simulation import output as output_module
from training.simulation.chunk import _rank
from training.simulation.output import write_output
from training.simulation.plan import Plan, make_plan
from training.simulation.store import ChunkStore, write_chunk

pytest.importorskip("pythia8mc", reason="needs the extra sim")

K = 2


@pytest.fixture
def plan() -> Plan:
    return make_plan([], "sm", 900, resimulate=K, n_soft=10)


@pytest.fixture
def store(tmp_path: Path, plan: Plan) -> Iterator[ChunkStore]:
    """Return a store with all chunks; the MET of an event is its number in its process."""
    made = ChunkStore(tmp_path / "out.h5", {})
    counted: dict[str, int] = {}
    for chunk in plan.chunks():
        assert chunk.process is not None
        first = counted.get(chunk.process.name, 1)
        counted[chunk.process.name] = first + chunk.n_events
        particles = np.zeros((chunk.n_events, 19, 3), np.float32)
        particles[:, 0, 0] = np.arange(first, first + chunk.n_events)
        again = np.repeat(particles[:, None], K, axis=1) + np.float32(0.25)
        arrays: dict[str, Any] = {"particles": particles, "realisations": again}
        numbers = {"n_generated": 1000, "cross_section_mb": 2.0, "n_repeated": 1}
        write_chunk(made.path(chunk.name), arrays | {k: np.asarray(v) for k, v in numbers.items()})
    with made:
        yield made


def test_mixture_is_shuffled_and_whole(tmp_path: Path, plan: Plan, store: ChunkStore) -> None:
    summaries = write_output(tmp_path / "out.h5", plan, store)
    with EventFile(tmp_path / "out.h5") as file:
        particles, labels = file.read(), file.labels()
    assert labels is not None
    for summary in summaries:
        met = particles[labels == summary.label, 0, 0]
        np.testing.assert_array_equal(met, np.arange(1, summary.n_accepted + 1))
    halves = [np.bincount(half, minlength=4)[:3] for half in np.split(labels, 2)]
    assert (np.abs(halves[0] - halves[1]) < 60).all()
    with h5py.File(tmp_path / "out.h5") as raw:
        again = raw["Realisations"][:]
    np.testing.assert_array_equal(again[:, 0, 0, 0], particles[:, 0, 0] + np.float32(0.25))


def test_summary_adds_the_chunks_up(tmp_path: Path, plan: Plan, store: ChunkStore) -> None:
    summary = write_output(tmp_path / "out.h5", plan, store)[0]
    n_chunks = len([c for c in plan.chunks() if c.name.startswith("W-")])
    assert summary.n_generated == 1000 * n_chunks
    assert summary.n_repeated == n_chunks
    assert summary.cross_section_mb == 2.0


def test_full_disk_leaves_chunks_and_no_file(
    tmp_path: Path, plan: Plan, store: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "out.h5"
    with monkeypatch.context() as patch:
        patch.setattr(output_module._SimulationWriter, "append", full)
        with pytest.raises(ArtifactError, match=r"No space left on device.*; make room and run"):
            write_output(output, plan, store)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5.parts"]
    assert all(store.has(chunk.name) for chunk in plan.chunks())
    assert sum(s.n_accepted for s in write_output(output, plan, store)) == 900


def test_damaged_chunk_leaves_no_file(tmp_path: Path, plan: Plan, store: ChunkStore) -> None:
    store.path("W-00001").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"W-00001\.npz is damaged; remove it"):
        write_output(tmp_path / "out.h5", plan, store)
    assert not (tmp_path / "out.h5").exists()


def test_rank_counts_inside_an_event() -> None:
    assert _rank(np.array([1, 1, 1, 4, 5, 5])).tolist() == [0, 1, 2, 0, 0, 1]
