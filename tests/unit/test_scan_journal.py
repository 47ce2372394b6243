"""Results of a scan on disk: gone on with, torn, damaged, of other inputs."""

import json
from pathlib import Path

import pytest

from engines.errors import ArtifactError, MismatchError
from stream.scanning.journal import ScanJournal

INPUTS = {"engine": "ab", "events": [("c0", 0, 10)], "far": "1/month"}


def journal(path: Path, **inputs: object) -> ScanJournal:
    return ScanJournal(path, {**INPUTS, **inputs}, (1, 2))


def write(path: Path) -> bytes:
    """Three windows, the second of which completes a scale."""
    with journal(path) as made:
        made.append([{"window": 0, "scale": 1}])
        made.append([{"window": 1, "scale": 1}, {"window": 0, "scale": 2}])
        made.append([{"window": 2, "scale": 1}])
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "r.jsonl")
    with journal(tmp_path / "r.jsonl") as again:
        assert [len(group) for group in again.windows] == [1, 2, 1]
        again.append([{"resampling": 0, "window": 0}])
    with journal(tmp_path / "r.jsonl") as again:
        assert again.resampled == [{"resampling": 0, "window": 0}]
    assert (tmp_path / "r.jsonl").read_bytes().startswith(whole)


@pytest.mark.parametrize("torn", [b'{"window": 3, "sc', b'{"window": 3, "scale": 1}\n', b"{"])
def test_unfinished_window_is_dropped(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Window 3 has two lines: one alone, or a part of one, is what a kill leaves."""
    path = tmp_path / "r.jsonl"
    whole = write(path)
    path.write_bytes(whole + torn)
    with journal(path) as again:
        assert len(again.windows) == 3
    assert path.read_bytes() == whole
    assert "unfinished result" in caplog.text


@pytest.mark.parametrize("torn", [b"", b'{"nplm', b'{"nplm_stream_scan": 1, "inp'])
def test_torn_first_line_starts_anew(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(torn)
    with journal(path) as made:
        assert made.windows == []
    assert json.loads(path.read_text())["nplm_stream_scan"] == 1


def test_other_inputs_are_named(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl")
    with pytest.raises(MismatchError, match=r"another scan: engine, far differ; .* --results"):
        journal(tmp_path / "r.jsonl", engine="cd", far="1/day")


def test_a_scan_without_a_result_makes_way(tmp_path: Path) -> None:
    journal(tmp_path / "r.jsonl").close()
    with journal(tmp_path / "r.jsonl", engine="cd") as made:
        made.append([{"window": 0, "scale": 1}])
    with journal(tmp_path / "r.jsonl", engine="cd") as again:
        assert len(again.windows) == 1


@pytest.mark.parametrize(
    "text", ["hello", "hello\n", '{"window": 0}\n', "[]\n", '{"nplm_stream_scan": 1}\n']
)
def test_other_files_are_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="must be results of stream-scan"):
        journal(path)
    assert path.read_text() == text


@pytest.mark.parametrize("line", ["nonsense\n", '{"window": 7, "scale": 1}\n', "3\n"])
def test_damage_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.jsonl"
    lines = write(path).decode().splitlines(keepends=True)
    path.write_text("".join([lines[0], line, *lines[1:]]))
    with pytest.raises(ArtifactError, match="damaged after line 1"):
        journal(path)


def test_one_scan_at_a_time(tmp_path: Path) -> None:
    with (
        journal(tmp_path / "r.jsonl"),
        pytest.raises(ArtifactError, match="another scan is writing"),
    ):
        journal(tmp_path / "r.jsonl")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="choose a folder that exists"):
        journal(tmp_path / "no" / "r.jsonl")


def test_results_that_are_no_plain_file_are_refused() -> None:
    """A device could be read without end."""
    with pytest.raises(ArtifactError, match="must be a plain file"):
        journal(Path("/dev/full"))
