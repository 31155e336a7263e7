"""Noting new top-level fields on an event, so that its lens agrees with what will be sent."""

import msgspec
from msgspec import UNSET, Raw

from edgeproxy.events import Event, Lens, read
from edgeproxy.mapping.objects import Edits, Flat, Text, edit, edit_members
from edgeproxy.mapping.view import View

__all__ = ["put", "put_edits", "rewrite"]

_encode = msgspec.json.encode
_JUDGED = frozenset(Lens.__struct_fields__)
_RAW = ("context", "properties", "traits")


def put(event: Event, key: str, text: Text | None) -> None:
    """Note a new value (JSON text) for a top-level field, new or not; None takes it out."""
    event.put(key, None if text is None else bytes(text))
    if key in _RAW:
        setattr(
            event.lens, key, UNSET if text is None else Raw(text) if type(text) is bytes else text
        )
    elif key in _JUDGED:
        setattr(event.lens, key, UNSET if text is None else read(text))


def rewrite(
    event: Event,
    key: str,
    view: View,
    puts: dict[str, Raw],
    takes: dict[str, None],
    edits: Edits,
) -> None:
    """Put and take out members of one top-level object; what is put wins over what is taken.

    Args:
        view: of the event as it is; not to be used for reading after that.
        edits: takes what cannot be done at once, because the object is not there or its text is
            not as we would write it.
    """
    was = view.top(key)
    members = None if was is None else view.members((key,))
    if was is None or members is None or Raw(_encode(members)) != was:
        edits[key] = Flat({**takes, **puts})
        return
    for name in takes:
        members.pop(name, None)
    members.update(puts)
    now = _encode(members)
    text = Raw(now)
    if text == was:
        return
    event.put(key, now)
    if key in _RAW:
        setattr(event.lens, key, text)
    elif key in _JUDGED:
        setattr(event.lens, key, read(text))


def put_edits(event: Event, edits: Edits, view: View, failed: list[str] | None = None) -> None:
    """Apply edits to the event: each top-level field that changes is written anew, and no other.

    Args:
        view: of the event as it is; not to be used for reading after that.
        failed: gets a line for each edit that cannot be done.
    """
    # New fields are written in the order of their names, whatever the rules' order.
    for key in sorted(key for key in edits if isinstance(key, str)):
        change = edits[key]
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
