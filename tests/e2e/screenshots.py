"""Takes the pictures of the operators' page for docs/screenshots: `make screenshots`.

A real proxy with two sources and visitors of a shop; then an outage, mistakes and recovery.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
from playwright.async_api import Browser, Page, async_playwright

from edgeproxy.demo import traffic
from edgeproxy.sandbox import Faults
from tests.e2e.conftest import CHROMIUM_FLAGS
from tests.e2e.stage import Stage, open_stage

TARGET = Path(__file__).parents[2] / "docs" / "screenshots"
KEYS = {"shop": "key-of-the-shop", "app": "key-of-the-app"}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1360, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1360, "height": 900}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
    },
}
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)
RULES = {
    '"properties.orderNumber"': ["properties.order_id", "properties.orderId"],
    '"properties.productId"': "properties.product_id",
}
#: Whole pages, not only what fits a screen.
WHOLE = {"overview", "outage", "try"}
WARM_UP = 75.0  # seconds of traffic before the first picture


async def send(stage: Stage, key: str, *events: dict[str, object]) -> None:
    headers = {
        "Authorization": f"Basic {b64encode(f'{key}:'.encode()).decode()}",
        "Origin": "https://old-shop.example",
        "User-Agent": SAFARI,
    }
    body = {"batch": list(events), "sentAt": datetime.now(UTC).isoformat()}
    async with aiohttp.ClientSession() as session:
        await session.post(f"{stage.url}/v1/batch", json=body, headers=headers)


async def make_mistakes(stage: Stage) -> None:
    old = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    unnamed = {"type": "track", "anonymousId": "visitor-7", "properties": {"button": "buy"}}
    await send(stage, KEYS["shop"], *[unnamed] * 12)
    late = {"type": "track", "anonymousId": "phone-3", "event": "App Opened", "timestamp": old}
    await send(stage, KEYS["app"], *[late] * 4)
    await send(stage, "key-of-another-workspace", unnamed)


async def pictures(browser: Browser, stage: Stage, views: dict[str, str]) -> None:
    for look, options in LOOKS.items():
        context = await browser.new_context(reduced_motion="reduce", **options)
        page = await context.new_page()
        for name, view in views.items():
            await page.goto("about:blank")
            await page.goto(f"{stage.admin_url}/#{view}")
            await page.wait_for_timeout(2500)
            await prepare(page, name)
            whole = name in WHOLE and look != "phone"
            await page.screenshot(path=TARGET / f"{name}-{look}.png", full_page=whole)
        await context.close()


async def prepare(page: Page, name: str) -> None:
    if name == "event":
        rows = page.locator(".feed tbody tr", has_text="✓ 200")
        await rows.filter(has_text="Product Viewed").first.wait_for()
        await page.get_by_role("button", name="Pause").click()
        # Not scrolled to.
        await rows.filter(has_text="Product Viewed").first.locator("button").dispatch_event("click")
        await page.get_by_role("dialog").get_by_text("Delivered").wait_for()
    if name == "dead-letter":
        await page.get_by_role("button", name="Look").last.click()
        await page.locator(".letters .link").first.click()
        await page.get_by_role("dialog").locator("pre").wait_for()


async def take(folder: Path) -> None:
    sources = [{"name": name, "write_key": key} for name, key in KEYS.items()]
    tables = {
        "sources": sources,
        "flush": {"interval": "400ms"},
        "retry": {"initial": "500ms", "max": "5s"},
        "mapping.global": RULES,
        "server": {"public_url": "https://events.example.com"},
    }
    async with (
        open_stage(folder, tables) as stage,
        asyncio.TaskGroup() as group,
        async_playwright() as playwright,
    ):
        visits = [
            group.create_task(
                traffic.send(stage.url, KEYS[name], rate=rate, random=random.Random(7))
            )
            for name, rate in (("shop", 45), ("app", 14))
        ]
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS, headless=True
        )
        await asyncio.sleep(WARM_UP)
        await pictures(
            browser,
            stage,
            {
                "overview": "overview",
                "live": "live",
                "event": "live",
                "try": "try",
                "setup": "setup",
            },
        )
        await make_mistakes(stage)
        await pictures(
            browser, stage, {"dead-letters": "dead-letters", "dead-letter": "dead-letters"}
        )
        stage.sandbox.faults = Faults(status=503)
        await asyncio.sleep(25)
        await pictures(browser, stage, {"outage": "overview"})
        stage.sandbox.faults = Faults()
        await browser.close()
        for visit in visits:
            visit.cancel()


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgeproxy-screenshots-") as folder:
        asyncio.run(take(Path(folder)))
    shrink()


def shrink() -> None:
    """To a third, where Debian's pngquant is there: 256 colours are enough for the page."""
    program = shutil.which("pngquant")
    if program is None:
        print("without pngquant (apt-get install pngquant) the pictures are three times as large")
        return
    options = ("--quality=80-98", "--speed=1", "--strip", "--ext=.png", "--force", "--")
    subprocess.run([program, *options, *TARGET.glob("*.png")], check=True)


if __name__ == "__main__":
    main()
