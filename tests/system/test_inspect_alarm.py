"""`inspect-alarm` as a process, on records of the bundled events through a pretrained encoder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from engines.calibration import calibrate
from engines.calibration_config import CalibrationConfig
from engines.engine import open_engine
from engines.event_files import read_events
from engines.events import EventRange
from engines.pretrained import pretrained_path
from engines.reference_file import load_reference, save_reference
from engines.samples import sample_path
from engines.types import FloatArray
from engines.windows import WindowSpec
from stream.account import Rules
from stream.alarm.record import NullUsed, write_alarm
from stream.alarms import FalseAlarmRate
from stream.inspect_alarm import main
from stream.monitor import Monitor
from tests.support_alarms import window_of
from tests.support_commands import run_command

N_WINDOW = 1000
HOSTILE = "det\x1b[2J\n1"


@pytest.fixture(scope="module")
def alarms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two alarms, of 4 % signal in windows 1 and 2 and of 8 % in window 4."""
    folder = tmp_path_factory.mktemp("alarms")
    path = folder.parent / "d4.ref"
    config = CalibrationConfig(window=WindowSpec("count", float(N_WINDOW)), n_toys=50, n_ref=8000)
    background, signal = read_events(sample_path("sm_unseen")), read_events(sample_path("A4l"))
    rng = np.random.default_rng(0)
    with open_engine(pretrained_path("d4")) as engine:
        sources = [EventRange(sample_path("sm_cocktail"), 100_000, 130_000)]
        save_reference(path, calibrate(engine, sources, config))
        artifact = load_reference(path)
        monitor = Monitor(artifact, Rules(FalseAlarmRate.parse("1/day")), run="r1")
        for index, n_signal in enumerate((0, 40, 40, 0, 80)):
            events = background[index * N_WINDOW : (index + 1) * N_WINDOW].copy()
            events[rng.choice(N_WINDOW, n_signal, replace=False)] = signal[:n_signal]
            window = window_of(
                artifact,
                engine.embed(events),
                events,
                index=index,
                sources=("det0", HOSTILE),
                t_start_ns=(1_700_000_000 + 4 * index) * 10**9,
            )
            result, f = monitor.examine(window)
            assert result.alarm == (n_signal > 0)
            if result.alarm:
                write_alarm(folder, window, f, result, NullUsed.of(artifact, path))
    return folder


def test_alarms_are_told_and_the_strongest_is_drawn(alarms: Path) -> None:
    code, out, err = run_command("inspect-alarm", alarms, "--top", 3)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[1].split()[:5] == ["1", "r1", "1-2", "2023-11-14", "22:13:24"]
    assert lines[2].split()[:3] == ["2", "r1", "4"]
    assert "alarm        2: window 4 of run r1" in lines
    assert r"sources      det0 500, det\x1b[2J\n1 500" in lines
    assert out.isascii()
    assert "the 3 most anomalous of 1000 events" in lines
    assert sum(line.lstrip().startswith("MET") for line in lines) == 3
    assert any(line.startswith("      electron ") for line in lines)  # A -> 4 leptons
    picture = alarms / "alarm-r1-000004.png"
    assert lines[-1] == f"picture      {picture}"
    image = imread(picture)
    assert image.shape[0] > 1000
    assert 0.02 < (image[:, :, :3].min(axis=2) < 0.9).mean() < 0.5


def run_in_process(
    capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int | str | None, str, str]:
    try:
        code: int | str | None = main([str(argument) for argument in arguments])
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    said = capfd.readouterr()
    return code, said.out, said.err


