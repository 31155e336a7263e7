"""An event as rules read it: by path, decoding each object on the way once and only when asked."""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Raw

from edgeproxy.events import Event
from edgeproxy.mapping.objects import is_null, read_array, read_members
from edgeproxy.mapping.paths import EVERY, Path, Segment
from edgeproxy.mapping.values import Unfit

__all__ = ["MAX_ELEMENTS", "Index", "View"]

#: Which element of each `[]` of a path, from the left.
Index = tuple[int, ...]

#: A longer array is not gone through. With real products an event is too large long before.
MAX_ELEMENTS = 2_000
_OPENING = ord("{")
_NULL = Raw(b"null")
_IN_LENS = frozenset({"context", "properties", "traits"})
_TEXTS = frozenset(
    {
        "type",
        "messageId",
        "anonymousId",
        "userId",
        "event",
        "timestamp",
        "originalTimestamp",
        "sentAt",
    }
)


class View:
    """Reads the event as it was when the view was made; what rules write is not seen."""

    __slots__ = ("_arrays", "_event", "_objects", "_top")

    def __init__(self, event: Event) -> None:
        self._event = event
        self._top: dict[str, Raw] | None = None
        self._objects: dict[Path, dict[str, Raw] | None] = {}
        self._arrays: dict[Path, list[Raw] | None] | None = None  # few mappings read any

    def top(self, key: str) -> Raw | None:
        """The JSON text of a top-level field; None if it is absent (null is given as it is)."""
        if key in _IN_LENS:
            text = getattr(self._event.lens, key)
            return None if text is UNSET else text
        if key in _TEXTS:
            value = getattr(self._event.lens, key)
            if value is UNSET:
                return None
            if type(value) is str:
                return Raw(msgspec.json.encode(value))
            if value is None:
                return _NULL
        if self._top is None:
            self._top = self._event.fields()
        return self._top.get(key)

    def members(self, path: Path) -> dict[str, Raw] | None:
        """One level of the object at a path without `[]`; None if there is no object."""
        if path in self._objects:
            return self._objects[path]
        text = self.top(str(path[0])) if len(path) == 1 else self.text(path)
        found = self._objects[path] = None if text is None else read_members(text)
        return found

    def elements(self, path: Path) -> list[Raw] | None:
        """The elements of the array at a path without `[]`; None if there is no array."""
        if self._arrays is None:
            self._arrays = {}
        elif path in self._arrays:
            return self._arrays[path]
        text = self.text(path)
        found = self._arrays[path] = None if text is None else read_array(text)
        return found

    def text(self, path: Path) -> Raw | None:
        """The JSON text at a path without `[]`; None if there is nothing."""
        last = path[-1]
        if len(path) > 1 and isinstance(last, str):
            members = self.members(path[:-1])
            return None if members is None else members.get(last)
        return self.inside(path[:-1], last)

    def inside(self, around: Path, last: Segment) -> Raw | None:
        """As `text`, for callers who have cut the path before."""
        if not around:
            return self.top(last) if isinstance(last, str) else None
        if isinstance(last, str):
            members = self.members(around)
            return None if members is None else members.get(last)
        elements = self.elements(around)
        if elements is None or not isinstance(last, int) or last >= len(elements):
            return None
        return elements[last]

    def present(self, path: Path) -> Raw | None:
        """As `text`, but None for null too."""
        text = self.text(path)
        return None if text is None or is_null(text) else text

    def select(self, path: Path) -> Iterator[tuple[Index, Raw]]:
        """What is present at a path with `[]`, with the places it was found at."""
        for index, place in self.places(path):
            text = self.present(place)
            if text is not None:
                yield index, text

    def places(self, path: Path) -> Iterator[tuple[Index, Path]]:
        """Every concrete path that a path with `[]` stands for, as the event's arrays have it.

        Raises Unfit where an array is longer than MAX_ELEMENTS.
        """
        if EVERY not in path:
            yield (), path
            return
        at = path.index(EVERY)
        head, tail = path[:at], path[at + 1 :]
        elements = self.elements(head) or ()
        if len(elements) > MAX_ELEMENTS:
            raise Unfit(f"the array has more than {MAX_ELEMENTS} elements")
        inside = bool(tail) and isinstance(tail[0], str)
        for number, element in enumerate(elements):
            if inside and memoryview(element)[0] != _OPENING:
                continue  # nothing has a name inside a text or a number
            for index, place in self.places((*head, number, *tail)):
                # The indexes of a nested `[]` follow those of the one around it.
                yield (number, *index), place
