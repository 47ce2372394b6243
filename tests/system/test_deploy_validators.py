"""Each file of deploy/ through its own program's checks: systemd, hadolint, docker, kubectl."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support_deploy import DEPLOY, OVERLAYS, ROOT, by_kind, check_with, manifests, program

SYSTEMD = DEPLOY / "systemd"
UNITS = ("nplm-stream-consumer.service", "nplm-stream-test.service", "nplm-stream-embed@.service")
#: Ten times the figure of `systemd-analyze security`, which ends at 10.
EXPOSURE = 15
KUBERNETES = "1.31"
MODELS = "@kubernetes-models/prometheus-operator@6.0.0"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a copy of the units with the commands of this virtual environment."""
    shutil.copytree(SYSTEMD, tmp_path, dirs_exist_ok=True)
    for path in (*(tmp_path / name for name in UNITS), tmp_path / "private.conf"):
        text = path.read_text()
        assert "/opt/nplm-stream/bin/" in text
        path.write_text(text.replace("/opt/nplm-stream/bin", str(Path(sys.executable).parent)))
    return tmp_path


def analyze(units: Path, *arguments: object) -> None:
    check_with(
        *(shutil.which("systemd-analyze"), *arguments),
        cwd=units,
        silent=True,
        SYSTEMD_UNIT_PATH=f"{units}:",
    )


def drop_in(units: Path, unit: str, name: str) -> None:
    folder = units / f"{unit}.d"
    folder.mkdir(exist_ok=True)
    shutil.copy(units / name, folder)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit_and_finds_it_hardly_exposed(units: Path, unit: str) -> None:
    analyze(units, "verify", "--man=no", units / unit)
    analyze(units, "security", "--offline=true", f"--threshold={EXPOSURE}", units / unit)


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "names"),
    [
        ("nplm-stream-consumer.service", ["network.conf", "http.conf", "private.conf"]),
        ("nplm-stream-test.service", ["network.conf"]),
        ("nplm-stream-embed@.service", ["network-embed.conf", "gpu.conf"]),
    ],
)
def test_systemd_accepts_what_may_be_added(units: Path, unit: str, names: list[str]) -> None:
    for name in names:
        drop_in(units, unit, name)
    analyze(units, "verify", "--man=no", units / unit)


@pytest.mark.parametrize("name", ["Containerfile.cpu", "Containerfile.gpu"])
def test_hadolint_finds_nothing(name: str) -> None:
    assert check_with(program("hadolint"), DEPLOY / "container" / name) == ""


def test_docker_compose_accepts_the_services(tmp_path: Path) -> None:
    read: dict[str, Any] = json.loads(
        check_with(
            *(program("docker-compose"), "-f", DEPLOY / "compose" / "compose.yaml"),
            *("config", "--format", "json"),
            HOME=str(tmp_path),
        )
    )
    services = read["services"]
    assert set(services) == {"consumer", "producer", "prometheus", "alertmanager", "grafana"}
    assert services["consumer"]["build"]["context"] == str(ROOT)
    assert "--reliable" in services["producer"]["command"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_promtool_accepts_what_compose_gives_prometheus(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "compose" / "prometheus.yml", tmp_path)
    shutil.copytree(DEPLOY / "prometheus" / "rules", tmp_path / "rules")
    check_with(shutil.which("promtool"), "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_keep_to_kubernetes_schemas(overlay: str, tmp_path: Path) -> None:
    paths = []
    for number, one in enumerate(manifests(overlay)):
        if one["kind"] != "PodMonitor":
            paths.append(tmp_path / f"{number}.json")
            paths[-1].write_text(json.dumps(one))
    assert len(paths) == 13
    check_with(
        program("kubernetes-validate"), "--strict", "--kubernetes-version", KUBERNETES, *paths
    )


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js and npm")
def test_the_pod_monitor_keeps_to_the_operators_schema(tmp_path: Path) -> None:
    monitor = by_kind("cpu", "PodMonitor")["nplm-stream"]
    (tmp_path / "monitor.json").write_text(json.dumps(monitor))
    (tmp_path / "check.mjs").write_text(
        'import { readFileSync } from "node:fs";\n'
        f'import {{ PodMonitor }} from "{MODELS.rpartition("@")[0]}/monitoring.coreos.com/v1";\n'
        'const monitor = JSON.parse(readFileSync("monitor.json"));\n'
        "new PodMonitor(monitor).validate();\n"
        'monitor.spec.podMetricsEndpoints[0].interval = "soon";\n'
        "let refused = false;\n"
        "try { new PodMonitor(monitor).validate(); } catch { refused = true; }\n"
        'if (!refused) throw new Error("the schema takes anything");\n'
    )
    folder = str(Path(shutil.which("npm") or "").parent)
    check_with(
        *(shutil.which("npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", MODELS),
        cwd=tmp_path,
        PATH=f"{folder}:/usr/bin:/bin",
        HOME=str(tmp_path),
    )
    check_with(shutil.which("node"), "check.mjs", cwd=tmp_path)
