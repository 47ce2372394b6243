"""README's pictures of the live page: `python -m tests.screenshots [FOLDER]`.

A consumer with the bundled encoder reads bundled events that it was not trained on, then 3 % of
A(50) -> 4 leptons among them; Chromium looks at its page before and after.
Takes a minute and a half.
"""

import io
import re
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from engines.pretrained import pretrained_path
from engines.samples import sample_path
from tests.support_commands import fetch, free_port, launcher, wait_until

_N_QUIET, _N_LOUD, _WINDOW, _RATE = 20, 8, 5000, 3000
_WAIT_MS = 60_000


def _save(tab: Tab, path: Path) -> None:
    """Save what is seen, in few colours: a file of some tens of kB."""
    shown = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
    few = shown.quantize(240, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size / 1000:.0f} kB\n")


def _wait(tab: Tab, n_windows: int) -> None:
    trials = tab.locator("#run2")
    expect(trials).to_have_text(re.compile(r"\d+ trial"), timeout=_WAIT_MS)
    while int(trials.inner_text().split()[0]) < n_windows:
        tab.wait_for_timeout(200)


def _take(home: str, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1000, "height": 700})
        phone = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme="dark")
        for page in (tab, phone):
            page.goto(home)
        _wait(tab, _N_QUIET - 3)
        _save(tab, folder / "page-quiet.png")
        _wait(tab, _N_QUIET + _N_LOUD)
        _save(tab, folder / "page-alarm.png")
        _save(phone, folder / "page-phone.png")
        browser.close()


def main(folder: Path) -> None:
    """Run the stream and take the pictures."""
    port = free_port()
    with tempfile.TemporaryDirectory() as made, launcher() as launch:
        endpoint = f"ipc://{made}/events.sock"
        consumer = launch(
            *("stream-consumer", "--engine", pretrained_path("d4"), "--endpoint", endpoint),
            *("--http", port, "--alarms", Path(made) / "alarms"),
            *("--relabellings", 19),
        )
        wait_until(lambda: fetch(port, "/readyz")[0] == 200, "ready", consumer)
        launch(
            *("stream-producer", f"{sample_path('sm_cocktail')}@60000:235000", "--rate", _RATE),
            *("--endpoint", endpoint, "--source", "replay", "--after", _N_QUIET * _WINDOW),
            *("--inject", sample_path("A4l"), "--fraction", 0.03),
        )
        _take(f"http://127.0.0.1:{port}/", folder)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
