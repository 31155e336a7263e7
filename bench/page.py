"""What an open page costs: ingest with and without the operators' page on Live in a browser.

`python -m bench.page [--rate 10000] [--seconds 6] [--pairs 2]`. Loads of a given rate take turns,
without and with a page that watches, so that both halves of a pair see the same machine; compared
are the events accepted a second, and the proxy's own CPU time for each. While the page watches, the
round trip of an `evaluate()` into it tells whether it stays responsive. The proxy has one core;
the load, the upstream and the browser share the rest. Needs Chromium and playwright, as the tests
do.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from bench.drive import KEY, LOAD_CORE
from bench.servers import Proxy, Upstream

_BATCH = 50  # events a request; so the rate is reached with a core for all that is not the proxy
_LOOK_SECONDS = 0.1
_FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]


@dataclass(frozen=True)
class Figures:
    """What one load saw."""

    rate: float
    """Events accepted a second."""
    p99_ms: float
    cpu_us: float
    """CPU time of the proxy for each event."""


@dataclass
class Watching:
    """What the browser saw over all loads."""

    trips_ms: list[float] = field(default_factory=list)
    rows: int = 0


async def _load(proxy: Proxy, rate: float, seconds: float) -> Figures:
    before = proxy.cpu_seconds()
    process = await asyncio.create_subprocess_exec(
        *("taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "edgeproxy", "load"),
        *(f"http://127.0.0.1:{proxy.port}", "--json", "--write-key", KEY),
        *("--rate", str(rate), "--batch", str(_BATCH), "--duration", str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    used = proxy.cpu_seconds() - before
    seen: dict[str, Any] = json.loads(out)
    if seen["failed"]:
        raise SystemExit(f"the load failed: {seen}")
    accepted = seen["events_accepted"]
    return Figures(seen["events_per_second"], seen["latency_ms"]["p99"], 1e6 * used / accepted)


@asynccontextmanager
async def _live(url: str, browser_path: str) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path, args=_FLAGS)
        page = await browser.new_page()
        await page.goto(f"{url}/#live")
        await page.get_by_text("in the last second").wait_for()
        yield page
        await browser.close()


async def _look(page: Page, watching: Watching) -> None:
    """Ask the page again and again until cancelled."""
    while True:
        start = time.perf_counter()
        watching.rows = await page.evaluate("document.querySelectorAll('.feed tbody tr').length")
        watching.trips_ms.append(1000 * (time.perf_counter() - start))
        await asyncio.sleep(_LOOK_SECONDS)


async def _watched(
    proxy: Proxy, rate: float, seconds: float, browser_path: str, watching: Watching
) -> Figures:
    async with _live(proxy.admin_url, browser_path) as page:
        looking = asyncio.create_task(_look(page, watching))
        try:
            return await _load(proxy, rate, seconds)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def _measure(options: argparse.Namespace, scratch: Path, browser_path: str) -> None:
    without: list[Figures] = []
    watched: list[Figures] = []
    watching = Watching()
    with Upstream(scratch) as upstream, Proxy(scratch, scratch / "buffer", upstream.url) as proxy:
        await _load(proxy, options.rate, 2)  # what only the first requests pay is left out
        for _ in range(options.pairs):
            without.append(await _load(proxy, options.rate, options.seconds))
            watched.append(
                await _watched(proxy, options.rate, options.seconds, browser_path, watching)
            )
    for name, runs in (("page closed", without), ("page on Live", watched)):
        figures = ", ".join(
            f"{run.rate:,.0f} events/s (p99 {run.p99_ms:.1f} ms, {run.cpu_us:.1f} µs/event)"
            for run in runs
        )
        print(f"{name}: {figures}")
    lost = 1 - statistics.mean(r.rate for r in watched) / statistics.mean(r.rate for r in without)
    print(f"rate lost: {lost:.1%}")
    trips = sorted(watching.trips_ms)
    p99 = trips[min(len(trips) - 1, int(0.99 * len(trips)))]
    print(
        f"round trip into the page: {len(trips)} looks, median {statistics.median(trips):.0f} ms,"
        f" p99 {p99:.0f} ms, max {trips[-1]:.0f} ms; {watching.rows} rows shown"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--rate", type=float, default=10_000, help="events/s; 0: no limit")
    parser.add_argument("--seconds", type=float, default=6, help="of each load")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder on the disk")
    options = parser.parse_args()
    browser_path = shutil.which("chromium")
    if browser_path is None or (os.cpu_count() or 1) < 2:
        raise SystemExit("needs Chromium (apt-get install chromium) and two cores")
    options.data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.data.resolve()) as scratch:
        asyncio.run(_measure(options, Path(scratch), browser_path))


if __name__ == "__main__":
    main()
