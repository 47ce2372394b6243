"""Event files: what is written comes back, and what is wrong is named."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from engines.errors import ArtifactError, EventError, NplmStreamError, ParameterError
from engines.event_files import EventFile, EventWriter, read_events, read_labels, write_events
from engines.events import OBJECT_CLASSES, EventRange, check_events
from engines.hdf5 import hdf5_errors
from engines.samples import SIGNALS, sample_path
from engines.types import FloatArray

MakeEvents = Callable[..., FloatArray]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.h5"


@pytest.mark.parametrize("with_classes", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(path: Path, make_events: MakeEvents, with_classes: bool, dtype: str) -> None:
    particles = make_events(30)
    write_events(path, particles, with_classes=with_classes, dtype=dtype)
    with h5py.File(path) as file:
        assert file["Particles"].shape == (30, 19, 3 + with_classes)
        assert file["Particles"].dtype == dtype
    got = read_events(path)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, particles)


def test_float16_round_trip_keeps_three_digits(path: Path, make_events: MakeEvents) -> None:
    particles = make_events(30)
    write_events(path, particles, dtype="float16")
    np.testing.assert_allclose(read_events(path), particles, rtol=1e-3, atol=1e-4)


def test_float64_beyond_float32_is_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["Particles"] = np.full((2, 19, 3), 1e300)
    with pytest.raises(EventError, match="finite"):
        read_events(path)


def test_class_column_names_present_objects(path: Path, make_events: MakeEvents) -> None:
    particles = make_events(30)
    write_events(path, particles)
    with h5py.File(path) as file:
        classes = file["Particles"][:, :, 3]
    np.testing.assert_array_equal(classes, np.where(particles[:, :, 0] > 0, OBJECT_CLASSES, 0))


@pytest.mark.parametrize("name", ["process", "background_ID"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("column", [False, True])
def test_challenge_file_loads(
    path: Path, make_events: MakeEvents, name: str, compression: str | None, column: bool
) -> None:
    particles = np.concatenate([make_events(20), np.ones((20, 19, 1), np.float32)], axis=2)
    labels = np.arange(20)
    with h5py.File(path, "w") as file:
        file.create_dataset("Particles", data=particles, compression=compression)
        file.create_dataset("Particles_Names", data=[b"Pt", b"Eta", b"Phi", b"Class"])
        file.create_dataset(name, data=labels[:, None] if column else labels)
    np.testing.assert_array_equal(read_events(path), particles[:, :, :3])
    got = read_labels(f"{path}@5:8")
    assert got is not None
    np.testing.assert_array_equal(got, [5, 6, 7])


def test_labels_round_trip_block_by_block(path: Path, make_events: MakeEvents) -> None:
    labels = np.array([0, 3, 40_000, -1, 7])
    with EventWriter(path, attributes={"generator": "toy"}) as writer:
        writer.append(make_events(0), labels[:0])
        writer.append(make_events(2), labels[:2])
        writer.append(make_events(3), labels[2:])
    got = read_labels(path)
    assert got is not None
    np.testing.assert_array_equal(got, labels)
    with EventFile(path) as file:
        assert file.has_labels
    with h5py.File(path) as stored:
        assert dict(stored.attrs) == {"generator": "toy"}


def test_file_without_labels_has_none(path: Path, make_events: MakeEvents) -> None:
    write_events(path, make_events(3))
    assert read_labels(path) is None


def test_slices_are_the_whole(path: Path, make_events: MakeEvents) -> None:
    particles = make_events(101)
    write_events(path, particles)
    with EventFile(path) as file:
        blocks = list(file.slices(3, 90, size=20))
    assert [len(block) for block in blocks] == [20, 20, 20, 20, 7]
    np.testing.assert_array_equal(np.concatenate(blocks), particles[3:90])


def test_file_longer_than_a_slice(path: Path) -> None:
    n = 70_000
    particles = np.zeros((n, 19, 3), np.float32)
    particles[:, 0, 0] = np.arange(n)
    with h5py.File(path, "w") as file:
        file["Particles"] = particles
    with EventFile(path) as file:
        sizes = [len(block) for block in file.slices()]
    assert len(sizes) == 2
    assert sum(sizes) == n


def test_content_names_the_file(tmp_path: Path, make_events: MakeEvents) -> None:
    paths = [tmp_path / name for name in ("a.h5", "b.h5", "c.h5")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        write_events(path, make_events(10, seed=seed))
    a, b, c = (EventFile(path) for path in paths)
    with a, b, c:
        assert a.content_id == b.content_id != c.content_id


@pytest.mark.parametrize("name", ["sm_cocktail", "sm_rare", *SIGNALS])
def test_bundled_samples_are_events(name: str) -> None:
    with EventFile(sample_path(name)) as file:
        assert file.has_labels
        assert file.read(0, 1000).shape == (1000, 19, 3)


def test_unknown_sample_is_named() -> None:
    with pytest.raises(ParameterError, match="'higgs'"):
        sample_path("higgs")


def missing(path: Path) -> None:
    assert not path.exists()


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("pt,eta,phi\n")


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    write_events(path, np.ones((50, 19, 3), np.float32))
    path.write_bytes(path.read_bytes()[:-200])


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["Jets"] = np.ones(3)


def group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("Particles")


def wrong_shape(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["Particles"] = np.ones((4, 18, 3))


def words(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["Particles"] = np.full((4, 19, 3), b"jet")


def null_events(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["Particles"] = h5py.Empty("f4")


def labelled(labels: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write_events(path, np.ones((4, 19, 3), np.float32))
        with h5py.File(path, "a") as file:
            file["process"] = labels

    return make


def label_group(path: Path) -> None:
    write_events(path, np.ones((4, 19, 3), np.float32))
    with h5py.File(path, "a") as file:
        file.create_group("process")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (missing, "does not exist"),
        (folder, "does not exist"),
        (text, "not a complete HDF5 file"),
        (empty, "not a complete HDF5 file"),
        (truncated, "not a complete HDF5 file"),
        (foreign, "must hold a dataset 'Particles'"),
        (group, "must hold a dataset 'Particles'"),
        (wrong_shape, r"shape \(n, 19, 3 or 4\); got \(4, 18, 3\)"),
        (words, "must hold numbers"),
        (null_events, r"shape \(n, 19, 3 or 4\); got None"),
        (labelled(np.zeros(3, int)), r"each of 4 events; got shape \(3,\) of int64; write"),
        (labelled(np.zeros((2, 2), int)), r"each of 4 events; got shape \(2, 2\) of int64"),
        (labelled(np.zeros((1, 4), int)), "one integer for each of 4 events"),
        (labelled(h5py.Empty("i4")), "one integer for each of 4 events"),
        (labelled([b"qcd"] * 4), "one integer for each of 4 events"),
        (labelled(["qcd"] * 4), "one integer for each of 4 events"),
        (label_group, "one integer for each of 4 events; got a group;"),
    ],
)
def test_wrong_file_is_named(path: Path, make: Callable[[Path], None], text: str) -> None:
    make(path)
    with pytest.raises(NplmStreamError, match=text) as caught:
        EventFile(path)
    assert "events.h5" in str(caught.value)
    assert isinstance(caught.value, (ArtifactError, EventError))


def test_folder_that_may_not_be_entered_is_one_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ArtifactError, match=r"HDF5 file \(Permission denied\)"):
        EventFile(path)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf, 1e19, 2**63])
def test_label_that_is_no_integer_is_named(path: Path, value: float) -> None:
    labels = np.array([1, 2, value, 4])
    labelled(labels)(path)
    with pytest.raises(EventError, match=r"64 bits; event 2 of .*events\.h5 has"):
        read_labels(f"{path}@1:")
    assert len(read_events(path)) == 4


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float16", "float64"])
def test_labels_are_whole_numbers_of_any_type(path: Path, dtype: str) -> None:
    labelled(np.array([0, 3, 1, 40], dtype))(path)
    got = read_labels(path)
    assert got is not None
    assert got.dtype == np.int64
    assert got.tolist() == [0, 3, 1, 40]


def read_some(path: Path) -> None:
    with EventFile(path) as file:
        assert file.has_labels in (True, False)
        assert len(file.content_id) == 64
        stop = min(100, len(file))
        file.read(0, stop)
        file.labels(0, stop)


def test_flipped_bytes_are_one_sentence_or_nothing(path: Path) -> None:
    whole = sample_path("A4l").read_bytes()
    rng = np.random.default_rng(0)
    refusals = []
    for place, value in zip(rng.integers(6000, size=600), rng.integers(256, size=600), strict=True):
        damaged = bytearray(whole)
        damaged[place] = value
        path.write_bytes(damaged)
        try:
            read_some(path)
        except NplmStreamError as exc:
            refusals.append(str(exc))
    assert len(refusals) > 30
    assert not [text for text in refusals if "\n" in text]


@pytest.mark.parametrize(
    "raised", [KeyError("a"), RuntimeError("a"), OSError("a"), ValueError("a"), TypeError("a")]
)
def test_whatever_h5py_raises_names_the_file(path: Path, raised: Exception) -> None:
    with pytest.raises(ArtifactError, match=r"events\.h5 is damaged \(a\)"), hdf5_errors(path):
        raise raised


def test_damaged_events_are_named(path: Path) -> None:
    write_events(path, np.random.default_rng(0).random((5000, 19, 3), np.float32))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 4000] = bytes(4000)
    path.write_bytes(damaged)
    with EventFile(path) as file, pytest.raises(ArtifactError, match="damaged between events"):
        file.read()


@pytest.mark.parametrize(("value", "rule"), [(np.nan, "finite"), (-1.0, "of non-negative pT")])
def test_bad_event_is_named_by_its_index_in_the_file(path: Path, value: float, rule: str) -> None:
    particles = np.ones((40, 19, 3), np.float32)
    particles[33, 2, 0] = value
    with h5py.File(path, "w") as file:
        file["Particles"] = particles
    with (
        EventFile(path) as file,
        pytest.raises(EventError, match=rf"{rule}; event 33 of .*events\.h5 is not"),
    ):
        list(file.slices(size=16))


@pytest.mark.parametrize(
    "particles",
    [np.ones((2, 19, 3), int), np.ones((2, 19, 4)), np.ones((19, 3)), np.ones((2, 57))],
)
def test_arrays_that_are_no_events(particles: FloatArray) -> None:
    with pytest.raises(EventError, match="got"):
        check_events(particles)


@pytest.mark.parametrize("span", ["0:11", "11:", "5:11"])
def test_events_beyond_the_end_are_refused(path: Path, make_events: MakeEvents, span: str) -> None:
    write_events(path, make_events(10), np.zeros(10, int))
    for read in (read_events, read_labels):
        with pytest.raises(EventError, match="holds 10 events"):
            read(f"{path}@{span}")


def test_failed_write_leaves_nothing(path: Path, make_events: MakeEvents) -> None:
    bad = make_events(4)
    bad[2] = np.nan

    def write() -> None:
        with EventWriter(path) as writer:
            writer.append(make_events(10))
            writer.append(bad)

    with pytest.raises(EventError, match="event 12 is not"):
        write()
    assert list(path.parent.iterdir()) == []


def test_failed_write_keeps_the_file_that_was_there(path: Path, make_events: MakeEvents) -> None:
    write_events(path, make_events(10))
    with pytest.raises(EventError):
        write_events(path, make_events(10) * np.float32(np.nan))
    assert len(read_events(path)) == 10


def test_labels_for_some_events_only_are_refused(path: Path, make_events: MakeEvents) -> None:
    with EventWriter(path) as writer:
        writer.append(make_events(3), np.zeros(3, int))
        with pytest.raises(EventError, match="labels"):
            writer.append(make_events(3))


def test_pt_beyond_float16_is_not_written_as_float16(path: Path) -> None:
    particles = np.zeros((2, 19, 3), np.float32)
    particles[1, 0, 0] = 70_000.0
    with pytest.raises(EventError, match="event 1"):
        write_events(path, particles, dtype="float16")


@pytest.mark.parametrize("name", ["absent/events.h5", "."])
def test_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        write_events(tmp_path / name, np.ones((1, 19, 3), np.float32))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.h5", EventRange(Path("a.h5"))),
        ("a.h5@10:20", EventRange(Path("a.h5"), 10, 20)),
        ("a.h5@10:", EventRange(Path("a.h5"), 10, None)),
        ("a.h5@:20", EventRange(Path("a.h5"), 0, 20)),
        ("a@b.h5", EventRange(Path("a@b.h5"))),
        ("a@b/c.h5@1:2", EventRange(Path("a@b/c.h5"), 1, 2)),
    ],
)
def test_range_is_read(text: str, expected: EventRange) -> None:
    assert EventRange.parse(text) == expected


@pytest.mark.parametrize("text", ["a.h5", "a.h5@10:20", "a.h5@10:", "a.h5@0:20", "a@b/c.h5@1:2"])
def test_range_is_written_as_it_is_read(text: str) -> None:
    assert str(EventRange.parse(text)) == text


@pytest.mark.parametrize("text", ["a.h5@5:5", "a.h5@6:5", "a.h5@x:5", "a.h5@-1:5", "a.h5@1:²"])
def test_wrong_range_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="PATH@START:STOP"):
        EventRange.parse(text)
