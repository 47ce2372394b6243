"""Plans and the folder of finished chunks."""

import errno
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from engines.errors import ArtifactError, MismatchError, ParameterError
from training.simulation.detector_config import DetectorConfig
from training.simulation.plan import make_plan
from training.simulation.processes import MIXES, PROCESSES
from training.simulation.store import ChunkStore, read_chunk, write_chunk

SETTINGS = {"events": {"W": 10}, "seed": 1}


def test_labels_are_those_of_the_challenge() -> None:
    labels = {name: process.label for name, process in PROCESSES.items()}
    names = ("W", "QCD", "Z", "tt", "A4l", "LQbtau", "h0tautau", "hpmtaunu")
    assert labels == dict(zip(names, (0, 1, 2, 3, 10, 11, 12, 13), strict=True))


@pytest.mark.parametrize("n", [1, 7, 1000, 12_345])
def test_mixture_adds_up(n: int) -> None:
    plan = make_plan([], "sm", n)
    assert plan.n_events == n
    for name, count in plan.counts:
        assert abs(count - MIXES["sm"][name] * n) < 1


def test_chunks_hold_all_events_and_differ_in_their_seeds() -> None:
    plan = make_plan(["W", "tt"], None, 1100, seed=3)
    chunks = plan.chunks()
    assert sum(chunk.n_events for chunk in chunks) == 2200
    seeds = [chunk.seeds for chunk in [*chunks, *plan.pool_chunks()]]
    assert len(set(seeds)) == len(seeds)
    assert all(1 <= pythia <= 900_000_000 for pythia, _ in seeds)


REQUESTS = {
    "two": make_plan(["W", "Z"], None, 600),
    "other order": make_plan(["Z", "W"], None, 600),
    "alone": make_plan(["W"], None, 600),
    "more": make_plan(["W", "Z"], None, 601),
    "mix": make_plan([], "sm", 600),
    "seed": make_plan(["W", "Z"], None, 600, seed=1),
    "responses": make_plan(["W", "Z"], None, 600, resimulate=1),
    "soft": make_plan(["W", "Z"], None, 600, n_soft=1300),
    "detector": make_plan(["W", "Z"], None, 600, detector=DetectorConfig(jet_scale=1.0)),
}


@pytest.mark.parametrize("names", list(combinations(REQUESTS, 2)), ids=" - ".join)
def test_seeds_depend_on_all_that_is_asked_for(names: tuple[str, str]) -> None:
    one, two = (REQUESTS[name] for name in names)
    assert one.request_id != two.request_id
    for of in (0, 1):
        seeds = [{c.seeds[of] for c in [*p.chunks(), *p.pool_chunks()]} for p in (one, two)]
        assert not seeds[0] & seeds[1]
    assert one.order().integers(2**62) != two.order().integers(2**62)


def test_same_request_has_the_same_chunks() -> None:
    again = make_plan(["W", "Z"], None, 600, n_soft=2 * 1200)
    assert again.chunks() == REQUESTS["two"].chunks()
    assert again.pool_chunks() == REQUESTS["two"].pool_chunks()
    assert again.request_id == REQUESTS["two"].request_id


def test_slow_processes_have_small_chunks() -> None:
    sizes = {p.name: p.chunk_events for p in PROCESSES.values()}
    assert min(sizes, key=lambda name: sizes[name]) == "QCD"
    chunks = make_plan(["QCD"], None, 120).chunks()
    assert [chunk.n_events for chunk in chunks] == [50, 50, 20]


@pytest.mark.parametrize(
    ("names", "mix", "text"),
    [
        ([], None, "give --process NAME ... or --mix NAME"),
        (["W"], "sm", "give --process NAME ... or --mix NAME"),
        (["W", "W"], None, "each process must be named once; got W W"),
        (["WW"], None, "process must be one of W, QCD, .*; got 'WW'"),
        ([], "qcd", "mix must be one of sm; got 'qcd'"),
    ],
)
def test_wrong_plans(names: list[str], mix: str | None, text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        make_plan(names, mix, 10)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ParameterError, match="seed and resimulate must be 0 or more; got -1 and 0"):
        make_plan(["W"], None, 10, seed=-1)


def test_chunk_round_trip(tmp_path: Path) -> None:
    write_chunk(tmp_path / "a.npz", {"x": np.arange(3), "y": np.asarray(2.5)})
    arrays = read_chunk(tmp_path / "a.npz")
    assert arrays["x"].tolist() == [0, 1, 2]
    assert float(arrays["y"]) == 2.5
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_full_disk_leaves_no_part_of_a_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401
        raise OSError(errno.ENOSPC, "No space left on device")

    write_chunk(tmp_path / "a.npz", {"x": np.arange(3)})
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match=r"b\.npz \(No space left on device\); make room"):
        write_chunk(tmp_path / "b.npz", {"x": np.arange(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_chunk(path, {"x": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ArtifactError, match=r"a\.npz is damaged; remove it"):
        read_chunk(path)


def test_store_continues_the_same_settings_only(tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    with ChunkStore(output, SETTINGS) as store:
        write_chunk(store.path("W-0"), {"x": np.arange(3)})
    with ChunkStore(output, SETTINGS) as store:
        assert store.has("W-0")
    with pytest.raises(MismatchError, match=r"other seed \(1, now 2\); .* --fresh"):
        ChunkStore(output, {**SETTINGS, "seed": 2})
    with ChunkStore(output, {**SETTINGS, "seed": 2}, fresh=True) as store:
        assert not store.has("W-0")


def test_store_is_held_by_one_simulation(tmp_path: Path) -> None:
    with (
        ChunkStore(tmp_path / "out.h5", SETTINGS),
        pytest.raises(ArtifactError, match="another simulation is writing"),
    ):
        ChunkStore(tmp_path / "out.h5", SETTINGS)


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    with ChunkStore(tmp_path / "out.h5", SETTINGS) as store:
        (store.folder / "settings.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"settings\.json is damaged; give --fresh"):
        ChunkStore(tmp_path / "out.h5", SETTINGS)