@pytest.mark.usefixtures("keep_logging")
def test_json_holds_alarms_and_events(alarms: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--json", "--no-plot", "--alarm", 1, "--top", 5)
    code, out, _ = run_in_process(capfd, alarms, *options)
    assert code == 0
    said = json.loads(out)
    windows = [[w["result"]["window"] for w in alarm["windows"]] for alarm in said["alarms"]]
    assert windows == [[1, 2], [4]]
    assert said["alarms"][0]["windows"][0]["sources"] == {"det0": 500, HOSTILE: 500}
    chosen = said["chosen"]
    assert chosen["alarm"] == 1
    assert chosen["null"]["fingerprint"] == load_reference(alarms.parent / "d4.ref").fingerprint
    assert "picture" not in chosen
    f = [event["f"] for event in chosen["events"]]
    assert len(f) == 5
    assert f == sorted(f, reverse=True)
    for event in chosen["events"]:
        assert event["source"] in ("det0", HOSTILE)
        kinds = [item["kind"] for item in event["objects"]]
        assert kinds.count("electron") == event["n_electrons"]
        assert kinds.count("jet") == event["n_jets"]


@pytest.mark.usefixtures("keep_logging")
def test_alarms_are_chosen_by_number_and_word(
    alarms: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = alarms / "alarm-r1-000001.h5"
    for choice, said in (("1", "1: window"), ("last", "2: window 4"), ("strongest", "2: window 4")):
        code, out, _ = run_in_process(capfd, alarms, "--no-plot", "--alarm", choice)
        assert code == 0
        assert f"alarm        {said}" in out
    code, out, _ = run_in_process(capfd, one, "--no-plot")
    assert code == 0
    assert "alarm        1: window 1 of run r1\n" in out


@pytest.mark.usefixtures("keep_logging")
def test_without_its_reference_the_rest_is_drawn_and_that_is_said(
    alarms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reference, away = alarms.parent / "d4.ref", tmp_path / "away.ref"
    code, out, _ = run_in_process(capfd, alarms, "-o", tmp_path / "all.png")
    assert "fit again    t " in out
    reference.rename(away)
    try:
        code, out, err = run_in_process(capfd, alarms, "-o", tmp_path / "some.png")
        assert code == 0
        assert "fit again" not in out
        assert "nothing is compared with the reference" in err
        assert imread(tmp_path / "some.png").shape[0] < imread(tmp_path / "all.png").shape[0] / 2
        code, out, err = run_in_process(
            capfd, alarms, "-o", tmp_path / "moved.png", "--reference", away
        )
        assert code == 0
        assert "fit again    t " in out
    finally:
        away.rename(reference)


@pytest.mark.usefixtures("keep_logging")
def test_damaged_records_are_left_out_and_said(
    alarms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(alarms / "alarm-r1-000004.h5", tmp_path)
    (tmp_path / "alarm-r1-000009.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    code, out, err = run_in_process(capfd, tmp_path, "--no-plot")
    assert code == 0
    assert "1: window 4" in out
    assert "left out: alarm record" in err
    (tmp_path / "alarm-r1-000004.h5").unlink()
    code, out, err = run_in_process(capfd, tmp_path, "--no-plot")
    assert (code, out) == (2, "")
    assert "none of the 1 alarm records" in err


@pytest.mark.usefixtures("keep_logging")
def test_bad_usage_is_one_sentence(
    alarms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = pretrained_path("d4").with_suffix(".ref")
    for arguments, said in (
        ([tmp_path], "holds no alarm-*.h5"),
        ([tmp_path / "absent"], "does not exist"),
        ([sample_path("A4l")], "is no alarm record of this version"),
        ([alarms, "--alarm", "3"], "strongest, last or a number from 1 to 2; got '3'"),
        ([alarms, "--alarm", "best"], "strongest, last or a number from 1 to 2; got 'best'"),
        ([alarms, "--top", "0"], "must be a whole number above zero"),
        ([alarms, "-o", tmp_path / "x.txt"], "suffix must be one of"),
        ([alarms, "-o", tmp_path / "absent" / "x.png"], "choose a folder that exists"),
        ([alarms, "-o", tmp_path / "x.png", "--reference", other], "was tested with the reference"),
        ([alarms, "-o", tmp_path / "x.png", "--reference", tmp_path / "no.ref"], "does not exist"),
        ([], "required: DIR"),
    ):
        code, out, err = run_in_process(capfd, *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("inspect-alarm: ")
        assert said in err
        assert err.count("\n") == 1


@pytest.mark.usefixtures("keep_logging")
def test_umap_draws_the_plane(
    alarms: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Umap:
        """Takes the place of the package, which compiles itself for half a minute."""

        def __init__(self, random_state: int) -> None:
            self.random_state = random_state

        def fit_transform(self, embeddings: FloatArray) -> FloatArray:
            return embeddings[:, :2] ** 2

    monkeypatch.setitem(sys.modules, "umap", type(sys)("umap"))
    monkeypatch.setattr(sys.modules["umap"], "UMAP", Umap, raising=False)
    for options in ((), ("--umap",)):
        picture = tmp_path / f"{len(options)}.png"
        assert run_in_process(capfd, alarms, "-o", picture, *options)[0] == 0
    plain, mapped = (imread(tmp_path / f"{k}.png") for k in (0, 1))
    assert (plain != mapped).any()
    monkeypatch.setitem(sys.modules, "umap", None)
    code, _, err = run_in_process(capfd, alarms, "-o", tmp_path / "2.png", "--umap")
    assert code == 2
    assert "pip install 'nplm-stream[umap]'" in err


def test_help_is_quick_because_heavy_packages_wait() -> None:
    code = (
        "import sys, stream.inspect_alarm as command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
