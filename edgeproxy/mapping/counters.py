"""What the mapper did that an operator wants to count; plain numbers, turned into metrics elsewhere."""

from collections import Counter
from typing import Literal

from msgspec import Struct, field

__all__ = ["Counters", "Note", "Trace", "Verdict"]

Verdict = Literal["coerced", "uncoercible", "left_out", "expression_failed"]


class Counters(Struct):
    """Totals by output key since the mapper was compiled.

    The keys are those of the field table and of the settings' own rules, never an event's, so
    there is a bounded number of them.
    """

    coerced: Counter[str] = field(default_factory=Counter)
    """Values converted to the type that the table wants."""
    uncoercible: Counter[str] = field(default_factory=Counter)
    """Values of the wrong type that were left as they came (or, with quarantine, refused)."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Fields that a rule could not supply because a transform did not fit the value."""
    expression_failed: Counter[str] = field(default_factory=Counter)
    """Fields, conditions and filters (by their name) whose expression failed."""


class Note(Struct, frozen=True):
    """One thing that happened to one output key, for `map --explain`."""

    key: str
    did: str
    """`moved`, `copied`, `set`, `default`, `computed`, `coerced`, `uncoercible`, `left out`, …"""
    rule: str = ""
    """The table and key of the settings, or what the field table is called."""
    input: str = ""
    detail: str = ""


class Trace(Struct):
    """Collects notes; where nobody asks, there is none and nothing is collected."""

    notes: list[Note] = field(default_factory=list)

    def add(self, key: str, did: str, rule: str = "", input: str = "", detail: str = "") -> None:  # noqa: A002
        """Note one thing."""
        self.notes.append(Note(key, did, rule, input, detail))
