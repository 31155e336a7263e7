"""Holding events to the types of the field table: `coerce`, `forward` or `quarantine`.

The common case, an event whose fields all have the right type, is one strict decode that builds
nothing. Only where that fails is the event looked at level by level, and only what has to change
is written anew.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw

from edgeproxy.events import Event, Refusal
from edgeproxy.events.verdicts import TYPES
from edgeproxy.mapping.coercion import coerce, coerce_time, is_plain_time, is_time, kind_of, suits
from edgeproxy.mapping.counters import Counters, Trace
from edgeproxy.mapping.objects import Edits, edit, is_null, read_members
from edgeproxy.mapping.table import TIMES, FieldType, Tree, context_types, fields_of
from edgeproxy.mapping.writing import put

__all__ = ["FIELDS", "AnyObject", "Checker", "Types", "strict"]

#: What the field table is called where a rule is named.
FIELDS = "Hightouch's field table"

Types = Literal["coerce", "forward", "quarantine"]


class AnyObject(msgspec.Struct, gc=False):
    """Accepts every JSON object and keeps nothing of it."""


_STRICT: Mapping[FieldType, Any] = {
    "String": str | None,
    "Boolean": bool | None,
    # A number too large for a float fails here and is then judged by its text.
    "Number": float | None,
    "Integer": int | None,
    "Object": AnyObject | None,
    "Boolean/String": bool | str | None,
}


def strict(tree: Tree) -> type[msgspec.Struct]:
    """A type that takes an object whose fields, where it has them, have the tree's types."""
    fields = [
        (name, strict(kind) | None if isinstance(kind, Mapping) else _STRICT[kind], None)
        for name, kind in tree.items()
    ]
    return msgspec.defstruct("Strict", fields, gc=False)


#: Contexts that were found to be right are remembered: so many, and no larger ones (4 MB in all).
_REMEMBERED, _REMEMBERED_SIZE = 2048, 2048
_OPENING = ord("{")
_NOTHING = (None, UNSET)


def _is_text(value: object) -> bool:
    return type(value) is str or value in _NOTHING


def _is_object(text: Raw | msgspec.UnsetType) -> bool:
    return text is UNSET or memoryview(text)[0] == _OPENING or is_null(text)


class _Wrong(msgspec.Struct, frozen=True):
    """A value that is not what the table wants."""

    key: str
    found: str
    wanted: str
    is_time: bool

    def refusal(self) -> Refusal:
        if self.is_time:
            article = "an" if self.found[0] in "AIO" else "a"
            return Refusal(
                "bad_timestamp",
                f"`{self.key}` is not an RFC 3339 time but {article} {self.found}",
            )
        return Refusal("bad_type", f"`{self.key}` must be {self.wanted} and is {self.found}")


