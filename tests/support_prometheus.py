"""A real Prometheus and a real Alertmanager with this repository's configuration."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from deploy.grafana.prometheus_api import Prometheus
from tests.support_commands import TIMEOUT_S, Launch, fetch, free_port, wait_until

__all__ = [
    "ALERTMANAGER",
    "DEPLOY",
    "MISSING",
    "Webhook",
    "metric_names",
    "receive_webhooks",
    "selectors",
    "start_alertmanager",
    "start_prometheus",
    "start_prometheus_on",
]

DEPLOY = Path(__file__).parents[1] / "deploy"
#: Debian calls it prometheus-alertmanager, everybody else alertmanager.
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
#: Programs that these tests need and this machine lacks.
MISSING = [name for name in ("prometheus", "promtool", "amtool") if shutil.which(name) is None]
if ALERTMANAGER is None:
    MISSING.append("alertmanager")

_SELECTOR = re.compile(
    r"\b(?:nplm_stream[_:][\w:]+|instance\w*:[\w:]+|process_\w+|up(?=\{))(?:\{[^}]*\})?"
)


def selectors(expr: str) -> list[str]:
    """Return the series selectors of an expression, with their matchers.

    >>> selectors('rate(nplm_stream_a_total{b="c"}[5m]) > on (instance) up{job="x"}')
    ['nplm_stream_a_total{b="c"}', 'up{job="x"}']
    """
    return _SELECTOR.findall(expr)


def metric_names(expr: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    return {selector.partition("{")[0] for selector in selectors(expr)}


class Webhook:
    """What Alertmanager delivered.

    Attributes:
        url: where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._alerts: list[dict[str, Any]] = []

    def take(self, path: str, payload: dict[str, Any]) -> None:
        with self._lock:
            self._alerts += [
                {**alert, "path": path, "receiver": payload["receiver"]}
                for alert in payload["alerts"]
            ]

    def named(self, alertname: str) -> list[dict[str, Any]]:
        with self._lock:
            return [one for one in self._alerts if one["labels"]["alertname"] == alertname]


@contextmanager
def receive_webhooks() -> Iterator[Webhook]:
    """Listen for Alertmanager on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        webhook = Webhook(f"http://127.0.0.1:{server.server_address[1]}")
        _Handler.webhook = webhook
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield webhook
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    webhook: ClassVar[Webhook]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.webhook.take(self.path, json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def start_alertmanager(launch: Launch, folder: Path, webhook: Webhook) -> int:
    """Start it with the committed configuration, but for the webhook's address; return its port."""
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    config = folder / "alertmanager.yml"
    config.write_text(_replaced(text, {"http://127.0.0.1:9095": webhook.url}))
    port = free_port()
    process = launch(
        *(ALERTMANAGER, f"--config.file={config}", f"--storage.path={folder / 'alertmanager'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="),
        "--log.level=warn",
    )
    wait_until(lambda: fetch(port, "/-/ready")[0] == 200, "Alertmanager is ready", process)
    return port


def start_prometheus(launch: Launch, folder: Path, consumer: int, alertmanager: int) -> Prometheus:
    """Start it with the committed configuration and rules, but for ports and a scrape a second."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    changes = {
        "127.0.0.1:9108": f"127.0.0.1:{consumer}",
        "127.0.0.1:9093": f"127.0.0.1:{alertmanager}",
        "interval: 5s": "interval: 1s",
    }
    shutil.copytree(DEPLOY / "prometheus" / "rules", folder / "rules")
    config = folder / "prometheus.yml"
    config.write_text(_replaced(text, changes))
    return _started(launch, config, folder / "prometheus")


def start_prometheus_on(launch: Launch, folder: Path, openmetrics: str) -> Prometheus:
    """Start one that scrapes nothing and holds the samples of a text, with their own times."""
    (folder / "samples.om").write_text(openmetrics)
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "samples.om", "blocks"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    config = folder / "empty.yml"
    config.write_text("{}")
    return _started(launch, config, folder / "blocks")


def _started(launch: Launch, config: Path, storage: Path) -> Prometheus:
    port = free_port()
    process = launch(
        *(shutil.which("prometheus"), f"--config.file={config}"),
        *(f"--storage.tsdb.path={storage}", "--log.level=warn"),
        f"--web.listen-address=127.0.0.1:{port}",
    )
    wait_until(lambda: fetch(port, "/-/ready")[0] == 200, "Prometheus is ready", process)
    return Prometheus(f"http://127.0.0.1:{port}")
