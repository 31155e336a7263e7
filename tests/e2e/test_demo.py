"""`edgeproxy demo` as a stranger runs it."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager, closing
from itertools import product
from urllib.parse import urlsplit

import aiohttp
import click
import pytest

from tests.e2e.processes import environment

PATIENCE = 20.0


class Demo:
    """A running demo: its addresses and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def until(self, pattern: str) -> re.Match[str]:
        """The first line said, from the beginning, that matches."""
        expression = re.compile(pattern)
        for line in self.said:
            if found := expression.search(line):
                return found
        async with asyncio.timeout(PATIENCE):
            while line := await self.process.stdout.readline():
                self.said.append(click.unstyle(line.decode().rstrip("\n")))
                if found := expression.search(self.said[-1]):
                    return found
        raise AssertionError(f"the demo ended without saying {pattern}: {self.said}")

    async def address(self, part: str) -> str:
        return (await self.until(rf"  {part} +(http://\S+)"))[1]

    async def stop(self) -> str:
        """Press Ctrl-C; what it then says."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            rest = (await self.process.stdout.read()).decode()
            await self.process.wait()
        return click.unstyle(rest)


@asynccontextmanager
async def demo(*options: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeproxy", "demo", "--port", "0", *options),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_visitors_events_are_accepted_flushed_and_received():
    async with demo("--traffic", "--rate", "50") as running:
        await running.until(r"accepted  track     \w+")
        await running.until(r"received  track     \w+")
        await running.until(r"flushed   batch     \d+ event")
        said = await running.stop()
    assert running.process.returncode == 0
    assert "every accepted event was delivered" in said


async def test_it_says_how_to_go_on_with_a_real_key():
    async with demo() as running:
        await running.until(r"PROJECT_WRITEKEY=… .*edgeproxy run")
        await running.until("edgeproxy demo --traffic")
        await running.stop()


async def test_a_port_that_is_taken_is_replaced_by_a_free_one():
    # Held by this test or, when that fails, by somebody else: taken either way.
    with closing(socket.socket()) as holder:
        try:
            holder.bind(("127.0.0.1", 9400))
            holder.listen()
        except OSError:
            pass
        async with demo() as running:
            moved = await running.until(r"Port 9400 is taken: the sandbox is on (\d+) instead")
            assert (await running.address("Sandbox")).endswith(moved[1])
            await running.stop()


async def test_events_that_wait_are_kept_for_the_next_start(tmp_path):
    async with demo("--data", str(tmp_path / "kept"), "--traffic", "--rate", "50") as running:
        async with aiohttp.ClientSession() as session:
            url = f"{await running.address('Shop page')}/upstream"
            async with session.post(url, json={"on": False}) as answer:
                assert await answer.json() == {"on": False}
        await running.until("Hightouch is off")
        await running.until("waiting   batch")
        assert re.search(r"not delivered yet; .*kept holds", await running.stop())
    async with demo("--data", str(tmp_path / "kept")) as again:
        await again.until("received  ")
        assert "every accepted event was delivered" in await again.stop()


@pytest.fixture
async def shop(browser):
    """A page in Chromium, the errors of its scripts, and where its requests went."""
    context = await browser.new_context(reduced_motion="reduce")
    page = await context.new_page()
    page.asked, page.failures = [], []
    context.on("request", lambda request: page.asked.append(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    yield page
    await context.close()


async def test_the_shop_page_sends_real_events_and_shows_where_they_are(shop):
    async with demo() as running:
        address, proxy = await running.address("Shop page"), await running.address("Proxy")
        await shop.goto(address)
        await shop.get_by_label("Add Skerry to the cart").click()
        await shop.get_by_role("button", name="Check out").click()
        await shop.get_by_role("button", name="Pay by card").click()
        await shop.get_by_role("button", name="Place the order").click()
        for call in ("identify", "screen", "group", "alias"):
            await shop.get_by_role("button", name=call, exact=True).click()
        row = shop.locator("#feed li.received", has_text="Order Completed")
        await row.wait_for()
        for event in ("Product List Viewed", "Product Added", "Checkout Started"):
            await running.until(f"received  track     {event}")
        for kind in ("identify", "screen", "group", "alias"):
            await running.until(f"received  {kind}")
        assert set(shop.asked) == {urlsplit(address).netloc, urlsplit(proxy).netloc}
        assert shop.failures == []
        await running.stop()


async def test_the_shop_page_shows_that_nothing_is_lost_while_hightouch_is_off(shop):
    async with demo() as running:
        await shop.goto(await running.address("Shop page"))
        await shop.locator("#feed li.received", has_text="Home").wait_for()
        switch = shop.get_by_role("switch")
        await switch.click()
        await shop.get_by_label("Add Lighthouse to the cart").click()
        await running.until("waiting   batch")
        assert await shop.locator("#waiting").inner_text() != "0"
        await switch.click()
        await shop.locator("#feed li.received", has_text="Product Added").wait_for()
        await shop.wait_for_function("document.getElementById('waiting').textContent === '0'")
        await running.stop()


async def test_the_shop_page_shows_what_hightouch_would_block(shop):
    async with demo() as running:
        await shop.goto(await running.address("Shop page"))
        await shop.get_by_role("button", name="track without a name").click()
        await shop.get_by_text("missing_event").wait_for()
        await running.until("refused   event     missing_event")
        await running.stop()


async def test_the_shop_page_fits_every_screen(browser):
    async with demo() as running:
        address = await running.address("Shop page")
        for width, scheme in product((360, 1280, 2560), ("light", "dark")):
            context = await browser.new_context(
                color_scheme=scheme, viewport={"width": width, "height": 800}
            )
            page = await context.new_page()
            await page.goto(address)
            await page.get_by_label("Add Skerry to the cart").click()
            for part in ("html", ".shop", ".journey", ".products li"):
                element = page.locator(part).first
                wide, room = await element.evaluate("e => [e.scrollWidth, e.clientWidth]")
                assert wide <= room, (part, width, scheme)
            await context.close()
        await running.stop()
