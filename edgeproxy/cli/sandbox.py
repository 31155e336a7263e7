"""`edgeproxy sandbox`: a local stand-in for Hightouch's events API."""

import asyncio
import signal

import click

from edgeproxy.sandbox import Sandbox
from edgeproxy.sandbox.store import DEFAULT_KEEP


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9400, show_default=True, type=click.IntRange(0, 65535))
@click.option(
    "--write-key",
    "write_keys",
    multiple=True,
    help="A write key to take; may be repeated. Without it, any key is taken.",
)
@click.option("--region", default="us-east-1", show_default=True, help="The workspace's region.")
@click.option(
    "--keep",
    default=DEFAULT_KEEP,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many events to keep; the oldest make room.",
)
def command(host: str, port: int, write_keys: tuple[str, ...], region: str, keep: int) -> None:
    """Serve a local stand-in for Hightouch's events API.

    Point the proxy at it with `hightouch.endpoint`, send events, and look at the page it serves
    or at GET /events. PUT /faults makes it misbehave.
    """
    try:
        asyncio.run(_serve(Sandbox(write_keys, region=region, keep=keep), host, port))
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host} port {port}: {error}") from error


async def _serve(sandbox: Sandbox, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with sandbox.serve(host, port) as url:
        click.echo(f"The sandbox listens on {url} (events: {url}/events). Ctrl-C ends it.")
        await stop.wait()
