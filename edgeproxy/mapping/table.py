"""Hightouch's field table: the whole default mapping, as data (`fields.csv`, 47 rows)."""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, cast

from msgspec import Struct

__all__ = [
    "TIMES",
    "Field",
    "FieldType",
    "Tree",
    "allowed",
    "context_types",
    "field_table",
    "fields_of",
]

FieldType = Literal["String", "Boolean", "Number", "Integer", "Object", "Boolean/String"]

#: Keys of type String whose text is a time (RFC 3339).
TIMES = frozenset({"originalTimestamp", "sentAt"})

#: Names to a type, or to what is inside.
Tree = Mapping[str, "FieldType | Tree"]


class Field(Struct, frozen=True):
    """One row: an output key, what it must be, and the input it is expected from."""

    applies_to: str
    """`global`, or the one event type that carries it."""
    output: str
    type: FieldType
    requirement: Literal["required", "one_of_identity", ""]
    input: str


@cache
def field_table() -> tuple[Field, ...]:
    """All rows, in the table's order."""
    text = files("edgeproxy.mapping").joinpath("fields.csv").read_text()
    return tuple(
        Field(
            row["applies_to"],
            row["output_key"],
            cast(FieldType, row["type"]),
            cast(Literal["required", "one_of_identity", ""], row["requirement"]),
            row["expected_input"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def fields_of(event_type: str) -> tuple[Field, ...]:
    """The rows that speak of events of one type (any string; unknown types have the global rows)."""
    return tuple(row for row in field_table() if row.applies_to in ("global", event_type))


@cache
def context_types() -> Tree:
    """The types of what is inside `context`, level by level."""
    root: dict[str, FieldType | Tree] = {}
    for row in field_table():
        names = row.output.split(".")
        if names[0] != "context":
            continue
        level = root
        for name in names[1:-1]:
            level = cast(dict[str, FieldType | Tree], level.setdefault(name, {}))
        level[names[-1]] = row.type
    return root


@cache
def allowed(event_type: str) -> frozenset[str]:
    """The output keys of one type's events, for those who forward nothing else."""
    return frozenset(row.output for row in fields_of(event_type))
