"""The dead letters of one buffer: looked at, submitted again, removed.

The same for a running proxy (the admin listener asks) and for the files of a stopped one (commands
ask). Everything goes in steps of some hundred, each a transaction of its own: an interruption
leaves every letter either untouched or done, and none done twice. Letters that die meanwhile, by a
replay too, are not met again.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import apsw
import msgspec
import structlog
from msgspec import Struct, field

from edgeproxy.admin.replaying import Mapper, resubmit
from edgeproxy.buffer import deadletters
from edgeproxy.buffer.base import BufferFaultError
from edgeproxy.buffer.deadletters import DeadLetterFilter, Replayed, StoredDeadLetter
from edgeproxy.config import Validation
from edgeproxy.events import read, read_object
from edgeproxy.events.verdicts import Filtered

__all__ = ["Counted", "Desk", "Progress", "Store", "told"]

_log = structlog.get_logger("edgeproxy.admin")

_AT_A_TIME = 200


class Store(Protocol):
    """What is needed of the buffer."""

    def reading(self) -> apsw.Connection:
        """A further connection, only for reading."""

    def full_reason(self) -> str | None:
        """Why nothing can be stored at the moment."""

    async def replay(self, moves: list[Replayed]) -> int:
        """Move letters in one transaction; how many left."""

    async def remove_dead(self, ids: list[int]) -> int:
        """Remove letters in one transaction; how many there were."""


class Counting(Protocol):
    """What is counted."""

    def accepted(self, source: str, events: int) -> None:
        """Events that came to be sendable."""

    def filtered(self, source: str, rule: str, events: int = 1) -> None:
        """Events that a rule removed."""

    def purged(self, source: str, events: int) -> None:
        """Events that the operator removed."""


class Counted(Struct):
    """How many a filter fits, and why they died."""

    count: int
    codes: dict[str, int]


class Progress(Struct):
    """How far a replay or a purge has come."""

    total: int
    done: int = 0
    moved: int = 0
    """Events again, or (in a purge) removed."""
    filtered: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Still dead letters, by their new codes."""
    not_kept: int = 0
    """Dead letters as they were: what they would be replayed from was not kept."""
    stopped: str | None = None
    """Why it ended early."""
    ended: bool = False


