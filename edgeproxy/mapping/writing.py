"""Noting new top-level fields on an event, so that its lens agrees with what will be sent."""

from msgspec import UNSET, Raw

from edgeproxy.events import Event, Lens, read
from edgeproxy.mapping.objects import Edits, Text, edit

__all__ = ["put", "put_edits"]

_JUDGED = frozenset(Lens.__struct_fields__)
_RAW = ("context", "properties", "traits")


def put(event: Event, key: str, text: Text | None) -> None:
    """Note a new value (JSON text) for a top-level field, new or not; None takes it out."""
    event.put(key, None if text is None else bytes(text))
    if key not in _JUDGED:
        return
    value: object
    if text is None:
        value = UNSET
    elif key in _RAW:
        value = text if isinstance(text, Raw) else Raw(text)
    else:
        value = read(text)
    setattr(event.lens, key, value)


def put_edits(event: Event, edits: Edits, failed: list[str] | None = None) -> None:
    """Apply edits to the event: each top-level field that changes is written anew, and no other."""
    fields: dict[str, Raw] | None = None
    for key, change in edits.items():
        if not isinstance(key, str):
            continue
        if not isinstance(change, dict):
            put(event, key, change)
            continue
        was: Text | None
        if key in _RAW:
            held = getattr(event.lens, key)
            was = None if held is UNSET else held
        else:
            if fields is None:
                fields = event.fields()
            was = fields.get(key)
        now = edit(was, change, failed)
        if now is not None and (was is None or now != bytes(was)):
            put(event, key, now)
