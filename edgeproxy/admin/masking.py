"""An event without its values: what it has and of which type, and nothing about anybody."""

import zlib
from typing import Any

__all__ = ["masked", "pseudonym"]

#: Nesting and elements that are shown; what is cut is said.
_DEPTH = 12
_ELEMENTS = 50


def masked(value: Any, depth: int = 0) -> Any:
    """The same shape with each text, number and truth value replaced by its type's name."""
    if isinstance(value, dict):
        if depth >= _DEPTH:
            return "object"
        return {key: masked(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        if depth >= _DEPTH:
            return "array"
        shown = [masked(inner, depth + 1) for inner in value[:_ELEMENTS]]
        more = len(value) - len(shown)
        return [*shown, f"{more} more"] if more else shown
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return None if value is None else "text"


def pseudonym(user: object) -> str:
    """Tells users apart without naming them: the same for the same user, on every proxy."""
    return f"~{zlib.crc32(str(user).encode('utf-8', 'surrogatepass')):08x}"
