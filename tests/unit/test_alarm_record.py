"""The record of an alarm: what is read is what was written, and nothing half-written stays."""

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from engines.errors import ArtifactError
from engines.event_files import EventFile
from engines.event_quantities import event_quantities
from engines.samples import sample_path
from stream.alarm.record import read_alarm
from tests.support import small_artifact
from tests.support_alarms import Examined, anomalous, examine, keep, stored, window_of

SOURCES = ("det0", "de\x1b[2J\n\u202eth", "det0")


@pytest.fixture(scope="module")
def alarm(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    path = tmp_path_factory.mktemp("reference") / "small.ref"
    artifact = stored(path, small_artifact(sigma_quantiles=(0.5, 0.9)))
    rng = np.random.default_rng(2)
    particles = np.zeros((300, 19, 3), np.float32)
    particles[:, :, 0] = rng.exponential(20.0, (300, 19)) * (rng.random((300, 19)) < 0.5)
    window = window_of(artifact, anomalous(300, rng), particles, index=7, sources=SOURCES)
    return examine(artifact, window, path)


@pytest.fixture
def path(tmp_path: Path, alarm: Examined) -> Path:
    return keep(tmp_path / "new" / "alarms", alarm)


def test_round_trip(path: Path, alarm: Examined) -> None:
    assert path.name == "alarm-r1-000007.h5"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    read, window = read_alarm(path), alarm.window
    assert read.result == json.loads(json.dumps(alarm.result.record()))
    assert {**vars(read.null), "t": None} == {**vars(alarm.null), "t": None}
    np.testing.assert_array_equal(read.null.t, alarm.null.t)
    np.testing.assert_array_equal(read.embeddings, window.embeddings)
    np.testing.assert_array_equal(read.f, alarm.f.astype(np.float32))
    np.testing.assert_array_equal(read.quantities, event_quantities(window.particles))
    np.testing.assert_array_equal(read.particles, window.particles[read.rows])
    assert read.sources == {SOURCES[0]: 200, SOURCES[1]: 100}
    assert alarm.result.sigmas[read.width] == alarm.result.sigma
    assert len(read.null.fingerprint) == 64


def test_it_is_an_event_file_of_the_most_anomalous(path: Path, alarm: Examined) -> None:
    order = np.argsort(-alarm.f, kind="stable")[:200]
    with EventFile(path) as events:
        np.testing.assert_array_equal(events.read(), alarm.window.particles[order])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["f"][:], alarm.f[order])
        classes = file["Particles"][:, :, 3]
    np.testing.assert_array_equal(classes > 0, alarm.window.particles[order, :, 0] > 0)


def test_events_can_be_found_in_the_stream(path: Path, alarm: Examined) -> None:
    read, blocks = read_alarm(path), {block.seq: block for block in alarm.window.blocks}
    for event, (source, seq, index) in zip(read.particles, read.places.tolist(), strict=True):
        block = blocks[seq]
        assert list(read.sources)[source] == block.source
        np.testing.assert_array_equal(event, block.particles[index - block.first])


def test_short_window_is_kept_whole(tmp_path: Path, alarm: Examined) -> None:
    blocks = alarm.window.blocks
    short = replace(alarm.window, blocks=(blocks[0].split(3)[0],))
    read = read_alarm(keep(tmp_path, replace(alarm, window=short, f=np.array([1.0, 3.0, 2.0]))))
    assert read.rows.tolist() == [1, 2, 0]


def test_sequence_numbers_of_64_bits_and_many_sources_are_kept(
    tmp_path: Path, alarm: Examined
) -> None:
    block = alarm.window.blocks[0].split(1)[0]
    blocks = tuple(replace(block, source=f"{k:0100d}", seq=2**64 - 1) for k in range(2000))
    window = replace(alarm.window, blocks=blocks)
    result = replace(alarm.result, spans=window.spans)
    read = read_alarm(keep(tmp_path, Examined(window, result, np.zeros(2000), alarm.null)))
    assert len(read.sources) == 2000
    assert read.places[0, 1] == 2**64 - 1


