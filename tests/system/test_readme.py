"""What README shows works: its producers feed a consumer, its metrics exist."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.event_files import read_events
from engines.samples import sample_path
from stream.consumer import _parser as consumer_parser
from stream.endpoints import Context
from stream.exposition import registry_of
from stream.metrics import Metrics
from stream.security.consumer import ConsumerSecurity
from tests.support_commands import calibrate, finish, free_port, launcher, tiny_encoder

README = Path(__file__).parents[2] / "README.md"
MONITORING = README.parent / "docs" / "monitoring.md"
N_EVENTS = 2300


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run(program: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        program, check=False, cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_encoder(tmp_path_factory.mktemp("readme") / "d3.onnx")
    code, _, err = calibrate(path)
    assert code == 0, err
    return path


def feed(engine: Path, folder: Path, program: list[str], source: str) -> None:
    """Run a README producer as it stands, but for the port; check what the consumer made of it."""
    read_events(f"{sample_path('sm_cocktail')}@20000:{20000 + N_EVENTS}").tofile(
        folder / "events.f32"
    )
    port = free_port()
    script = folder / program[-1]
    script.write_text(source.replace("127.0.0.1:5555", f"127.0.0.1:{port}"))
    results = folder / "results.jsonl"
    with launcher() as launch:
        consumer = launch(
            *("stream-consumer", "--engine", engine, "--endpoint", f"tcp://127.0.0.1:{port}"),
            *("--results", results, "--http", "off", "--exit-on-end"),
        )
        producer = run(program, folder)
        assert producer.returncode == 0, producer.stderr
        code, out, err = finish(consumer)
    assert code == 0, err
    assert f"{N_EVENTS} events in 9 messages; 0 messages refused, 0 missing" in out
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["n_events"] for line in lines] == [500] * (N_EVENTS // 500)


def test_python_producer(engine: Path, tmp_path: Path) -> None:
    feed(engine, tmp_path, [sys.executable, "producer.py"], block("python"))


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js and npm")
def test_node_producer(engine: Path, tmp_path: Path) -> None:
    wanted = re.search(r"`npm install ([^`]+)`", README.read_text())
    assert wanted is not None
    install = ["npm", "install", "--no-audit", "--no-fund", *wanted[1].split()]
    done = run(install, tmp_path)
    assert done.returncode == 0, done.stderr
    feed(engine, tmp_path, ["node", "producer.mjs"], block("js"))


def test_each_metric_of_the_table_exists_and_none_is_missing(context: Context) -> None:
    section = MONITORING.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    shown = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)", row)}
    metrics = Metrics()
    metrics.gpu_memory = lambda: (0, 0)
    registry = registry_of(metrics)
    with ConsumerSecurity(consumer_parser().parse(["--engine", "d4.onnx"]), context) as security:
        security.register(registry)
        families = list(registry.collect())
    exposed = {
        family.name.removeprefix("nplm_stream_")
        + {"counter": "_total", "info": "_info"}.get(family.type, "")
        for family in families
        if not family.name.startswith("process_")
    }
    assert shown == exposed
