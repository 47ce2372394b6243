"""`stream-consumer` with a plan on a machine that cannot run it, and with `--timings`."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from engines.artifact import fingerprint, read_facts
from engines.plans.plan_file import PlanFacts, read_plan, write_plan
from engines.samples import sample_path
from tests.support_commands import (
    Launch,
    calibrate,
    fetch,
    finish,
    free_port,
    run_command,
    tiny_encoder,
    wait_until,
)

STREAM = f"{sample_path('sm_cocktail')}@100000:105300"
N_STREAM = 5300


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a plan whose engine no GPU here can run, beside its ONNX file and reference."""
    made = tiny_encoder(tmp_path_factory.mktemp("plan") / "tiny.onnx")
    code, _, err = calibrate(made)
    assert code == 0, err
    model = onnx.load(made)
    facts = PlanFacts(
        fingerprint=fingerprint(model),
        dim=3,
        precision="fp16",
        flavour="tensorrt_rtx",
        version="1.7.1.116",
        compute_capabilities=("8.9",),
        min_batch=1,
        opt_batch=512,
        max_batch=2048,
        onnx="tiny.onnx",
        engine=read_facts(model),
    )
    path = made.with_suffix(".plan")
    write_plan(path, facts, np.random.default_rng(0).bytes(1000))
    return path


def test_plan_without_a_gpu_names_the_onnx_file(plan: Path) -> None:
    code, out, err = run_command("stream-consumer", "--engine", plan, "--http", "off")
    assert (code, out) == (2, "")
    assert str(plan.with_suffix(".onnx")) in err
    assert "--fallback" in err
    assert "GPU" in err
    assert err.count("\n") == 1


def test_fallback_runs_the_onnx_file_and_says_so(
    plan: Path, launch: Launch, tmp_path: Path
) -> None:
    port = free_port()
    consumer = launch(
        *("stream-consumer", "--engine", plan, "--fallback", "--http", port),
        *("--endpoint", f"ipc://{tmp_path}/e.sock"),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", consumer)
    metrics = fetch(port, "/metrics")[1]
    consumer.send_signal(signal.SIGTERM)
    code, out, err = finish(consumer)
    assert code == 0, err
    assert "nplm_stream_engine_fallback 1.0" in metrics
    assert 'runtime="ONNX Runtime' in metrics
    assert f"falling back to {plan.with_suffix('.onnx')}" in err
    assert "ONNX Runtime" in out


def test_fallback_changes_nothing_where_the_engine_runs(plan: Path, launch: Launch) -> None:
    port = free_port()
    consumer = launch(
        *("stream-consumer", "--engine", plan.with_suffix(".onnx"), "--fallback", "--http", port),
        *("--endpoint", "tcp://127.0.0.1:*"),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", consumer)
    assert "nplm_stream_engine_fallback 0.0" in fetch(port, "/metrics")[1]


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time of threads is Linux's")
def test_timings_account_for_every_event(plan: Path, launch: Launch, tmp_path: Path) -> None:
    consumer = launch(
        *("stream-consumer", "--engine", plan.with_suffix(".onnx"), "--http", "off"),
        *("--endpoint", f"ipc://{tmp_path}/e.sock", "--exit-on-end", "--max-delay", "500us"),
        *("--timings", tmp_path / "t.json", "--timings-skip", 256),
    )
    launch("stream-producer", STREAM, "--endpoint", f"ipc://{tmp_path}/e.sock", "--dtype", "f2")
    code, _, err = finish(consumer)
    assert code == 0, err
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["events"] == N_STREAM - 256
    assert record["n_events"] == N_STREAM
    for counts in record["stages"].values():
        assert sum(counts.values()) == N_STREAM - 256
    parts = sum(
        cpu_s for name, cpu_s in record["cpu_s"].items() if name not in ("process", "engine")
    )
    assert parts == pytest.approx(record["cpu_s"]["process"], rel=0.2, abs=0.05)
    assert 0 < record["cpu_s"]["engine"] < record["cpu_s"]["MainThread"]
    assert record["windows"] == {"tested": 10, "skipped": 0}


def test_delay_that_is_none_is_told(plan: Path) -> None:
    code, _, err = run_command("stream-consumer", "--engine", plan, "--max-delay", "2")
    assert code == 2
    assert "--max-delay" in err
    assert "a duration must be a number above zero" in err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--max-delay", "2s", "a delay must be at most 1s"),
        ("--max-batch", "100000000", "must be at most 65536"),
        ("--device", "gpu", "device must be"),
    ],
)
def test_options_beyond_their_range_are_told(
    plan: Path, option: str, value: str, said: str
) -> None:
    onnx_file = plan.with_suffix(".onnx")
    code, _, err = run_command("stream-consumer", "--engine", onnx_file, option, value)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_fallback_to_another_encoder_is_refused(plan: Path, tmp_path: Path) -> None:
    facts, engine = read_plan(plan)
    write_plan(tmp_path / "tiny.plan", replace(facts, fingerprint="0" * 64), engine)
    words = ("stream-consumer", "--engine", tmp_path / "tiny.plan", "--fallback", "--http", "off")
    code, _, err = run_command(*words)
    assert code == 2
    assert f"copy the ONNX file it came from to {tmp_path / 'tiny.onnx'}" in err
    (tmp_path / "tiny.onnx").write_bytes(plan.with_suffix(".onnx").read_bytes())
    code, _, err = run_command(*words)
    assert code == 2
    assert "must be the encoder that the plan was made from, 000" in err


def test_fallback_covers_the_tests_too(plan: Path, launch: Launch) -> None:
    port = free_port()
    consumer = launch(
        *("stream-consumer", "--engine", plan, "--fallback", "--device", "cuda", "--http", port),
        *("--endpoint", "tcp://127.0.0.1:*"),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", consumer)
    consumer.send_signal(signal.SIGTERM)
    code, _, err = finish(consumer)
    assert code == 0, err
    assert "windows are tested on the CPU: device must be cpu" in err
