"""`edgeproxy status`: the state of a running proxy on one screen."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from edgeproxy.cli.admin import AdminClient, NotRunningError, running_proxy
from edgeproxy.cli.options import config_option, instance_option
from edgeproxy.cli.quantities import counted, duration, latency, size

__all__ = ["screen", "status"]

_STATES = {"ok": "green", "backing_off": "yellow", "parked": "red"}
_TIMES = ("answer", "commit", "delivery")
_BAR = 20
_RATES = ("accepted", "delivered", "quarantined")


@click.command()
@config_option
@instance_option
@click.option("--watch", is_flag=True, help="Show it again and again, with rates, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks of --watch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON of /status, one line each.")
def status(
    config_path: Path | None, instance: int | None, watch: bool, interval: float, as_json: bool
) -> None:
    """The state of a running proxy on one screen.

    What the buffer holds and how old that is, disk use against the limit and when it will be full,
    each lane's state with the reason and what to do about it, dead letters, how long answers,
    commits and deliveries take (median and 99%), and totals since the start. Exit code 1 when
    the proxy does not run.
    """
    proxy = running_proxy(config_path, instance)
    if watch:
        try:
            _watch(proxy, interval, as_json=as_json)
        except KeyboardInterrupt:
            sys.exit(0)
    found = proxy.get("/status")
    click.echo(_json(found) if as_json else "\n".join(screen(found, proxy.address)))


def _watch(proxy: AdminClient, interval: float, *, as_json: bool) -> None:
    before: dict[str, int] | None = None
    before_at = 0.0
    while True:
        now = time.monotonic()
        try:
            found = proxy.get("/status")
        except NotRunningError as error:
            if as_json:
                raise
            click.clear()
            click.secho(error.message, fg="red")
            before = None
        else:
            totals = found["totals"]
            rates = None
            if before is not None:
                rates = {key: (totals[key] - before[key]) / (now - before_at) for key in _RATES}
            before, before_at = totals, now
            _show(found, proxy, rates, as_json=as_json)
        time.sleep(interval)


def _show(
    found: dict[str, Any], proxy: AdminClient, rates: dict[str, float] | None, *, as_json: bool
) -> None:
    if as_json:
        click.echo(_json(found))
        sys.stdout.flush()
        return
    click.clear()
    click.echo("\n".join(screen(found, proxy.address, rates)))


def screen(
    found: dict[str, Any], address: str, rates: dict[str, float] | None = None
) -> Iterator[str]:
    """The document of `/status` in words, line by line; `rates` are events a second."""
    strong = click.style(f"edgeproxy {found['version']}", bold=True)
    yield f"{strong} on {address} · mapping revision {found['mapping_revision']}"
    yield ""
    yield from _buffer(found)
    yield ""
    yield click.style("Lanes", bold=True)
    for lane in found["lanes"]:
        yield from _lane(lane)
    yield ""
    times = [text for name in _TIMES if (text := _time(found, name))]
    if times:
        yield _row("Last 5 min", " · ".join(times))
        yield ""
    totals = found["totals"]
    yield click.style("Since its start", bold=True)
    yield "  " + " · ".join(f"{value:,} {name}" for name, value in totals.items())
    if rates is not None:
        yield "  " + " · ".join(f"{rate:,.1f} {name}/s" for name, rate in rates.items())


def _buffer(found: dict[str, Any]) -> Iterator[str]:
    buffer = found["buffer"]
    if found.get("not_ready"):
        yield _row("Accepting", click.style(f"NO: {found['not_ready']}", fg="red", bold=True))
        yield _row(
            "", "Clients are answered 503 and are asked to come back. Space returns as events"
        )
        yield _row("", "are delivered (see the lanes), or raise [buffer] max_size and restart.")
    else:
        yield _row("Accepting", click.style("yes", fg="green"))
    waiting = counted(buffer["events"], "event")
    age = buffer["oldest_age_seconds"]
    yield _row("Buffer", waiting + (f", the oldest {duration(age)} old" if age is not None else ""))
    share = buffer["bytes"] / buffer["max_bytes"]
    filled = min(round(share * _BAR), _BAR)
    colour = "red" if share > 0.9 else "yellow" if share > 0.6 else "green"
    bar = click.style("█" * filled, fg=colour) + click.style("░" * (_BAR - filled), dim=True)
    used = f"{size(buffer['bytes'])} of {size(buffer['max_bytes'])}"
    full_in = found.get("full_in_seconds")
    if full_in is not None and not found.get("not_ready"):
        used += ", " + click.style(f"full in {duration(full_in)}", fg="yellow")
    yield _row("Disk", f"{bar} {share:.0%}, {used}")
    letters = found["dead_letters"]
    text = counted(letters["count"], "event")
    if letters["count"]:
        text = f"{click.style(text, fg='yellow')}, {size(letters['bytes'])}: edgeproxy deadletters list"
    yield _row("Dead letters", text)


def _time(found: dict[str, Any], name: str) -> str:
    """Median and 99th percentile of what took time, empty where nothing did."""
    times = found.get("times", {}).get(name, {})
    p50, p99 = times.get("p50"), times.get("p99")
    return "" if p50 is None or p99 is None else f"{name} {latency(p50)} (p99 {latency(p99)})"


def _lane(lane: dict[str, Any]) -> Iterator[str]:
    state = click.style(f"{lane['state'].replace('_', ' '):<11}", fg=_STATES.get(lane["state"]))
    numbers = f"{lane['delivered']:,} delivered, {lane['in_flight']} in flight"
    yield f"  {lane['name']:<12} {state} → {lane['endpoint'] or 'nowhere'}  ({numbers})"
    if not lane["reason"]:
        return
    indent = " " * 15
    detail = _printable(lane.get("detail") or "")
    again = lane["next_attempt_seconds"]
    words = f"{lane['words']} ({lane['reason']})"
    yield indent + click.style(words[:1].upper() + words[1:], fg=_STATES.get(lane["state"]))
    if detail:
        yield f"{indent}It says: {detail}"
    if again is not None:
        yield f"{indent}Next attempt in {duration(again)}"
    yield click.wrap_text(
        f"What to do: {lane['remedy']}", 100, initial_indent=indent, subsequent_indent=indent
    )


def _row(name: str, text: str) -> str:
    return f"{click.style(f'{name:<14}', bold=True)} {text}"


def _printable(text: str) -> str:
    """On one line, without what could steer the terminal: it is what some server answered."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())[:160]


def _json(document: object) -> str:
    return msgspec.json.encode(document).decode()
