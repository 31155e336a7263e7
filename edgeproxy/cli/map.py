"""`edgeproxy map`: what would be sent for events that are read, why, and what another mapping changes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
import msgspec
from msgspec.structs import replace

from edgeproxy.cli.options import config_option, refuse, settings_for
from edgeproxy.config import ConfigError, Settings
from edgeproxy.events.envelope import InvalidEnvelopeError, InvalidJSONError, open_batch
from edgeproxy.events.intake import Receipt
from edgeproxy.events.times import parse_time
from edgeproxy.mapping import (
    Difference,
    Explanation,
    Limits,
    compile_file,
    compile_settings,
    differences,
    receipt_for,
)
from edgeproxy.mapping.objects import read_array, read_members

__all__ = ["command"]


class _Read(msgspec.Struct, frozen=True):
    """One event as it was read."""

    number: int
    raw: bytes
    receipt: Receipt


@click.command("map")
@click.argument("file", type=click.File("rb"), default="-")
@config_option
@click.option("--source", help="Map as events of this source.  [default: the first one]")
@click.option("--explain", is_flag=True, help="Say which rule and input supplied each key.")
@click.option(
    "--diff",
    "other",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="MAPPING",
    help="Show what another mapping file would change.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    file: IO[bytes],
    config_path: Path | None,
    source: str | None,
    explain: bool,
    other: Path | None,
    as_json: bool,
) -> None:
    """Read events and print what would be sent for each.

    FILE (or standard input) holds one event a line, or one JSON document: an event, a list of
    events, or a batch as SDKs send it. What is refused or filtered is said on standard error.
    Nothing is sent, and no event is too old here.
    """
    settings = settings_for(config_path, judges=())
    try:
        mapper = compile_settings(settings)
        second = None if other is None else compile_file(settings, other)
    except ConfigError as error:
        refuse(error)
    name = _source(settings, source)
    limits = Limits(settings.validation.max_event, settings.validation.max_age)
    changed = total = 0
    for event in _events(file):
        total += 1
        found = mapper.explain(event.raw, name, event.receipt, limits)
        if second is None:
            _show(event, found, explain=explain, as_json=as_json)
            continue
        now = second.explain(event.raw, name, event.receipt, limits)
        changed += _show_difference(event, found, now, as_json=as_json)
    if second is not None and not as_json:
        click.echo(f"{changed} of {total} events differ ({mapper.revision} → {second.revision}).")


def _source(settings: Settings, name: str | None) -> str:
    names = [source.name for source in settings.sources]
    if name is None:
        return names[0] if names else "default"
    if name not in names:
        raise click.BadParameter(
            f"{name!r} is not one of {', '.join(names)}", param_hint="--source"
        )
    return name


# --- reading ---


def _events(file: IO[bytes]) -> Iterator[_Read]:
    """Every event of a file, numbered from one.

    Lines are read one by one where the first is a document of its own, so a stream may be endless.
    """
    documents = _documents(file)
    events = (
        event for document in documents for event in _open(document, time.time_ns() // 1_000_000)
    )
    for number, (raw, receipt) in enumerate(events, 1):
        yield _Read(number, raw, receipt)


def _documents(file: IO[bytes]) -> Iterator[bytes]:
    lines = (line for line in file if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if not _is_document(first):
        rest = b"".join(lines)
        # Not a document of its own: one that goes on over lines, or a broken line among whole ones.
        if not _is_document(first + rest):
            yield first
            yield from rest.splitlines()
            return
        first += rest
    yield first
    yield from lines


def _is_document(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _open(document: bytes, now: int) -> Iterator[tuple[bytes, Receipt]]:
    """The events of one document, with what is known of the request that they would come in."""
    document = document.strip()
    elements = read_array(document)
    if elements is not None:
        for element in elements:
            yield from _open(bytes(element), now)
        return
    members = read_members(document) or {}
    if "batch" not in members or "type" in members:
        yield document, receipt_for(document, now)
        return
    try:
        envelope = open_batch(document)
    except (InvalidEnvelopeError, InvalidJSONError):
        yield document, receipt_for(document, now)
        return
    sent_at = parse_time(envelope.sent_at)
    for event in envelope.events:
        raw = bytes(event)
        receipt = receipt_for(raw, now if sent_at is None else sent_at)
        yield (
            raw,
            replace(
                receipt, sent_at=envelope.sent_at, sent_at_ms=sent_at, context=envelope.context
            ),
        )


# --- printing ---


def _show(event: _Read, found: Explanation, *, explain: bool, as_json: bool) -> None:
    if as_json:
        _print_json(event, found, explain=explain)
        return
    if explain:
        click.echo("\n".join(_explained(event, found)) + "\n")
    elif found.output is not None:
        click.echo(found.output)
    else:
        click.echo(f"event {event.number}: {_fate(found)}", err=True)


def _fate(found: Explanation) -> str:
    if found.verdict == "accepted":
        return f"accepted, {found.size} of {found.max_size} bytes"
    if found.verdict == "filtered":
        return f"filtered by {found.filter!r}"
    return f"refused, {found.verdict}: {found.message}"


def _print_json(event: _Read, found: Explanation, *, explain: bool) -> None:
    report: dict[str, object] = {
        "event": event.number,
        "verdict": found.verdict,
        "message": found.message,
        "filter": found.filter,
        "size": found.size,
        "max_size": found.max_size,
        "revision": found.revision,
        "output": None if found.output is None else msgspec.Raw(found.output),
    }
    if explain:
        report |= {
            "event_rule": found.event_rule,
            "supplied": found.supplied,
            "notes": found.notes,
        }
    click.echo(msgspec.json.encode(report))


def _explained(event: _Read, found: Explanation) -> Iterator[str]:
    yield f"event {event.number}: {_fate(found)} (mapping {found.revision})"
    if found.event_rule:
        yield f"  named by {found.event_rule}"
    shown = {(one.key, one.did) for one in found.supplied}
    rows = [(one.key, one.did, one.input, one.rule, one.detail) for one in found.supplied]
    rows += [
        (note.key or "the event", note.did, note.input, note.rule, note.detail)
        for note in found.notes
        if (note.key, note.did) not in shown
    ]
    width = max((len(row[0]) for row in rows), default=0)
    for key, did, came, rule, detail in rows:
        whence = f" from {came}" if came and came != key else ""
        why = " · ".join(part for part in (rule, detail) if part)
        yield f"  {key:<{width}}  {did}{whence}{f'  [{why}]' if why else ''}"
    if found.output is not None:
        yield f"  {found.output.decode()}"


def _show_difference(event: _Read, one: Explanation, other: Explanation, *, as_json: bool) -> bool:
    found = differences(one, other)
    differ = bool(found) or one.verdict != other.verdict
    if as_json:
        report = {
            "event": event.number,
            "differs": differ,
            "verdict": [one.verdict, other.verdict],
            "changes": [_change(change) for change in found],
        }
        click.echo(msgspec.json.encode(report))
    elif differ:
        click.echo(f"event {event.number}:")
        if one.verdict != other.verdict:
            click.echo(f"  - {_fate(one)}\n  + {_fate(other)}")
        for change in found:
            if change.before is not None:
                click.echo(f"  - {change.key}: {change.before.decode()}")
            if change.after is not None:
                click.echo(f"  + {change.key}: {change.after.decode()}")
    return differ


def _change(change: Difference) -> dict[str, object]:
    return {
        "key": change.key,
        "before": None if change.before is None else msgspec.Raw(change.before),
        "after": None if change.after is None else msgspec.Raw(change.after),
    }
