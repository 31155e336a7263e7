"""`edgeproxy load URL`: traffic of a given shape, and what it measured."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from edgeproxy.load import Plan, Report, Shape, Target, from_lines, run, synthetic
from edgeproxy.load.traffic import TYPES, Request

_DEFAULT_DURATION = 10.0
_KEY_VARIABLES = ("EDGEPROXY_HIGHTOUCH__WRITE_KEY", "PROJECT_WRITEKEY")


@click.command("load")
@click.argument("url")
@click.option(
    "--write-key",
    default=lambda: next((os.environ[k] for k in _KEY_VARIABLES if os.environ.get(k)), ""),
    help="Sent as Basic. Default: the environment's EDGEPROXY_HIGHTOUCH__WRITE_KEY.",
)
@click.option("--rate", default=0.0, type=click.FloatRange(min=0), help="Events/s; 0: no limit.")
@click.option("--connections", default=16, show_default=True, type=click.IntRange(1, 10000))
@click.option(
    "--batch",
    default=1,
    show_default=True,
    type=click.IntRange(1, 10000),
    help="Events per request; 1 sends them without an envelope.",
)
@click.option(
    "--size", default=1300, show_default=True, type=click.IntRange(1), help="Bytes of an event."
)
@click.option("--duration", type=click.FloatRange(min=0), help="Seconds. Default: 10.")
@click.option("--count", type=click.IntRange(1), help="Stop after this many events.")
@click.option("--users", default=1000, show_default=True, type=click.IntRange(1, 10**8))
@click.option("--types", default="track", show_default=True, help="Comma-separated event types.")
@click.option("--gzip", is_flag=True, help="Compress the requests.")
@click.option("--seed", type=int, help="Makes users, types and texts repeatable.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.001))
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send the events of this NDJSON file, each once, as they are.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def command(url: str, file: Path | None, as_json: bool, **options: object) -> None:
    """Send synthetic events to the proxy at URL and report rate and latency.

    The report also comes after Ctrl-C. Exit code 1 when a request failed.
    """
    o = msgspec.convert(options, _Options)
    try:
        target = Target(url, o.write_key, gzip=o.gzip)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    with contextlib.ExitStack() as stack:
        if file is None:
            requests = synthetic(target, o.shape())
        else:
            requests = from_lines(target, stack.enter_context(file.open("rb")), o.batch)
        report = _measure(target, requests, o.plan(endless=file is None), as_json=as_json)
    click.echo(json.dumps(report.summary()) if as_json else "\n".join(report.lines()))
    if set(report.answers) == {401}:
        said = "an unknown one was given" if o.write_key else "none was given"
        click.echo(
            f"Everything was answered 401: name a write key of the proxy's with --write-key; {said}.",
            err=True,
        )
    if report.failed:
        sys.exit(1)


class _Options(msgspec.Struct, frozen=True):
    """The shape options as click parsed them."""

    write_key: str
    rate: float
    connections: int
    batch: int
    size: int
    duration: float | None
    count: int | None
    users: int
    types: str
    gzip: bool
    seed: int | None
    timeout: float

    def shape(self) -> Shape:
        types = tuple(filter(None, self.types.replace(" ", "").split(",")))
        if not types or not set(types) <= set(TYPES):
            raise click.BadParameter(f"choose from {', '.join(TYPES)}", param_hint="--types")
        return Shape(
            batch=self.batch, size=self.size, users=self.users, types=types, seed=self.seed
        )

    def plan(self, *, endless: bool) -> Plan:
        duration = self.duration
        if endless and duration is None and self.count is None:
            duration = _DEFAULT_DURATION
        return Plan(
            connections=self.connections,
            rate=self.rate,
            duration=duration,
            count=self.count,
            timeout=self.timeout,
        )


def _measure(target: Target, requests: Iterator[Request], plan: Plan, *, as_json: bool) -> Report:
    report = Report()
    try:
        with _loop() as runner:
            runner.run(_run(target, requests, plan, report, bar=not as_json))
    except OSError as error:
        raise click.ClickException(
            f"Cannot connect to {target.host} port {target.port}: {error}"
        ) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    return report


def _loop() -> asyncio.Runner:
    """With uvloop where it is there: a load generator must outrun the server."""
    try:
        import uvloop  # noqa: PLC0415  # optional
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _run(
    target: Target, requests: Iterator[Request], plan: Plan, report: Report, *, bar: bool
) -> None:
    sending = asyncio.create_task(run(target, requests, plan, report))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, sending.cancel)
    if bar and sys.stderr.isatty():
        await _watch(sending, plan, report)
    await asyncio.wait([sending])
    if not sending.cancelled():
        sending.result()


async def _watch(sending: asyncio.Task[None], plan: Plan, report: Report) -> None:
    """Draw progress on stderr until `sending` is done."""
    loop = asyncio.get_running_loop()
    started, shown = loop.time(), 0
    length = plan.count or int(10 * (plan.duration or 0))
    with click.progressbar(
        range(length),
        file=sys.stderr,
        show_pos=bool(plan.count),
        item_show_func=lambda _: f"{report.sent} events, {report.failed} failed",
    ) as progress:
        while not sending.done():
            await asyncio.wait([sending], timeout=0.2)
            done = report.sent if plan.count else int(10 * (loop.time() - started))
            step = min(done, length) - shown
            progress.update(step, report.sent)
            shown += step
