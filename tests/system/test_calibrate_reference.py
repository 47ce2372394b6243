"""`calibrate-reference` as a process: what it writes, says and refuses."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.engine import open_engine
from engines.event_files import read_events
from engines.reference_file import load_reference
from engines.samples import sample_path
from tests.support_commands import calibrate, tiny_encoder

SM = sample_path("sm_cocktail")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("calibrate") / "tiny.onnx")


@pytest.fixture(scope="module")
def done(engine: Path) -> tuple[int, str, str]:
    return calibrate(engine)


def test_reference_is_written_beside_the_engine(engine: Path, done: tuple[int, str, str]) -> None:
    code, _, err = done
    assert code == 0, err
    artifact = load_reference(engine.with_suffix(".ref"))
    with open_engine(engine) as opened:
        artifact.check_engine(opened)
        t = artifact.reference.test(opened.embed(read_events(f"{SM}@50000:50500"))).t
        signal = artifact.reference.test(opened.embed(read_events(f"{sample_path('A4l')}@0:500")))
    (null,) = artifact.nulls[1].nulls
    assert abs(t[0] - null.mean) < 5 * null.std
    assert signal.t[0] > null.t.max()
    facts = artifact.facts
    assert (facts.n_basis, facts.n_ref, facts.n_pool, facts.n_toys) == (5000, 5000, 6000, 100)
    assert artifact.nulls[1].t.shape == (100, 1)
    assert np.isfinite(artifact.nulls[1].t).all()
    assert not list(engine.parent.glob("*.toys*"))


def test_output_says_what_was_done(done: tuple[int, str, str]) -> None:
    _, out, err = done
    assert "reference    5000 events, basis 5000, pool 6000" in out
    assert re.search(r"t = \d+\.\d \+- \d+\.\d; chi-square with", out)
    assert "100 toys of 500 events from a pool of 6000 background events" in out
    assert "p >= 0.0099 from the toys alone" in out
    assert "toys: 100/100" in err
    assert "embedding background: 16000/16000" in err


def run_in_process(
    capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int | str | None, str]:
    from engines.calibrate_reference import main

    try:
        code: int | str | None = main([str(argument) for argument in arguments])
    except SystemExit as exc:  # argparse ends the process itself
        code = exc.code
    return code, capfd.readouterr().err


@pytest.fixture
def _keep_threads() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_raw_inputs_of_which_some_are_constant_are_an_engine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw.onnx"
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"], axis=1)],
        "raw",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 19, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 57])],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save_model(helper.make_model(graph, opset_imports=[opset], ir_version=8), raw)
    events = ("--events", f"{SM}@10000:40000", "--window", 1000, "--toys", 20)
    code, err = run_in_process(capfd, "--engine", raw, *events)
    assert code == 0, err
    assert re.search(r"WARNING coordinates \[1, .*\] of the embedding are constant", err)
    reference = load_reference(raw.with_suffix(".ref")).reference
    window = read_events(f"{SM}@50000:51000").reshape(1000, 57)
    (quiet,) = reference.test(window).t
    assert np.isfinite(quiet)
    window[:, 1] = 1e3  # MET's eta, which is always 0
    (odd,) = reference.test(window).t
    assert quiet < odd < np.inf


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--events", f"{SM}@0:3000", "--window", 10_000], "needs at least 74284 background"),
        (["--events", SM, "--window", "60s"], "add --rate EVENTS_PER_SECOND"),
        (["--events", SM, "--window", "0"], "must hold from 1 to"),
        (["--events", SM, "--window", "soon"], "a duration must be"),
        (["--events", f"{SM}@0:9000", f"{SM}@8000:20000", "--window", 500], "share 1000"),
        (["--events", "absent.h5"], "absent.h5 does not exist"),
        (["--events", f"{SM}@20:10"], "START < STOP"),
        (["--events", SM, "--toys", 0], "above zero"),
        (["--events", SM, "-o", "/absent/folder/d4.ref"], "No such file or directory"),
        (["--window", 500], "--events"),
        (["--events", f"{SM}@0:9000", "--window", 500, "--n-ref", 1000, "--n-basis", 100,
          "--centres", 200], "at least 200 events"),
        (["--events", f"{SM}@0:9000", "--window", 500, "--n-ref", 1000, "--n-basis", 2000,
          "--sigma-quantile", 2], "quantile must lie between 0 and 1"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_bad_input_is_one_sentence(
    engine: Path, capfd: pytest.CaptureFixture[str], arguments: list[object], text: str
) -> None:
    code, err = run_in_process(capfd, "--engine", engine, *arguments)
    lines = [line for line in err.splitlines() if not re.match(r"embedding background: \d", line)]
    assert code == 2, err
    assert len(lines) == 1, err
    assert lines[0].startswith("calibrate-reference: ")
    assert text in lines[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-o", "/proc/x.ref"], "cannot write /proc/x.ref (No such file"),
        (["-o", "/"], "it is a folder"),
        (["-o", f"{SM}/x.ref"], "Not a directory"),
        (["--toys", 1], "toys must be at least 2; got 1"),
        (["--sigma-quantile", "nan"], "quantile must lie between 0 and 1; got nan"),
        (["--seed", "-1"], "seed must be a whole number from 0 up; got -1"),
        (["--lam", "1e300"], "lam must lie between 1e-12 and 1; got 1e+300"),
        (["--n-basis", 1, "--centres", 1], "at least 2 events"),
        (["--sigma", "1", "0"], "must be a number above zero"),
        (["--scales", "1"], "scales must be whole numbers above 1, each once; got [1]"),
        (["--scales", "500"], "and 500 of them merged needs at least"),
        (["--device", "tpu"], "device must be cpu, or cuda"),
        (["--workers", "0"], "must be a whole number above zero"),
    ],
)
@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_bad_options_are_refused_before_any_event_is_embedded(
    engine: Path,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[object],
    text: str,
) -> None:
    options = ["--engine", engine, "--events", f"{SM}@0:20000", "--window", 500]
    code, err = run_in_process(capfd, *options, "-o", tmp_path / "x.ref", *arguments)
    assert code == 2
    assert err.count("\n") == 1, err
    assert text in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("keep_logging", "_keep_threads")
def test_too_few_events_says_how_many_and_that_many_do(
    engine: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--engine", engine, "--window", 100, "--n-basis", 300, "--toys", 3]
    options += ["-o", tmp_path / "few.ref", "--events"]
    code, err = run_in_process(capfd, *options, f"{SM}@0:400")
    assert code == 2
    assert err.count("\n") == 1
    found = re.search(r"at least (\d+) background events", err)
    assert found is not None
    assert not (tmp_path / "few.ref").exists()
    code, err = run_in_process(capfd, *options, f"{SM}@0:{found[1]}")
    assert code == 0, err
    assert load_reference(tmp_path / "few.ref").facts.n_basis == 300


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, contextlib\n"
        "from engines.calibrate_reference import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