class Desk:
    """Where dead letters are worked on."""

    def __init__(
        self,
        store: Store,
        rules: Callable[[], tuple[Mapper, Validation]],
        counting: Counting,
        *,
        now: Callable[[], int],
    ) -> None:
        """Take what it works with; `rules` are those in force, `now` gives ms since 1970."""
        self._store = store
        self._rules = rules
        self._counting = counting
        self._now = now

    async def count(self, chosen: DeadLetterFilter) -> Counted:
        """How many a filter fits. Reads each one where it names a user."""
        codes: dict[str, int] = {}
        async for chunk in self._chunks(chosen):
            for stored in chunk:
                codes[stored.letter.code] = codes.get(stored.letter.code, 0) + 1
        return Counted(sum(codes.values()), codes)

    async def letters(
        self, chosen: DeadLetterFilter, *, limit: int | None, bodies: bool, newest_first: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Those that a filter fits, as `told`."""
        left = limit
        async for chunk in self._chunks(chosen, newest_first=newest_first):
            for stored in chunk[:left]:
                yield told(stored, bodies=bodies)
            if left is not None:
                left -= len(chunk)
                if left <= 0:
                    return

    async def replay(self, chosen: DeadLetterFilter) -> AsyncGenerator[Progress, None]:
        """Submit again those that a filter fits; the last progress has `ended`.

        Ending it early leaves the rest as they are.
        """
        progress = Progress((await self.count(chosen)).count)
        try:
            async for chunk in self._chunks(chosen, up_to_now=True):
                progress.stopped = self._store.full_reason()
                if progress.stopped is not None:
                    break
                await self._replay(chunk, progress)
                yield progress
        except BufferFaultError as error:
            progress.stopped = str(error)
        finally:
            _log.info("dead_letters_replayed", **_counts(progress), refused=progress.refused)
        progress.ended = True
        yield progress

    async def purge(self, chosen: DeadLetterFilter) -> AsyncGenerator[Progress, None]:
        """Remove those that a filter fits; the last progress has `ended`."""
        progress = Progress((await self.count(chosen)).count)
        try:
            async for chunk in self._chunks(chosen, up_to_now=True):
                progress.moved += await self._store.remove_dead([stored.id for stored in chunk])
                progress.done += len(chunk)
                for source, number in _by_source(chunk).items():
                    self._counting.purged(source, number)
                yield progress
        except BufferFaultError as error:
            progress.stopped = str(error)
        finally:
            _log.warning("dead_letters_purged", **_counts(progress))
        progress.ended = True
        yield progress

    async def _replay(self, chunk: list[StoredDeadLetter], progress: Progress) -> None:
        mapper, validation = self._rules()
        now = self._now()
        moves: list[Replayed] = []
        filtered: list[tuple[str, str]] = []
        refused: list[str] = []
        kept = [stored for stored in chunk if stored.letter.body or not stored.intact]
        for stored in kept:
            letter = stored.letter
            move = resubmit(stored, mapper, validation, now)
            if isinstance(move, Filtered):
                filtered.append((letter.lane, move.rule))
                move = Replayed(stored.id, letter.lane, letter.received, None)
            elif move.refusal is not None:
                refused.append(move.refusal.code)
            moves.append(move)
        left = await self._store.replay(moves)
        progress.done += len(chunk)
        progress.not_kept += len(chunk) - len(kept)
        progress.moved += max(left - len(filtered), 0)  # others may have taken some
        progress.filtered += len(filtered)
        for code in refused:
            progress.refused[code] = progress.refused.get(code, 0) + 1
        for source, rule in filtered:
            self._counting.filtered(source, rule)
        fresh = [s for s, m in zip(kept, moves, strict=True) if m.event is not None]
        fresh = [stored for stored in fresh if stored.letter.form == "received"]
        for source, number in _by_source(fresh).items():
            self._counting.accepted(source, number)

    async def _chunks(
        self, chosen: DeadLetterFilter, *, newest_first: bool = False, up_to_now: bool = False
    ) -> AsyncGenerator[list[StoredDeadLetter], None]:
        """Some hundred at a time, read in a thread, with the connection closed in the end."""
        connection = self._store.reading()
        try:
            last = deadletters.newest(connection) if up_to_now else None
            found = deadletters.iterate(connection, chosen, newest_first=newest_first)
            while chunk := await asyncio.to_thread(_some, found):
                kept = [stored for stored in chunk if last is None or stored.id <= last]
                if kept:
                    yield kept
                if len(kept) < len(chunk):
                    return
        finally:
            connection.close()


def told(stored: StoredDeadLetter, *, bodies: bool) -> dict[str, Any]:
    """A dead letter as JSON. The body is text as it was stored, or base64 where it is none."""
    letter = stored.letter
    fields = read_object(letter.body) or {}
    document: dict[str, Any] = {
        "id": stored.id,
        "code": letter.code,
        "message": letter.message,
        "source": letter.lane,
        "type": _text(fields.get("type")),
        "event": _text(fields.get("event")) or _text(fields.get("name")),
        "messageId": letter.message_id,
        "receivedAt": letter.received,
        "diedAt": letter.died,
        "form": letter.form,
        "revision": letter.revision,
        "status": letter.status,
        "answer": letter.answer,
        "bytes": len(letter.body),
        "intact": stored.intact,
    }
    if bodies:
        try:
            document["body"] = letter.body.decode()
        except UnicodeDecodeError:
            document["bodyBase64"] = base64.b64encode(letter.body).decode()
        document["skew"] = letter.skew
        document["receipt"] = msgspec.Raw(letter.receipt or b"null")
    return document


def _text(value: msgspec.Raw | None) -> str:
    found = None if value is None else read(value)
    return found if isinstance(found, str) else ""


def _some(found: Iterator[StoredDeadLetter]) -> list[StoredDeadLetter]:
    return list(islice(found, _AT_A_TIME))


def _by_source(chunk: list[StoredDeadLetter]) -> dict[str, int]:
    found: dict[str, int] = {}
    for stored in chunk:
        found[stored.letter.lane] = found.get(stored.letter.lane, 0) + 1
    return found


def _counts(progress: Progress) -> dict[str, int]:
    return {"moved": progress.moved, "of": progress.total, "filtered": progress.filtered}
