"""What becomes of one event, and why: for `map`, for tests of a mapping, for the operator's page.

The very functions that the server calls, in the same order; only that somebody watches.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from edgeproxy.events import Refusal, read
from edgeproxy.events.intake import Receipt, dated, normalise, seal
from edgeproxy.events.times import parse_time
from edgeproxy.events.verdicts import Filtered
from edgeproxy.mapping.checking import FIELDS
from edgeproxy.mapping.counters import Note, Trace
from edgeproxy.mapping.objects import Text, read_members
from edgeproxy.mapping.paths import Path, show_path
from edgeproxy.mapping.table import field_table

if TYPE_CHECKING:
    from edgeproxy.mapping.mapper import Mapper

__all__ = [
    "Difference",
    "Explanation",
    "Limits",
    "Supplied",
    "differences",
    "preview",
    "receipt_for",
]


class Limits(Struct, frozen=True):
    """What an event is judged by."""

    max_event: int = 96_000
    max_age: float = 7 * 86_400.0


class Supplied(Struct, frozen=True):
    """Where one output key came from."""

    key: str
    did: str
    """`as it came`, `forwarded`, `added`, `moved`, `computed`, `coerced`, …"""
    rule: str = ""
    """The table and key of the settings, or FIELDS; empty for what nothing names."""
    input: str = ""
    detail: str = ""


class Explanation(Struct, frozen=True):
    """One event's fate."""

    verdict: str
    """`accepted`, `filtered`, or a quarantine code."""
    revision: str
    message: str = ""
    """Of a refusal."""
    filter: str = ""
    """The filter that ended the event's way."""
    event_rule: str = ""
    """The event rule that names it."""
    output: bytes | None = None
    """The JSON text that would be sent (with its `sentAt`); None unless accepted."""
    size: int = 0
    """Bytes of `output`."""
    max_size: int = 0
    supplied: tuple[Supplied, ...] = ()
    """Each output key's origin."""
    notes: tuple[Note, ...] = ()
    """Everything that happened, in order: also what was left out, dropped or did not apply."""


def receipt_for(raw: bytes, otherwise: int = 0) -> Receipt:
    """A receipt as if the event had come just when it was made, so that age decides nothing.

    Args:
        raw: the event as it came.
        otherwise: when an event came that does not say when it was made (ms since 1970).
    """
    fields = read_members(raw) or {}
    times = (fields.get(key) for key in ("sentAt", "originalTimestamp", "timestamp"))
    found = (None if text is None else parse_time(read(text)) for text in times)
    return Receipt(next((ms for ms in found if ms is not None), otherwise))


def preview(
    mapper: "Mapper", raw: bytes, source: str, receipt: Receipt, limits: Limits | None = None
) -> Explanation:
    """Say what would become of an event as it comes in. Never raises for any bytes."""
    limits = limits or Limits()
    event = normalise(raw, receipt, is_utf8=False)
    if isinstance(event, Refusal):
        return Explanation(event.code, mapper.revision, event.message)
    came = _leaves(raw)
    trace = Trace()
    rule = mapper.rule_for(event)
    verdict = mapper.apply(event, source, trace)
    found = Explanation(
        "accepted",
        mapper.revision,
        event_rule="" if rule is None else rule.name,
        max_size=limits.max_event,
        notes=tuple(trace.notes),
    )
    if isinstance(verdict, Filtered):
        return replace(found, verdict="filtered", filter=verdict.rule)
    if isinstance(verdict, Refusal):
        return replace(found, verdict=verdict.code, message=verdict.message)
    sealed = seal(event, receipt, max_event=limits.max_event, max_age=limits.max_age)
    if isinstance(sealed, Refusal):
        size = len(event.body())
        return replace(found, verdict=sealed.code, message=sealed.message, size=size)
    output = dated(receipt.received + (sealed.skew or 0)) + sealed.body[1:]
    supplied = tuple(_supplied(output, came, trace))
    return replace(found, output=output, size=len(output), supplied=supplied)


_ON_THE_WAY_IN = "on the way in"

#: How many levels are looked into; what is deeper, and arrays, are shown as a whole.
_DEPTH: Mapping[str, int] = {"context": 3, "properties": 2, "traits": 2}


def _leaves(text: Text) -> dict[str, Text]:
    """Each field of an event by its path, as deep as the field table goes."""
    found: dict[str, Text] = {}
    for key, value in (read_members(text) or {}).items():
        _spread(found, (key,), value, _DEPTH.get(key, 1))
    return found


def _spread(found: dict[str, Text], path: Path, text: Text, depth: int) -> None:
    members = read_members(text) if len(path) < depth else None
    if not members:
        found[show_path(path)] = text
        return
    for key, value in members.items():
        _spread(found, (*path, key), value, depth)


def _supplied(output: bytes, came: Mapping[str, Text], trace: Trace) -> Iterator[Supplied]:
    notes: dict[str, list[Note]] = {}
    for note in trace.notes:
        notes.setdefault(note.key, []).append(note)
    expected = {row.output: row.input for row in field_table()}
    for key in _leaves(output):
        mine = [
            n for k in notes if k == key or k.startswith((f"{key}.", f"{key}[")) for n in notes[k]
        ]
        if mine:
            yield from (Supplied(n.key, n.did, n.rule, n.input, n.detail) for n in mine)
        elif key in came:
            table = key in expected
            yield Supplied(
                key, "as it came" if table else "forwarded", FIELDS if table else "", key
            )
        else:
            whence = expected.get(key, "")
            came_from = whence if whence in came and whence != key else ""
            yield Supplied(
                key, "added", FIELDS if key in expected else "", came_from, "on the way in"
            )


class Difference(Struct, frozen=True):
    """One key that two outputs do not share; None where one of them has nothing."""

    key: str
    before: bytes | None
    after: bytes | None


def differences(one: Explanation, other: Explanation) -> tuple[Difference, ...]:
    """What changes from one output to another, in the order of the first.

    A `messageId` that was made up on the way in is no difference.
    """
    made_up = Supplied("messageId", "added", FIELDS, detail=_ON_THE_WAY_IN)
    both_made_up = made_up in one.supplied and made_up in other.supplied
    before, after = (_leaves(found.output or b"{}") for found in (one, other))
    changes = []
    for key in (*before, *(key for key in after if key not in before)):
        was, now = before.get(key), after.get(key)
        texts = (None if was is None else bytes(was), None if now is None else bytes(now))
        if texts[0] != texts[1] and not (both_made_up and key == made_up.key):
            changes.append(Difference(key, *texts))
    return tuple(changes)