class Checker:
    """The type check of one mapper. `check` changes the event, or refuses it."""

    def __init__(self, types: Types, counters: Counters) -> None:
        self.types = types
        """`validation.types`."""
        self._counters = counters
        self._context = msgspec.json.Decoder(strict(context_types()))
        self._good: set[bytes] = set()
        self._rows: Mapping[str, Mapping[str, FieldType]] = {
            kind: {row.output: row.type for row in fields_of(kind) if "." not in row.output}
            for kind in TYPES
        }
        self._global: Mapping[str, FieldType] = {
            row.output: row.type for row in fields_of("") if "." not in row.output
        }

    def check(self, event: Event, trace: Trace | None = None) -> Refusal | None:
        """Hold an event to the table: convert, count or refuse what is of the wrong type.

        Returns:
            None, or with `quarantine` what to say of the first thing that is wrong.
        """
        if self.types == "forward":
            return None
        if not self._is_good_at_the_top(event):
            refusal = self._check_top(event, trace)
            if refusal is not None:
                return refusal
        context = event.lens.context
        if context is UNSET:
            return None
        text = bytes(context)
        # The events of a visit share their context, byte for byte.
        if text in self._good:
            return None
        try:
            self._context.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._check_context(event, context, trace)
        if len(text) <= _REMEMBERED_SIZE:
            if len(self._good) >= _REMEMBERED:
                self._good.clear()
            self._good.add(text)
        return None

    def _is_good_at_the_top(self, event: Event) -> bool:
        # Written out without calls: this is what every event costs.
        lens = event.lens
        kind = lens.type
        if type(kind) is not str:
            return False
        for text in (lens.messageId, lens.anonymousId, lens.userId):
            if type(text) is not str and text is not UNSET and text is not None:
                return False
        for moment in (lens.originalTimestamp, lens.sentAt):
            if type(moment) is str:
                if not is_plain_time(moment) and not is_time(moment):
                    return False
            elif moment is not UNSET and moment is not None:
                return False
        if kind == "track":
            return _is_text(lens.event) and _is_object(lens.properties)
        if kind == "identify":
            return _is_object(lens.traits)
        return kind not in ("page", "screen") or _is_object(lens.properties)

    def _check_top(self, event: Event, trace: Trace | None) -> Refusal | None:
        fields = event.fields()
        kind = event.lens.type
        rows = self._rows.get(kind, self._global) if isinstance(kind, str) else self._global
        for key, wanted in rows.items():
            if key not in fields:
                continue
            text = bytes(fields[key])
            now = self._judge(key, text, wanted, trace)
            if isinstance(now, _Wrong):
                if self.types == "quarantine":
                    return now.refusal()
            elif now != text:
                put(event, key, now)
        return None

    def _check_context(self, event: Event, context: Raw, trace: Trace | None) -> Refusal | None:
        edits: Edits = {}
        wrong = self._check_level(context, context_types(), "context", edits, trace)
        if wrong is not None and self.types == "quarantine":
            return wrong.refusal()
        if edits:
            put(event, "context", edit(context, edits))
        return None

    def _check_level(
        self, text: Raw, tree: Tree, path: str, edits: Edits, trace: Trace | None
    ) -> _Wrong | None:
        """Judge one object of the tree and those inside it; give the first thing that is wrong."""
        members = read_members(text)
        if members is None:
            found = kind_of(bytes(text))
            return None if found == "null" else self._wrong(path, found, "Object", trace)
        first: _Wrong | None = None
        for name, wanted in tree.items():
            inner = members.get(name)
            if inner is None:
                continue
            key = f"{path}.{name}"
            wrong: _Wrong | None = None
            if isinstance(wanted, Mapping):
                below: Edits = {}
                wrong = self._check_level(inner, wanted, key, below, trace)
                if below:
                    edits[name] = below
            else:
                now = self._judge(key, bytes(inner), wanted, trace)
                if isinstance(now, _Wrong):
                    wrong = now
                elif now != bytes(inner):
                    edits[name] = now
            first = first or wrong
        return first

    def _judge(
        self, key: str, text: bytes, wanted: FieldType, trace: Trace | None
    ) -> bytes | _Wrong:
        """What to send for one value: itself, what it converts to, or why it is wrong."""
        found = kind_of(text)
        timed = key in TIMES
        if suits(found, wanted) and not (timed and found == "String" and not _is_time_text(text)):
            return text
        if self.types == "coerce":
            now = coerce_time(text) if timed else coerce(text, wanted)
            if now is not None:
                self._counters.coerced[key] += 1
                if trace is not None:
                    trace.add(key, "coerced", FIELDS, detail=f"from {found} to {wanted}")
                return now
        return self._wrong(key, found, wanted, trace, is_time=timed)

    def _wrong(
        self, key: str, found: str, wanted: str, trace: Trace | None, *, is_time: bool = False
    ) -> _Wrong:
        self._counters.uncoercible[key] += 1
        if trace is not None:
            wanted_text = "RFC 3339" if is_time else wanted
            trace.add(key, "uncoercible", FIELDS, detail=f"is {found}, wanted {wanted_text}")
        return _Wrong(key, found, wanted, is_time)


def _is_time_text(text: bytes) -> bool:
    return is_time(msgspec.json.decode(text, type=str))
