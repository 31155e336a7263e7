"""`edgeproxy buffer`: look after the buffer of a stopped proxy."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import click
import msgspec

from edgeproxy.buffer import aside
from edgeproxy.buffer.base import BufferFaultError
from edgeproxy.buffer.database import DATABASE, connect
from edgeproxy.buffer.deadletters import DeadLetterFilter, is_of_user
from edgeproxy.buffer.inspecting import Contents, Examined, contents, examine, files
from edgeproxy.buffer.repairing import repair as repair_folder
from edgeproxy.buffer.repairing import rewrite
from edgeproxy.buffer.rows import StoredEvent, every_event
from edgeproxy.cli.options import config_option, instance_option
from edgeproxy.cli.quantities import counted, duration, size
from edgeproxy.cli.stopped import Stopped, buffer_settings, locked, opened
from edgeproxy.events import rfc3339

__all__ = ["buffer"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_SHARES = 1000  # steps of a bar that knows shares only


@click.group()
def buffer() -> None:
    """Look after the buffer of a stopped proxy.

    Each command holds the folder's lock, so that no proxy starts on it meanwhile; while one runs,
    it waits for at most 10 seconds and then ends with exit code 1. Called by root, what it makes
    belongs to the owner of the folder.
    """


@buffer.command()
@config_option
@instance_option
@_json_option
def stats(config_path: Path | None, instance: int | None, as_json: bool) -> None:
    """What the buffer holds: events by source, their age, dead letters, and space on disk."""
    settings = buffer_settings(config_path, instance)
    with _reading(settings.path):
        found = contents(settings.path)
        on_disk = files(settings.path)
    waiting = [path.name for path in aside.not_salvaged(settings.path)]
    if as_json:
        click.echo(
            msgspec.json.encode(
                {
                    "folder": str(settings.path),
                    "max_bytes": settings.max_size,
                    "files": on_disk,
                    "not_salvaged": waiting,
                    **msgspec.to_builtins(found),
                }
            )
        )
        return
    click.echo("\n".join(_described(settings.path, found, on_disk, waiting)))


def _described(
    folder: Path, found: Contents, on_disk: dict[str, int], waiting: list[str]
) -> Iterator[str]:
    total = sum(lane.events for lane in found.lanes)
    yield f"{folder}: {counted(total, 'event')}, {size(sum(on_disk.values()))} on disk"
    for lane in found.lanes:
        age = ""
        if lane.oldest is not None:
            age = f", the oldest {duration(max(time.time() - lane.oldest / 1000, 0))} old"
        yield f"  {lane.name:<16} {counted(lane.events, 'event')}, {size(lane.bytes)}{age}"
    letters = counted(found.dead_letters, "dead letter")
    yield f"  {letters}, {size(found.dead_letter_bytes)}"
    yield f"  {found.free_pages:,} of {found.pages:,} pages free"
    for name in waiting:
        yield f"  {name}: damaged, set aside, to be salvaged at the next start"


@buffer.command()
@config_option
@instance_option
@_json_option
def check(config_path: Path | None, instance: int | None, as_json: bool) -> None:
    """Verify every page, and every event and dead letter against its checksum.

    Exit code 1 when something is damaged, with what it is. Nothing is changed.
    """
    folder = buffer_settings(config_path, instance).path
    with _reading(folder):
        found = _examined(folder)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not found.damage, **msgspec.to_builtins(found)}))
    else:
        for what in found.damage:
            click.secho(what, fg="red", err=True)
        letters = counted(found.dead_letters, "dead letter")
        click.echo(f"{folder}: looked at {counted(found.events, 'event')} and {letters}.")
        if found.damage:
            click.echo("Damaged. To salvage what can be read: edgeproxy buffer repair")
        else:
            click.echo("Every page and every checksum is right.")
    sys.exit(1 if found.damage else 0)


@buffer.command()
@config_option
@instance_option
@click.option("--source", help="Only events of this source.")
@click.option("--user", help="Only events of this anonymousId, userId or previousId.")
def export(
    config_path: Path | None, instance: int | None, source: str | None, user: str | None
) -> None:
    """Write what is not delivered as NDJSON to standard output, in order.

    Each line is one event that can be sent again: edgeproxy load --file, or a line at a time with
    curl. The events stay in the buffer. Exit code 1 when some cannot be read; the rest is written.
    """
    folder = buffer_settings(config_path, instance).path
    damaged = 0
    with _reading(folder):
        total = sum(lane.events for lane in contents(folder).lanes)
        connection = connect(folder / DATABASE, read_only=True)
        try:
            with _bar("Writing", total) as step:
                for stored in every_event(connection, source):
                    step(1)
                    damaged += not stored.intact
                    if stored.intact and (user is None or is_of_user(stored.event.body, user)):
                        click.echo(_line(stored))
        finally:
            connection.close()
    if damaged:
        raise click.ClickException(
            f"{counted(damaged, 'event')} could not be read; edgeproxy buffer check says which."
        )


def _line(stored: StoredEvent) -> bytes:
    """An event as it came, with its sentAt, on one line."""
    event = stored.event
    body = msgspec.json.format(event.body, indent=-1)
    if event.skew is None:
        return body
    return b'{"sentAt":"%b",%b' % (rfc3339(event.received + event.skew), body[1:])


@buffer.command()
@config_option
@instance_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
def repair(config_path: Path | None, instance: int | None, yes: bool, as_json: bool) -> None:
    """Salvage a damaged buffer into a new file.

    What can be read goes to a new file and is listed by source; what cannot is listed, too. The
    damaged file is set aside and kept. A sound buffer is left alone.
    """
    folder = buffer_settings(config_path, instance).path
    with _reading(folder):
        found = _examined(folder)
        if not found.damage:
            click.echo(f"{folder}: nothing is damaged; nothing was done.", err=as_json)
            if as_json:
                click.echo(msgspec.json.encode({"repaired": False}))
            return
        for what in found.damage:
            click.secho(what, fg="red", err=True)
        if not yes:
            click.confirm(f"Salvage {folder} into a new file?", abort=True, err=True)
        with _shares("Salvaging") as report:
            done = repair_folder(folder, report)
    kept = Counter(done.lanes) + Counter(event.lane for event in done.damaged)
    lost = dict(Counter(found.counted) - kept)
    if as_json:
        click.echo(
            msgspec.json.encode({"repaired": True, **msgspec.to_builtins(done), "lost": lost})
        )
        return
    letters = counted(done.dead_letters, "dead letter")
    click.echo(f"Salvaged {counted(done.events, 'event')} and {letters}.")
    for lane, number in done.lanes.items():
        click.echo(f"  {lane:<16} {counted(number, 'event')}")
    for event in done.damaged:
        what = f"event {event.id} of {event.lane}, {size(event.bytes)}"
        click.echo(f"Not what was stored, kept as a dead letter: {what}")
    for lane, number in lost.items():
        click.echo(f"Could not be read: {counted(number, 'event')} of {lane}")
    for name in done.set_aside:
        click.echo(f"Set aside: {folder / name}")


@buffer.command()
@config_option
@instance_option
@click.option("--source", help="Of this source.")
@click.option("--user", help="Of this anonymousId, userId or previousId: for erasure requests.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
def purge(
    config_path: Path | None,
    instance: int | None,
    source: str | None,
    user: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove undelivered events of a source, or everything of a user, for good.

    With --user dead letters are removed, too, and the file is written anew, so that nothing of what
    was removed is left in it (this needs about twice its size in space). Files that were set aside
    as damaged are named: they may still hold events of the user.
    """
    if source is None and user is None:
        raise click.UsageError("say what: --source, --user, or both")
    settings = buffer_settings(config_path, instance)
    with opened(settings) as stopped:
        _salvaged(stopped, settings.path)
        _removal_confirmed(stopped, source, user, yes=yes)
        total = stopped.buffer.stats().events
        events = letters = 0
        with _bar("Removing", total) as step:
            for done in stopped.each(stopped.buffer.purge_events(source=source, user=user)):
                events += done.removed
                step(done.looked_at)
        if user is not None:
            chosen = DeadLetterFilter(source=source, user=user)
            letters = stopped.run(stopped.buffer.purge_dead(chosen))
    if user is not None and events + letters:
        with _reading(settings.path):
            rewrite(settings.path)
    left = sorted(path.name for path in settings.path.glob(f"{DATABASE}.damaged-*"))
    if as_json:
        report = {"events": events, "dead_letters": letters, "set_aside": left}
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"Removed {counted(events, 'event')} and {counted(letters, 'dead letter')}.")
    for name in left if user is not None else ():
        click.echo(f"May still hold events of this user, delete it by hand: {settings.path / name}")


