"""What deploy/ says agrees: with the commands' options, with Prometheus, with itself."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines import build_engine
from stream import consumer, make_keys, producer
from stream.assembly.roles import check_roles
from tests.support_deploy import DEPLOY, OVERLAYS, ROOT, by_kind, compose

PARSERS = {
    "stream-consumer": consumer._parser,
    "stream-producer": producer._parser,
    "build-engine": build_engine._parser,
    "make-keys": make_keys._parser,
}
README = (DEPLOY / "README.md").read_text()
TOML = sorted(DEPLOY.glob("systemd/*.toml")) + sorted(DEPLOY.glob("kubernetes/**/*.toml"))
CONTAINERFILES = sorted((DEPLOY / "container").glob("Containerfile.*"))
UNITS = sorted((DEPLOY / "systemd").rglob("*.service")) + sorted(
    (DEPLOY / "systemd").rglob("*.conf")
)
EVENTS, EMBEDDINGS, HTTP = 5555, 5557, 9108


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Return the pod templates by workload."""
    workloads = by_kind(overlay, "Deployment") | by_kind(overlay, "StatefulSet")
    return {name: one["spec"]["template"]["spec"] for name, one in workloads.items()}


def containers(overlay: str) -> list[dict[str, Any]]:
    return [
        one
        for pod in pods(overlay).values()
        for one in pod["containers"] + pod.get("initContainers", [])
    ]


