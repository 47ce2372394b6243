"""`simulate-events` as a process: its file, stopping and continuing it, and what it refuses."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from engines.errors import MissingPackageError
from engines.event_files import EventFile
from tests.support_commands import INTERRUPTED, TIMEOUT_S, wait_until
from training.simulation.generator import require_packages

pytest.importorskip("fastjet", reason="needs the extra sim")
pytest.importorskip("pythia8mc", reason="needs the extra sim")

_OPTIONS = ("--process", "W", "A4l", "--events", 8, "--resimulate", 2, "--soft-events", 20)


def start(*arguments: object, file_bytes: int | None = None) -> "subprocess.Popen[str]":
    """Start the command, able to write files of so many bytes at most."""

    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "training.simulate_events", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,  # noqa: PLW1509
    )


def run(*arguments: object, file_bytes: int | None = None) -> tuple[int, str, str]:
    process = start(*arguments, file_bytes=file_bytes)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def stop(output: Path, how: signal.Signals) -> tuple[int, str]:
    """Start a simulation and stop it once a chunk of events is finished."""
    folder = output.with_name(f"{output.name}.parts")
    process = start(*_OPTIONS, "-o", output)
    try:
        wait_until(lambda: any(folder.glob("W-*.npz")), "a chunk was finished", process)
        process.send_signal(how)
        _, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert not output.exists()
    return process.returncode, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the file of an undisturbed run, and what the run printed."""
    output = tmp_path_factory.mktemp("simulated") / "events.h5"
    code, out, err = run(*_OPTIONS, "-o", output)
    assert code == 0, err
    return output, out


def test_file_holds_events_and_where_they_come_from(finished: tuple[Path, str]) -> None:
    output, out = finished
    with EventFile(output) as file:
        labels = file.labels()
        assert labels is not None
        assert labels.tolist() == [0] * 8 + [10] * 8
        assert file.read().shape == (16, 19, 3)
    with h5py.File(output) as raw:
        assert raw["Particles"].shape == (16, 19, 4)
        assert raw["Realisations"].shape == (16, 2, 19, 3)
        assert raw["Realisations"].dtype == np.float32
        processes = json.loads(raw.attrs["processes"])
        assert json.loads(raw.attrs["detector"])["jet_radius"] == 0.4
        assert "8.3" in raw.attrs["generator"]
    assert list(processes) == ["W", "A4l"]
    assert processes["W"]["n_accepted"] == 8
    assert processes["W"]["n_generated"] > 8
    assert 1e-5 < processes["W"]["cross_section_mb"] < 1e-4
    assert "W: 8 accepted of" in out
    assert "cross-section" in out
    assert [path.name for path in output.parent.iterdir()] == ["events.h5"]


def test_workers_do_not_change_a_bit(finished: tuple[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "events.h5"
    assert run(*_OPTIONS, "--workers", 2, "-o", output)[0] == 0
    assert output.read_bytes() == finished[0].read_bytes()


def test_finished_file_is_left_as_it_is(finished: tuple[Path, str]) -> None:
    output = finished[0]
    before = output.stat()
    code, out, _ = run(*_OPTIONS, "-o", output)
    assert (code, out) == (0, f"already there: 16 events in {output}\n")
    code, _, err = run(*_OPTIONS, "--seed", 5, "-o", output)
    assert code == 2
    assert "is there already and holds other events than this command makes" in err
    assert err.count("\n") == 1
    after = output.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in output.parent.iterdir()] == ["events.h5"]


def test_fresh_replaces_a_file(finished: tuple[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "events.h5"
    output.write_text("no simulation")
    assert run(*_OPTIONS, "-o", output)[0] == 2
    assert output.read_text() == "no simulation"
    code, _, err = run(*_OPTIONS, "--fresh", "-o", output)
    assert code == 0, err
    assert output.read_bytes() == finished[0].read_bytes()


def test_killed_run_continues_to_the_same_bits(finished: tuple[Path, str], tmp_path: Path) -> None:
    output = tmp_path / "events.h5"
    stop(output, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "events.h5.parts").glob("*.npz")}
    assert kept
    code, _, err = run(*_OPTIONS, "--seed", 5, "-o", output)
    assert code == 2
    assert "other seed (0, now 5)" in err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run(*_OPTIONS, "-o", output)[0] == 0
    assert output.read_bytes() == finished[0].read_bytes()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_says_what_is_kept(tmp_path: Path, how: signal.Signals) -> None:
    code, err = stop(tmp_path / "events.h5", how)
    assert code in INTERRUPTED
    assert err.count("chunks are kept in") == 1
    assert "Traceback" not in err
    assert list((tmp_path / "events.h5.parts").glob("W-*.npz"))


def test_full_disk_loses_no_finished_chunk(tmp_path: Path) -> None:
    # The kernel refuses to let a file grow further: what a full disk looks like to a program. The
    # soft events fit; the chunk of events, with its many realisations, does not.
    output = tmp_path / "events.h5"
    options = ("--process", "W", "--events", 8, "--resimulate", 40, "--soft-events", 5)
    code, _, err = run(*options, "-o", output, file_bytes=60_000)
    assert code == 2
    assert err.count("cannot write") == 1
    assert "(File too large); make room" in err
    assert "1 of 2 chunks are kept" in err
    assert "Traceback" not in err
    assert not output.exists()
    code, _, err = run(*options, "-o", output)
    assert code == 0, err
    with EventFile(output) as file:
        assert len(file) == 8


def test_missing_package_is_a_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pythia8mc'] = None\n"
        "from training.simulate_events import main\n"
        f"sys.exit(main(['--mix', 'sm', '--events', '9', '-o', {str(tmp_path / 'a.h5')!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 2
    assert "pip install 'nplm-stream[sim]'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_broken_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fastjet.py").write_text("raise ImportError('libfastjet.so.0: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fastjet", raising=False)
    with pytest.raises(
        MissingPackageError,
        match=r"package fastjet, which cannot be imported \(libfastjet\.so\.0: cannot open\); ",
    ):
        require_packages()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--process", "WW"), "process must be one of"),
        ((), "give --process NAME ... or --mix NAME"),
        (("--mix", "sm", "--resimulate", -1), "seed and resimulate must be 0 or more"),
    ],
)
def test_wrong_options_are_a_sentence(
    tmp_path: Path, options: tuple[object, ...], text: str
) -> None:
    code, _, err = run(*options, "--events", 5, "-o", tmp_path / "a.h5")
    assert code == 2
    assert text in err
    assert err.count("\n") == 1


def test_output_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    for output in (tmp_path / "missing" / "a.h5", tmp_path / "a.txt"):
        code, _, err = run("--process", "W", "--events", 5, "-o", output)
        assert code == 2
        assert err.count("\n") == 1
