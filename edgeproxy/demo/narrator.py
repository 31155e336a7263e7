"""Tells what happens to the demo's events: one calm line each on the terminal, and to open pages.

It is told by the parts themselves: the proxy's intake (accepted), its log (batches and lanes) and
the sandbox (received). Nothing waits for it, and a page that does not keep up misses lines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from edgeproxy.events.intake import Sealed
from edgeproxy.sandbox import Arrival

__all__ = ["Narrator"]

_PAGE_BACKLOG = 1000  # what a page may lag behind before it misses lines
_BATCHES = {"batch_delivered": True, "batch_retry": False, "batch_park": False}
_COLOURS = {
    "accepted": "cyan",
    "flushed": "blue",
    "received": "green",
    "blocked": "red",
    "waiting": "yellow",
    "refused": "red",
}


class _Named(msgspec.Struct):
    """What a line says of an event."""

    event: object = None
    name: object = None
    userId: object = None  # noqa: N815 - the wire's name
    anonymousId: object = None  # noqa: N815


_named = msgspec.json.Decoder(_Named)


class Narrator:
    """Hears of events and passes them on. All methods are called on the event loop."""

    def __init__(self, write: Callable[[str], None] = click.echo) -> None:
        """`write` takes one finished line."""
        self._write = write
        self._pages: set[asyncio.Queue[bytes]] = set()

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[bytes]]:
        """What is heard while the context lasts, as JSON objects."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(_PAGE_BACKLOG)
        self._pages.add(queue)
        try:
            yield queue
        finally:
            self._pages.discard(queue)

    def accepted(self, _source: str, events: Sequence[Sealed]) -> None:
        """The proxy has these on disk."""
        for event in events:
            name, who = _about(event.body)
            self._line("accepted", event.type, name, who)
            self._tell(kind="accepted", id=event.message_id, type=event.type, name=name, who=who)

    def received(self, arrival: Arrival) -> None:
        """The sandbox has this one."""
        name, who = _about(arrival.event)
        stage = "blocked" if arrival.blocked else "received"
        self._line(stage, arrival.type, name, arrival.blocked or who)
        self._tell(
            kind="received",
            id=arrival.message_id,
            type=arrival.type,
            name=name,
            who=who,
            blocked=arrival.blocked,
        )

    def logged(self, event: str, fields: Mapping[str, Any]) -> None:
        """A line of the proxy's log; those of batches and of what was refused are told."""
        if event in _BATCHES:
            count = int(fields.get("events", 0))
            delivered, answer = _BATCHES[event], str(fields.get("answer", ""))
            answer = answer.removeprefix("http_")
            took = f"{float(fields.get('seconds', 0)) * 1000:.0f} ms"
            stage = "flushed" if delivered else "waiting"
            self._line(stage, "batch", _counted(count), f"{answer} in {took}".strip())
            self._tell(kind="flushed", events=count, delivered=delivered, reason=answer)
        elif event == "events_quarantined":
            codes = ", ".join(fields.get("codes", {}))
            self._line("refused", "event", codes, "kept as a dead letter")

    def upstream(self, *, on: bool) -> None:
        """Somebody switched the stand-in for Hightouch off or on."""
        self._line("received" if on else "waiting", "", "Hightouch is " + ("on" if on else "off"))
        self._tell(kind="upstream", on=on)

    def _line(self, stage: str, kind: str, what: str, note: str = "") -> None:
        moment = click.style(time.strftime("%H:%M:%S"), dim=True)
        word = click.style(f"{stage:<8}", fg=_COLOURS[stage])
        told = click.style(note, dim=True)
        self._write(f"{moment}  {word}  {kind:<8}  {what:<26}  {told}".rstrip())

    def _tell(self, **heard: object) -> None:
        told = msgspec.json.encode(heard)
        for page in self._pages:
            if not page.full():
                page.put_nowait(told)


def _about(body: bytes) -> tuple[str, str]:
    """The name of an event and who caused it, as short texts."""
    try:
        found = _named.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "", ""
    name = found.event if isinstance(found.event, str) else found.name
    who = found.userId or found.anonymousId
    return (
        _printable(name)[:40] if isinstance(name, str) else "",
        _printable(who)[:18] if isinstance(who, str) else "",
    )


def _printable(text: str) -> str:
    """Without control characters: an event's name must not steer the terminal."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def _counted(events: int) -> str:
    return "1 event" if events == 1 else f"{events} events"
