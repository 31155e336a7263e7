"""`unmapped = "drop"`: only what the field table, a rule or `keep` names is sent."""

from collections.abc import Iterable
from itertools import takewhile

from edgeproxy.events import Event
from edgeproxy.mapping.counters import Trace
from edgeproxy.mapping.objects import Edits, Text, read_members
from edgeproxy.mapping.paths import Path
from edgeproxy.mapping.view import View
from edgeproxy.mapping.writing import put_edits

__all__ = ["Pruner"]

#: Names to what is kept inside; None where all of it is.
_Kept = dict[str, "_Kept | None"]


class Pruner:
    """Takes out every field that no path leads to. Arrays are kept or left out as a whole."""

    def __init__(self, keep: Iterable[Path]) -> None:
        self._kept: _Kept = {}
        for path in keep:
            _keep(self._kept, [str(name) for name in takewhile(_is_name, path)])

    def prune(self, event: Event, trace: Trace | None) -> None:
        """Take out what is not kept."""
        edits: Edits = {}
        for key, text in event.fields().items():
            _prune(self._kept, key, key, text, edits, trace)
        put_edits(event, edits, View(event))


def _is_name(segment: object) -> bool:
    return isinstance(segment, str)


def _keep(level: _Kept, names: list[str]) -> None:
    name, below = names[0], names[1:]
    if not below:
        level[name] = None
        return
    inner = level.setdefault(name, {})
    if inner is not None:
        _keep(inner, below)


def _prune(kept: _Kept, key: str, path: str, text: Text, edits: Edits, trace: Trace | None) -> None:
    if key not in kept:
        edits[key] = None
        if trace is not None:
            trace.add(path, "dropped", '[mapping] unmapped = "drop"')
        return
    inner = kept[key]
    members = None if inner is None else read_members(text)
    if inner is None or members is None:
        return  # kept whole, or no object: its type is judged elsewhere
    below: Edits = {}
    for name, member in members.items():
        _prune(inner, name, f"{path}.{name}", member, below, trace)
    if below:
        edits[key] = below
