"""Noting new top-level fields on an event, so that its lens agrees with what will be sent."""

from msgspec import UNSET, Raw

from edgeproxy.events import Event, Lens, read
from edgeproxy.mapping.objects import Edits, Text, edit, edit_members
from edgeproxy.mapping.view import View

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


def put_edits(event: Event, edits: Edits, view: View, failed: list[str] | None = None) -> None:
    """Apply edits to the event: each top-level field that changes is written anew, and no other.

    Args:
        view: of the event as it is; not to be used for reading after that.
        failed: gets a line for each edit that cannot be done.
    """
    for key, change in edits.items():
        if not isinstance(key, str):
            continue
        if not isinstance(change, dict):
            if change is not None or view.top(key) is not None:
                put(event, key, change)
            continue
        was = view.top(key)
        members = None if was is None else view.members((key,))
        if was is None or members is None:
            now = edit(was, change, failed)
        else:
            now = edit_members(was, members, change, failed)
        if now is not None and (was is None or now != bytes(was)):
            put(event, key, now)
