"""`stream-scan` as a process, on the bundled events and a trained encoder."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from engines.event_files import read_events, write_events
from engines.events import EventRange
from engines.pretrained import pretrained_path
from engines.reference_file import load_reference, save_reference
from engines.samples import sample_path
from engines.windows import WindowSpec
from stream.scan import main
from tests.support_commands import (
    INTERRUPTED,
    Launch,
    calibrate,
    finish,
    run_command,
    tiny_encoder,
    wait_until,
)

Scan: TypeAlias = Callable[..., tuple[int, str, str]]

ENGINE = pretrained_path("d4")
WINDOW, N_LEFT = 5000, 321


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unseen background with 4 % of A -> 4 leptons in its second window, and some events more."""
    unseen = EventRange(sample_path("sm_unseen"), 0, 3 * WINDOW + N_LEFT)
    particles = read_events(unseen)
    added = read_events(EventRange(sample_path("A4l"), 0, 200))
    rows = WINDOW + np.random.default_rng(0).permutation(WINDOW)[: len(added)]
    particles[rows] = added
    path = tmp_path_factory.mktemp("box") / "box.h5"
    write_events(path, particles)
    return path


def scan(*arguments: object) -> tuple[int, str, str]:
    return run_command("stream-scan", *arguments)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def whole(box: Path) -> tuple[Path, str]:
    """Return the results of an uninterrupted scan, and what it printed."""
    results = box.with_name("whole.jsonl")
    code, out, err = scan(
        *(box, "--engine", ENGINE, "--results", results, "--alarms", box.with_name("alarms"))
    )
    assert code == 0, err
    assert "windows: 3/3" in err
    return results, out


def test_finds_the_signal(whole: tuple[Path, str], box: Path) -> None:
    results, out = whole
    lines = lines_of(results)
    assert [line["alarm"] for line in lines] == [False, True, False]
    assert lines[1]["z_alarm"] > 5.0
    assert lines[1]["p_relabelled"] == 0.01
    assert f"windows     3 of 5000 events; {N_LEFT} events left over, not tested" in out
    assert "ALARM (relabelled p 0.01)" in out
    assert "chi-square fitted to the toys, which alarms" in out
    assert results.with_suffix(".png").stat().st_size > 10_000
    (kept,) = box.with_name("alarms").iterdir()
    assert kept.name.endswith("-000001.h5")


