"""The page in a real browser: no console message, nothing requested, no wider than the screen, readable in both schemes.

Chromium is driven over its remote debugging pipe (NUL-separated JSON on file descriptors 3 and 4), which needs no
package. Without a `chromium` on the path these tests are skipped.
"""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium runs this")

MOVE_PIPES = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"


class Browser:
    """One tab of a headless Chromium."""

    def __init__(self, profile: Path):
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     OFFLINE, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", MOVE_PIPES, str(read_commands), str(write_answers), str(CHROMIUM), *arguments],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, page: Path, width: int, scheme: str) -> None:
        """Load a page in a window of that width, with light or dark preferred."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._session = None
        self.send("Browser.close")
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 20)
            assert data, "chromium went away"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1200])
def test_the_page_fits_and_is_silent(browser: Browser, full: Path, width: int, scheme: str) -> None:
    browser.open(full / "report.html", width, scheme)
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.title") == "small · codesieve"
    messages = [event for event in browser.events if event.get("method") in {"Log.entryAdded", "Runtime.consoleAPICalled",
                                                                            "Runtime.exceptionThrown"}]  # fmt: skip
    assert messages == []
    requested = [
        e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"
    ]
    assert requested == [(full / "report.html").as_uri()]


@pytest.mark.parametrize("width", [360, 1200])
def test_charts_are_drawn_once_and_their_text_stays_inside(browser: Browser, full: Path, width: int) -> None:
    browser.open(full / "report.html", width, "light")
    shown = browser.value(
        "[...document.querySelectorAll('.chart svg')].filter(svg => svg.getBoundingClientRect().width > 0).length"
    )
    assert shown == browser.value("document.querySelectorAll('figure.chart').length") > 4
    outside = browser.value(
        """[...document.querySelectorAll('.chart svg text')].filter(text => {
            const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect();
            return box.width > 0 && (box.left < frame.left - 2 || box.right > frame.right + 2
                || box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
        }).map(text => text.textContent)"""
    )
    assert outside == []
    size = browser.value(
        """Math.min(...[...document.querySelectorAll('.chart svg text')].map(text =>
            text.getBoundingClientRect().height).filter(height => height > 0))"""
    )
    assert size >= 10, "a label is too small to read"


def test_light_is_light_and_dark_is_dark(browser: Browser, full: Path) -> None:
    browser.open(full / "report.html", 1200, "light")
    light = mean_brightness(browser.screenshot())
    browser.open(full / "report.html", 1200, "dark")
    dark = mean_brightness(browser.screenshot())
    assert light > 220
    assert dark < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(browser: Browser, full: Path, scheme: str) -> None:
    browser.open(full / "report.html", 1200, scheme)
    colours = browser.value(
        """(() => { const style = getComputedStyle(document.documentElement);
            return Object.fromEntries(['paper', 'raised', 'ink', 'muted', 'kept', 'against', 'series-3', 'series-4',
                'series-5'].map(name => [name, style.getPropertyValue('--' + name).trim()])); })()"""
    )
    for name, colour in colours.items():
        if name not in {"paper", "raised"}:
            worst = min(contrast(colour, colours["paper"]), contrast(colour, colours["raised"]))
            assert worst >= 4.5, f"{name} {colour}: {worst:.2f}"


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, success criterion 1.4.3."""
    low, high = sorted(luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def mean_brightness(png: bytes) -> float:
    return 255 * float(imread(io.BytesIO(png), format="png")[..., :3].mean())