@pytest.mark.parametrize("path", TOML, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_the_consumer_takes_each_file_of_options(path: Path) -> None:
    options = consumer._parser().parse(["--config", str(path)])
    check_roles(options)
    assert options.reliable
    assert len(tomllib.loads(path.read_text())) > 5


def test_the_commands_take_what_compose_and_manifests_give_them() -> None:
    commands = [one["command"] for one in compose()["services"].values() if "command" in one]
    for overlay in OVERLAYS:
        commands += [
            # Inside the pod it is another path than here.
            [word for word in one["command"] if not word.startswith("--config=")]
            for one in containers(overlay)
        ]
    ours = [command for command in commands if command[0] in PARSERS]
    assert len(ours) == 7
    for name, *arguments in ours:
        if arguments:
            PARSERS[name]().parse(arguments)


def test_each_option_that_is_written_anywhere_exists() -> None:
    known = {
        option
        for parser in PARSERS.values()
        for action in parser()._actions
        for option in action.option_strings
    }
    text = "".join(path.read_text() for path in UNITS)
    written = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert {"--config", "--curve-key", "--curve-clients", "--curve-server"} <= written
    assert {"--http-cert", "--http-key", "--http-password"} <= written
    assert written <= known


def test_the_units_read_files_of_options_that_are_here() -> None:
    for unit in (DEPLOY / "systemd").glob("*.service"):
        (read,) = re.findall(r"--config /etc/nplm-stream/(\S+)", unit.read_text())
        assert (DEPLOY / "systemd" / read.replace("-%i", "")).is_file(), unit.name


@pytest.mark.usefixtures("keep_logging")
@pytest.mark.parametrize(("section", "n_files"), [("systemd", 3), ("Kubernetes", 5)])
def test_recipes_name_files_that_their_make_keys_writes(
    section: str, n_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = README.partition(f"### {section}\n")[2].partition("\n### ")[0]
    (words,) = re.findall(r"^make-keys (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    assert make_keys.main(words.split()) == 0
    named = re.findall(r"\bkeys/\S+", text)
    assert len(named) == n_files
    assert [name for name in named if not list(tmp_path.glob(name))] == []


def test_credentials_of_the_units_are_files_that_the_readme_puts_there() -> None:
    text = README.partition("### systemd\n")[2].partition("\n### ")[0]
    for path in (DEPLOY / "systemd").glob("*.conf"):
        for name, place in re.findall(
            r"LoadCredential=(.*):/etc/nplm-stream/(.*)", path.read_text()
        ):
            for unit in ("consumer", "test", "embed") if "%p" in place else ("",):
                assert place.replace("%p", f"nplm-stream-{unit}") in text, place
            assert f"%d/{name}" in path.read_text()


def test_units_read_lists_of_clients_that_the_readme_puts_there() -> None:
    text = README.partition("### systemd\n")[2].partition("\n### ")[0]
    for name in ("network.conf", "network-embed.conf"):
        conf = (DEPLOY / "systemd" / name).read_text()
        assert "--curve-clients /etc/nplm-stream/%p.clients" in conf
    for unit in ("consumer", "test", "embed"):
        assert f"nplm-stream-{unit}.clients" in text


def test_units_may_bind_the_ports_of_their_options() -> None:
    sockets = re.findall(
        r"SocketBindAllow=tcp:([\d-]+)",
        (DEPLOY / "systemd/nplm-stream-.service.d/hardening.conf").read_text(),
    )
    spans = [tuple(map(int, (span.split("-") * 2)[:2])) for span in sockets]
    for path in (DEPLOY / "systemd").glob("*.toml"):
        options = tomllib.loads(path.read_text())
        for bound in (options["endpoint"], options["http"]):
            port = int(bound.rpartition(":")[2])
            assert any(low <= port <= high for low, high in spans), bound
    text = " ".join(README.split())
    assert spans == [(5555, 5570), (9108, 9123)]
    assert "`endpoint` 5555, 5558 and on to 5570, `http` 9109 and on to 9123" in text


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.suffix)
def test_containerfiles_copy_what_is_here_and_run_as_nobody_in_particular(path: Path) -> None:
    text = path.read_text()
    sources = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert "engines" in sources
    assert [word for word in sources if not (ROOT / word).exists()] == []
    assert {"USER 10001:10001", "STOPSIGNAL SIGTERM"} <= set(text.splitlines())
    exposed = re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)
    assert exposed is not None
    assert exposed[1].split() == [str(port) for port in (EVENTS, EMBEDDINGS, HTTP)]
    assert f"127.0.0.1:{HTTP}/healthz" in text
    assert re.findall(r"^FROM \S+:latest|^FROM [^:\s]+( |$)", text, re.MULTILINE) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_bind_the_ports_that_they_name(overlay: str) -> None:
    wanted = {"embedder": ("events", EVENTS), "tester": ("embeddings", EMBEDDINGS)}
    maps = by_kind(overlay, "ConfigMap")
    services = by_kind(overlay, "Service")
    for workload, (name, port) in wanted.items():
        pod = pods(overlay)[workload]
        (container,) = pod["containers"]
        assert {one["name"]: one["containerPort"] for one in container["ports"]} == {
            name: port,
            "http": HTTP,
        }
        assert services[workload]["spec"]["ports"][0]["port"] == port
        (mounted,) = [one["configMap"] for one in pod["volumes"] if one["name"] == "options"]
        (text,) = maps[mounted["name"]]["data"].values()
        options = tomllib.loads(text)
        assert options["endpoint"] == f"tcp://0.0.0.0:{port}"
        assert options["http"] == f"0.0.0.0:{HTTP}"
        assert container["command"][1] == f"--config=/etc/nplm-stream/{options['role']}.toml"
    assert options["role"] == "test"
    (text,) = next(one for name, one in maps.items() if name.startswith("embed-"))["data"].values()
    assert tomllib.loads(text)["forward"] == f"tcp://tester:{EMBEDDINGS}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_files_of_the_options_are_mounted_or_in_the_image(overlay: str) -> None:
    maps = by_kind(overlay, "ConfigMap")
    for pod in pods(overlay).values():
        mounts = [one["mountPath"] for one in pod["containers"][0]["volumeMounts"]]
        (mounted,) = [one["configMap"] for one in pod["volumes"] if one["name"] == "options"]
        (text,) = maps[mounted["name"]]["data"].values()
        for value in tomllib.loads(text).values():
            if not str(value).startswith("/"):
                continue
            in_image = str(value).replace("/usr/share/nplm-stream", str(ROOT / "engines"))
            assert Path(in_image).is_file() or any(value.startswith(path) for path in mounts), value


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_container_is_locked_down(overlay: str) -> None:
    for pod in pods(overlay).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert "memory" in container["resources"]["limits"]


def test_secrets_are_named_and_never_here() -> None:
    for overlay in OVERLAYS:
        assert by_kind(overlay, "Secret") == {}
        held = {
            name: [one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one]
            for name, pod in pods(overlay).items()
        }
        assert held == {"tester": ["tester-curve-key"], "embedder": ["embedder-curve-key"]}


def test_only_embedders_of_the_gpu_overlay_have_a_gpu() -> None:
    def with_gpu(overlay: str) -> set[str]:
        return {
            one["name"]
            for one in containers(overlay)
            if "nvidia.com/gpu" in one["resources"]["limits"]
        }

    assert with_gpu("cpu") == set()
    assert with_gpu("gpu") == {"embedder", "plan"}
    hidden = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    assert [one["name"] for one in containers("gpu") if hidden in one.get("env", [])] == ["tester"]
    base, gpu = (
        tomllib.loads((DEPLOY / "kubernetes" / path / "embed.toml").read_text())
        for path in ("base", "overlays/gpu")
    )
    assert {name for name in base | gpu if base.get(name) != gpu.get(name)} == {"engine"}


def test_secrets_stay_out_of_commits_and_images() -> None:
    git, docker = ((ROOT / name).read_text().split() for name in (".gitignore", ".dockerignore"))
    assert {"keys/", "*.key_secret", "*.password"} <= set(git)
    assert {".git", "keys", "**/*.key_secret", "**/*.password"} <= set(docker)
    copied = [
        word
        for path in CONTAINERFILES
        for line in re.findall(r"^COPY (?!--from)(.*)$", path.read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert {word.split("/")[0] for word in copied}.isdisjoint(docker)


def test_the_pod_monitor_scrapes_what_prometheus_would() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    monitor = by_kind("cpu", "PodMonitor")["nplm-stream"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["path"] == job.get("metrics_path", "/metrics")
    assert endpoint["interval"] == scrape["global"]["scrape_interval"]
    assert job["static_configs"][0]["targets"] == [f"127.0.0.1:{HTTP}"]
    for name, workload in (by_kind("cpu", "Deployment") | by_kind("cpu", "StatefulSet")).items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert labels[monitor["jobLabel"]] == job["job_name"], name
        assert monitor["selector"]["matchLabels"].items() <= labels.items()


def test_selectors_find_the_pods_that_they_mean() -> None:
    for overlay in OVERLAYS:
        workloads = by_kind(overlay, "Deployment") | by_kind(overlay, "StatefulSet")
        labels = {
            name: one["spec"]["template"]["metadata"]["labels"] for name, one in workloads.items()
        }
        for name, service in by_kind(overlay, "Service").items():
            wanted = service["spec"]["selector"].items()
            assert [one for one, has in labels.items() if wanted <= has.items()] == [name]
        policies = by_kind(overlay, "NetworkPolicy")
        assert policies["closed"]["spec"]["podSelector"] == {}
        producers = policies["embedder"]["spec"]["ingress"][0]["from"][0]["podSelector"]
        assert producers["matchLabels"] == {"nplm-stream/producer": "true"}


def test_compose_differs_from_prometheus_and_grafana_in_addresses_alone() -> None:
    pairs = {
        "prometheus.yml": ("prometheus/prometheus.yml", ("consumer:9108", "alertmanager:9093")),
        "datasource.yml": (
            "grafana/provisioning/datasources/prometheus.yml",
            ("prometheus:9090",),
        ),
    }
    services = compose()["services"]
    for name, (original, addresses) in pairs.items():
        text = (DEPLOY / "compose" / name).read_text()
        for address in addresses:
            service, _, port = address.partition(":")
            assert f"127.0.0.1:{port}:{port}" in services[service]["ports"]
            text = text.replace(address, f"127.0.0.1:{port}")
        assert yaml.safe_load(text) == yaml.safe_load((DEPLOY / original).read_text())


def test_compose_mounts_what_is_here_and_publishes_to_this_machine_alone() -> None:
    written = compose()
    for name, service in written["services"].items():
        assert service["read_only"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).exists(), source
            else:
                assert source in written["volumes"], source
        for argument in service.get("command", []):
            found = re.search(r"/usr/share/nplm-stream/(\S+)", argument)
            assert found is None or (ROOT / "engines" / found[1]).is_file(), argument
    built = written["services"]["consumer"]["build"]
    assert (DEPLOY / "compose" / built["context"] / built["dockerfile"]).is_file()