def test_t_is_that_of_the_consumer(
    whole: tuple[Path, str], box: Path, launch: Launch, tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/events.sock"
    consumer = launch(
        *("stream-consumer", "--engine", ENGINE, "--endpoint", endpoint, "--http", "off"),
        *("--results", tmp_path / "r.jsonl", "--exit-on-end", "--relabellings", 0),
    )
    producer = launch("stream-producer", box, "--endpoint", endpoint, "--rate", 20_000)
    assert finish(producer)[0] == 0
    code, _, err = finish(consumer)
    assert code == 0, err
    streamed = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    stored = lines_of(whole[0])
    assert [line["t"] for line in stored] == pytest.approx(
        [line["t"] for line in streamed], rel=1e-6
    )
    for name in ("window", "n_events", "p", "trials", "calibrated_on", "engine"):
        assert [line[name] for line in stored] == [line[name] for line in streamed], name


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small encoder with a reference for windows of 500 events beside it."""
    made = tiny_encoder(tmp_path_factory.mktemp("quick") / "tiny.onnx")
    code, _, err = calibrate(made)
    assert code == 0, err
    return made


@pytest.fixture
def here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    keep_logging: None,
) -> Scan:
    """Return what runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exc:  # bad usage
            code = int(exc.code or 0)
        return code, *capfd.readouterr()

    return run


EVENTS = f"{sample_path('sm_cocktail')}@100000:130000"


@pytest.fixture(scope="module")
def clocked(quick: Path) -> tuple[tuple[object, ...], Path, str]:
    """Return arguments of a longer scan, its results and what it printed."""
    arguments = (EVENTS, "--engine", quick, "--window-spacing", "1m", "--far", "1/day")
    results = quick.with_name("whole.jsonl")
    code, out, err = scan(*arguments, "--results", results)
    assert code == 0, err
    return arguments, results, out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_goes_on_after_an_end_in_the_middle(
    clocked: tuple[tuple[object, ...], Path, str],
    launch: Launch,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    arguments, whole, printed = clocked
    path = tmp_path / "r.jsonl"
    process = launch("stream-scan", *arguments, "--results", path)
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") > 3, "3 windows", process)
    process.send_signal(number)
    code, _, err = finish(process)
    n_done = len(lines_of(path))
    assert 3 <= n_done < 60
    if number != signal.SIGKILL:
        assert code in INTERRUPTED
        assert "of 60 windows are kept in" in err
        assert "run the same command again to go on" in err
        assert "Traceback" not in err
    with path.open("a") as file:
        file.write('{"run": "scan-')
    code, out, err = scan(*arguments, "--results", path)
    assert code == 0, err
    assert "unfinished result" in err
    assert f"continuing: {n_done} of 60 windows are done" in err
    assert path.read_bytes() == whole.read_bytes()
    assert out.splitlines()[:-1] == printed.splitlines()[:-1]


def test_references_drawn_anew(quick: Path, tmp_path: Path) -> None:
    background = f"{sample_path('sm_cocktail')}@0:16000"  # what calibrated
    arguments = (
        *(f"{sample_path('sm_cocktail')}@100000:105200", "--engine", quick),
        *("--results", tmp_path / "r.jsonl", "--reference-events", background),
        *("--resample-toys", 40, "--json", "--resample-reference"),
    )
    code, out, err = scan(*arguments, 3)
    assert code == 0, err
    found = json.loads(out)
    assert len(found["windows"]) == 10
    assert found["n_left_over"] == 200
    resampled = found["resampled"]
    assert np.array(resampled["p"]).shape == (3, 10)
    assert resampled["n_free"] == 11_000
    assert all(z["std"] > 0 for z in resampled["z"])
    own = [line["z_alarm"] for line in found["windows"]]
    mean = [z["mean"] for z in resampled["z"]]
    assert np.corrcoef(own, mean)[0, 1] > 0.5
    # One reference more: the others stay.
    code, out, err = scan(*arguments, 4)
    assert code == 0, err
    assert json.loads(out)["resampled"]["p"][:3] == resampled["p"]
    code, _, err = scan(*arguments, 3, "--seed", 1)
    assert code == 2
    assert "drawn otherwise" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.h5",), "does not exist"),
        ((f"{sample_path('sm_unseen')}@0:4999",), "needs the 5000 events of one window at least"),
        ((f"{sample_path('sm_unseen')}@0:20001",), "holds 20000 events; 0 to 20001 were asked"),
        ((f"{sample_path('sm_unseen')}@30000:",), "holds 20000 events"),
        ((f"{sample_path('sm_cocktail')}@0:60000",), "trained on"),
        ((sample_path("sm_unseen"), "--far", "1/day"), "must come with --window-spacing"),
        (
            (sample_path("sm_unseen"), "--global-p", "0.1", "--window-spacing", "1m"),
            "--global-p must come without --window-spacing",
        ),
        ((sample_path("sm_unseen"), "--resample-reference", 2), "must come together"),
        ((sample_path("sm_unseen"), "--resample-reference", 1), "must be 2 or more"),
        (
            (sample_path("sm_unseen"), "--resample-reference", 2, "--reference-events",
             sample_path("sm_unseen")),
            "each event may be given once",
        ),
        ((sample_path("sm_unseen"), "-o", "scan.txt"), "suffix must be one of"),
        ((sample_path("sm_unseen"), "--results", "/nowhere/r.jsonl"), "cannot write"),
        ((sample_path("sm_unseen"), "--reference", pretrained_path("hybrid").with_suffix(".ref")),
         "do not belong together"),
    ],
)  # fmt: skip
def test_bad_input(here: Scan, arguments: tuple[object, ...], said: str) -> None:
    code, out, err = here("--engine", ENGINE, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_other_inputs_do_not_go_on(whole: tuple[Path, str], box: Path, here: Scan) -> None:
    before = whole[0].read_bytes()
    given = ("--engine", ENGINE, "--results", whole[0], "--alarms", box.with_name("alarms"))
    for arguments, named in (
        ((sample_path("sm_unseen"),), "events differ"),
        ((box, "--alarm-on", "gamma", "--relabellings", 0), "alarm-on, relabellings differ"),
    ):
        code, _, err = here(*arguments, *given)
        assert code == 2
        assert named in err
    assert whole[0].read_bytes() == before


def test_reference_for_a_span_of_time(here: Scan) -> None:
    artifact = load_reference(ENGINE.with_suffix(".ref"))
    facts = replace(artifact.facts, window=WindowSpec("time", 5000.0, 1.0))
    save_reference("timed.ref", replace(artifact, facts=facts))
    code, _, err = here(sample_path("sm_unseen"), "--engine", ENGINE, "--reference", "timed.ref")
    assert code == 2
    assert "stored events have no times" in err


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import contextlib, sys\n"
        "from stream.scan import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'torch', 'matplotlib', 'onnxruntime', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert "A file has no clock" in found.stdout
    assert "--resample-reference N tests each window against N more references" in found.stdout
