"""What a kind of setting is: how it is read from TOML, from an environment variable, and written.

A kind's `read` raises ValueError with one clause that says what is wrong and what would be right.
It names the value, except for secrets. (ValueError also where a type is wrong: for whoever wrote
the file it is the value that is; hence the exceptions to TRY004.)
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

__all__ = ["Kind", "listed", "show", "text_of", "write_list"]


class Kind(msgspec.Struct, frozen=True):
    """How one setting is read and written."""

    read: Callable[[object], Any]
    """From what TOML holds. Raises ValueError."""
    write: Callable[[Any], str] = lambda value: json.dumps(value, ensure_ascii=False)
    """As it is spelled in TOML."""
    from_text: Callable[[str], object] = str
    """From the text of an environment variable or of a secret's file to what TOML would hold."""
    secret: bool = False
    """Masked wherever it is shown, and may be given as a file."""
    file: bool = False
    """A path to a file that must be readable."""


def show(value: object) -> str:
    """A value as mistakes quote it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def text_of(value: object) -> str:
    """The value, if it is a text, without surrounding space. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not a text: put it in quotes")  # noqa: TRY004
    return value.strip()


def write_list(values: Sequence[object]) -> str:
    """A list of texts in TOML."""
    return "[" + ", ".join(show(str(value)) for value in values) + "]"


def listed(read_one: Callable[[str], Any]) -> Kind:
    """A list of texts, each read by `read_one`; commas or space separate them in variables."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{show(value)} is not a list")  # noqa: TRY004
        return tuple(read_one(text_of(item)) for item in value)

    return Kind(
        read, write_list, lambda value: [item for item in re.split(r"[\s,]+", value) if item]
    )