@pytest.mark.parametrize("run", ["../../x", "a b\x00c", "r" * 300, "", "\u202e", "$(x)"])
def test_run_cannot_lead_out_of_the_folder(tmp_path: Path, alarm: Examined, run: str) -> None:
    path = keep(tmp_path / "alarms", replace(alarm, result=replace(alarm.result, run=run)))
    assert path.parent == tmp_path / "alarms"
    assert [entry.name for entry in tmp_path.iterdir()] == ["alarms"]
    assert read_alarm(path).result["run"] == run


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_record_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match="alarm record"):
        read_alarm(path)


def test_altered_bytes_are_refused_or_do_no_harm(path: Path) -> None:
    content, rng = path.read_bytes(), np.random.default_rng(0)
    whole, n_refused = read_alarm(path), 0
    for place in rng.integers(0, len(content), 150).tolist():
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            read = read_alarm(path)
        except ArtifactError:
            n_refused += 1
        else:
            assert read.result == whole.result
            np.testing.assert_array_equal(read.f, whole.f)
    assert n_refused > 50


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("no HDF5\n" * 100),
    lambda path: path.write_bytes(sample_path("A4l").read_bytes()),
    lambda path: h5py.File(path, "w").close(),
])  # fmt: skip
def test_foreign_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "alarm-x.h5")
    with pytest.raises(ArtifactError, match=r"alarm-x\.h5"):
        read_alarm(tmp_path / "alarm-x.h5")


def elsewhere(file: h5py.File, name: str, other: Path) -> None:
    kept = file.pop(name)
    file[name] = h5py.ExternalLink(str(other), name)
    assert kept.shape == file[name].shape


def stored_elsewhere(file: h5py.File, name: str, other: Path) -> None:
    kept = file.pop(name)
    place = [(str(other), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(name, shape=kept.shape, dtype=kept.dtype, external=place)


def viewed(file: h5py.File, name: str, other: Path) -> None:
    kept = file.pop(name)
    layout = h5py.VirtualLayout(shape=kept.shape, dtype=kept.dtype)
    layout[...] = h5py.VirtualSource(other, name, shape=kept.shape)
    file.create_virtual_dataset(name, layout)


def inflated(file: h5py.File, name: str, _: Path) -> None:
    kept = file.pop(name)
    shape = (10**12, *kept.shape[1:])
    file.create_dataset(name, shape=shape, dtype=kept.dtype, chunks=kept.chunks)


@pytest.mark.parametrize("name", ["embeddings", "toys_t"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (elsewhere, "must be stored there; got a link"),
        (stored_elsewhere, "its numbers lie in other files"),
        (viewed, "its numbers lie in other files"),
        (inflated, "must hold .* chunks; got 0"),
    ],
)
def test_record_of_what_lies_elsewhere_or_nowhere_is_refused(
    path: Path, name: str, change: Callable[[h5py.File, str, Path], None], said: str
) -> None:
    other = path.with_name("other.h5")
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file, name, other)
    with pytest.raises(ArtifactError, match=said):
        read_alarm(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        read_alarm(tmp_path / "alarm-x.h5")


def fails(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:  # noqa: ANN401 - it never returns
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "mkdir"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_full_or_read_only_folder_leaves_what_was_there(
    path: Path, alarm: Examined, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os if step == "fsync" else Path, step, fails(number))
        with pytest.raises(ArtifactError, match="cannot keep the alarm") as caught:
            keep(path.parent, alarm)
    assert os.strerror(number) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_folder_that_is_a_file_is_explained(tmp_path: Path, alarm: Examined) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ArtifactError, match="cannot keep the alarm"):
        keep(tmp_path / "file", alarm)


def test_record_can_be_read_by_whoever_the_umask_allows(path: Path) -> None:
    plain = path.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_window_without_objects_is_kept(tmp_path: Path, alarm: Examined) -> None:
    empty = tuple(
        replace(block, particles=np.zeros_like(block.particles)) for block in alarm.window.blocks
    )
    read = read_alarm(keep(tmp_path, replace(alarm, window=replace(alarm.window, blocks=empty))))
    assert not read.quantities.any()
