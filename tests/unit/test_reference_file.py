"""The `.ref` file: what is read is what was written, and nothing else is read at all."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from engines.errors import ArtifactError, MismatchError
from engines.nplm import WidthNulls
from engines.reference_file import ReferenceArtifact, load_reference, save_reference
from tests.support import FINGERPRINT, LinearEngine, gaussians, small_artifact, window_spec


@pytest.fixture(scope="module")
def artifact() -> ReferenceArtifact:
    return small_artifact()


@pytest.fixture
def path(tmp_path: Path, artifact: ReferenceArtifact) -> Path:
    place = tmp_path / "d4.ref"
    save_reference(place, artifact)
    return place


def test_round_trip(path: Path, artifact: ReferenceArtifact) -> None:
    loaded = load_reference(path)
    assert loaded.facts == artifact.facts
    assert loaded.nulls.keys() == artifact.nulls.keys()
    np.testing.assert_array_equal(loaded.nulls[1].t, artifact.nulls[1].t)
    np.testing.assert_array_equal(loaded.reference.embeddings, artifact.reference.embeddings)
    window = gaussians(200, np.random.default_rng(5))
    np.testing.assert_array_equal(
        loaded.reference.test(window).t, artifact.reference.test(window).t
    )


def test_quantities_are_kept_and_older_files_have_none(
    path: Path, tmp_path: Path, artifact: ReferenceArtifact
) -> None:
    assert load_reference(path).quantities is None
    quantities = np.random.default_rng(0).random((artifact.reference.n_ref, 5), np.float32)
    save_reference(tmp_path / "q.ref", replace(artifact, quantities=quantities))
    np.testing.assert_array_equal(load_reference(tmp_path / "q.ref").quantities, quantities)


@pytest.mark.parametrize("shape", [(2000,), (2000, 4), (1999, 5)])
def test_quantities_of_other_events_are_refused(
    path: Path, artifact: ReferenceArtifact, shape: tuple[int, ...]
) -> None:
    save_reference(path, replace(artifact, quantities=np.zeros(shape, np.float32)))
    with pytest.raises(ArtifactError, match="5 quantities of each reference event; got shape"):
        load_reference(path)


def test_fingerprint_names_the_content(path: Path, artifact: ReferenceArtifact) -> None:
    assert artifact.fingerprint == ""
    first = load_reference(path).fingerprint
    assert len(first) == 64
    save_reference(path, load_reference(path))
    assert load_reference(path).fingerprint == first
    save_reference(path, replace(artifact, nulls={1: WidthNulls(np.arange(9.0)[:, None])}))
    assert load_reference(path).fingerprint != first


def test_time_window_survives(tmp_path: Path) -> None:
    made = small_artifact(window_spec("time", 150), n_toys=5)
    save_reference(tmp_path / "t.ref", made)
    loaded = load_reference(str(tmp_path / "t.ref"))
    assert loaded.facts.window == made.facts.window
    assert loaded.reference.weight == made.reference.weight


def test_file_appears_whole_and_replaces_the_old(path: Path, artifact: ReferenceArtifact) -> None:
    nulls = {1: WidthNulls(np.arange(9.0)[:, None])}
    other = ReferenceArtifact(artifact.reference, nulls, artifact.facts)
    save_reference(path, other)
    assert load_reference(path).nulls[1].n_toys == 9
    assert [entry.name for entry in path.parent.iterdir()] == ["d4.ref"]


def test_a_reference_in_use_outlives_its_file(path: Path, artifact: ReferenceArtifact) -> None:
    """Someone copies another file over it while a consumer runs."""
    loaded = load_reference(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\0" * size)
    np.testing.assert_array_equal(loaded.reference.embeddings, artifact.reference.embeddings)
    np.testing.assert_array_equal(loaded.nulls[1].t, artifact.nulls[1].t)
    assert torch.equal(loaded.reference.basis.centres, artifact.reference.basis.centres)


def test_file_can_be_read_by_whoever_the_umask_allows(path: Path) -> None:
    plain = path.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_missing_folder_is_refused(tmp_path: Path, artifact: ReferenceArtifact) -> None:
    with pytest.raises(ArtifactError, match="cannot write the reference"):
        save_reference(tmp_path / "absent" / "d4.ref", artifact)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not exist; make it with: calibrate-reference"):
        load_reference(tmp_path / "absent.ref")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match="not a complete reference file"):
        load_reference(path)


@pytest.mark.parametrize("content", [b"text\n" * 100, b"\x89HDF\r\n\x1a\n" + bytes(500), b"\x08"])
def test_foreign_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a complete reference file"):
        load_reference(path)


@pytest.mark.parametrize("metadata", [None, {}, {"nplm_stream_reference": "[]"},
                                      {"nplm_stream_reference": "{"},
                                      {"nplm_stream_reference": '{"format": 2}'}])  # fmt: skip
def test_foreign_safetensors_file_is_refused(path: Path, metadata: dict[str, str] | None) -> None:
    names = ("mean", "std", "centres", "projector", "ridge", "embeddings", "toys_t_1")
    save_file({name: np.zeros(3) for name in names}, path, metadata=metadata)
    with pytest.raises(ArtifactError, match="not a complete reference file"):
        load_reference(path)


def test_file_of_another_format_is_refused(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'\\"format\\": 2') == 1
    path.write_bytes(content.replace(b'\\"format\\": 2', b'\\"format\\": 9'))
    with pytest.raises(ArtifactError, match="has format 9; this version reads 2"):
        load_reference(path)


def test_one_altered_byte_of_any_tensor_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    header_size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_size])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        altered = bytearray(content)
        altered[8 + header_size + entry["data_offsets"][0]] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ArtifactError, match="was altered since it was written"):
            load_reference(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'\\"n_expected\\": 200.0', b'\\"n_expected\\": 300.0'),
     (b'\\"sigmas\\": [3', b'\\"sigmas\\": [5'),
     (FINGERPRINT.encode(), FINGERPRINT.replace("a", "c").encode()),
     (b'\\"n_toys\\": 99', b'\\"n_toys\\": 98')],
)  # fmt: skip
def test_altered_metadata_is_noticed(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content or old.replace(b"3", b"4") in content
    old, new = (old, new) if old in content else (old.replace(b"3", b"4"), new)
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ArtifactError, match="was altered since it was written"):
        load_reference(path)


def test_engine_of_another_fingerprint_is_refused_with_both(artifact: ReferenceArtifact) -> None:
    engine = LinearEngine()
    artifact.check_engine(engine)
    engine.fingerprint = "cd" * 32
    with pytest.raises(MismatchError) as caught:
        artifact.check_engine(engine)
    assert "cd" * 32 in str(caught.value)
    assert FINGERPRINT in str(caught.value)


def test_other_window_is_refused_with_both(artifact: ReferenceArtifact) -> None:
    artifact.check_window(window_spec("count", 200))
    for other in (window_spec("count", 201), window_spec("time", 200)):
        with pytest.raises(MismatchError) as caught:
            artifact.check_window(other)
        assert str(other) in str(caught.value)
        assert "200 events" in str(caught.value)


def test_calibration_in_one_sentence(artifact: ReferenceArtifact) -> None:
    text = artifact.facts.calibration()
    assert text.startswith("99 toys of 200 events from a pool of 4000 background events")
    assert "each event used about 5.0 times" in text
    assert "offset of the finite pool about 11 %" in text


def test_widths_and_scales_survive(tmp_path: Path) -> None:
    made = small_artifact(n_toys=9, sigma_quantiles=(0.1, 0.5, 0.9), scales=(4,))
    save_reference(tmp_path / "wide.ref", made)
    loaded = load_reference(tmp_path / "wide.ref", threads=2)
    assert loaded.facts == made.facts
    assert loaded.facts.scales == (1, 4)
    assert loaded.facts.loss_of(4) == "likelihood"
    assert loaded.reference.basis.sigmas == made.reference.basis.sigmas
    for scale in (1, 4):
        assert loaded.nulls[scale].t.shape == (9, 3)
        np.testing.assert_array_equal(loaded.nulls[scale].t, made.nulls[scale].t)
    window = gaussians(200, np.random.default_rng(5))
    np.testing.assert_array_equal(loaded.reference.test(window).t, made.reference.test(window).t)
    assert loaded.facts.calibration(4).startswith("9 toys of 4 windows of 200 events from a pool")


@pytest.mark.parametrize("name", ["projector", "embeddings", "toys_t_1"])
def test_missing_tensor_is_refused(path: Path, name: str) -> None:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != name}  # noqa: SIM118
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ArtifactError, match=r"not a complete|was altered"):
        load_reference(path)
