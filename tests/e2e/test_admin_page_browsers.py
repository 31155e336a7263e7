"""The operators' page in Firefox and in WebKit, the nearest to Safari; `test_admin_page` has Chromium."""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack
from itertools import product

import pytest

from edgeproxy.sandbox import Faults
from tests.e2e.conftest import missing
from tests.e2e.page_drivers import NEEDED, Driver, open_browser
from tests.e2e.test_admin_page import send, track

pytestmark = [pytest.mark.timeout(120), pytest.mark.parametrize("name", NEEDED)]

WIDTHS = (360, 2560)
#: Something of each view that is only there once the proxy has answered.
CONTENT = {
    "live": "document.querySelector('.sampled').textContent.includes('in the last second')",
    "dead-letters": "document.querySelector('.groups .group-count')?.textContent === '1'",
    "try": "document.querySelector('.trying .json')",
    "setup": "document.querySelector('pre.code').textContent.includes('htevents')",
    # Last: the first rates are there five seconds after the start.
    "overview": "document.querySelectorAll('.chart canvas').length === 2"
    " && document.querySelector('.tile .value').textContent !== '–/s'",
}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NAVIGATION = """[...document.querySelectorAll('nav a')].every((link) => {
    const { left, right } = link.getBoundingClientRect()
    return left >= 0 && right <= document.documentElement.clientWidth
})"""
FILLED = "document.querySelector('main').getBoundingClientRect().width / innerWidth"
BESIDE = """(() => {
    const [one, other] = document.querySelectorAll('.chart')
    return one.getBoundingClientRect().top === other.getBoundingClientRect().top
})()"""
FOCUS = """(() => {
    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement)
    return {
        text: document.activeElement.textContent.trim() || document.activeElement.ariaLabel,
        visible: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2,
    }
})()"""


@pytest.fixture
async def browse(name, tmp_path):
    """Starts the browser."""
    absent = [program for program in NEEDED[name] if shutil.which(program) is None]
    if absent:
        missing(f"{name} is needed ({', '.join(absent)} is missing: see .ci/debian-packages)")
    async with AsyncExitStack() as stack:

        async def start(*, dark: bool = False) -> Driver:
            return await stack.enter_async_context(open_browser(name, tmp_path, dark=dark))

        yield start


async def test_every_view_shows_what_it_has_from_a_phone_to_a_wall(name, stage, browse):
    stage.sandbox.faults = Faults(status=503)
    await send(stage, track(None), track())
    page = await browse(dark=True)
    await page.resize(WIDTHS[0])
    await page.go(stage.admin_url)
    await page.until_text("Nothing gets through to Hightouch from site", ".finding h2")
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(13, 17, 23)'"
    assert await page.evaluate(dark), "the colours of the dark"
    for width, view in product(WIDTHS, CONTENT):
        await page.resize(width)
        await page.evaluate(f"void (location.hash = '{view}')")
        await page.until(f"document.title.includes('edgeproxy') && ({CONTENT[view]})")
        assert await page.evaluate(OVERFLOW) <= 0, (view, width)
        assert await page.evaluate(NAVIGATION), (view, width)
        assert await page.evaluate(FILLED) > 0.75, (view, width)
        if view == "overview":
            assert await page.evaluate(BESIDE) == (width > 1000)
    await look_at_the_dead_letter(page)
    assert await page.complaints() == []


async def look_at_the_dead_letter(page: Driver) -> None:
    """It is marked what is at fault; a replay says what became of it."""
    await page.evaluate("void (location.hash = 'dead-letters')")
    await page.click(".groups button", "Look")
    await page.click(".letters .link")
    await page.until_text("event is missing", "dialog[open]")
    await page.press("Escape")
    await page.until("!document.querySelector('dialog')")
    await page.click(".groups button", "Replay")
    await page.until_text("Replay 1 dead letter", "dialog[open]")
    await page.click("dialog[open] .primary", "Replay")
    await page.until_text("1 refused again", "dialog[open]")
    await page.click("dialog[open] .primary", "Done")


async def test_by_keyboard_an_event_is_found_and_followed_as_it_passes(name, stage, browse):
    page = await browse()
    await page.go(stage.admin_url)
    await page.until_text("Ready for the first event")
    reached = []
    for _ in range(4):
        await page.press("Tab")
        reached.append(await page.evaluate(FOCUS))
    assert [focus["text"] for focus in reached] == [
        "Skip to content",
        "edgeproxy",
        "Overview",
        "Live",
    ]
    assert all(focus["visible"] for focus in reached), reached
    await page.press("Shift", "Tab")
    assert (await page.evaluate(FOCUS))["text"] == "Overview"
    await page.press("Tab")
    await page.press("Enter")
    await page.until(CONTENT["live"])

    await send(stage, track("Paid", properties={"total": "not-for-everybody"}))
    await page.until_text("✓ 200", ".feed tbody")
    await page.until("document.querySelector('.feed .link').focus() ?? true")
    await page.press("Enter")
    await page.until_text("Hightouch: 200", "dialog[open]")
    await page.click("dialog[open] button", "Received")
    assert "not-for-everybody" not in await page.evaluate("document.body.innerText")
    await page.click("dialog[open] [role=switch]")
    await page.until_text("not-for-everybody", "dialog[open]")
    await page.press("Escape")
    await page.until("!document.querySelector('dialog')")
    assert await page.complaints() == []
