"""What is wrong with a configuration, in words that say where and what would be right."""

import difflib
from collections.abc import Iterable

import msgspec

__all__ = ["ConfigError", "Mistake", "nearest"]


class Mistake(msgspec.Struct, frozen=True):
    """One mistake. `str()` of it is one line; a secret is never part of it."""

    where: str
    """The file, the environment variable, or "no configuration file"."""
    table: str
    """As written in the file: `[flush]`, `[[sources]] 2`; empty for the file as a whole."""
    key: str
    """The key inside the table; empty for the table as a whole."""
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        place = " ".join(part for part in (self.table, self.key) if part)
        line = ": ".join(part for part in (self.where, place, self.problem) if part)
        return " ".join((f"{line}; {self.remedy}" if self.remedy else line).split())


class ConfigError(Exception):
    """The configuration cannot be used. Holds every mistake that was found, not only the first."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known one, or else all of them."""
    names = sorted(known)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if found:
        return f"did you mean {found[0]}?"
    return f"known here: {', '.join(names)}"
