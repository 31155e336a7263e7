"""`edgeproxy deadletters`: look at dead letters, submit them again, write them down, remove them."""

import base64
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from edgeproxy.buffer.deadletters import DeadLetterFilter
from edgeproxy.cli.letters import Letters, letters_of
from edgeproxy.cli.options import config_option, instance_option
from edgeproxy.cli.quantities import counted, moment, size
from edgeproxy.config.kinds import duration
from edgeproxy.events import parse_time, rfc3339

__all__ = ["deadletters"]

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 50
_SHOWN_WHOLE = 10
#: From so many on a bar is drawn: fewer take no time to speak of.
_BAR_FROM = 500
_YEARS = duration(0, 100 * 366 * 86400.0)


def _since(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """From a duration before now, or a time, to ms since 1970."""
    if value is None:
        return None
    try:
        return int((time.time() - _YEARS.read(value)) * 1000)
    except ValueError:
        found = None if value.isdecimal() else parse_time(value)
    if found is None:
        raise click.BadParameter(
            f'"{value}" is neither a duration such as "2h" or "7d" nor a time such as '
            '"2026-11-23" or "2026-11-23T15:00:00Z"'
        )
    return found


def _selecting(command: F) -> F:
    """The options that say which dead letters are meant, and whose."""
    for option in (
        click.option("--id", help="The dead letter's number, or an event's messageId."),
        click.option("--user", help="Of this anonymousId, userId or previousId."),
        click.option(
            "--since",
            callback=_since,
            metavar="TIME",
            help='Died since then: "2h" ago, or "2026-11-23T15:00Z".',
        ),
        click.option("--source", help="Of this source."),
        click.option("--code", help="With this code, such as missing_event."),
        instance_option,
        config_option,
    ):
        command = option(command)
    return command


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line."
)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def deadletters() -> None:
    """Events that could not be sent, kept with the reason.

    Works on a running proxy through its admin listener, and on the files of a stopped one. Which
    dead letters are meant is said by --code, --source, --since, --user and --id together; with
    none of them all are.
    """


@deadletters.command("list")
@_selecting
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=_SHOWN,
    show_default=True,
    help="At most so many, the newest; 0 for all.",
)
@_json_option
def list_(
    config_path: Path | None, instance: int | None, limit: int, as_json: bool, **chosen: Any
) -> None:
    """List dead letters, the newest first."""
    wanted = DeadLetterFilter(**chosen)
    with letters_of(config_path, instance) as letters:
        found = letters.each(wanted, limit=limit or None, bodies=False, newest_first=True)
        if as_json:
            for letter in found:
                click.echo(msgspec.json.encode(letter))
            return
        shown = 0
        for letter in found:
            if not shown:
                click.secho(_HEAD, bold=True)
            shown += 1
            click.echo(_row(letter))
        total = letters.count(wanted)
    if not total["count"]:
        click.echo("No dead letters" + (" that fit." if wanted != DeadLetterFilter() else "."))
        return
    codes = ", ".join(f"{number:,} {code}" for code, number in sorted(total["codes"].items()))
    click.echo(f"\n{shown:,} of {counted(total['count'], 'dead letter')}: {codes}")


_HEAD = f"{'ID':>8}  {'DIED':<20}  {'CODE':<18} {'SOURCE':<12} {'TYPE':<9} {'EVENT':<28} MESSAGE"


def _row(letter: dict[str, Any]) -> str:
    code = click.style(f"{letter['code'][:18]:<18}", fg="red")
    return (
        f"{letter['id']:>8}  {moment(letter['diedAt']):<20}  {code} "
        f"{_clean(letter['source'])[:12]:<12} {_clean(letter['type'])[:9]:<9} "
        f"{_clean(letter['event'])[:28]:<28} {_clean(letter['message'])}"
    )


