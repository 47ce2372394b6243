"""A real Prometheus and a real Alertmanager on a live consumer: every query, rule and alert."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.grafana import render
from deploy.grafana.generate import DASHBOARDS, FOLDER
from deploy.grafana.prometheus_api import Prometheus, Series, fill_variables
from engines.samples import sample_path
from tests.support_commands import (
    TIMEOUT_S,
    Launch,
    calibrate,
    fetch,
    free_port,
    launcher,
    tiny_encoder,
    wait_until,
)
from tests.support_prometheus import (
    MISSING,
    Webhook,
    metric_names,
    receive_webhooks,
    selectors,
    start_alertmanager,
    start_prometheus,
    start_prometheus_on,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]

STREAM = f"{sample_path('sm_cocktail')}@100000:140000"
#: Prometheus makes these itself.
_OWN_NAMES = {"up"}


@dataclass(frozen=True)
class Live:
    """Everything that runs.

    Attributes:
        port: the consumer's HTTP port.
        prometheus: scrapes it each second.
        webhook: what Alertmanager delivered.
    """

    port: int
    prometheus: Prometheus
    webhook: Webhook

    @property
    def metrics(self) -> str:
        status, body = fetch(self.port, "/metrics")
        assert status == 200
        return body

    @property
    def names(self) -> set[str]:
        """Return the names of the consumer's series."""
        return {
            sample.name
            for family in text_string_to_metric_families(self.metrics)
            for sample in family.samples
        }

    def ask(self, expr: str) -> list[Series]:
        """Return the series of an expression that have a value."""
        filled = fill_variables(expr, rate_interval_s=10)
        return [series for series in self.prometheus.query(filled) if series.points]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Stream until windows were tested, one alarmed, and its alert arrived."""
    folder = tmp_path_factory.mktemp("prometheus")
    engine = tiny_encoder(folder / "tiny.onnx")
    code, _, err = calibrate(engine)
    assert code == 0, err
    with launcher() as launch, receive_webhooks() as webhook:
        port = free_port()
        alertmanager = start_alertmanager(launch, folder, webhook)
        prometheus = start_prometheus(launch, folder, port, alertmanager)
        consumer = start_stream(launch, folder, engine, port)
        running = Live(port, prometheus, webhook)
        for condition, what in (
            (lambda: bool(webhook.named("NplmStreamAlarm")), "the alarm's alert was delivered"),
            (lambda: bool(running.ask("instance:nplm_stream_testing:ratio_rate5m")), "rules ran"),
        ):
            wait_until(condition, what, consumer)
        time.sleep(3.0)  # rates need two scrapes after the first value
        yield running


def start_stream(launch: Launch, folder: Path, engine: Path, port: int) -> "subprocess.Popen[str]":
    """Start a consumer and a producer that feeds it on and on, with signal after a while."""
    endpoint = f"ipc://{folder}/events.sock"
    consumer = launch(
        *("stream-consumer", "--engine", engine, "--endpoint", endpoint, "--http", port),
        *("--alarm-on", "gamma", "--far", "1/hour", "--relabellings", 19),
        *("--results", folder / "r.jsonl", "--alarms", folder / "alarms"),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "the consumer is ready", consumer)
    launch(
        *("stream-producer", STREAM, "--endpoint", endpoint, "--rate", 1000, "--loop"),
        *("--inject", sample_path("LQbtau"), "--fraction", 0.4, "--after", 5000),
    )
    return consumer


def panels() -> list[Any]:
    """Return the targets of each panel in the committed files, and whether it needs a GPU."""
    found = []
    for board in DASHBOARDS:
        needs_gpu = {panel.title: panel.needs_gpu for panel in board.panels}
        drawn = json.loads((FOLDER / f"{board.uid}.json").read_text())["panels"]
        for panel in drawn:
            if panel["type"] != "row":
                title, targets = panel["title"], panel["targets"]
                mark = f"{board.uid}: {title}"
                found.append(pytest.param(targets, needs_gpu[title], id=mark))
    return found


@pytest.mark.parametrize(("targets", "needs_gpu"), panels())
def test_panel_shows_data(live: Live, targets: list[dict[str, Any]], needs_gpu: bool) -> None:
    for target in targets:
        expr = target["expr"]
        found = live.ask(expr)
        if needs_gpu and not metric_names(expr) & live.names:
            assert found == []  # this consumer has no GPU
            continue
        assert found, expr
        for series in found:
            assert "{{" not in series.named(target.get("legendFormat", "")), expr


def rules(live: Live) -> list[dict[str, Any]]:
    groups = live.prometheus.get("rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_are_evaluated(live: Live) -> None:
    found = rules(live)
    assert len(found) > 40
    assert {rule["health"] for rule in found} == {"ok"}
    for rule in found:
        if rule["type"] == "recording":
            assert live.ask(rule["name"]), rule["name"]
        for selector in selectors(rule["query"]):
            assert live.prometheus.query(selector), f"{selector} of {rule['name']}"


def test_every_metric_that_is_asked_for_exists(live: Live) -> None:
    found = rules(live)
    recorded = {rule["name"] for rule in found if rule["type"] == "recording"}
    known = live.names | recorded | _OWN_NAMES
    for rule in found:
        assert metric_names(rule["query"]) <= known, rule["name"]
    for board in DASHBOARDS:
        for panel in board.panels:
            asked = {name for query in panel.queries for name in metric_names(query.expr)}
            assert panel.needs_gpu or asked <= known, panel.title


def test_dashboard_variables_have_values(live: Live) -> None:
    for board in DASHBOARDS:
        drawn = json.loads((FOLDER / f"{board.uid}.json").read_text())
        for variable in drawn["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
                series, _, label = query.rpartition(", ")
                values = {found.labels[label] for found in live.ask(series)}
                wanted = {"instance": f"127.0.0.1:{live.port}", "scale": "1"}
                assert values == {wanted[label]}
        (annotation,) = drawn["annotations"]["list"]
        live.ask(annotation["expr"])


def test_numbers_are_those_of_the_consumer(live: Live) -> None:
    (alarms,) = live.ask("instance:nplm_stream_alarms:sum")
    assert alarms.points[0][1] >= 1
    (events,) = live.ask("nplm_stream_events_total")
    assert 0 < events.points[0][1] <= metric(live, "nplm_stream_events_total")
    (rate,) = live.ask("instance:nplm_stream_events:rate1m")
    (by_source,) = live.ask("sum(instance_source:nplm_stream_events:rate1m)")
    assert rate.points[0][1] == pytest.approx(by_source.points[0][1], rel=0.2)
    (age,) = live.ask("instance:nplm_stream_reference_age:seconds")
    assert 0 < age.points[0][1] < 10 * TIMEOUT_S
    (promised,) = live.ask("instance:nplm_stream_expected_false_alarms:sum")
    assert 0 < promised.points[0][1] < 1 / 3600 * 10 * TIMEOUT_S


def metric(live: Live, name: str) -> float:
    (line,) = [line for line in live.metrics.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def test_alertmanager_delivers_the_alarm(live: Live) -> None:
    alert = live.webhook.named("NplmStreamAlarm")[0]
    assert (alert["status"], alert["path"], alert["receiver"]) == ("firing", "/physics", "physics")
    instance = f"127.0.0.1:{live.port}"
    assert alert["labels"] == {
        "alertname": "NplmStreamAlarm",
        "instance": instance,
        "job": "nplm-stream",
        "kind": "physics",
        "scale": "1",
        "severity": "critical",
    }
    notes = alert["annotations"]
    assert instance in notes["summary"]
    assert "time scale 1" in notes["summary"]
    z = float(notes["description"].rpartition("Z of the last such window: ")[2].rstrip("."))
    assert z > 3
    assert "inspect-alarm" in notes["runbook"]


def test_a_stream_that_flows_has_no_alert_of_operations(live: Live) -> None:
    firing = {
        series.labels["alertname"]
        for series in live.prometheus.query('ALERTS{alertstate="firing",kind="operations"}')
    }
    assert not firing & {
        "NplmStreamDown",
        "NplmStreamNotScraped",
        "NplmStreamNoEvents",
        "NplmStreamMessagesMissing",
        "NplmStreamMessagesRejected",
        "NplmStreamReferenceOld",
        "NplmStreamTestsFailed",
        "NplmStreamAlarmRecordsFailed",
        "NplmStreamNotificationsFailed",
    }


def test_promtool_finds_nothing_to_say(live: Live) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=live.metrics,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dashboards_are_drawn_without_grafana(live: Live, tmp_path: Path) -> None:
    url = live.prometheus.url
    assert render.main(["--prometheus", url, "--last", "30", "-o", str(tmp_path)]) == 0
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert pictures == ["dashboard-operations.png", "dashboard-physics.png"]
    for name in pictures:
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float]]:
    """Yield an hour of scrapes each 5 s, and the time of the only window over the threshold."""
    start_s = int(time.time()) // 3600 * 3600 - 7200
    alarm_s = start_s + 1802.5
    gauges = ("window_z_score", "window_inverse_far_seconds", "window_t")
    values = [(f"alarming_{name}", 5.5) for name in gauges]
    values.append(("last_alarming_window_timestamp_seconds", alarm_s))
    lines = []
    for name, value in values:
        lines.append(f"# TYPE nplm_stream_{name} gauge")
        series = f'nplm_stream_{name}{{job="nplm-stream",instance="a",scale="1"}}'
        lines += [
            f"{series} {value if at_s > alarm_s else 0.0} {at_s}"
            for at_s in range(start_s, start_s + 3600, 5)
        ]
    with launcher() as launch:
        folder = tmp_path_factory.mktemp("past")
        yield start_prometheus_on(launch, folder, "\n".join([*lines, "# EOF", ""])), alarm_s


@pytest.mark.parametrize("step_s", [5, 15, 30, 60, 300])
def test_a_window_over_the_threshold_is_seen_at_any_step(
    past: tuple[Prometheus, float], step_s: int
) -> None:
    prometheus, alarm_s = past
    exprs = [
        query.expr
        for board in DASHBOARDS
        for panel in board.panels
        for query in panel.queries
        if query.style == "dots"
    ]
    assert len(exprs) == 3
    for expr in exprs:
        filled = fill_variables(expr, rate_interval_s=20, step_s=step_s)
        for shift_s in range(0, step_s, max(step_s // 12, 1)):
            start_s = alarm_s - 1500 + shift_s
            (found,) = prometheus.query_range(filled, start_s, start_s + 3000, step_s)
            shown_s = [at_s - alarm_s for at_s, _ in found.points]
            assert 1 <= len(shown_s) <= 2 + 12 // step_s
            assert 0 < shown_s[0] <= shown_s[-1] < step_s + 12
            assert {value for _, value in found.points} == {5.5}
