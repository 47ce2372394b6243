"""The live page in a real Chromium: what a person sees."""

import copy
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, expect, sync_playwright
from playwright.sync_api import Page as Tab
from prometheus_client import CollectorRegistry

from engines.samples import sample_path
from stream.page import Page
from tests.support_commands import Launch, calibrate, fetch, free_port, tiny_encoder, wait_until

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_WAIT_MS = 20_000
_START_NS = 1_795_000_000 * 10**9
_HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>document.title='owned'</script>",
    "'\"><svg onload=alert(2)>",
    "x" * 300,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if _CHROMIUM is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@dataclass
class Watched:
    """A tab, and all that must not happen in it."""

    tab: Tab
    home: str
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def see(self, element: str) -> Locator:
        return self.tab.locator(f"#{element}")

    def text(self, element: str) -> str:
        return self.see(element).inner_text()

    def check_clean(self) -> None:
        """Fail on a script's error, a breach of the policy, a dialog or a request elsewhere."""
        assert self.faults == []
        elsewhere = [url for url in self.requests if not url.startswith((self.home, "data:"))]
        assert elsewhere == []


class Served:
    """A page whose snapshot the test sets."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        page = Page(CollectorRegistry())
        page.snapshot = lambda: copy.deepcopy(self.data)
        self.server = page.serve("127.0.0.1", 0)
        self.home = f"http://127.0.0.1:{self.server.server_port}/"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


Serve = Callable[[dict[str, Any]], Served]
Open = Callable[..., Watched]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Served] = []

    def start(data: dict[str, Any]) -> Served:
        started.append(Served(data))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Open]:
    """Return what opens a URL as a person would: `open_tab(url, width=1000, dark=False)`."""
    contexts: list[BrowserContext] = []

    def start(home: str, *, width: int = 1000, dark: bool = False, touch: bool = False) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
        )
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(_WAIT_MS)
        watched = Watched(tab, home)
        tab.on("request", lambda request: watched.requests.append(request.url))
        tab.on("pageerror", lambda error: watched.faults.append(str(error)))
        tab.on("dialog", lambda dialog: watched.faults.append(f"dialog {dialog.message}"))
        tab.on(
            "console",
            lambda said: watched.faults.append(said.text) if said.type == "error" else None,
        )
        tab.goto(home)
        return watched

    yield start
    for context in contexts:
        context.close()


def window(index: int, z: float, opened_by: int | None = None) -> dict[str, Any]:
    """Return a window as the consumer shows it, one each 4 s; `opened_by` makes it alarm."""
    return {
        "run": "20261118T000000Z-1",
        "window": index,
        "scale": 1,
        "n_events": 5000 + 13 * (index % 7),
        "t_start_ns": _START_NS + index * 4 * 10**9,
        "t_end_ns": _START_NS + (index + 1) * 4 * 10**9,
        "n_missing": 0,
        "complete": True,
        "converged": True,
        "t": 90.0 + 20 * z,
        "p_alarm": 1e-3,
        "z_alarm": z,
        "threshold_z": 4.9 + 0.02 * (index % 3),
        "alarm": opened_by is not None,
        "onset": opened_by == index,
        "alarm_window": opened_by,
        "inverse_far_s": 7200.0,
        "trials": index + 1,
        "z_global": 0.4,
        "p_relabelled": None,
    }


def snapshot(*windows: dict[str, Any], **changed: object) -> dict[str, Any]:
    return {
        "events": 5000 * len(windows) + 1200,
        "events_hz": 1253.4,
        "latency_p50_s": 0.00213,
        "latency_p99_s": 0.0081,
        "fill": 0.24,
        "waiting": 0,
        "saturation": 0.031,
        "since_event_s": 0.1,
        "sources": [{"source": "detector", "events": 60_000, "events_hz": 1253.4}],
        "rejected": 0,
        "missing": 0,
        "skipped": 0,
        "alarms": sum(window["onset"] for window in windows),
        "windows": list(windows),
        "merged": [],
        "last_alarm": None,
        "calibrated_on": "1000 toys",
        "far": "1/month",
        **changed,
    }


def quiet(n: int = 12, **changed: object) -> dict[str, Any]:
    z = np.random.default_rng(5).normal(size=n).round(3).tolist()
    return snapshot(*(window(i, z[i]) for i in range(n)), **changed)


def alarm(**changed: object) -> dict[str, Any]:
    """Return a stream whose windows 9 to 11 are one alarm."""
    rng = np.random.default_rng(6)
    f = np.sort(rng.normal(-0.2, 0.7, 400))[::-1].round(3)
    top = [
        {"f": value, "met": 81.5 - i, "lead_pt": 143.2, "n_electrons": 2, "n_muons": 1, "n_jets": i}
        for i, value in enumerate(f[:10].tolist())
    ]
    x, y = rng.normal(size=(2, 400)).round(3).tolist()
    last = {
        **window(10, 7.31, opened_by=9),
        "z": 7.31,
        "plane": {"x": x, "y": y, "f": f.tolist()},
        "top": top,
    }
    known = quiet(9)["windows"]
    loud = [{**window(i, 7.31, opened_by=9), "inverse_far_s": 3e8} for i in (9, 10, 11)]
    return snapshot(*known, *loud, last_alarm=last, **changed)


def test_quiet(serve: Serve, open_tab: Open) -> None:
    seen = open_tab(serve(quiet()).home)
    expect(seen.see("state")).to_have_text("quiet")
    expect(seen.tab.get_by_role("status")).to_contain_text("window 11")
    expect(seen.tab.get_by_role("status")).to_contain_text("by chance once in 2 h")
    assert seen.text("rate") == "1,253"
    assert seen.text("p50") == "2.1 ms"
    assert seen.text("alarms2") == "budget 1/month"
    assert seen.text("p99") == "99 % below 8.1 ms"
    assert seen.text("fill") == "24 %"
    assert seen.text("run2") == "12 trials"
    assert seen.text("busy") == "3.1 %"
    assert seen.text("alarms") == "0"
    assert seen.tab.get_by_role("row", name="detector 60,000 1,253").is_visible()
    assert seen.see("plot").locator("circle.point").count() == 12
    assert seen.see("plot").locator(".onset, .same, .span").count() == 0
    assert seen.see("last").is_hidden()
    assert seen.tab.title() == "quiet · nplm-stream"
    seen.check_clean()


def test_alarm_with_hostile_names(serve: Serve, open_tab: Open) -> None:
    sources = [{"source": name, "events": 9, "events_hz": 1.0} for name in _HOSTILE]
    hostile = alarm(sources=sources, far=_HOSTILE[0], calibrated_on=_HOSTILE[1])
    seen = open_tab(serve(hostile).home)
    expect(seen.see("state")).to_have_text("ALARM in window 11, since window 9")
    expect(seen.see("detail")).to_contain_text(
        "Z 7.31, threshold 4.94 · by chance once in 9.5 years"
    )
    assert seen.tab.title() == "ALARM · nplm-stream"
    assert seen.text("alarms") == "1"
    assert seen.see("plot").locator("circle.onset").count() == 1
    assert seen.see("plot").locator("circle.same").count() == 2
    assert seen.see("plot").locator("rect.span").count() == 1
    names = seen.see("from").locator("tbody th").all_inner_texts()
    assert sorted(names) == sorted(_HOSTILE)
    assert _HOSTILE[1] in seen.text("calibration")
    assert seen.tab.locator("img, main svg svg, script:not(body > script)").count() == 0
    seen.tab.wait_for_timeout(1500)
    assert seen.tab.title() == "ALARM · nplm-stream"
    seen.check_clean()


def test_plane_and_table_of_the_last_alarm(serve: Serve, open_tab: Open) -> None:
    seen = open_tab(serve(alarm()).home)
    expect(seen.see("which")).to_contain_text(
        "Last alarm: window 10, the most extreme since window 9,"
    )
    table = seen.tab.get_by_role("table", name="Most anomalous events")
    assert table.get_by_role("columnheader").count() == 7
    assert table.locator("tbody tr").count() == 10
    first = table.locator("tbody tr").first.locator("th, td").all_inner_texts()
    assert first[2:] == ["81.5", "143.2", "2", "1", "0"]
    rings = seen.see("plane").locator(".ring")
    assert rings.count() == 10
    drawn = (
        seen.see("plane")
        .locator(".dots")
        .evaluate_all("paths => paths.map(p => p.getAttribute('d').split('M').length - 1)")
    )
    assert (len(drawn), sum(drawn)) == (9, 400)
    colours = (
        seen.see("plane")
        .locator(".dots")
        .evaluate_all("paths => paths.map(p => getComputedStyle(p).stroke)")
    )
    assert len(set(colours)) == 9
    for text in ("first principal axis", "second principal axis"):
        assert seen.see("plane").get_by_text(text).is_visible()
    table.locator("tbody tr").nth(2).hover()
    assert "on" in (rings.nth(2).get_attribute("class") or "")


def test_window_under_the_pointer(serve: Serve, open_tab: Open) -> None:
    seen = open_tab(serve(alarm()).home)
    expect(seen.see("pick")).to_contain_text("window 11")
    box = seen.see("plot").bounding_box()
    assert box is not None
    seen.tab.mouse.move(box["x"] + 38, box["y"] + 100)
    expect(seen.see("pick")).to_contain_text("window 0 ·")
    seen.see("plot").focus()
    seen.tab.keyboard.press("ArrowRight")
    expect(seen.see("pick")).to_contain_text("window 1 ·")
    seen.tab.keyboard.press("Escape")
    for _ in range(2):
        seen.tab.keyboard.press("ArrowLeft")
    expect(seen.see("pick")).to_contain_text("belongs to the alarm of window 9")
    seen.tab.wait_for_timeout(1500)  # the pick outlives the next update
    assert "window 10 ·" in seen.text("pick")
    seen.check_clean()


def test_tap_on_a_window(serve: Serve, open_tab: Open) -> None:
    seen = open_tab(serve(quiet()).home, width=360, touch=True)
    expect(seen.see("pick")).to_contain_text("window 11")
    box = seen.see("plot").bounding_box()
    assert box is not None
    seen.tab.touchscreen.tap(box["x"] + 40, box["y"] + 100)
    expect(seen.see("pick")).to_contain_text("window 0 ·")


@pytest.mark.parametrize(
    ("data", "state", "note"),
    [
        (snapshot(events=0, since_event_s=None), "waiting for events", ""),
        (snapshot(events=900), "waiting for the first window", ""),
        (quiet(since_event_s=42.0), "waiting for events", "no event for 42 s"),
        (
            quiet(waiting=7, saturation=1.8, skipped=3),
            "tests falling behind",
            "tests fall behind: 7 windows waiting, 3 skipped",
        ),
        (alarm(since_event_s=42.0), "ALARM in window 11, since window 9", "no event for 42 s"),
    ],
    ids=["no event", "no window", "events ended", "behind", "events ended in an alarm"],
)
def test_state_in_words(
    serve: Serve, open_tab: Open, data: dict[str, Any], state: str, note: str
) -> None:
    seen = open_tab(serve(data).home)
    expect(seen.see("state")).to_have_text(state)
    assert note in seen.text("notes")
    seen.check_clean()


def test_figures_that_an_older_consumer_does_not_send(serve: Serve, open_tab: Open) -> None:
    old = ("run", "window", "n_events", "t_end_ns", "z_alarm", "threshold_z", "alarm", "trials")
    windows = [{key: shown[key] for key in old} for shown in alarm()["windows"]]
    seen = open_tab(serve({"events": 60_000, "alarms": 3, "windows": windows}).home)
    expect(seen.see("state")).to_have_text("ALARM in window 11")
    assert "NaN" not in seen.tab.locator("body").inner_text()
    assert "undefined" not in seen.tab.locator("body").inner_text()
    seen.check_clean()


def test_updates_itself_and_notices_a_restart(serve: Serve, open_tab: Open) -> None:
    served = serve(quiet(3))
    seen = open_tab(served.home)
    expect(seen.see("plot").locator("circle.point")).to_have_count(3)
    served.data = quiet(5)
    expect(seen.see("plot").locator("circle.point")).to_have_count(5)
    asked = [url for url in seen.requests if "after=20261118T000000Z-1%3A2" in url]
    assert asked
    served.data = snapshot({**window(0, 0.3), "run": "20261118T000000Z-2"})
    expect(seen.see("plot").locator("circle.point")).to_have_count(1)
    seen.check_clean()


def test_consumer_that_stopped(serve: Serve, open_tab: Open) -> None:
    served = serve(quiet())
    seen = open_tab(served.home)
    expect(seen.see("state")).to_have_text("quiet")
    served.stop()
    expect(seen.see("state")).to_have_text("the consumer does not answer")
    expect(seen.see("notes")).to_contain_text("s old")
    assert seen.see("plot").locator("circle.point").count() == 12
    assert "does not answer" in seen.tab.title()


def test_hidden_page_does_not_ask(serve: Serve, open_tab: Open) -> None:
    seen = open_tab(serve(quiet()).home)
    expect(seen.see("state")).to_have_text("quiet")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    seen.tab.evaluate(hide % "true")
    seen.tab.wait_for_timeout(300)
    n_asked = len(seen.requests)
    seen.tab.wait_for_timeout(2500)
    assert len(seen.requests) == n_asked
    seen.tab.evaluate(hide % "false")
    with seen.tab.expect_request("**/results.json*"):
        seen.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.mark.parametrize("width", [320, 360, 412, 800])
def test_nothing_is_wider_than_the_screen(serve: Serve, open_tab: Open, width: int) -> None:
    sources = [{"source": name, "events": 10**12, "events_hz": 1e9} for name in _HOSTILE]
    seen = open_tab(serve(alarm(sources=sources)).home, width=width)
    expect(seen.see("which")).to_be_visible()
    wide = seen.tab.evaluate("document.documentElement.scrollWidth")
    assert wide <= seen.tab.evaluate("document.documentElement.clientWidth")
    cut = seen.tab.evaluate(
        "[...document.querySelectorAll('dd, td, th, #state')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML)"
    )
    assert cut == []


def brightness(tab: Tab, selector: str, quantity: str) -> float:
    """Return the relative luminance (WCAG 2.2) of an element's colour."""
    colour = tab.locator(selector).first.evaluate(
        f"e => getComputedStyle(e).{quantity}.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    )
    part = np.array(cast("list[float]", colour)) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_scheme_and_can_be_read(
    serve: Serve, open_tab: Open, *, dark: bool
) -> None:
    seen = open_tab(serve(alarm(saturation=1.5)).home, dark=dark)
    expect(seen.see("which")).to_be_visible()
    card = brightness(seen.tab, "dl.card", "backgroundColor")
    assert (card < 0.05) == dark
    for selector, quantity in [
        *((name, "color") for name in ("#z", "dt", "#state", "#busy", "#notes", "#top td")),
        *((name, "fill") for name in ("#plot text", "#plane text")),
    ]:
        ink = brightness(seen.tab, selector, quantity)
        contrast = (max(ink, card) + 0.05) / (min(ink, card) + 0.05)
        assert contrast >= 4.5, selector


def test_real_stream_from_quiet_to_alarm(open_tab: Open, launch: Launch, tmp_path: Path) -> None:
    """A consumer and a producer as processes; the page is opened once and never loaded again."""
    engine = tiny_encoder(tmp_path / "tiny.onnx")
    code, _, err = calibrate(engine)
    assert code == 0, err
    port, endpoint = free_port(), f"ipc://{tmp_path}/events.sock"
    consumer = launch(
        *("stream-consumer", "--engine", engine, "--endpoint", endpoint, "--http", port),
        *("--far", "1/hour", "--alarms", tmp_path / "alarms", "--relabellings", 0),
    )
    wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", consumer)
    seen = open_tab(f"http://127.0.0.1:{port}/")
    expect(seen.see("state")).to_have_text("waiting for events")
    stream = f"{sample_path('sm_cocktail')}@100000:108000"
    launch(
        *("stream-producer", stream, "--endpoint", endpoint, "--rate", 1000, "--no-end"),
        *("--inject", sample_path("LQbtau"), "--fraction", 0.4, "--after", 4000),
        *("--source", _HOSTILE[0]),
    )
    expect(seen.see("state")).to_have_text("quiet", timeout=_WAIT_MS)
    before = time.monotonic()
    expect(seen.see("state")).to_contain_text("ALARM in window", timeout=_WAIT_MS)
    assert time.monotonic() - before < _WAIT_MS / 1000
    assert seen.see("plot").locator("circle.onset").count() >= 1
    expect(seen.see("which")).to_contain_text("Last alarm: window")
    assert seen.see("plane").locator(".ring").count() == 10
    assert seen.see("top").locator("tbody tr").count() == 10
    assert seen.see("from").locator("tbody th").all_inner_texts() == [_HOSTILE[0]]
    assert [url for url in seen.requests if url == seen.home] == [seen.home]
    seen.check_clean()
