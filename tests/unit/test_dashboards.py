"""Dashboards and rules as files: what is committed is what is generated, and complete."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from deploy.grafana import render
from deploy.grafana.build import grafana_json
from deploy.grafana.draw import Answer, draw_panel
from deploy.grafana.generate import DASHBOARDS, FOLDER, main
from deploy.grafana.physics import PHYSICS
from deploy.grafana.prometheus_api import Series
from deploy.grafana.spec import Dashboard, Panel
from tests.support_commands import free_port
from tests.support_prometheus import DEPLOY, MISSING, metric_names

RULES = [DEPLOY / "prometheus" / "rules" / name for name in ("recording.yml", "alerts.yml")]
RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
PANELS = [(board, panel) for board in DASHBOARDS for panel in board.panels]
needs_programs = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")


def committed(board: Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{board.uid}.json").read_text())
    return found


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_committed_json_is_what_the_generator_makes(board: Dashboard) -> None:
    text = (FOLDER / f"{board.uid}.json").read_text()
    assert text == grafana_json(board), "run make dashboards and commit what it writes"


def test_command_writes_every_dashboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in FOLDER.iterdir()
    )
    assert main(["-o", str(tmp_path / "absent")]) == 2
    assert "name another folder with -o" in capsys.readouterr().err


def test_picture_without_prometheus_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert render.main(["--prometheus", url, "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"render: Prometheus does not answer at {url}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_panels_are_placed_side_by_side(board: Dashboard) -> None:
    panels = committed(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda one: getattr(one, "title", ""))
def test_panel_explains_itself(board: Dashboard, panel: Panel) -> None:
    (drawn,) = [one for one in committed(board)["panels"] if one["title"] == panel.title]
    assert len(drawn["description"]) > 20
    assert drawn["fieldConfig"]["defaults"]["unit"]
    assert drawn["datasource"]["uid"] == "${datasource}"
    for target in drawn["targets"]:
        assert drawn["type"] == "table" or target["legendFormat"], panel.title
        assert metric_names(target["expr"]) or "ALERTS" in target["expr"]
        assert "$instance" in target["expr"] or not re.search("nplm_stream_|up", target["expr"])


def test_only_panels_of_gpus_may_be_empty() -> None:
    for _, panel in PANELS:
        asks_for_gpu = [("nplm_stream_gpu" in query.expr) for query in panel.queries]
        assert asks_for_gpu == [panel.needs_gpu] * len(panel.queries), panel.title


def test_axes_of_p_values_end_at_1() -> None:
    (panel,) = [panel for _, panel in PANELS if panel.title == "p-values of the last window"]
    points = [(0.0, 1.0), (5.0, 1e-18)]
    answers = [Answer(query, [Series({"scale": "1"}, points)]) for query in panel.queries]
    axes = Figure().subplots()
    draw_panel(axes, panel, answers, 5.0, [])
    low, high = axes.get_ylim()
    assert low < 1e-18
    assert high == 1
    (drawn,) = [one for one in committed(PHYSICS)["panels"] if one["title"] == panel.title]
    assert drawn["fieldConfig"]["defaults"]["max"] == 1


def test_dashboards_are_provisioned() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = (provisioning / "datasources" / "prometheus.yml").read_text()
    assert "http://127.0.0.1:9090" in source
    scrape = re.search(
        r"scrape_interval: (\w+)", (DEPLOY / "prometheus/prometheus.yml").read_text()
    )
    assert scrape is not None
    assert f"timeInterval: {scrape[1]}" in source
    assert "type: file" in (provisioning / "dashboards" / "nplm-stream.yml").read_text()


def alerts() -> dict[str, str]:
    """Return the text of each alert rule by its name."""
    _, *rules = RULES[1].read_text().split("- alert: ")
    return {rule.split()[0]: rule for rule in rules}


@pytest.mark.parametrize("name", alerts())
def test_alert_says_what_to_do(name: str) -> None:
    rule = alerts()[name]
    for key in ("summary:", "description:", "runbook:", "severity: ", "kind: "):
        assert rule.count(key) == 1, key


def run(*command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_programs
def test_configuration_is_valid() -> None:
    run("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    run("promtool", "check", "rules", *RULES)
    run("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


@needs_programs
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules(path: Path) -> None:
    run("promtool", "test", "rules", path)


@needs_programs
@pytest.mark.parametrize(
    ("changed", "found"),
    [("vector(0) > 1", r"exp: ?\S(?!il)|exp:\["), ("vector(1)", r"exp: nil")],
    ids=["never fires", "always fires"],
)
def test_every_alert_is_tested_to_fire_and_not_to(tmp_path: Path, changed: str, found: str) -> None:
    """Change all alerts: for each, some expectation must fail."""
    for folder in ("rules", "tests"):
        shutil.copytree(DEPLOY / "prometheus" / folder, tmp_path / folder)
    rules = tmp_path / "rules" / "alerts.yml"
    text = re.sub(r"( +expr: )(?:>\n(?: {10}.*\n)+|.*\n)", rf"\1{changed}\n", RULES[1].read_text())
    text = re.sub(r" +annotations:\n(?: {10}.*\n)+", "", text)  # templates take their time
    rules.write_text(re.sub(r" +for: .*\n", "", text))
    paths = [str(path) for path in (tmp_path / "tests").iterdir()]
    done = subprocess.run(
        ["promtool", "test", "rules", *paths],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    failures = (done.stdout + done.stderr).split("\n\n")
    missed = [
        name
        for name in alerts()
        if not any(re.search(rf"\b{name}\b", one) and re.search(found, one) for one in failures)
    ]
    assert not missed
