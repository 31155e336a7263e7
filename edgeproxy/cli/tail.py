"""`edgeproxy tail`: the events of a running proxy as they pass."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from edgeproxy.cli.admin import running_proxy
from edgeproxy.cli.options import config_option, instance_option
from edgeproxy.events.seen import Verdict
from edgeproxy.events.verdicts import QUARANTINE_CODES, TYPES

__all__ = ["line", "tail"]

_COLOURS = {"accepted": "green", "duplicate": "cyan", "filtered": "yellow", "quarantined": "red"}


@click.command()
@config_option
@instance_option
@click.option("--source", help="Only events of this source.")
@click.option("--type", "type_", type=click.Choice(sorted(TYPES)), help="Only events of this type.")
@click.option("--event", help="Only events whose name contains this.")
@click.option("--user", help="Only events of this anonymousId, userId or previousId.")
@click.option(
    "--verdict",
    type=click.Choice([*get_args(Verdict), *QUARANTINE_CODES]),
    metavar="VERDICT",
    help="Only accepted, duplicate, filtered, quarantined, or a quarantine code.",
)
@click.option("--bodies", is_flag=True, help="Show each event's body, too: its shape, masked.")
@click.option("--show-values", is_flag=True, help="Do not mask users and bodies.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tail(
    config_path: Path | None,
    instance: int | None,
    type_: str | None,
    bodies: bool,
    show_values: bool,
    as_json: bool,
    **filters: str | None,
) -> None:
    """The events of a running proxy as they pass, until Ctrl-C.

    Users are shown as pseudonyms and bodies (--bodies, --json) without their values unless
    --show-values is given. When more events pass than can be shown without slowing them down, some
    are left out, and how many is said. Exit code 1 when the proxy does not run or ends.
    """
    proxy = running_proxy(config_path, instance)
    passing = proxy.lines(
        "GET",
        "/api/live",
        timeout=10.0,
        type=type_,
        bodies="true" if bodies or as_json else None,
        values="true" if show_values else None,
        **filters,
    )
    try:
        for found in passing:
            _show(found, as_json=as_json)
    except KeyboardInterrupt:
        sys.exit(0)
    raise click.ClickException(f"The proxy on {proxy.address} ended.")


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        if found["kind"] == "event" or found["skipped"]:
            click.echo(msgspec.json.encode(found))
    elif found["kind"] == "event":
        click.echo(line(found))
        if "body" in found:
            body = msgspec.json.format(msgspec.json.encode(found["body"])).decode()
            click.echo("\n".join("    " + _printable(row) for row in body.splitlines()))
    elif found["skipped"]:
        click.secho(
            f"… {found['skipped']:,} of the last second's {found['passed']:,} events not looked at",
            fg="yellow",
            err=True,
        )


def line(found: dict[str, Any]) -> str:
    """One event on one line."""
    at = datetime.fromtimestamp(found["at"] / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]
    verdict = click.style(f"{found['verdict']:<11}", fg=_COLOURS.get(found["verdict"]))
    named = _printable(found["event"])[:32]
    user = _printable(found["user"] or "-")[:36]
    why = ": ".join(part for part in (found["code"], found["message"]) if part)
    return " ".join(
        (
            click.style(at, dim=True),
            verdict,
            f"{_printable(found['source']):<12}",
            f"{_printable(found['type'])[:8]:<8}",
            f"{named:<32}",
            f"{user:<10}",
            click.style(_printable(found["messageId"])[:40], dim=True),
            click.style(_printable(why), fg="red") if why else "",
        )
    ).rstrip()


def _printable(text: str) -> str:
    """Without control characters: an event's name must not steer the terminal."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)