@deadletters.command()
@click.argument("wanted", metavar="[ID]", required=False)
@_selecting
@click.option(
    "--raw",
    is_flag=True,
    help="Print the event's bytes exactly as stored, and only them; of the newest that fits.",
)
@_json_option
def show(
    config_path: Path | None,
    instance: int | None,
    wanted: str | None,
    raw: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Show one dead letter: its number, or the messageId of its event; or the newest ten that fit.

    With the reason, what was known of its request, Hightouch's answer if there was one, and the
    event.
    """
    if wanted is not None and chosen["id"] not in {None, wanted}:
        raise click.UsageError(f"ID is {wanted} and --id {chosen['id']}: say one of them.")
    fitting = DeadLetterFilter(**chosen | {"id": wanted or chosen["id"]})
    with letters_of(config_path, instance) as letters:
        most = 1 if raw else _SHOWN_WHOLE + 1
        found = list(letters.each(fitting, limit=most, bodies=True, newest_first=True))
    if not found:
        if fitting.id is not None and fitting == DeadLetterFilter(id=fitting.id):
            raise click.ClickException(f"There is no dead letter {fitting.id}.")
        raise click.ClickException("There is no dead letter that fits.")
    for letter in found[:_SHOWN_WHOLE]:
        if raw:
            sys.stdout.buffer.write(_body(letter))
        elif as_json:
            click.echo(msgspec.json.encode(letter))
        else:
            click.echo("\n".join(_described(letter)))
    if len(found) > _SHOWN_WHOLE:
        click.echo(
            f"Older ones fit, too: only the newest {_SHOWN_WHOLE} are shown. edgeproxy deadletters "
            "export writes all.",
            err=True,
        )


def _described(letter: dict[str, Any]) -> Iterator[str]:
    form = "as it was received" if letter["form"] == "received" else "as it was sent"
    answer = f"{letter['status']} {_clean(letter['answer'])}" if letter["status"] else ""
    for name, value in (
        ("dead letter", letter["id"]),
        ("code", click.style(letter["code"], fg="red", bold=True)),
        ("reason", _clean(letter["message"])),
        ("answer", answer),
        ("source", letter["source"]),
        ("messageId", _clean(letter["messageId"])),
        ("received", moment(letter["receivedAt"])),
        ("died", moment(letter["diedAt"])),
        ("mapping", letter["revision"]),
        ("damaged", "" if letter["intact"] else "yes: the event is not what was stored"),
        ("request", msgspec.json.encode(letter["receipt"]).decode() if letter["receipt"] else ""),
        ("event", f"{size(letter['bytes'])}, {form}"),
    ):
        if value != "":
            yield f"{name:<12} {value}"
    body = _body(letter)
    if not body:
        yield 'not kept ([dead_letters] keep = "metadata")'
        return
    try:
        shown = msgspec.json.format(body).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        shown = body.decode("utf-8", "backslashreplace")
    yield "\n".join(_clean(line) for line in shown.splitlines())


@deadletters.command()
@_selecting
@_yes_option
@_json_option
def replay(
    config_path: Path | None, instance: int | None, yes: bool, as_json: bool, **chosen: Any
) -> None:
    """Submit dead letters again.

    Events that were never sent go through today's mapping; those that were sent go again as they
    were. Each keeps its messageId and moves in one transaction, so an interruption neither loses
    nor doubles one. What is refused again stays, with the new reason.
    """
    wanted = DeadLetterFilter(**chosen)
    with letters_of(config_path, instance, replays=True) as letters:
        total = _confirmed(letters, wanted, "Replay", yes=yes)
        last = _followed("Replaying", total, letters.replay(wanted)) if total else _NONE
    refused = last["refused"]
    _reported(last, as_json=as_json, done="replayed", say=lambda: _replayed(last, refused))


@deadletters.command()
@_selecting
@_yes_option
@_json_option
def purge(
    config_path: Path | None, instance: int | None, yes: bool, as_json: bool, **chosen: Any
) -> None:
    """Remove dead letters for good. They are counted and logged as removed by the operator."""
    wanted = DeadLetterFilter(**chosen)
    with letters_of(config_path, instance) as letters:
        total = _confirmed(letters, wanted, "Remove for good", yes=yes)
        last = _followed("Removing", total, letters.purge(wanted)) if total else _NONE
    _reported(
        last,
        as_json=as_json,
        done="removed",
        say=lambda: click.echo(f"Removed {counted(last['moved'], 'dead letter')}."),
    )


@deadletters.command()
@_selecting
@click.option(
    "--events",
    is_flag=True,
    help="Only the events, one a line, as edgeproxy load --file sends them; what is no JSON is left out.",
)
def export(config_path: Path | None, instance: int | None, events: bool, **chosen: Any) -> None:
    """Write dead letters as NDJSON to standard output, the oldest first.

    Each line has the reason, what was known of the request, and the event as text in "body"
    (base64 in "bodyBase64" where it is not UTF-8).
    """
    left_out = 0
    with letters_of(config_path, instance) as letters:
        for letter in letters.each(
            DeadLetterFilter(**chosen), limit=None, bodies=True, newest_first=False
        ):
            line = _event_line(letter) if events else msgspec.json.encode(letter)
            left_out += line is None
            if line is not None:
                click.echo(line)
    if left_out:
        click.echo(f"{counted(left_out, 'event')} left out: not JSON, or not kept", err=True)


_NONE: dict[str, Any] = {
    "total": 0,
    "moved": 0,
    "refused": {},
    "filtered": 0,
    "not_kept": 0,
    "stopped": None,
}


def _confirmed(letters: Letters, wanted: DeadLetterFilter, verb: str, *, yes: bool) -> int:
    """How many there are; ends the command where the operator says no."""
    found = letters.count(wanted)
    total = int(found["count"])
    if total and not yes:
        codes = ", ".join(f"{number:,} {code}" for code, number in sorted(found["codes"].items()))
        click.confirm(f"{verb} {counted(total, 'dead letter')} ({codes})?", abort=True, err=True)
    return total


def _followed(label: str, total: int, steps: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Go through all steps, with a bar where it takes a while; the last one."""
    last = _NONE
    if total < _BAR_FROM:
        return [_NONE, *steps][-1]
    with click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True) as bar:
        done = 0
        for last in steps:
            bar.update(last["done"] - done)
            done = last["done"]
    return last


