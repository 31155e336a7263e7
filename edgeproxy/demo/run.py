"""The demo's parts put together: sandbox, proxy, shop page and visitors, in one process."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog
from aiohttp import web

from edgeproxy import assets, service
from edgeproxy.config import Settings, load
from edgeproxy.demo import traffic
from edgeproxy.demo.narrator import Narrator
from edgeproxy.demo.page import Setup, Shop
from edgeproxy.demo.ports import HOST, Ports
from edgeproxy.sandbox import Sandbox

__all__ = ["Options", "run"]

WRITE_KEY = "demo-write-key"


class Options(msgspec.Struct, frozen=True):
    """What the command line says."""

    data: Path
    """The buffer's folder."""
    port: int
    """Of the shop page."""
    rate: float
    """Visitors' events a second; 0 for none."""


class _Addresses(msgspec.Struct, frozen=True):
    shop: str
    proxy: str
    admin: str
    sandbox: str


async def run(options: Options) -> int:
    """Serve until SIGINT or SIGTERM; how many events were then not delivered.

    Raises OSError or BufferFaultError when the proxy cannot start.
    """
    narrator = Narrator()
    structlog.configure(processors=[_narrating(narrator)])
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    ports = Ports()
    sandbox = Sandbox(WRITE_KEY, on_event=narrator.received)
    async with sandbox.serve(HOST, ports.free("sandbox", 9400)) as sandbox_url:
        settings = _settings(options, ports, sandbox_url)
        async with service.start(settings, lambda: settings) as (proxy, _stop_accepting):
            proxy.intake.watch(
                lambda source, events: narrator.accepted(
                    source, [seen.sealed for seen in events if seen.sealed is not None]
                )
            )
            before = proxy.buffer.stats().events
            urls = _Addresses(
                shop="",
                proxy=f"http://{HOST}:{settings.server.port}",
                admin=f"http://{HOST}:{settings.admin.port}",
                sandbox=sandbox_url,
            )
            async with _shop(options, ports, urls, sandbox, narrator) as shop_url:
                _welcome(msgspec.structs.replace(urls, shop=shop_url), ports, options)
                await _serve(options, urls, stop)
            click.echo("\nStopping: what is in flight is finished first.")
        totals = proxy.metrics.totals()
        return before + totals["accepted"] - totals["delivered"]


async def _serve(options: Options, urls: _Addresses, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        visitors = None
        if options.rate:
            sending = traffic.send(
                urls.proxy,
                WRITE_KEY,
                rate=options.rate,
                random=random.Random(),  # noqa: S311 - visitors, not secrets
            )
            visitors = group.create_task(sending)
        await stop.wait()
        if visitors is not None:
            visitors.cancel()


def _settings(options: Options, ports: Ports, sandbox_url: str) -> Settings:
    """Defaults, but for addresses and for delays that would bore a spectator."""
    return load(
        None,
        {
            "EDGEPROXY_HIGHTOUCH__WRITE_KEY": WRITE_KEY,
            "EDGEPROXY_HIGHTOUCH__ENDPOINT": sandbox_url,
            "EDGEPROXY_SERVER__HOST": HOST,
            "EDGEPROXY_SERVER__PORT": str(ports.free("proxy", 8080)),
            "EDGEPROXY_ADMIN__PORT": str(ports.free("admin listener", 8081)),
            "EDGEPROXY_BUFFER__PATH": str(options.data),
            "EDGEPROXY_FLUSH__INTERVAL": "500ms",
            "EDGEPROXY_FLUSH__DRAIN_TIMEOUT": "1s",
            "EDGEPROXY_RETRY__MAX": "2s",
        },
    )


@asynccontextmanager
async def _shop(
    options: Options, ports: Ports, urls: _Addresses, sandbox: Sandbox, narrator: Narrator
) -> AsyncIterator[str]:
    script = assets.browser_sdk()
    setup = Setup(
        write_key=WRITE_KEY,
        api_host=urls.proxy.partition("://")[2],
        script=f"{urls.proxy}/browser/release/v1-latest/{script.name}?v={script.version}",
        links={"sandbox": urls.sandbox, "admin": urls.admin},
    )
    runner = web.AppRunner(
        Shop(setup, sandbox, narrator).app, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        sock = ports.bind("shop page", options.port)
        await web.SockSite(runner, sock).start()
        yield f"http://{HOST}:{sock.getsockname()[1]}"
    finally:
        await runner.cleanup()


def _narrating(narrator: Narrator) -> structlog.typing.Processor:
    """Instead of being printed, the proxy's log lines are told; but errors are printed too."""

    def tell(_logger: object, method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        fields = dict(line)
        event = str(fields.pop("event", ""))
        narrator.logged(event, fields)
        if method in {"error", "critical"}:
            click.secho(f"{event}: {fields.get('reason', '')}".rstrip(": "), fg="red", err=True)
        raise structlog.DropEvent

    return tell


def _welcome(urls: _Addresses, ports: Ports, options: Options) -> None:
    echo: Callable[..., None] = click.echo
    for sentence in ports.moved:
        click.secho(sentence, fg="yellow")
    echo()
    echo(
        click.style("edgeproxy demo", bold=True) + " · all of it on this machine; nothing leaves it"
    )
    echo()
    rows = (
        ("Shop page", urls.shop, "open this one and click"),
        ("Proxy", urls.proxy, "what SDKs talk to"),
        ("Admin", urls.admin, "the operators' page; also /status, /metrics"),
        ("Sandbox", urls.sandbox, "a stand-in for Hightouch, and what arrived there"),
    )
    for name, url, text in rows:
        echo(f"  {name:<10} {click.style(f'{url:<30}', fg='cyan')} {click.style(text, dim=True)}")
    echo()
    echo("  1. Open the shop page, look at a coffee, add it, check out. Each click is an event;")
    echo("     here you see it accepted (on disk), flushed (sent) and received.")
    echo("  2. Switch Hightouch off on the page, go on clicking, and switch it on again.")
    echo(f"  3. See each event as Hightouch got it: {urls.sandbox}/events")
    if not options.rate:
        echo("  Visitors who shop by themselves: edgeproxy demo --traffic")
    echo()
    echo("  With your own workspace: PROJECT_WRITEKEY=… WORKSPACE_REGION=us-east-1 edgeproxy run")
    echo("  Ctrl-C ends the demo.")
    echo()