def _removal_confirmed(
    stopped: Stopped, source: str | None, user: str | None, *, yes: bool
) -> None:
    if yes:
        return
    connection = stopped.buffer.reading()
    try:
        with _bar("Counting", stopped.buffer.stats().events) as step:
            events = 0
            for stored in every_event(connection, source):
                step(1)
                events += user is None or is_of_user(stored.event.body, user)
    finally:
        connection.close()
    whose = " and ".join(
        f"{kind} {name}" for kind, name in (("source", source), ("user", user)) if name is not None
    )
    more = " and dead letters" if user is not None else ""
    click.confirm(
        f"Remove {counted(events, 'event')}{more} of {whose} for good?", abort=True, err=True
    )


def _salvaged(stopped: Stopped, folder: Path) -> None:
    """Wait until what was set aside is back: it is to be purged, too."""

    async def wait() -> None:
        while aside.not_salvaged(folder):  # noqa: ASYNC110 - a state of files
            await asyncio.sleep(0.05)

    stopped.run(wait())


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, and say in words what cannot be read."""
    with locked(folder):
        try:
            yield
        except BufferFaultError as error:
            raise click.ClickException(str(error)) from None
        except (apsw.Error, OSError) as error:
            raise click.ClickException(
                f"{folder / DATABASE}: {error}; edgeproxy buffer check says more."
            ) from None


def _examined(folder: Path) -> Examined:
    with _shares("Looking") as report:
        return examine(folder, lambda what, share: report(_SHARE_OF[what](share)))


#: Pages are read first, then every event, then every dead letter.
_SHARE_OF: dict[str, Any] = {
    "pages": lambda share: share * 0.4,
    "events": lambda share: 0.4 + share * 0.5,
    "dead letters": lambda share: 0.9 + share * 0.1,
}


@contextmanager
def _shares(label: str) -> Iterator[Any]:
    """A bar that is told shares from 0 to 1."""
    shown = 0
    with _bar(label, _SHARES) as step:

        def report(share: float) -> None:
            nonlocal shown
            now = int(share * _SHARES)
            step(now - shown)
            shown = now

        yield report


@contextmanager
def _bar(label: str, length: int) -> Iterator[Any]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty() or not length:
        yield lambda _steps: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update