def _reported(last: dict[str, Any], *, as_json: bool, done: str, say: Callable[[], None]) -> None:
    """Say what came of it; exit code 1 where it ended early."""
    if as_json:
        keys = ("total", "refused", "filtered", "not_kept", "stopped")
        report = {done: last["moved"]} | {key: last[key] for key in keys}
        click.echo(msgspec.json.encode(report))
    else:
        say()
    if last["stopped"]:
        raise click.ClickException(f"{last['stopped']}; the rest are as they were.")


def _replayed(last: dict[str, Any], refused: dict[str, int]) -> None:
    click.echo(f"Replayed {counted(last['moved'], 'event')}.")
    if last["filtered"]:
        click.echo(f"Removed by a filter: {counted(last['filtered'], 'event')}.")
    if refused:
        codes = ", ".join(f"{number:,} {code}" for code, number in sorted(refused.items()))
        click.echo(f"Refused again, and kept with the new reason: {codes}.")
    if last["not_kept"]:
        click.echo(
            f"As before: {counted(last['not_kept'], 'dead letter')} that cannot be replayed: "
            'the body was not kept ([dead_letters] keep = "metadata").'
        )


def _body(letter: dict[str, Any]) -> bytes:
    if "bodyBase64" in letter:
        return base64.b64decode(letter["bodyBase64"])
    return str(letter["body"]).encode()


def _event_line(letter: dict[str, Any]) -> bytes | None:
    """An event that can be sent again, on one line; dated as it came where that is not in it."""
    try:
        body = msgspec.json.format(_body(letter), indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if letter["form"] == "sent" and letter["skew"] is not None and body.startswith(b"{"):
        sent_at = rfc3339(letter["receivedAt"] + letter["skew"])
        return b'{"sentAt":"%b",%b' % (sent_at, body[1:])
    return body or None


def _clean(text: str) -> str:
    """Without control characters: what came from an event must not steer the terminal."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)
