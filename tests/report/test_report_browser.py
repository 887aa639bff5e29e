"""The page in a real browser: no console message, nothing requested, no wider than the screen, readable in both schemes.

Without a `chromium` on the path these tests are skipped.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, Browser
from matplotlib.image import imread

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium runs this")


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
