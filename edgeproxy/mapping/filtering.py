"""`[[filters]]`, from tables to filters, noting every mistake."""

from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

from edgeproxy.config.mistakes import nearest
from edgeproxy.events.verdicts import TYPES
from edgeproxy.mapping.filters import Action, Filter
from edgeproxy.mapping.names import matcher
from edgeproxy.mapping.reading import Notes, read_expression

__all__ = ["read_filters"]

_ACTIONS: tuple[str, ...] = get_args(Action)
_KEYS = ("name", "action", "types", "sources", "match", "when", "require", "rate")


def read_filters(
    notes: Notes, rows: Iterable[Mapping[str, Any]], sources: frozenset[str] | None
) -> tuple[Filter, ...]:
    """All filters, in their order; `sources` are the names that exist, None when not known."""
    filters: list[Filter] = []
    for number, row in enumerate(rows, 1):
        table = f"[[filters]] {number}"
        found = _read(notes, table, row, number)
        for name in found.sources - (found.sources if sources is None else sources):
            notes.add(
                table, "sources", f"there is no source {name!r}", nearest(name, sources or ())
            )
        if found.name in {other.name for other in filters}:
            notes.add(
                table, "name", f"{found.name!r} is another filter's, too", "give each its own"
            )
        filters.append(found)
    return tuple(filters)


def _read(notes: Notes, table: str, row: Mapping[str, Any], number: int) -> Filter:
    notes.unknown(table, row, _KEYS)
    require = notes.texts(table, row, "require")
    action = row.get("action", "drop" if require else None)
    if action not in _ACTIONS:
        problem = "is missing" if action is None else f"is {action!r}"
        notes.add(table, "action", problem, f"write one of {', '.join(_ACTIONS)}")
        action = "drop"
    types = frozenset(notes.texts(table, row, "types"))
    for name in sorted(types - TYPES):
        notes.add(table, "types", f"{name!r} is not an event type", nearest(name, TYPES))
    names = notes.texts(table, row, "match")
    when = read_expression(notes, table, "when", row["when"]) if "when" in row else None
    asks = {"types", "sources", "match", "when", "require"} & set(row)
    if not asks and action != "sample":
        notes.add(
            table, "", f"would {action} every event", "add types, sources, match, when or require"
        )
    return Filter(
        notes.typed(table, row, "name", str, f"filter {number}"),
        cast(Action, action),
        types,
        frozenset(notes.texts(table, row, "sources")),
        matcher(names) if names else None,
        when,
        require,
        _rate(notes, table, row, action),
    )


def _rate(notes: Notes, table: str, row: Mapping[str, Any], action: str) -> float:
    if action != "sample":
        if "rate" in row:
            notes.add(table, "rate", "means nothing here", 'it goes with action = "sample"')
        return 1.0
    rate = row.get("rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        notes.add(
            table, "rate", "is not a number between 0 and 1", "write 0.1 to keep one user in ten"
        )
        return 1.0
    return float(rate)
